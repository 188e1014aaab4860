//! The end of a cgroup.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use dhow_sys::Errno;

use super::Cgroup;
use super::dir::Dir;
use super::error::{CgroupError, Result};

/// How long killed processes may take to go. Usually it is microseconds; one that waits for a device takes as long as that.
pub(super) const TIMEOUT: Duration = Duration::from_secs(10);

impl Cgroup {
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
    let error = |verb, path: &Path, source| CgroupError::File { verb, path: path.to_owned(), source };
    let mut all = vec![top.to_owned()];
    let mut next = 0;
    while let Some(path) = all.get(next).cloned() {
        next += 1;
        match Dir::open(&path).and_then(|dir| dir.children()) {
            Ok(children) => all.extend(children.into_iter().map(|name| path.join(name))),
            Err(Errno::ENOENT) => {}
            Err(source) => return Err(error("list", &path, source)),
        }
    }
    all.iter().rev().try_for_each(|path: &PathBuf| {
        let mut pause = Duration::from_micros(100);
        loop {
            match rmdir(path) {
                Ok(()) | Err(Errno::ENOENT) => return Ok(()),
                // The kernel still lets go of the last process; nothing tells when it has.
                Err(Errno::EBUSY) if Instant::now() < deadline => std::thread::sleep(pause),
                Err(Errno::EBUSY) => return Err(CgroupError::Busy { path: path.clone(), waited: TIMEOUT }),
                Err(source) => return Err(error("remove", path, source)),
            }
            pause = (pause * 2).min(Duration::from_millis(20));
        }
    })
}

fn rmdir(path: &Path) -> std::result::Result<(), Errno> {
    std::fs::remove_dir(path).map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}
