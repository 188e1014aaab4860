# guest.sh: the tests inside the virtual machine. Everything that the host wants to know goes to the serial line:
# `@ok NAME`, `@failed NAME` (with what it said before it), `@skip NAME: REASON`, and `@end` as the last line.
set -u
cd /opt/dhow || exit 1
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root
runtime=/opt/dhow/dhow-runtime
root=/run/vm-test
bundle=/var/tmp/bundle
systemd=${systemd:-}
[ -e /sys/fs/cgroup/cgroup.controllers ] && unified=1 || unified=""

# The tests, each in a shell of its own that ends at the first failure.
check() {
	local name=$1 log=/run/check.log
	shift
	echo "@run $name"
	if timeout -k 5 "$limit" bash -eu -o pipefail -c "source /opt/dhow/guest.sh; set -x; $*" >"$log" 2>&1 </dev/null; then
		echo "@ok $name"
	else
		case $? in 124 | 137) name="$name: not done after $limit seconds" ;; esac
		tail -n 60 "$log" | cut -c1-400
		echo "@failed $name"
	fi
	clean
}

# Of one check nothing is left for the next.
clean() {
	for id in $($runtime --root "$root" list -q 2>/dev/null); do
		timeout 60 $runtime --root "$root" delete --force "$id"
	done
	systemctl is-active --quiet dbus.socket || systemctl start dbus.socket
	systemctl stop 'vm-*.scope'
}

# config FILTER: the bundle's config.json, from the default one and a jq filter.
config() {
	[ -d "$bundle/rootfs/bin" ] || {
		mkdir -p "$bundle"/rootfs/{bin,proc,dev,sys,tmp,etc}
		cp /bin/busybox "$bundle/rootfs/bin/busybox"
		local tool
		for tool in sh sleep cat head true id grep test dd; do ln -s busybox "$bundle/rootfs/bin/$tool"; done
	}
	rm -f "$bundle/config.json"
	$runtime spec -b "$bundle"
	jq '.process.terminal = false | .process.args = ["sleep", "1000"] | .root.readonly = false
		| .linux.cgroupsPath = "machine-test.slice:vm:" + "c" | '"$1" "$bundle/config.json" >"$bundle/new"
	mv "$bundle/new" "$bundle/config.json"
}

dhow() { $runtime --root "$root" "$@"; }
create() { dhow $systemd create -b "$bundle" "$1" </dev/null >/dev/null 2>"/run/$1.err" || { cat "/run/$1.err"; return 1; }; }
up() { create "$1" && dhow start "$1"; }
property() { systemctl show -P "$2" "$1"; }
# `!` in front of a command is no failure to bash -e.
fails() { if "$@"; then echo "it succeeded: $*"; return 1; fi; }
is() { [ "$1" = "$2" ] || { echo "is $1, not $2"; return 1; }; }
own_cgroup() { echo "/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$1/cgroup")"; }
pid() { dhow state "$1" | jq .pid; }

# Waits up to 20 seconds for a command to succeed.
until_true() {
	local tries=0
	until "$@"; do
		tries=$((tries + 1))
		[ $tries -lt 400 ] || return 1
		sleep 0.05
	done
}

