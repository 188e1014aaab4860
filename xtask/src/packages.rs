//! What the chores need from Debian, and getting it when it is missing.

use std::path::Path;

use crate::shell::{Error, Result, command, file_error, output, which};

/// A package and the file or program that shows it is there.
type Package = (&'static str, &'static str);

/// For the demonstration: a registry, and tools to make an image.
pub(crate) const DEMO: &[Package] = &[
    ("busybox-static", "busybox"),
    ("ca-certificates", "/etc/ssl/certs/ca-certificates.crt"),
    ("debootstrap", "debootstrap"),
    ("docker-registry", "docker-registry"),
    ("umoci", "umoci"),
    ("skopeo", "skopeo"),
    ("apache2-utils", "htpasswd"),
    ("openssl", "openssl"),
    ("util-linux", "unshare"),
];

/// For the tests, beyond [`DEMO`].
pub(crate) const TEST: &[Package] = &[
    ("crun", "crun"),
    ("runc", "runc"),
    ("nftables", "nft"),
    ("iproute2", "ip"),
    ("zstd", "zstd"),
    ("e2fsprogs", "mkfs.ext4"),
    ("strace", "strace"),
    ("jq", "jq"),
    ("python3-seccomp", "/usr/lib/python3/dist-packages/seccomp.cpython-311-x86_64-linux-gnu.so"),
    ("dbus-daemon", "dbus-daemon"),
    ("podman", "podman"),
    ("conmon", "conmon"),
    ("containerd", "containerd"),
    ("docker.io", "dockerd"),
    ("buildah", "buildah"),
    ("bsdutils", "script"),
    ("uidmap", "newuidmap"),
];

/// For runc's own suite, beyond [`TEST`].
pub(crate) const SUITE: &[Package] =
    &[("bats", "bats"), ("gawk", "gawk"), ("patch", "patch"), ("xz-utils", "xz"), ("procps", "ps")];

/// For the virtual machine, beyond [`TEST`].
pub(crate) const MACHINE: &[Package] = &[
    ("qemu-system-x86", "qemu-system-x86_64"),
    // Firmware and boot code that qemu only recommends.
    ("seabios", "/usr/share/seabios/bios-256k.bin"),
    ("debootstrap", "debootstrap"),
];

/// The engines that the benchmark runs beside ours, beyond [`TEST`].
pub(crate) const PEERS: &[Package] = &[
    ("containernetworking-plugins", "/usr/lib/cni/bridge"),
    ("iptables", "iptables"),
    ("netavark", "/usr/lib/podman/netavark"),
    ("aardvark-dns", "/usr/lib/podman/aardvark-dns"),
];

/// Installs those of the packages that are not there. Services that come with them are not started.
pub(crate) fn install(lists: &[&[Package]]) -> Result<()> {
    let missing: Vec<&str> =
        lists.iter().copied().flatten().filter(|(_, proof)| !present(proof)).map(|(package, _)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if which("apt-get").is_none() {
        return Err(Error::Check(format!("please install {}: there is no apt-get here to do it", missing.join(", "))));
    }
    let _guard = NoServices::new()?;
    output(command("apt-get", ["update", "-qq"]).env("DEBIAN_FRONTEND", "noninteractive"))?;
    let args = ["install", "-y", "-qq", "--no-install-recommends"].into_iter().chain(missing);
    output(command("apt-get", args).env("DEBIAN_FRONTEND", "noninteractive"))?;
    Ok(())
}

fn present(proof: &str) -> bool {
    if proof.starts_with('/') { Path::new(proof).exists() } else { which(proof).is_some() }
}

/// Debian's way to install a package without starting its service; undone on drop.
struct NoServices(bool);

const POLICY: &str = "/usr/sbin/policy-rc.d";

impl NoServices {
    fn new() -> Result<Self> {
        let path = Path::new(POLICY);
        if path.exists() {
            return Ok(Self(false));
        }
        std::fs::write(path, "#!/bin/sh\nexit 101\n").map_err(file_error("write", path))?;
        output(&mut command("chmod", ["755", POLICY]))?;
        Ok(Self(true))
    }
}

impl Drop for NoServices {
    fn drop(&mut self) {
        if self.0 {
            drop(std::fs::remove_file(POLICY));
        }
    }
}
