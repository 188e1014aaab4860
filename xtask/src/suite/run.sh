# run.sh RUNTIME SOURCE FILE...: bats on the files, one after the other, with RUNTIME as runc. The report goes to stdout.
#
# In namespaces of its own for mounts, processes and the network, with a /dev of its own (one of the tests is about the
# owner of /dev/null) and in a cgroup of its own in each hierarchy, where containers without cgroupsPath come to lie. At the
# end the kernel kills what still runs, and the cgroups are removed. CG=v2: on a mount of cgroup v2 alone.
# LIMIT and FILE_LIMIT: seconds for all files, and for each; a report without "## end" was cut off.
set -u
runtime=$1 source=$2
shift 2
scratch=$(mktemp -d /tmp/dhow-suite-XXXXXX)
# The users of user namespaces have to get through.
chmod 755 "$scratch"
cgroup=${scratch##*/}
at_end() {
	# What was killed takes its time to leave its cgroup.
	for _ in $(seq 200); do
		find /sys/fs/cgroup -depth -type d \( -path "*/$cgroup" -o -path "*/$cgroup/*" -o -path '*/runc-cgroups-integration-test*' \) \
			-exec rmdir {} + 2>/dev/null
		[ -z "$(find /sys/fs/cgroup -maxdepth 2 -name "$cgroup" -print -quit)" ] && break
		sleep 0.1
	done
	# A test makes directories where hierarchies would be that this machine has not.
	for tree in /sys/fs/cgroup/*; do
		case " $trees " in *" $tree "*) continue ;; esac
		[ -e "$tree/cgroup.procs" ] || find "$tree" -depth -type d -exec rmdir {} + 2>/dev/null
	done
	rm -rf "$scratch"
}
trees=$(echo /sys/fs/cgroup/*)
trap at_end EXIT
trap 'exit 1' TERM INT

# Called as runc: the tests of the help look for that name.
cp "$runtime" "$scratch/runc"

cat >"$scratch/inside" <<'END'
set -u
source=$1 scratch=$2
shift 2
if [ "${CG-}" = v2 ]; then
	umount -l /sys/fs/cgroup
	mount -t cgroup2 cgroup2 /sys/fs/cgroup
else
	umount -l /sys/fs/cgroup/unified 2>/dev/null
fi
mkdir "$scratch/dev"
mount -t tmpfs -o mode=755 tmpfs "$scratch/dev"
for node in null zero full random urandom tty kmsg; do
	[ -c "/dev/$node" ] && cp -a "/dev/$node" "$scratch/dev/$node"
done
ln -s /proc/self/fd "$scratch/dev/fd"
for n in 0 1 2; do ln -s "/proc/self/fd/$n" "$scratch/dev/$(echo stdin stdout stderr | cut -d' ' -f$((n + 1)))"; done
mkdir "$scratch/dev/pts" "$scratch/dev/shm"
mount -t devpts -o newinstance,ptmxmode=0666,mode=0620 devpts "$scratch/dev/pts"
ln -s pts/ptmx "$scratch/dev/ptmx"
mount -t tmpfs -o mode=1777 tmpfs "$scratch/dev/shm"
mount --move "$scratch/dev" /dev
export TMPDIR=$scratch RUNC=$scratch/runc TERM=xterm
unset XDG_RUNTIME_DIR NOTIFY_SOCKET LISTEN_FDS
cd "$source/tests/integration" || exit 1
for file in "$@"; do
	echo "## $file"
	timeout -k 5 "$FILE_LIMIT" script -qec "bats -t $file" /dev/null </dev/null
	[ $? = 124 ] && echo "not ok 0 the file takes longer than $FILE_LIMIT seconds"
done
echo "## end"
END

(
	if [ "$(stat -f -c %T /sys/fs/cgroup)" = tmpfs ]; then
		for tree in /sys/fs/cgroup/*; do
			[ -L "$tree" ] || [ ! -e "$tree/cgroup.procs" ] && continue
			mkdir "$tree/$cgroup"
			for file in cpuset.cpus cpuset.mems; do
				[ -e "$tree/$file" ] && cat "$tree/$file" >"$tree/$cgroup/$file"
			done
			echo "$BASHPID" >"$tree/$cgroup/cgroup.procs"
		done
	fi
	exec timeout -s KILL "$LIMIT" unshare --mount --propagation private --net --pid --fork --kill-child --mount-proc \
		bash "$scratch/inside" "$source" "$scratch" "$@"
) </dev/null || true
