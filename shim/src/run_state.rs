//! `RUNROOT/shim/<id>/run.json`: what a successor must know of a container that runs already.

use std::os::unix::fs::MetadataExt;

use dhow_api::Timestamp;
use dhow_api::documents::Document;
use serde::{Deserialize, Serialize};

/// What was asked for, and what has become of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunState {
    /// Whether the first process has a terminal.
    pub(crate) terminal: bool,
    /// The mounts of the root file system, to make it again.
    pub(crate) rootfs: Vec<RootfsMount>,
    /// When the first process was started.
    #[serde(default)]
    pub(crate) started_at: Option<Timestamp>,
    /// How often the restart policy has started it again.
    #[serde(default)]
    pub(crate) restarts: u32,
    /// Whether it was told to stop.
    #[serde(default)]
    pub(crate) stopping: bool,
    /// The pid namespace in which the pids of this container mean it.
    #[serde(default)]
    pub(crate) pid_namespace: Option<u64>,
}

/// This process's pid namespace, by the number that the kernel gives it; `None` where /proc does not tell.
pub(crate) fn pid_namespace() -> Option<u64> {
    std::fs::metadata("/proc/self/ns/pid").ok().map(|file| file.ino())
}

impl Document for RunState {
    const NAME: &'static str = "run state";
}

/// One mount, as the Create request has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RootfsMount {
    #[serde(rename = "type")]
    kind: String,
    source: String,
    target: String,
    options: Vec<String>,
}

impl From<&dhow_api::task::Mount> for RootfsMount {
    fn from(mount: &dhow_api::task::Mount) -> Self {
        Self {
            kind: mount.type_.clone(),
            source: mount.source.clone(),
            target: mount.target.clone(),
            options: mount.options.clone(),
        }
    }
}

impl From<&RootfsMount> for dhow_sys::rootfs::Mount {
    fn from(mount: &RootfsMount) -> Self {
        Self {
            kind: mount.kind.clone(),
            source: mount.source.clone(),
            target: mount.target.clone(),
            options: mount.options.clone(),
        }
    }
}
