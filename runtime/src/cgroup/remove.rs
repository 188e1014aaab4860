//! The end of a cgroup.

use std::path::Path;
use std::time::{Duration, Instant};

use dhow_sys::Errno;
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::Cgroup;
use super::dir::Dir;
use super::error::{CgroupError, Result};

/// How long killed processes may take to go. Usually it is microseconds; one that waits for a device takes as long as that.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Removes the cgroup if there is no process in it and nothing below; whether it is gone now.
    pub(crate) fn remove_empty(&self) -> bool {
        // The one by which processes are found goes last: while there are any they can be found.
        let processes = self.process_dir().map(Dir::path);
        let (last, first): (Vec<&Path>, Vec<&Path>) =
            self.members.iter().map(|member| member.dir.path()).partition(|path| Some(*path) == processes);
        first.into_iter().chain(last).all(is_removed)
    }

    /// Removes the cgroup with all below it; kills what still runs in it, and waits a bounded time for that. Removing what is gone
    /// already succeeds. What the container's cgroup lies in stays.
    ///
    /// # Errors
    /// It is still in use when the time is over; what the kernel says. Goes on past errors and returns the first.
    pub fn remove(&self) -> Result<()> {
        // As good as always the processes are gone and nothing lies below: one rmdir each.
        let left: Vec<&Dir> =
            self.members.iter().map(|member| &member.dir).filter(|dir| !is_removed(dir.path())).collect();
        if left.is_empty() {
            return Ok(());
        }
        let deadline = Instant::now() + TIMEOUT;
        let killed = self.kill_all(libc::SIGKILL).and_then(|()| self.wait_empty(TIMEOUT)).map(drop);
        let removed = left.into_iter().map(|dir| remove_tree(dir.path(), deadline)).fold(Ok(()), Result::and);
        // Why it could not be killed matters only when it could not be removed.
        removed.map_err(|error| killed.err().unwrap_or(error))
    }
}

fn is_removed(path: &Path) -> bool {
    matches!(rmdir(path), Ok(()) | Err(Errno::ENOENT))
}

/// Removes a cgroup and all below it, the lowest first.
fn remove_tree(top: &Path, deadline: Instant) -> Result<()> {
    let mut pause = Duration::from_micros(100);
    loop {
        let removed = prune(top)?;
        match rmdir(top) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::EBUSY) if Instant::now() >= deadline => {
                return Err(CgroupError::Busy { path: top.to_owned(), waited: TIMEOUT });
            }
            Err(Errno::EBUSY) if removed => {}
            Err(Errno::EBUSY) => {
                // The kernel still lets go of the last process; nothing tells when it has.
                std::thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(20));
            }
            Err(source) => return Err(CgroupError::File { verb: "remove", path: top.to_owned(), source }),
        }
    }
}

/// Removes, on one way down, every cgroup that has none below it; whether there was any. Goes by handles: a container can nest
/// cgroups deeper than a path is long.
fn prune(top: &Path) -> Result<bool> {
    let mut removed = false;
    let mut next = match Dir::open(top) {
        Ok(dir) => Some(dir),
        Err(Errno::ENOENT) => None,
        Err(source) => return Err(CgroupError::File { verb: "open", path: top.to_owned(), source }),
    };
    while let Some(dir) = next.take() {
        for name in dir.children().map_err(|source| dir.error("list", "", source))? {
            match unlinkat(&dir, &name, UnlinkatFlags::RemoveDir) {
                Ok(()) => removed = true,
                Err(Errno::EBUSY) => next = dir.child(&name).ok(),
                Err(Errno::ENOENT) => {}
                Err(source) => return Err(dir.error("remove", &name.to_string_lossy(), source)),
            }
        }
    }
    Ok(removed)
}

fn rmdir(path: &Path) -> std::result::Result<(), Errno> {
    std::fs::remove_dir(path).map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}
