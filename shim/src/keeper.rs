//! A process that keeps open what a container cannot keep open itself: the other end of its terminal, whose closing would
//! hang it up, and the writing end of its stdin, whose closing it would take for the end of its input.
//!
//! Only containers with `-t` or `-i` have one. It is a copy of the shim that holds these descriptors and waits for the
//! container's end; it shares nearly all memory with the shim. When the shim is killed, its successor takes the
//! descriptors out of it (pidfd_getfd(2)), by the numbers that the file `keeper.json` tells.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use dhow_api::documents::Document;
use dhow_api::paths::ShimDir;
use dhow_sys::clone::{Request, spawn};
use dhow_sys::{fd, pidfd, process};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::io::{ProcessIo, Watched};

/// `RUNROOT/shim/<id>/keeper.json`.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    pid: i32,
    start_time: u64,
    stdin: Option<i32>,
    console: Option<i32>,
}

impl Document for Record {
    const NAME: &'static str = "keeper record";
}

fn path(dir: &ShimDir) -> std::path::PathBuf {
    dir.path().join("keeper.json")
}

/// Starts a keeper when the process needs one.
pub(crate) fn start(dir: &ShimDir, init: &Watched, io: &ProcessIo) -> Result<()> {
    let (stdin, console) = (io.stdin.descriptor(), io.console());
    let Some(sink) = console.clone().or_else(|| stdin.clone()) else { return Ok(()) };
    let number = |watched: &Watched| watched.get_ref().as_raw_fd();
    let child = spawn(&Request::default(), |child| {
        let mut keep = [2, number(init), number(&sink)];
        let named = process::set_name("dhow-keeper").and_then(|()| fd::keep_only(child, &mut keep));
        u8::from(named.is_err() || pidfd::wait_ended(init.get_ref().as_fd(), None).is_err())
    })
    .map_err(Error::sys("start the keeper of the container's terminal and stdin"))?;
    let start_time = process::stat(child.pid).map_or(0, |stat| stat.start_time);
    let record = Record {
        pid: child.pid,
        start_time,
        stdin: if console.is_none() { stdin.as_ref().map(number) } else { None },
        console: console.as_ref().map(number),
    };
    record.store(&path(dir))?;
    io.stdin.kept_by(child.pidfd);
    Ok(())
}

/// What a predecessor's keeper holds.
#[derive(Debug)]
pub(crate) struct Kept {
    pidfd: OwnedFd,
    record: Record,
}

/// Finds the keeper that a predecessor left.
pub(crate) fn recall(dir: &ShimDir) -> Option<Kept> {
    let record = Record::load(&path(dir)).ok()?;
    let pidfd = pidfd::open_checked(record.pid, record.start_time).ok()??;
    Some(Kept { pidfd, record })
}

impl Kept {
    /// The writing end of stdin.
    pub(crate) fn stdin(&self) -> Option<OwnedFd> {
        self.record.stdin.and_then(|number| pidfd::getfd(self.pidfd.as_fd(), number).ok())
    }

    /// The terminal's other end.
    pub(crate) fn console(&self) -> Option<OwnedFd> {
        self.record.console.and_then(|number| pidfd::getfd(self.pidfd.as_fd(), number).ok())
    }

    /// Lets it be ended when stdin is closed.
    pub(crate) fn go_on_for(self, io: &ProcessIo) {
        io.stdin.kept_by(self.pidfd);
    }
}
