//! The processes of a cgroup: moving them in, stopping, signalling and counting them.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, Instant};

use dhow_sys::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::dir::Dir;
use super::error::{CgroupError, Result};
use super::{Cgroup, FreezerState};

/// How long processes may take to stand still. One that is in an uninterruptible wait (a dead NFS server) can take for ever.
const FREEZE_TIMEOUT: Duration = Duration::from_secs(10);

impl Cgroup {
    /// Moves a process into the cgroup, in all hierarchies back to back. The first write costs milliseconds, as the kernel waits
    /// for a grace period, and the others close to nothing: call it once, right after clone, while the child does other work.
    /// The child must not unshare its cgroup namespace or exec before this is done.
    ///
    /// # Errors
    /// What the kernel says; `ESRCH` when the process is gone.
    pub fn attach(&self, pid: i32) -> Result<()> {
        for member in &self.members {
            member.dir.write("cgroup.procs", &pid.to_string()).map_err(|source| CgroupError::Attach {
                pid,
                path: member.dir.path().to_owned(),
                source,
            })?;
        }
        Ok(())
    }

    /// The processes in the cgroup and below, in ascending order, as the caller's pid namespace numbers them.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let Some(dir) = self.process_dir() else { return Ok(Vec::new()) };
        let mut pids = BTreeSet::new();
        for_each_below(dir, &mut |dir| {
            match dir.read("cgroup.procs") {
                // 0 stands for a process that this pid namespace does not have.
                Ok(text) => pids.extend(text.lines().filter_map(|line| line.parse().ok()).filter(|pid: &i32| *pid > 0)),
                // Removed meanwhile; or a threaded cgroup, whose processes are those of the one above.
                Err(Errno::ENODEV | Errno::ENOENT | Errno::EOPNOTSUPP) => {}
                Err(source) => return Err(dir.error("read", "cgroup.procs", source)),
            }
            Ok(())
        })?;
        Ok(pids.into_iter().collect())
    }

    /// Whether there are processes in the cgroup or below, those included that the caller's pid namespace does not have. `None`
    /// where the kernel does not tell: on v1 with no v2 beside it.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn is_populated(&self) -> Result<Option<bool>> {
        match self.unified_dir() {
            Some(unified) => Ok(Some(!wait_for_event(unified, "populated 0", Duration::ZERO)?)),
            // What was made and is gone has no process.
            None => Ok((self.is_none() && !self.paths.is_empty()).then_some(false)),
        }
    }

    /// Stops all processes and returns when they stand still.
    ///
    /// # Errors
    /// They did not stop in time (they run again then); what the kernel says.
    pub fn freeze(&self) -> Result<()> {
        let thaw = ThawOnDrop(Some(self));
        if self.is_v2() {
            let dir = self.freezer_dir()?;
            dir.write_file("cgroup.freeze", "1")?;
            if !wait_for_event(dir, "frozen 1", FREEZE_TIMEOUT)? {
                return Err(CgroupError::NotFrozen { path: dir.path().to_owned(), waited: FREEZE_TIMEOUT });
            }
        } else {
            self.freeze_v1()?;
        }
        thaw.disarm();
        Ok(())
    }

    /// Lets the processes run again.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn thaw(&self) -> Result<()> {
        let dir = self.freezer_dir()?;
        if self.is_v2() { dir.write_file("cgroup.freeze", "0") } else { dir.write_file("freezer.state", "THAWED") }
    }

    /// Whether the processes run. Without a freezer they do.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn freezer_state(&self) -> Result<FreezerState> {
        let Ok(dir) = self.freezer_dir() else { return Ok(FreezerState::Thawed) };
        let (file, thawed) = if self.is_v2() { ("cgroup.freeze", "0") } else { ("freezer.state", "THAWED") };
        match dir.read(file) {
            Ok(state) if state.trim() == thawed => Ok(FreezerState::Thawed),
            Ok(_) => Ok(FreezerState::Frozen),
            // Its last process has gone and somebody removed it.
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(FreezerState::Thawed),
            Err(source) => Err(dir.error("read", file, source)),
        }
    }

    /// Sends a signal to every process in the cgroup and below. SIGKILL reaches also those that are just being forked. No cgroup,
    /// no process: nothing happens.
    ///
    /// # Errors
    /// What the kernel says other than that a process is gone.
    pub fn kill_all(&self, signal: i32) -> Result<()> {
        if signal != libc::SIGKILL {
            return self.signal_each(signal);
        }
        // On v1 this is the v2 hierarchy that most machines have beside it, into which processes are attached as well.
        if let Some(unified) = self.unified_dir() {
            match unified.write("cgroup.kill", "1") {
                Ok(()) => {
                    // A frozen cgroup of v1 holds even those that are to die.
                    if !self.is_v2() && self.freezer_state()? == FreezerState::Frozen {
                        self.thaw()?;
                    }
                    return if self.is_v2() { Ok(()) } else { self.signal_each(signal) };
                }
                // Linux before 5.14; or gone.
                Err(Errno::ENOENT | Errno::ENODEV) => {}
                Err(source) => return Err(unified.error("write", "cgroup.kill", source)),
            }
        }
        // Standing still, none can fork faster than they are listed. If they don't, most of them will be hit.
        let frozen = ThawOnDrop(Some(self));
        self.freeze().ok();
        let result = self.signal_each(signal);
        drop(frozen);
        result
    }

    /// Waits until no process is left; `false` when there still are some after the time.
    pub(super) fn wait_empty(&self, timeout: Duration) -> Result<bool> {
        if let Some(unified) = self.unified_dir() {
            return wait_for_event(unified, "populated 0", timeout);
        }
        // v1 alone tells nobody when a cgroup gets empty.
        let deadline = Instant::now() + timeout;
        let mut pause = Duration::from_micros(200);
        while !self.pids()?.is_empty() {
            if Instant::now() >= deadline {
                return Ok(false);
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(20));
        }
        Ok(true)
    }

    fn signal_each(&self, signal: i32) -> Result<()> {
        let error = |pid, source| CgroupError::Signal { pid, signal, source };
        let name = Signal::try_from(signal);
        for pid in self.pids()? {
            let sent = match name {
                Ok(name) => kill(Pid::from_raw(pid), name),
                // Real-time signals have no name in nix, but pidfds take any number.
                Err(_) => {
                    dhow_sys::pidfd::open(pid).and_then(|pidfd| dhow_sys::pidfd::send_signal(pidfd.as_fd(), signal))
                }
            };
            match sent {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(source) => return Err(error(pid, source)),
            }
        }
        Ok(())
    }

    fn freeze_v1(&self) -> Result<()> {
        let dir = self.freezer_dir()?;
        let deadline = Instant::now() + FREEZE_TIMEOUT;
        let mut pause = Duration::from_micros(20);
        loop {
            // Written each time: a process that was forked meanwhile is only then included (kernel: freezer-subsystem.rst).
            dir.write_file("freezer.state", "FROZEN")?;
            if dir.read_file("freezer.state")?.trim() == "FROZEN" {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(CgroupError::NotFrozen { path: dir.path().to_owned(), waited: FREEZE_TIMEOUT });
            }
            // v1 tells nobody when it is done.
            std::thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }

    fn freezer_dir(&self) -> Result<&Dir> {
        self.dir("freezer").ok_or(CgroupError::Without { what: "a freezer" })
    }

    /// A hierarchy to list the processes of: all have the same.
    pub(super) fn process_dir(&self) -> Option<&Dir> {
        let preferred = ["pids", "freezer", "memory"].iter().find_map(|controller| self.dir(controller));
        preferred.or(self.members.first().map(|member| &member.dir))
    }
}