driver_life() {
	config '.linux.resources += {memory: {limit: 67108864, swap: 134217728, reservation: 33554432},
		cpu: {shares: 512, quota: 25500, period: 50000, cpus: "0"}, pids: {limit: 33}}
		| .annotations += {"org.systemd.property.TimeoutStopSec": "7", "org.systemd.property.CollectMode": "'\''inactive-or-failed'\''"}'
	create c
	local unit=vm-c.scope
	is "$(property $unit ActiveState)" active
	is "$(property $unit Slice)" machine-test.slice
	is "$(property $unit ControlGroup)" /machine.slice/machine-test.slice/$unit
	is "$(property $unit Delegate)" yes
	is "$(property $unit TasksMax)" 33
	is "$(property $unit CPUQuotaPerSecUSec)" 510ms
	is "$(property $unit CPUQuotaPeriodUSec)" 50ms
	is "$(property $unit AllowedCPUs)" 0
	is "$(property $unit TimeoutStopUSec)" 7s
	is "$(property $unit CollectMode)" inactive-or-failed
	is "$(property $unit DevicePolicy)" strict
	property $unit DeviceAllow | grep -q '/dev/char/1:3 rwm'
	dhow start c
	dhow exec c sh -c 'echo x >/dev/null && ! head -c1 /dev/kmsg'
	if [ -n "$unified" ]; then
		is "$(property $unit MemoryMax)" 67108864
		is "$(property $unit MemorySwapMax)" 67108864
		is "$(property $unit MemoryLow)" 33554432
		is "$(property $unit CPUWeight)" 59
		local dir
		dir=$(own_cgroup "$(pid c)")
		is "$dir" /sys/fs/cgroup/machine.slice/machine-test.slice/$unit
		is "$(cat "$dir/cpu.max")" "25500 50000"
		is "$(cat "$dir/memory.max")" 67108864
		is "$(cat "$dir/pids.max")" 33
		is "$(cat "$dir/cpuset.cpus")" 0
	else
		is "$(property $unit MemoryLimit)" 67108864
		is "$(property $unit CPUShares)" 512
		local place=machine.slice/machine-test.slice/$unit controller
		for controller in memory cpu cpuset pids freezer devices blkio hugetlb systemd unified; do
			grep -q "^$(pid c)\$" "/sys/fs/cgroup/$controller/$place/cgroup.procs"
		done
		is "$(cat /sys/fs/cgroup/cpu/$place/cpu.cfs_quota_us)" 25500
		is "$(cat /sys/fs/cgroup/memory/$place/memory.limit_in_bytes)" 67108864
	fi
	dhow update --memory 33554432 --memory-swap 33554432 --cpu-quota 10000 --pids-limit 44 c
	is "$(property $unit TasksMax)" 44
	is "$(property $unit CPUQuotaPerSecUSec)" 200ms
	if [ -n "$unified" ]; then
		is "$(property $unit MemoryMax)" 33554432
		is "$(property $unit MemorySwapMax)" 0
		is "$(cat "$dir/cpu.max")" "10000 50000"
		dhow update --cpu-idle 1 c
		is "$(cat "$dir/cpu.idle")" 1
		is "$(property $unit CPUWeight)" idle
	fi
	# What systemd writes anew is what was asked for.
	systemctl daemon-reload
	[ -z "$unified" ] || is "$(cat "$dir/memory.max")" 33554432
	dhow exec c sh -c 'echo x >/dev/null && ! head -c1 /dev/kmsg'
	dhow pause c
	is "$(dhow state c | jq -r .status)" paused
	dhow resume c
	is "$(dhow ps --format json c)" "[$(pid c)]"
	dhow events --stats c | jq -e '.data.pids.current >= 1'
	dhow kill c KILL
	until_true stopped c
	dhow delete c
	gone $unit
}

stopped() { [ "$(dhow state "$1" | jq -r .status)" = stopped ]; }

# Neither the unit nor a cgroup of it is left.
gone() {
	until_true unloaded "$1"
	[ -z "$(find /sys/fs/cgroup -type d -name "$1")" ]
}

unloaded() { is "$(property "$1" LoadState)-$(property "$1" ActiveState)" not-found-inactive; }

driver_force() {
	config .
	up c
	dhow delete --force c
	gone vm-c.scope
	# A container that was only created, and one whose making fails after the scope is there.
	create c
	dhow delete c
	gone vm-c.scope
	config '.process.args = ["/nosuch"]'
	fails create c
	is "$(dhow list -q)" ""
	gone vm-c.scope
	# A name that is in use.
	config .
	up c
	fails create d
	grep -q 'not empty' /run/d.err
	is "$(dhow list -q)" c
	dhow exec c true
}

driver_failed_unit() {
	# The scope of a container that was killed by the kernel is a failed unit, which must not block the name.
	config '.linux.resources += {memory: {limit: 16777216, swap: 16777216}} | .process.args = ["sh", "-c", "x=x; while :; do x=$x$x; done"]'
	up c
	until_true stopped c
	dhow delete c
	gone vm-c.scope
	config .
	up c
}

