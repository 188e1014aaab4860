# fetch.sh HOME DEBIAN-TAR XTASK [TREE]: the bats files of Debian's source package of runc, below HOME/source, and what they
# need; or those of a copy of TREE, below HOME/given.
# Nothing of the host's apt is changed: its lists of sources are copied, and asked for source packages.
set -euo pipefail
home=$1 debian=$2 xtask=$3 tree=${4-}
mkdir -p "$home"
exec 9>"$home/.lock"
flock 9

if [ -n "$tree" ]; then
	rm -rf "$home/given"
	cp -a "$tree" "$home/given"
elif [ ! -e "$home/source/tests/integration/helpers.bash" ]; then
	rm -rf "$home/apt" "$home/package" "$home/source" "$home/unpacked"
	mkdir -p "$home"/apt/parts "$home"/apt/lists/partial "$home"/apt/cache/archives/partial "$home/package" "$home/unpacked"
	for list in /etc/apt/sources.list /etc/apt/sources.list.d/*.list /etc/apt/sources.list.d/*.sources; do
		[ -f "$list" ] && grep -q debian "$list" || continue
		sed -e 's/^Types:.*/Types: deb-src/' -e 's/^deb /deb-src /' -e '/^Suites:/s/[^ ]*-updates//' "$list" >"$home/apt/parts/${list##*/}"
	done
	apt="apt-get -qq -o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts=$home/apt/parts
		-o Dir::State::Lists=$home/apt/lists -o Dir::Cache=$home/apt/cache -o APT::Sandbox::User=root
		-o Acquire::Languages=none -o Acquire::Retries=3"
	$apt update
	(cd "$home/package" && $apt source --download-only runc)
	rm -rf "$home/apt"
	cd "$home/unpacked"
	tar --strip-components=1 -xf "$home"/package/runc_*.orig.tar.*
	tar -xf "$home"/package/runc_*.debian.tar.*
	while read -r patch; do
		case $patch in '' | '#'*) continue ;; esac
		patch -p1 --silent --force <"debian/patches/$patch"
	done <debian/patches/series
	cd "$home"
	mv unpacked source
fi

# A root of busybox, in place of a download.
if [ ! -e "$home/busybox.tar" ]; then
	root=$home/busybox
	rm -rf "$root"
	mkdir -p "$root"/bin "$root"/dev "$root"/etc "$root"/home "$root"/lib "$root"/root "$root"/sbin "$root"/tmp "$root"/usr/bin \
		"$root"/usr/sbin "$root"/var
	chmod 1777 "$root/tmp"
	cp "$(command -v busybox)" "$root/bin/busybox"
	for applet in $("$root/bin/busybox" --list); do
		[ "$applet" = busybox ] || ln "$root/bin/busybox" "$root/bin/$applet"
	done
	printf 'root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/usr/sbin:/bin/false\nnobody:x:65534:65534:nobody:/home:/bin/false\n' >"$root/etc/passwd"
	printf 'root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n' >"$root/etc/group"
	tar --numeric-owner --owner=0 --group=0 -C "$root" -cf "$home/busybox.new" .
	mv "$home/busybox.new" "$home/busybox.tar"
	rm -rf "$root"
fi

if [ -n "$tree" ]; then cd "$home/given"; else cd "$home/source"; fi
cat >tests/integration/get-images.sh <<END
#!/bin/sh
echo "BUSYBOX_IMAGE=$home/busybox.tar"
echo "DEBIAN_IMAGE=$debian"
END
# Theirs is written in Go, for which there is no compiler here. Newer versions look for it elsewhere.
chmod 755 tests/integration/get-images.sh
for place in contrib/cmd/recvtty tests/cmd/_bin; do
	[ -d "${place%/*}" ] || continue
	mkdir -p "$place"
	rm -f "$place/recvtty"
	printf '#!/bin/sh\nexec "%s" recvtty "$@"\n' "$xtask" >"$place/recvtty"
	chmod 755 "$place/recvtty"
done
