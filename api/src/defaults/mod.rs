//! What an engine tells a runtime unless its user says otherwise: docker's defaults.

use std::collections::HashSet;

use oci_spec::runtime::{Capability, LinuxDeviceCgroup, LinuxSeccomp, Mount};

/// The capabilities of a container's first process.
pub fn capabilities() -> HashSet<Capability> {
    todo!()
}

/// The mounts every container has: /proc, /dev, /dev/pts, /dev/shm, /dev/mqueue, /sys, /sys/fs/cgroup.
/// `shm_size` is that of /dev/shm in bytes.
pub fn mounts(shm_size: u64) -> Vec<Mount> {
    let _ = shm_size;
    todo!()
}

/// Paths whose content a container must not see.
pub fn masked_paths() -> Vec<String> {
    todo!()
}

/// Paths a container must not write.
pub fn readonly_paths() -> Vec<String> {
    todo!()
}

/// Which devices a container may use.
pub fn device_rules() -> Vec<LinuxDeviceCgroup> {
    todo!()
}

/// The environment every process gets before the image's own (`PATH`, `HOSTNAME`, with a terminal `TERM`).
pub fn environment(hostname: &str, terminal: bool) -> Vec<String> {
    let _ = (hostname, terminal);
    todo!()
}

/// docker's default seccomp profile for a container with these capabilities on this machine.
pub fn seccomp(capabilities: &HashSet<Capability>) -> LinuxSeccomp {
    let _ = capabilities;
    todo!()
}