driver_text() {
	config '.linux.cgroupsPath = "/a/b"'
	fails create c
	grep 'slice:prefix:name' /run/c.err
	config '.annotations["org.systemd.property.Nonsense"] = "true"'
	fails create c
	grep Nonsense /run/c.err
	config '.linux.cgroupsPath = null'
	up c
	is "$(property dhow-c.scope ActiveState)" active
	is "$(property dhow-c.scope Slice)" system.slice
	is "$(dhow list -q)" c
}

driver_private_socket() {
	# Without a bus systemd itself answers.
	config .
	DBUS_SYSTEM_BUS_ADDRESS=unix:path=/nowhere fails create c
	grep 'no systemd answers' /run/c.err
	is "$(dhow list -q)" ""
	systemctl stop dbus.socket dbus.service
	up c
	dhow update --pids-limit 55 c
	is "$(property vm-c.scope TasksMax)" 55
	dhow delete --force c
	systemctl start dbus.socket
	gone vm-c.scope
}

driver_many() {
	config .
	local n pids=""
	for n in 1 2 3 4 5 6 7 8; do
		mkdir -p "/var/tmp/many/$n"
		jq ".linux.cgroupsPath = \"machine-test.slice:vm:m$n\" | .root.path = \"$bundle/rootfs\"" "$bundle/config.json" >"/var/tmp/many/$n/config.json"
		(dhow --systemd-cgroup run -d -b "/var/tmp/many/$n" "m$n" >/dev/null </dev/null) &
		pids="$pids $!"
	done
	for n in $pids; do wait "$n"; done
	is "$(dhow list -q | wc -l)" 8
	for n in 1 2 3 4 5 6 7 8; do dhow delete --force "m$n"; done
	for n in 1 2 3 4 5 6 7 8; do gone "vm-m$n.scope"; done
}

# Every controller of v2 that the kernel has, by a limit of its own, seen from inside and outside.
controllers() {
	mkdir -p /var/tmp/disk
	local disk
	disk=$(lsblk -ndo MAJ:MIN /dev/vda | tr -d ' ')
	config '.linux.cgroupsPath = "/vm-test/c" | .linux.resources += {
		memory: {limit: 67108864, swap: 67108864, reservation: 8388608},
		cpu: {shares: 2048, quota: 50000, period: 100000, burst: 10000, cpus: "0", mems: "0"},
		pids: {limit: 20}, hugepageLimits: [{pageSize: "2MB", limit: 4194304}],
		blockIO: {throttleReadBpsDevice: [{major: '"${disk%:*}"', minor: '"${disk#*:}"', rate: 1048576}]},
		unified: {"memory.high": "50331648", "memory.oom.group": "1"}}'
	up c
	local dir
	dir=$(own_cgroup "$(pid c)")
	is "$dir" /sys/fs/cgroup/vm-test/c
	is "$(cat "$dir/memory.max")" 67108864
	is "$(cat "$dir/memory.swap.max")" 0
	is "$(cat "$dir/memory.low")" 8388608
	is "$(cat "$dir/memory.high")" 50331648
	is "$(cat "$dir/memory.oom.group")" 1
	is "$(cat "$dir/cpu.max")" "50000 100000"
	is "$(cat "$dir/cpu.max.burst")" 10000
	is "$(cat "$dir/cpu.weight")" 174
	is "$(cat "$dir/cpuset.cpus")" 0
	is "$(cat "$dir/pids.max")" 20
	is "$(cat "$dir/hugetlb.2MB.max")" 4194304
	is "$(cat "$dir/io.max")" "$disk rbps=1048576 wbps=max riops=max wiops=max"
	local controller
	for controller in cpuset cpu io memory hugetlb pids misc; do grep -qw $controller "$dir/cgroup.controllers"; done
	dhow update --memory 33554432 --memory-swap 33554432 --cpu-share 1024 --pids-limit 10 c
	is "$(cat "$dir/memory.max") $(cat "$dir/cpu.weight") $(cat "$dir/pids.max")" "33554432 100 10"
	# The limit of processes holds.
	fails dhow exec c sh -c 'for n in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 9 & done; wait' 2>/run/fork.err
	dhow events --stats c | jq -e '.data.memory.usage.limit == 33554432 and .data.pids.limit == 10 and .data.cpu.usage.total > 0'
	dhow delete --force c
	[ ! -e "$dir" ]
}

