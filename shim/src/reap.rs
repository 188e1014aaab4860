//! Orphans of the container's processes, which become children of this subreaper when their parent has ended.
//!
//! Children that somebody watches by a pidfd are left to him: the sweep looks before it takes (`WNOWAIT`), and stops at
//! one that is watched, whose watcher sweeps again. A sweep by `waitpid(-1)` would steal their exit codes.

use std::sync::Arc;

use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid, waitpid};
use tokio::signal::unix::{SignalKind, signal};

use crate::error::{Error, Result};
use crate::shim::Shim;

/// Sweeps whenever a child has ended. Must be called in the event loop.
pub(crate) fn start(shim: &Arc<Shim>) -> Result<()> {
    let mut child_ended = signal(SignalKind::child()).map_err(|source| Error::EventLoop { source })?;
    let shim = Arc::downgrade(shim);
    tokio::spawn(async move {
        while child_ended.recv().await.is_some() {
            let Some(shim) = shim.upgrade() else { return };
            orphans(&shim);
        }
    });
    Ok(())
}

/// Reaps the ended children that nobody watches.
pub(crate) fn orphans(shim: &Arc<Shim>) {
    loop {
        let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let Ok(status) = waitid(Id::All, look) else { return };
        let (WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..)) = status else { return };
        if is_watched(shim, pid.as_raw()) {
            return;
        }
        // It is a zombie child of ours, which nobody else can reap.
        let _reaped = waitpid(pid, Some(WaitPidFlag::WNOHANG));
    }
}

fn is_watched(shim: &Arc<Shim>, pid: i32) -> bool {
    let state = shim.lock();
    let Some(container) = &state.container else { return false };
    let watched = |process: &crate::process::Process| process.pid == pid && process.stopped().is_none();
    watched(&container.init) || container.execs.values().any(watched)
}
