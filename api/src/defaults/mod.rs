//! What an engine tells a runtime unless its user says otherwise: docker's defaults.
//!
//! Data for config.json, in the runtime specification's types. A user who knows docker finds here what a container of
//! docker's has: 14 capabilities, the usual mounts, masked and read-only paths, a handful of devices, and docker's
//! [`seccomp`](seccomp()) profile.

mod capabilities;
mod mounts;
mod seccomp;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceCgroupBuilder, LinuxDeviceType};

pub use capabilities::{all_capabilities, capabilities};
pub use mounts::{SHM_SIZE, mounts};
pub use seccomp::seccomp;

/// Where programs are looked for when the image does not say (`PATH`).
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Paths whose content a container must not see: a file becomes /dev/null, a directory an empty one.
pub const MASKED_PATHS: [&str; 12] = [
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];

/// Paths that a container must not write.
pub const READONLY_PATHS: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// [`MASKED_PATHS`] for `linux.maskedPaths`. With Linux's thermal throttling counters, which show what other containers do,
/// for each of this machine's processors.
pub fn masked_paths() -> Vec<String> {
    let fixed = MASKED_PATHS.iter().map(|path| (*path).to_owned());
    let throttle = (0..)
        .map(|cpu| format!("/sys/devices/system/cpu/cpu{cpu}/thermal_throttle"))
        .take_while(|path| std::path::Path::new(path).exists());
    fixed.chain(throttle).collect()
}

/// [`READONLY_PATHS`] for `linux.readonlyPaths`.
pub fn readonly_paths() -> Vec<String> {
    READONLY_PATHS.iter().map(|path| (*path).to_owned()).collect()
}

/// Which devices a container may use, for `linux.resources.devices`: none, but to make any node (the capability decides), and
/// the harmless ones that /dev has.
pub fn device_rules() -> Vec<LinuxDeviceCgroup> {
    use LinuxDeviceType::{A, B, C};
    const ANY: i64 = -1;
    let rule = |allow, kind, major: i64, minor: i64, access: &str| {
        let mut rule = LinuxDeviceCgroupBuilder::default()
            .allow(allow)
            .typ(kind)
            .access(access)
            .build()
            .expect("every field of a device rule has a default");
        rule.set_major((major != ANY).then_some(major));
        rule.set_minor((minor != ANY).then_some(minor));
        rule
    };
    vec![
        rule(false, A, ANY, ANY, "rwm"),
        rule(true, C, ANY, ANY, "m"),
        rule(true, B, ANY, ANY, "m"),
        rule(true, C, 1, 3, "rwm"),     // null
        rule(true, C, 1, 5, "rwm"),     // zero
        rule(true, C, 1, 7, "rwm"),     // full
        rule(true, C, 1, 8, "rwm"),     // random
        rule(true, C, 1, 9, "rwm"),     // urandom
        rule(true, C, 5, 0, "rwm"),     // tty
        rule(true, C, 5, 1, "rwm"),     // console
        rule(true, C, 5, 2, "rwm"),     // ptmx
        rule(true, C, 136, ANY, "rwm"), // pts
    ]
}

/// The environment that a process has before what the image and the user say: `PATH`, `HOSTNAME` and, with a terminal, `TERM`.
pub fn environment(hostname: &str, terminal: bool) -> Vec<String> {
    let mut environment = vec![format!("PATH={PATH}"), format!("HOSTNAME={hostname}")];
    if terminal {
        environment.push("TERM=xterm".to_owned());
    }
    environment
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_start_with_a_refusal_of_all() {
        let rules = device_rules();
        assert_eq!(
            serde_json::to_value(&rules[0]).unwrap(),
            serde_json::json!({"allow": false, "type": "a", "access": "rwm"})
        );
        assert_eq!(
            serde_json::to_value(&rules[3]).unwrap(),
            serde_json::json!({"allow": true, "type": "c", "major": 1, "minor": 3, "access": "rwm"})
        );
        assert!(rules[1..].iter().filter(|rule| rule.allow()).all(|rule| rule.typ() != Some(LinuxDeviceType::A)));
    }

    #[test]
    fn only_a_terminal_has_a_type() {
        let plain = [format!("PATH={PATH}"), "HOSTNAME=box".to_owned()];
        assert_eq!(environment("box", false), plain);
        assert_eq!(environment("box", true)[2], "TERM=xterm");
    }

    #[test]
    fn masked_paths_begin_with_the_fixed_ones() {
        assert_eq!(masked_paths()[..MASKED_PATHS.len()], MASKED_PATHS);
    }
}