oom() {
	config '.linux.cgroupsPath = "/vm-test/oom" | .linux.resources += {memory: {limit: 16777216, swap: 16777216}}
		| .process.args = ["sh", "-c", "read go </go; x=x; while :; do x=$x$x; done"]'
	rm -f "$bundle/rootfs/go"
	mkfifo "$bundle/rootfs/go"
	up c
	dhow events --interval 1s c >/run/events &
	local events=$!
	# It answers once it listens.
	until_true grep -q '"type":"stats"' /run/events
	echo go >"$bundle/rootfs/go"
	until_true stopped c
	until_true grep -q '"type":"oom"' /run/events
	wait $events
	rm "$bundle/rootfs/go"
}

apparmor() {
	[ "$(cat /sys/module/apparmor/parameters/enabled)" = Y ]
	cat >/run/profile <<'END'
profile dhow-vm-test flags=(attach_disconnected) {
	file,
	capability,
	network,
	umount,
	signal,
	deny /secret rw,
}
profile dhow-vm-other flags=(attach_disconnected) {
	file,
}
END
	apparmor_parser -r /run/profile
	config '.process.apparmorProfile = "dhow-vm-test" | .linux.cgroupsPath = "/vm-test/c"'
	echo hidden >"$bundle/rootfs/secret"
	up c
	is "$(cat "/proc/$(pid c)/attr/current")" "dhow-vm-test (enforce)"
	is "$(dhow exec c cat /proc/self/attr/current)" "dhow-vm-test (enforce)"
	fails dhow exec c cat /secret
	is "$(dhow exec --apparmor dhow-vm-other c cat /proc/self/attr/current)" "dhow-vm-other (enforce)"
	is "$(dhow exec --apparmor dhow-vm-other c cat /secret)" hidden
	# It can not be left from inside, nor with no_new_privs by a program.
	fails dhow exec c sh -c 'echo changeprofile unconfined >/proc/self/attr/current'
	fails dhow exec c sh -c 'echo exec unconfined >/proc/self/attr/exec && cat /secret'
	is "$(dhow exec --no-new-privs c cat /proc/self/attr/current)" "dhow-vm-test (enforce)"
	fails dhow exec --apparmor nosuch-profile c true 2>/run/exec.err
	grep 'process.apparmorProfile nosuch-profile' /run/exec.err
	dhow delete --force c
	# A profile that is not there confines nobody: an error, and nothing is left.
	config '.process.apparmorProfile = "nosuch-profile" | .linux.cgroupsPath = "/vm-test/c"'
	fails create c
	is "$(dhow list -q)" ""
	# A volume over /proc, or a /proc of the image's own making, must not swallow the label (CVE-2019-16884).
	mkdir -p /run/fake/self/attr /run/fake/1/attr
	touch /run/fake/self/attr/exec /run/fake/self/attr/current
	config '.process.apparmorProfile = "dhow-vm-test" | .linux.cgroupsPath = "/vm-test/c"
		| .mounts += [{destination: "/proc", type: "bind", source: "/run/fake", options: ["rbind", "rw"]}]'
	if create c && dhow start c; then
		is "$(cat "/proc/$(pid c)/attr/current")" "dhow-vm-test (enforce)"
	fi
	dhow delete --force c
	rm -f "$bundle/rootfs/secret"
}

selinux_policy() {
	secilc -c 33 -o /run/policy -f /dev/null /opt/dhow/policy.cil
	# One write has to have all of it.
	dd if=/run/policy of=/sys/fs/selinux/load bs=1M
	echo 1 >/sys/fs/selinux/enforce
	is "$(label_of self)" vm_u:vm_r:host_t:s0-s0:c0.c2
}

label_of() { tr -d '\0' <"/proc/$1/attr/current"; }

