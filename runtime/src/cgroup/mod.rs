//! The container's cgroup: where it lies, its limits, its device filter, its processes, its end.

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;

use crate::CgroupDriver;

/// What is known before anything is made.
#[derive(Debug, Clone)]
pub struct CgroupRequest<'a> {
    /// `linux.cgroupsPath`; empty when there is none.
    pub cgroups_path: &'a str,
    /// The container's id.
    pub id: &'a str,
    /// Who makes the cgroup.
    pub driver: CgroupDriver,
    /// A cgroup that can't be made for want of permission is done without, as long as no limit asks for it.
    pub rootless: bool,
}

/// Where a container's cgroup will be: found out once, before anything is made.
#[derive(Debug, Clone)]
pub struct CgroupPlan {}

/// The cgroup of a container (on v1: one in each hierarchy), held by directory handles.
#[derive(Debug)]
pub struct Cgroup {}

/// Whether the processes of a cgroup run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreezerState {
    /// They run.
    Thawed,
    /// They stand still.
    Frozen,
}

/// What `events --stats` and `Task.Stats` report.
#[derive(Debug, Clone, Default, serde::Serialize, serde::Deserialize)]
pub struct Stats {}

/// Tells of out-of-memory kills.
#[derive(Debug)]
pub struct OomWatch {}

/// What can go wrong with a cgroup.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CgroupError {
    /// To be refined.
    #[error("cgroup: {0}")]
    Other(String),
}

type Result<T> = std::result::Result<T, CgroupError>;

impl CgroupPlan {
    /// Decides where the cgroup goes. Reads the mount table and /proc/self/cgroup where it must; makes nothing.
    ///
    /// # Errors
    /// A `cgroupsPath` of the wrong shape for the driver; no usable cgroup file system.
    pub fn new(request: &CgroupRequest<'_>) -> Result<Self> {
        let _ = request;
        todo!()
    }

    /// Makes the cgroup with its limits and device filter. On failure what was made is removed again.
    ///
    /// # Errors
    /// A limit that makes no sense, named by its field; a cgroup that exists and is not empty or is frozen;
    /// what the kernel says.
    pub fn create(&self, resources: Option<&LinuxResources>) -> Result<Cgroup> {
        let _ = resources;
        todo!()
    }
}

impl Cgroup {
    /// Opens the cgroup whose `paths()` were kept in state.json. Hierarchies that are gone are left out.
    ///
    /// # Errors
    /// What the kernel says other than "no such directory".
    pub fn open(paths: &BTreeMap<String, PathBuf>) -> Result<Self> {
        let _ = paths;
        todo!()
    }

    /// The paths by controller name for state.json; the empty name is the v2 hierarchy. Empty without a cgroup.
    pub fn paths(&self) -> &BTreeMap<String, PathBuf> {
        todo!()
    }

    /// A sub-cgroup that exists, for `exec --cgroup PATH`.
    ///
    /// # Errors
    /// It does not exist.
    pub fn child(&self, path: &Path) -> Result<Self> {
        let _ = path;
        todo!()
    }

    /// The directory for `clone3(CLONE_INTO_CGROUP)`: on pure v2 only, and then [`Self::attach`] is not needed.
    /// The cgroup namespace has to be unshared by the child itself afterwards: at clone time the kernel
    /// would take the parent's cgroup as its root.
    pub fn clone_target(&self) -> Option<BorrowedFd<'_>> {
        todo!()
    }

    /// Moves a process into the cgroup, in all hierarchies back to back. Costs milliseconds (the kernel waits
    /// for a grace period): call it once, right after clone, while the child does other work. The child must
    /// not unshare its cgroup namespace or exec before this is done.
    ///
    /// # Errors
    /// What the kernel says; `ESRCH` when the process is gone.
    pub fn attach(&self, pid: i32) -> Result<()> {
        let _ = pid;
        todo!()
    }

    /// Changes the limits that are set in `resources` (`update`); devices are left alone.
    ///
    /// # Errors
    /// A limit that makes no sense, named by its field; what the kernel says.
    pub fn apply(&self, resources: &LinuxResources) -> Result<()> {
        let _ = resources;
        todo!()
    }

    /// Stops all processes and returns when they stand still.
    ///
    /// # Errors
    /// They did not stop in time (they run again then); what the kernel says.
    pub fn freeze(&self) -> Result<()> {
        todo!()
    }

    /// Lets the processes run again.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn thaw(&self) -> Result<()> {
        todo!()
    }

    /// Whether the processes run.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn freezer_state(&self) -> Result<FreezerState> {
        todo!()
    }

    /// Sends a signal to every process in the cgroup and below. SIGKILL reaches also those that are being
    /// forked (`cgroup.kill`, or the freezer). No cgroup, no process: nothing happens.
    ///
    /// # Errors
    /// What the kernel says other than that a process is gone.
    pub fn kill_all(&self, signal: i32) -> Result<()> {
        let _ = signal;
        todo!()
    }

    /// The processes in the cgroup and below, in ascending order.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn pids(&self) -> Result<Vec<i32>> {
        todo!()
    }

    /// What the container has used.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn stats(&self) -> Result<Stats> {
        todo!()
    }

    /// How many processes the out-of-memory killer took.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn oom_kills(&self) -> Result<u64> {
        todo!()
    }

    /// A descriptor that becomes readable when the cgroup runs out of memory.
    ///
    /// # Errors
    /// No memory controller; what the kernel says.
    pub fn watch_oom(&self) -> Result<OomWatch> {
        todo!()
    }

    /// Kills what still runs and removes the cgroup with all below it, waiting a bounded time.
    /// Removing what is gone already succeeds.
    ///
    /// # Errors
    /// It is still populated when the time is over; what the kernel says.
    pub fn remove(&self) -> Result<()> {
        todo!()
    }
}

impl OomWatch {
    /// Becomes readable (POLLIN) at every event.
    pub fn descriptor(&self) -> &OwnedFd {
        todo!()
    }

    /// Takes the events that arrived; to be called when the descriptor is readable.
    ///
    /// # Errors
    /// Those of read(2).
    pub fn drain(&self) -> Result<()> {
        todo!()
    }
}
