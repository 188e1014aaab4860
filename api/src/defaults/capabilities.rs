//! The capabilities of a container's first process.

use std::collections::HashSet;

use oci_spec::runtime::Capability;

/// What a container has unless its user adds or drops some: enough for the usual services, nothing that reaches out of the
/// container's own namespaces.
const DEFAULT: [Capability; 14] = [
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// All that Linux 6.18 has (`--privileged`, `--cap-add ALL`).
const ALL: [Capability; 41] = [
    Capability::AuditControl,
    Capability::AuditRead,
    Capability::AuditWrite,
    Capability::BlockSuspend,
    Capability::Bpf,
    Capability::CheckpointRestore,
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::Kill,
    Capability::Lease,
    Capability::LinuxImmutable,
    Capability::MacAdmin,
    Capability::MacOverride,
    Capability::Mknod,
    Capability::NetAdmin,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetRaw,
    Capability::Perfmon,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysChroot,
    Capability::SysModule,
    Capability::SysNice,
    Capability::SysPacct,
    Capability::SysPtrace,
    Capability::SysRawio,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Syslog,
    Capability::WakeAlarm,
];

/// docker's 14, for the bounding, effective and permitted sets. Inheritable and ambient stay empty (CVE-2022-24769).
pub fn capabilities() -> HashSet<Capability> {
    HashSet::from(DEFAULT)
}

/// Every capability there is. One that the running kernel does not have is for the runtime to skip.
pub fn all_capabilities() -> HashSet<Capability> {
    HashSet::from(ALL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_part_of_all() {
        assert_eq!((capabilities().len(), all_capabilities().len()), (14, 41));
        assert!(capabilities().is_subset(&all_capabilities()));
    }
}
