//! Hearing of out-of-memory kills.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use dhow_sys::Errno;
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use super::Cgroup;
use super::dir::Dir;
use super::error::{CgroupError, Result};

/// A descriptor that becomes readable (POLLIN) when a cgroup runs out of memory, or goes.
#[derive(Debug)]
pub struct OomWatch(Source);

#[derive(Debug)]
enum Source {
    /// v2: `memory.events` is modified.
    Modified(Inotify),
    /// v1: the kernel writes to an eventfd; the control file has to stay open.
    Notified(EventFd, #[expect(dead_code, reason = "held open for the kernel")] OwnedFd),
}

impl Cgroup {
    /// How many processes the out-of-memory killer took, in the cgroup and below. 0 without a memory controller.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn oom_kills(&self) -> Result<u64> {
        let Some(dir) = self.dir("memory") else { return Ok(0) };
        let file = if self.is_v2() { "memory.events" } else { "memory.oom_control" };
        match dir.read(file) {
            Ok(text) => {
                let mut lines = text.lines().filter_map(|line| line.strip_prefix("oom_kill "));
                Ok(lines.next().and_then(|count| count.trim().parse().ok()).unwrap_or(0))
            }
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(0),
            Err(source) => Err(dir.error("read", file, source)),
        }
    }

    /// A descriptor that becomes readable when the cgroup runs out of memory. Compare [`Self::oom_kills`] before and after: events
    /// of other kinds and the removal of the cgroup wake it as well.
    ///
    /// # Errors
    /// No memory controller; what the kernel says.
    pub fn watch_oom(&self) -> Result<OomWatch> {
        let dir = self.dir("memory").ok_or(CgroupError::Without { what: "a memory controller" })?;
        if self.is_v2() { modified(dir) } else { notified(dir) }
    }
}

impl OomWatch {
    /// Takes the events that arrived, so that the descriptor waits for the next; never blocks.
    ///
    /// # Errors
    /// Those of read(2).
    pub fn drain(&self) -> std::result::Result<(), Errno> {
        let result = match &self.0 {
            Source::Modified(inotify) => inotify.read_events().map(drop),
            Source::Notified(eventfd, _) => eventfd.read().map(drop),
        };
        if result == Err(Errno::EAGAIN) { Ok(()) } else { result }
    }
}

impl AsFd for OomWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Source::Modified(inotify) => inotify.as_fd(),
            Source::Notified(eventfd, _) => eventfd.as_fd(),
        }
    }
}

fn modified(dir: &Dir) -> Result<OomWatch> {
    const FILE: &str = "memory.events";
    let watch = || {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        inotify.add_watch(&dir.path().join(FILE), AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_DELETE_SELF)?;
        Ok(OomWatch(Source::Modified(inotify)))
    };
    watch().map_err(|source| dir.error("watch", FILE, source))
}

fn notified(dir: &Dir) -> Result<OomWatch> {
    const FILE: &str = "memory.oom_control";
    let watch = || {
        let eventfd = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let control = dir.open_file(FILE)?;
        dir.write("cgroup.event_control", &format!("{} {}", eventfd.as_fd().as_raw_fd(), control.as_raw_fd()))?;
        Ok(OomWatch(Source::Notified(eventfd, control)))
    };
    watch().map_err(|source| dir.error("watch", FILE, source))
}