# Also by Debian's runc, so that the check itself is checked.
selinux() {
	local program=vm_u:vm_r:container_t:s0:c1,c2 other=vm_u:vm_r:other_t:s0 files=vm_u:object_r:file_t:s0:c1,c2 place
	local labelled='.process.selinuxLabel = "'$program'" | .linux.mountLabel = "'$files'" | .linux.cgroupsPath = "/vm-test/c"
		| .linux.maskedPaths -= ["/proc/keys"] | .mounts |= map(select(.type != "cgroup"))
		| .mounts += [{destination: "/sys/fs/cgroup", type: "cgroup", source: "cgroup", options: ["ro"]},
			{destination: "/volume", type: "bind", source: "/var/tmp/volume", options: ["rbind"]}]'
	mkdir -p /var/tmp/volume
	config "$labelled"
	echo hidden >"$bundle/rootfs/secret"
	chcon vm_u:object_r:secret_t:s0 "$bundle/rootfs/secret"
	up c
	local pid
	pid=$(pid c)
	is "$(label_of "$pid")" $program
	for place in dev dev/shm dev/mqueue dev/pts dev/null sys/fs/cgroup proc/acpi sys/firmware; do
		is "$place $(stat -c %C "/proc/$pid/root/$place")" "$place $files"
	done
	is "$(stat -c %C "/proc/$pid/root/volume")" vm_u:object_r:file_t:s0
	is "$(dhow exec c cat /proc/self/attr/current | tr -d '\0')" $program
	is "$(dhow exec --process-label $other c cat /proc/self/attr/current | tr -d '\0')" $other
	fails dhow exec c cat /secret
	is "$(dhow exec --process-label $other c cat /secret)" hidden
	# The policy lets it see keys of its own label only.
	dhow exec c grep _ses.c /proc/keys
	# A domain that may not be changed to, and a label that there can not be.
	fails dhow exec --process-label vm_u:vm_r:locked_t:s0 c true 2>/run/denied
	grep 'permission denied' /run/denied
	fails dhow exec --process-label vm_u:vm_r:nosuch_t:s0 c true
	dhow delete --force c
	config "$labelled"' | .process.selinuxLabel = "vm_u:vm_r:nosuch_t:s0"'
	fails create c
	dhow delete --force c
	config "$labelled"' | .linux.mountLabel = "vm_u:object_r:nosuch_t:s0"'
	fails create c
	dhow delete --force c
	# Engines label a single mount by its option, with quotes because of the comma.
	config '.linux.cgroupsPath = "/vm-test/c"
		| .mounts += [{destination: "/given", type: "tmpfs", source: "tmpfs", options: ["context=\"'$files'\""]}]'
	up c
	is "$(stat -c %C "/proc/$(pid c)/root/given")" $files
	is "$(stat -c %C "/proc/$(pid c)/root/dev")" vm_u:object_r:file_t:s0
	dhow delete --force c
	rm -f "$bundle/rootfs/secret"
}

selinux_errors() {
	config '.process.selinuxLabel = "vm_u:vm_r:nosuch_t:s0" | .linux.cgroupsPath = "/vm-test/c"'
	fails create c
	grep 'process.selinuxLabel: .*nosuch_t.* is no label in the policy' /run/c.err
	config '.linux.mountLabel = "nonsense" | .linux.cgroupsPath = "/vm-test/c"'
	fails create c
	grep 'linux.mountLabel: .*nonsense.* is no label in the policy' /run/c.err
	is "$(dhow list -q)" ""
	is "$(find /sys/fs/cgroup -path '*/vm-test/c')" ""
	config '.linux.cgroupsPath = "/vm-test/c"'
	up c
	fails dhow exec --process-label nonsense c true 2>/run/exec.err
	grep 'process.selinuxLabel: .*nonsense.* is no label in the policy' /run/exec.err
}

# In a user namespace file systems have their label by context= or none.
selinux_user_namespace() {
	local program=vm_u:vm_r:container_t:s0 files=vm_u:object_r:file_t:s0:c1,c2
	config '.process.selinuxLabel = "'$program'" | .linux.mountLabel = "'$files'" | .linux.cgroupsPath = "/vm-test/c"
		| .linux.namespaces += [{type: "user"}] | .linux.uidMappings = [{containerID: 0, hostID: 100000, size: 65536}]
		| .linux.gidMappings = .linux.uidMappings'
	chown 100000:100000 "$bundle/rootfs"
	up c
	is "$(label_of "$(pid c)")" $program
	is "$(stat -c %C "/proc/$(pid c)/root/dev/shm")" $files
	is "$(dhow exec c cat /proc/self/attr/current | tr -d '\0')" $program
}

