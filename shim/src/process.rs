//! One process of the container: the first one, or one that was exec'ed.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use dhow_api::Timestamp;
use dhow_runtime::Stdio;
use dhow_sys::pidfd::{self, Exit};
use dhow_sys::process::read_proc_bytes;
use nix::errno::Errno;
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::io::{Names, ProcessIo, Watched};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Ended {
    /// The code, or 128 and the signal; 255 when nobody can tell.
    pub(crate) code: u32,
    /// The signal that ended it.
    pub(crate) signal: Option<i32>,
    /// When we learned of it.
    pub(crate) at: Timestamp,
}

impl Ended {
    /// An end that the kernel told, or did not.
    pub(crate) fn now(exit: Option<Exit>) -> Self {
        let (code, signal) = match exit {
            Some(Exit::Code(code)) => (code.into(), None),
            Some(Exit::Signal(signal)) => (128 + signal.unsigned_abs(), Some(signal)),
            None => (255, None),
        };
        Self { code, signal, at: Timestamp::now() }
    }

    /// What containerd hears of a process that is deleted before it was started: no failure, as runc's shim has it.
    pub(crate) fn without_a_start() -> Self {
        Self { code: 0, signal: None, at: Timestamp::now() }
    }
}

/// Where in its life a process is.
#[derive(Debug)]
pub(crate) enum Stage {
    /// An exec that waits to be started, with what it needs.
    Registered(Box<Pending>),
    /// The first process is in the images of this directory, and is brought back when it is started.
    Saved(PathBuf),
    /// The first process is just being brought back: nobody else starts or deletes it meanwhile.
    Restoring,
    /// The first process, waiting to become the container's program.
    Created,
    /// It runs.
    Running,
    /// It has ended.
    Stopped(Ended),
}

/// An exec to be started.
#[derive(Debug)]
pub(crate) struct Pending {
    /// What to run.
    pub(crate) process: dhow_runtime::config::Process,
    /// Its descriptors; `None`: containerd's fifos, opened at the start.
    pub(crate) stdio: Option<Stdio>,
    /// Whether a client has attached to its stdin; else that is closed from the beginning.
    pub(crate) stdin_wanted: bool,
}

/// A process.
#[derive(Debug)]
pub(crate) struct Process {
    /// Empty for the first process.
    pub(crate) exec_id: String,
    /// stdio as the request named it.
    pub(crate) names: Names,
    /// 0 before it exists.
    pub(crate) pid: i32,
    /// Where in its life it is.
    pub(crate) stage: Stage,
    /// The process itself, once it exists.
    pub(crate) pidfd: Option<Watched>,
    /// Its stdio, once that exists.
    pub(crate) io: Option<Arc<ProcessIo>>,
    /// Set when everybody may know that it has ended.
    pub(crate) ended: watch::Sender<Option<Ended>>,
}

impl Process {
    pub(crate) fn new(exec_id: String, names: Names, stage: Stage) -> Self {
        Self { exec_id, names, pid: 0, stage, pidfd: None, io: None, ended: watch::Sender::new(None) }
    }

    /// Sends a signal to this process alone.
    pub(crate) fn signal(&self, signal: i32) -> Result<()> {
        match (&self.stage, &self.pidfd) {
            (Stage::Stopped(_), _) => Err(Error::NotFound { what: "process (already finished)".to_owned() }),
            (_, Some(pidfd)) => match pidfd::send_signal(pidfd.get_ref().as_fd(), signal) {
                Err(Errno::ESRCH) => Err(Error::NotFound { what: "process (already finished)".to_owned() }),
                other => other.map_err(Error::sys("send a signal")),
            },
            (_, None) => Err(Error::State { verb: "signal", state: self.state() }),
        }
    }

    /// In one word.
    pub(crate) fn state(&self) -> &'static str {
        match self.stage {
            Stage::Registered(_) | Stage::Saved(_) | Stage::Created => "created",
            Stage::Restoring => "restoring",
            Stage::Running => "running",
            Stage::Stopped(_) => "stopped",
        }
    }

    /// How it ended, when it has.
    pub(crate) fn stopped(&self) -> Option<Ended> {
        if let Stage::Stopped(ended) = self.stage { Some(ended) } else { None }
    }
}

/// Waits for the end of a process and reaps it when it is our child.
pub(crate) async fn until_ended(process: &Watched) -> Ended {
    loop {
        // Fails only when the event loop is being torn down; then nothing is told any more.
        let Ok(mut ready) = process.readable().await else { return std::future::pending().await };
        match pidfd::reap(process.get_ref().as_fd(), false) {
            Ok(Some(exit)) => return Ended::now(Some(exit)),
            Ok(None) => ready.clear_ready(),
            Err(_not_our_child) => return Ended::now(foreign_exit(process).await),
        }
    }
}

/// How an adopted process ended, which has another parent. /proc tells it until that one has reaped it, and the pidfd
/// from then on (Linux 6.15).
async fn foreign_exit(process: &Watched) -> Option<Exit> {
    for _ in 0..50 {
        match pidfd::info(process.get_ref().as_fd()) {
            Ok(pidfd::Info { exit: Some(exit), .. }) => return Some(exit),
            Ok(pidfd::Info { pid, .. }) => match zombie_exit(pid) {
                Some(exit) => return Some(exit),
                None => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            },
            Err(_unknown) => return None,
        }
    }
    None
}

/// The last field of a zombie's /proc/PID/stat is its wait status (proc_pid_stat(5)).
fn zombie_exit(pid: i32) -> Option<Exit> {
    // A process gives itself a name of any bytes.
    let stat = read_proc_bytes(format!("/proc/{pid}/stat")).ok()?;
    let stat = String::from_utf8_lossy(&stat);
    let fields = stat.get(stat.rfind(')')? + 2..)?;
    let status = fields.trim_end().rsplit(' ').next()?.parse().ok()?;
    fields.starts_with('Z').then(|| Exit::from_wait_status(status))
}