/// Thaws when a freeze fails half-way: a container is never left standing still by accident.
struct ThawOnDrop<'a>(Option<&'a Cgroup>);

impl ThawOnDrop<'_> {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for ThawOnDrop<'_> {
    fn drop(&mut self) {
        if let Some(cgroup) = self.0 {
            cgroup.thaw().ok();
        }
    }
}

/// Calls `visit` for a cgroup and all below it, those above before those below.
fn for_each_below(dir: &Dir, visit: &mut impl FnMut(&Dir) -> Result<()>) -> Result<()> {
    visit(dir)?;
    let children = |dir: &Dir| dir.children().map_err(|source| dir.error("list", "", source));
    let mut pending: Vec<(Option<Rc<Dir>>, PathBuf)> = children(dir)?.into_iter().map(|name| (None, name)).collect();
    // Each from the one above it: a container can nest them deeper than a path is long.
    while let Some((above, name)) = pending.pop() {
        let above = above.as_deref().unwrap_or(dir);
        let child = match above.child(&name) {
            Ok(child) => Rc::new(child),
            Err(Errno::ENOENT) => continue,
            Err(source) => return Err(above.error("open", &name.to_string_lossy(), source)),
        };
        visit(&child)?;
        pending.extend(children(&child)?.into_iter().map(|name| (Some(Rc::clone(&child)), name)));
    }
    Ok(())
}

/// Waits until cgroup.events has this line; `false` when the time is over first. A cgroup that is gone has no process.
fn wait_for_event(dir: &Dir, line: &str, timeout: Duration) -> Result<bool> {
    const FILE: &str = "cgroup.events";
    let file = match dir.open_file(FILE) {
        Ok(file) => file,
        Err(Errno::ENOENT | Errno::ENODEV) => return Ok(true),
        Err(source) => return Err(dir.error("open", FILE, source)),
    };
    let deadline = Instant::now() + timeout;
    loop {
        let mut buffer = [0; 256];
        let read = match nix::sys::uio::pread(&file, &mut buffer, 0) {
            Ok(read) => read,
            Err(Errno::ENODEV) => return Ok(true),
            Err(source) => return Err(dir.error("read", FILE, source)),
        };
        if buffer[..read].split(|byte| *byte == b'\n').any(|found| found == line.as_bytes()) {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLPRI)];
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(source) => return Err(dir.error("poll", FILE, source)),
        }
    }
}
