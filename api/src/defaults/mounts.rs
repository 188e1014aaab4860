//! The mounts that every container has.

use std::path::PathBuf;

use oci_spec::runtime::{Mount, MountBuilder};

/// Bytes of /dev/shm unless `--shm-size` says otherwise.
pub const SHM_SIZE: u64 = 64 << 20;

/// /proc, /dev, /dev/pts, /sys, /sys/fs/cgroup, /dev/mqueue and /dev/shm, in the order in which they have to be mounted.
/// `shm_size` is that of /dev/shm in bytes.
pub fn mounts(shm_size: u64) -> Vec<Mount> {
    let shm_size = format!("size={shm_size}");
    [
        ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"][..]),
        ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
        ("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
        ("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
        ("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]),
        ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
        ("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", &shm_size]),
    ]
    .into_iter()
    .map(|(destination, kind, source, options)| {
        MountBuilder::default()
            .destination(PathBuf::from(destination))
            .typ(kind)
            .source(PathBuf::from(source))
            .options(options.iter().map(|option| (*option).to_owned()).collect::<Vec<_>>())
            .build()
            .expect("every field of a mount has a default")
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mount_comes_after_what_it_lies_in() {
        let mounts = mounts(SHM_SIZE);
        let order: Vec<_> = mounts.iter().map(|mount| mount.destination().display().to_string()).collect();
        assert_eq!(order, ["/proc", "/dev", "/dev/pts", "/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/shm"]);
        assert!(mounts[6].options().as_ref().unwrap().contains(&"size=67108864".to_owned()));
    }
}