resources_of_root() {
	# What takes CAP_SYS_RESOURCE on the host.
	config '.linux.cgroupsPath = "/vm-test/c" | .process.oomScoreAdj = -500
		| .process.rlimits = [{type: "RLIMIT_NOFILE", hard: 1000000, soft: 1000000}, {type: "RLIMIT_CORE", hard: 4242, soft: 4242}]'
	# "No limit" is a number that jq has no room for.
	sed -i 's/4242/18446744073709551615/' "$bundle/config.json"
	(ulimit -Sn 512 && ulimit -Hn 1024 && up c)
	is "$(cat "/proc/$(pid c)/oom_score_adj")" -500
	grep -q '^Max open files *1000000 *1000000' "/proc/$(pid c)/limits"
	grep -q '^Max core file size *unlimited *unlimited' "/proc/$(pid c)/limits"
	is "$(dhow exec c cat /proc/self/oom_score_adj)" -500
}

# As somebody who is not root: newuidmap gives the ids.
rootless() {
	local home=/home/vmuser
	id vmuser 2>/dev/null || useradd -m -d $home vmuser
	grep -q vmuser /etc/subuid || { echo vmuser:100000:65536 >>/etc/subuid; echo vmuser:100000:65536 >>/etc/subgid; }
	config .
	rm -rf $home/bundle
	mkdir -p $home/bundle
	cp -a "$bundle/rootfs" $home/bundle/
	(cd $home/bundle && $runtime spec --rootless)
	jq '.process.terminal = false | .process.args = ["sh", "-c", "cat /proc/self/uid_map; id -u"] | .root.readonly = false
		| .linux.uidMappings = [{containerID: 0, hostID: '"$(id -u vmuser)"', size: 1}, {containerID: 1, hostID: 100000, size: 65536}]
		| .linux.gidMappings = [{containerID: 0, hostID: '"$(id -g vmuser)"', size: 1}, {containerID: 1, hostID: 100000, size: 65536}]' \
		$home/bundle/config.json >$home/bundle/new
	mv $home/bundle/new $home/bundle/config.json
	chown -R vmuser:vmuser $home/bundle
	local said
	said=$(as_vmuser $runtime --root $home/state run -b $home/bundle r)
	echo "$said" | tail -n 1 | grep -qx 0
	is "$(echo "$said" | sed -n 2p | tr -s ' ')" " 1 100000 65536"
	# The user's own systemd gives it a cgroup with limits.
	loginctl enable-linger vmuser
	until_true test -S "/run/user/$(id -u vmuser)/bus"
	jq '.process.args = ["sleep", "1000"] | .linux.resources = {pids: {limit: 21}, memory: {limit: 33554432}} | .linux.cgroupsPath = "user.slice:vm:r"' \
		$home/bundle/config.json >$home/bundle/new
	mv $home/bundle/new $home/bundle/config.json
	as_vmuser $runtime --root $home/state --systemd-cgroup run -d -b $home/bundle r </dev/null
	local pid dir
	pid=$(as_vmuser $runtime --root $home/state state r | jq .pid)
	dir=$(own_cgroup "$pid")
	echo "$dir" | grep -q "/user@$(id -u vmuser).service/user.slice/vm-r.scope\$"
	is "$(cat "$dir/pids.max")" 21
	is "$(cat "$dir/memory.max")" 33554432
	is "$(as_vmuser $runtime --root $home/state exec r cat /proc/1/comm)" sleep
	as_vmuser $runtime --root $home/state --systemd-cgroup update --pids-limit 22 r
	is "$(cat "$dir/pids.max")" 22
	as_vmuser $runtime --root $home/state delete --force r
	until_true test ! -e "$dir"
	loginctl disable-linger vmuser
}

