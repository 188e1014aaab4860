//! What can go wrong with a cgroup.

use std::path::PathBuf;
use std::time::Duration;

use dhow_sys::Errno;

use crate::dbus::BusError;

/// An operation on a cgroup that failed. The texts that engines look for are runc's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// A limit makes no sense, or not on this version of cgroups; nothing was made or changed.
    #[error("{field}: {problem}")]
    Invalid {
        /// Which field of config.json (or of an update).
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// `linux.cgroupsPath` is not what the driver takes.
    #[error("linux.cgroupsPath: {path:?} {problem}")]
    Path {
        /// What it says.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The systemd driver was asked for where there is no systemd; nothing was made.
    #[error("the systemd cgroup driver was asked for, but no systemd answers")]
    NoSystemd {
        /// Why not.
        source: BusError,
    },
    /// A user's systemd has cgroups to give on v2 only.
    #[error("the systemd cgroup driver needs cgroup v2 for a rootless container")]
    RootlessLegacy,
    /// systemd could not be asked, or refused.
    #[error("ask systemd")]
    Bus(#[from] BusError),
    /// systemd tried to make the cgroup, and could not.
    #[error("systemd could not start {unit}: {result}")]
    Unit {
        /// The scope.
        unit: String,
        /// How its job ended.
        result: String,
    },
    /// There is no cgroup file system where it belongs.
    #[error("no cgroup file system is mounted at /sys/fs/cgroup")]
    NotMounted,
    /// The mount table or /proc/self/cgroup can't be read.
    #[error("read {path}")]
    Proc {
        /// Which file.
        path: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A limit was asked for, but its controller is not there, or its cgroup could not be made.
    #[error("{field}: the requested cgroup controller `{controller}` is not available")]
    NoController {
        /// Which field.
        field: String,
        /// The controller.
        controller: String,
    },
    /// The kernel refused a limit.
    #[error("{field}: write {value:?} to {}", path.display())]
    Limit {
        /// Which field.
        field: String,
        /// The file.
        path: PathBuf,
        /// What was written.
        value: String,
        /// Why.
        source: Errno,
    },
    /// `checkBeforeUpdate` says no.
    #[error("linux.resources.memory.limit: {limit} is below the current usage of {usage} bytes")]
    LimitBelowUsage {
        /// What was asked for.
        limit: u64,
        /// What is in use.
        usage: u64,
    },
    /// The cgroup exists and has processes.
    #[error("container's cgroup is not empty: {processes} process(es) found in {}", path.display())]
    NotEmpty {
        /// Where.
        path: PathBuf,
        /// How many.
        processes: usize,
    },
    /// The cgroup exists and is frozen: a process in it would never start.
    #[error("container's cgroup unexpectedly frozen: {}", path.display())]
    Frozen {
        /// Where.
        path: PathBuf,
    },
    /// `exec --cgroup` names a controller that the container has no cgroup with.
    #[error("unknown controller {controller}")]
    UnknownController {
        /// Its name.
        controller: String,
    },
    /// `exec --cgroup` names a place outside of the container's cgroup.
    #[error("{} is not a sub cgroup path", path.display())]
    NotBelow {
        /// What it names.
        path: PathBuf,
    },
    /// `exec --cgroup` names a cgroup that can't be entered.
    #[error("adding pid of the new process to {}/cgroup.procs", path.display())]
    Below {
        /// Which cgroup.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// The device filter could not be installed.
    #[error("{step} the device filter of {}", path.display())]
    Devices {
        /// `load`, `attach`, …
        step: &'static str,
        /// Which cgroup.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// A process could not be moved into the cgroup.
    #[error("move process {pid} into {}", path.display())]
    Attach {
        /// The process.
        pid: i32,
        /// Which cgroup.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// A directory or file could not be made, opened, read, written or removed.
    #[error("{verb} {}", path.display())]
    File {
        /// `make`, `open`, …
        verb: &'static str,
        /// Which one.
        path: PathBuf,
        /// Why.
        source: Errno,
    },
    /// A process could not be signalled.
    #[error("send signal {signal} to process {pid}")]
    Signal {
        /// The process.
        pid: i32,
        /// The signal.
        signal: i32,
        /// Why.
        source: Errno,
    },
    /// The container was not frozen in time; it runs again.
    #[error("the processes in {} did not freeze within {waited:?}", path.display())]
    NotFrozen {
        /// Which cgroup.
        path: PathBuf,
        /// How long we waited.
        waited: Duration,
    },
    /// Processes in it did not end in time.
    #[error("{} is still in use after {waited:?}", path.display())]
    Busy {
        /// Which cgroup.
        path: PathBuf,
        /// How long we waited.
        waited: Duration,
    },
    /// It has no cgroup (driver `disabled`), or none with the controller that this needs.
    #[error("the container has no cgroup with {what}")]
    Without {
        /// What is missing.
        what: &'static str,
    },
}

impl CgroupError {
    pub(super) fn invalid(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Invalid { field: field.into(), problem: problem.into() }
    }

    /// Whether what was asked for can't be, as opposed to having failed.
    pub fn is_invalid(&self) -> bool {
        matches!(self, Self::Invalid { .. } | Self::Path { .. } | Self::NoSystemd { .. } | Self::RootlessLegacy)
    }
}

/// What this module returns.
pub(super) type Result<T> = std::result::Result<T, CgroupError>;
