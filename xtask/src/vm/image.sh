# image.sh HOME STAGE FILES...: a disk with Debian and the tests, STAGE/disk. The Debian below HOME is made once and kept;
# FILES (FROM=TO) are put into each disk.
set -euo pipefail
home=$1 stage=$2
shift 2
packages=systemd,systemd-sysv,dbus,dbus-user-session,libpam-systemd,kmod,apparmor,uidmap,busybox-static,procps,iproute2,jq,runc,secilc,linux-image-cloud-amd64
mkdir -p "$home"
exec 9>"$home/.lock"
flock 9
if [ "$(cat "$home/packages" 2>/dev/null)" != "$packages" ]; then
	rm -rf "$home/root" "$home/packages"
	debootstrap --variant=minbase --include="$packages" bookworm "$home/root" >"$home/debootstrap.log" 2>&1 || {
		tail -n 20 "$home/debootstrap.log" >&2
		exit 1
	}
	rm -rf "$home"/root/var/cache/apt/* "$home"/root/var/lib/apt/lists/* "$home"/root/usr/share/{doc,man,locale}
	echo "$packages" >"$home/packages"
fi
cp -a "$home/root" "$stage/root"
for file in "$@"; do
	install -D -m 755 "${file%%=*}" "$stage/root/${file#*=}"
done
echo dhow-vm >"$stage/root/etc/hostname"
mkdir -p "$stage/root/etc/systemd/system/multi-user.target.wants"
ln -s ../dhow-test.service "$stage/root/etc/systemd/system/multi-user.target.wants/dhow-test.service"
cp "$stage"/root/boot/vmlinuz-* "$stage/vmlinuz"
cp "$stage"/root/boot/initrd.img-* "$stage/initrd"
truncate -s 2G "$stage/disk"
mkfs.ext4 -q -d "$stage/root" "$stage/disk"
rm -rf "$stage/root"