as_vmuser() {
	local uid
	uid=$(id -u vmuser)
	setpriv --reuid "$uid" --regid "$uid" --clear-groups env -u DBUS_SESSION_BUS_ADDRESS HOME=/home/vmuser XDG_RUNTIME_DIR="/run/user/$uid" \
		bash -c 'cd; exec "$@"' bash "$@"
}

# Those of the runtime's own tests for which this kernel, or a host of v2 alone with systemd, may make a difference.
CONFORMANCE="attacks::the_runtimes_own_file_can_not_be_written_to attacks::what_is_written_to_proc_arrives_there
	command_line::limits_come_from_flags_from_a_file_and_from_stdin concurrency::a_start_and_a_deletion_come_one_after_the_other
	life::a_life_step_by_step life::a_mebibyte_of_memory_is_enough_to_start mounts::every_recursive_attribute_reaches_what_lies_below
	mounts::mounts_have_their_options_and_places mounts::paths_are_masked_and_read_only
	namespaces::an_ordinary_user_has_containers_too namespaces::everything_of_a_container_with_a_user_namespace_can_be_joined
	process::a_created_container_holds_nothing_of_the_callers_and_can_be_entered process::memory_and_machine_are_as_asked_for
	process::scheduling_is_as_asked_for process::system_calls_are_notified_of rootless::a_rootless_spec_runs_as_it_is
	rootless::subordinate_ids_come_by_newuidmap"

main() {
	echo "@begin $(uname -r), $(systemctl --version | head -n 1), ${unified:+cgroup v2: $(cat /sys/fs/cgroup/cgroup.controllers)}"
	sysctl -qw kernel.printk="1 4 1 7"
	# Seconds for one check: where the processor is emulated everything takes ten times as long, and more on a busy host.
	[ "$(systemd-detect-virt)" = qemu ] && limit=300 || limit=60
	mkdir -p "$root"
	if [ -e /sys/fs/selinux/load ]; then
		for_selinux
	else
		for_systemd
		[ -z "$unified" ] || for_v2
		is "$(find /sys/fs/cgroup -name '*.scope' -path '*machine-test*' | wc -l)" 0 || echo "@failed scopes are left behind"
	fi
	echo "@end"
}

for_systemd() {
	check "systemd driver: life, limits, update" 'systemd=--systemd-cgroup; driver_life'
	check "systemd driver: deletion by force, failure half-way, a name in use" 'systemd=--systemd-cgroup; driver_force'
	check "systemd driver: a unit that has failed" 'systemd=--systemd-cgroup; driver_failed_unit'
	check "systemd driver: what is said" 'systemd=--systemd-cgroup; driver_text'
	check "systemd driver: without a bus" 'systemd=--systemd-cgroup; driver_private_socket'
	check "systemd driver: eight at once" 'systemd=--systemd-cgroup; driver_many'
}

for_v2() {
	check "cgroup v2: every controller" controllers
	[ -n "$(ls /sys/class/infiniband 2>/dev/null)" ] || echo "@skip cgroup v2: rdma limits: no such device in the machine"
	check "cgroup v2: out of memory" oom
	check "cgroup v2: the runtime's own tests" '/opt/dhow/unit cgroup::tests::'
	check "AppArmor: labels of run and exec, and attempts to lose them" apparmor
	check "privileges that take CAP_SYS_RESOURCE" resources_of_root
	check "rootless: newuidmap, and a scope by the user's systemd" rootless
	[ -d /sys/fs/resctrl/info ] || echo "@skip intelRdt: the processor has none"
	local test
	for test in $CONFORMANCE; do check "conformance: $test" "/opt/dhow/conformance --exact $test | grep '1 passed'"; done
}

for_selinux() {
	check "SELinux: a policy" selinux_policy
	check "SELinux: labels of run, exec, mounts and keys" selinux
	check "SELinux: the same by Debian's runc" 'runtime=/usr/sbin/runc root=/run/oracle; selinux'
	check "SELinux: labels that there can not be" selinux_errors
	check "SELinux: in a user namespace" selinux_user_namespace
}

# Sourced by the tests themselves.
[ "${BASH_SOURCE[0]}" != "$0" ] || main
