//! A process about itself: prctl(2), signals, identity, its end; and what /proc tells of another one.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd as _, AsRawFd as _, IntoRawFd as _, OwnedFd};
use std::path::Path;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};

use crate::Result;
use crate::raw::check;

/// Ends the process at once: no destructor, no `atexit` handler, nothing flushed.
pub fn exit_now(code: u8) -> ! {
    // SAFETY: _exit does not return and runs nothing of this process.
    unsafe { libc::_exit(code.into()) }
}

/// Whether the calling process has exactly one thread.
///
/// # Errors
/// When /proc is not mounted.
pub fn is_single_threaded() -> Result<bool> {
    // `.`, `..` and one directory per thread: the link count tells it in one call.
    Ok(nix::sys::stat::stat("/proc/self/task")?.st_nlink == 3)
}

/// Whether others of the same user may look into this process (`PR_SET_DUMPABLE`). Exec resets it.
///
/// # Errors
/// None that a valid call could give.
pub fn set_dumpable(dumpable: bool) -> Result<()> {
    prctl(libc::PR_SET_DUMPABLE, dumpable.into())
}

/// Orphaned descendants become children of this process (`PR_SET_CHILD_SUBREAPER`).
///
/// # Errors
/// None that a valid call could give.
pub fn set_child_subreaper(on: bool) -> Result<()> {
    prctl(libc::PR_SET_CHILD_SUBREAPER, on.into())
}

/// The signal that this process gets when its parent's *thread* ends; 0 for none. Changing ids clears it.
///
/// # Errors
/// `EINVAL` for no such signal.
pub fn set_parent_death_signal(signal: i32) -> Result<()> {
    prctl(libc::PR_SET_PDEATHSIG, u64::from(signal.unsigned_abs()))
}

/// No exec can gain privileges any more (`PR_SET_NO_NEW_PRIVS`); can't be undone.
///
/// # Errors
/// None that a valid call could give.
pub fn set_no_new_privs() -> Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

/// The name that ps shows, at most 15 bytes of it.
///
/// # Errors
/// None that a valid call could give.
pub fn set_name(name: &str) -> Result<()> {
    let mut bytes = [0_u8; 16];
    let len = name.len().min(15);
    bytes[..len].copy_from_slice(&name.as_bytes()[..len]);
    // SAFETY: the kernel reads up to 16 bytes from a buffer of that size, which ends with a NUL.
    check(unsafe { libc::prctl(libc::PR_SET_NAME, bytes.as_ptr(), 0, 0, 0) }.into()).map(drop)
}

/// Sets the NIS domain name of the uts namespace.
///
/// # Errors
/// `EPERM`, `EINVAL` when it is longer than 64 bytes.
pub fn set_domain_name(name: &str) -> Result<()> {
    // SAFETY: the kernel reads as many bytes as it is told.
    check(unsafe { libc::setdomainname(name.as_ptr().cast(), name.len()) }.into()).map(drop)
}

/// Every signal back to its default action, ignored ones as well (std ignores SIGPIPE, and a caller may have left more).
pub fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL is a valid disposition for every signal. SIGKILL, SIGSTOP and the two that glibc reserves are
        // refused, which is as good.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
}

/// Blocks every signal.
///
/// # Errors
/// None that a valid call could give.
pub fn block_signals() -> Result<()> {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), None)
}

/// Does what the standard library does before `main`, as far as a program of ours needs it: nothing that it opens later is
/// its 0, 1 or 2, and writing to somebody who has gone is an error. For a program that has no other `main` than C's.
pub fn begin() {
    use nix::fcntl::{OFlag, open};
    let mut polled = crate::fd::standard().map(|fd| PollFd::new(fd, PollFlags::empty()));
    poll(&mut polled, PollTimeout::ZERO).ok();
    for fd in polled.iter().filter(|fd| fd.revents().is_some_and(|seen| seen.contains(PollFlags::POLLNVAL))) {
        // The lowest number that is free is this one.
        match open("/dev/null", OFlag::O_RDWR, nix::sys::stat::Mode::empty()) {
            Ok(null) => {
                let number = null.into_raw_fd();
                debug_assert_eq!(number, fd.as_fd().as_raw_fd());
            }
            Err(_) => std::process::abort(),
        }
    }
    // SAFETY: no handler is installed, so nothing can run at a bad moment.
    unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) }.ok();
}

/// Unblocks every signal.
///
/// # Errors
/// None that a valid call could give.
pub fn unblock_signals() -> Result<()> {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}

/// What one line of /proc/PID/stat tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// `R`, `S`, `D`, `T`, `Z`, `X`, …
    pub state: char,
    /// Parent's pid.
    pub ppid: i32,
    /// Whether it has executed a program, and is not a mere fork of its parent.
    pub has_executed: bool,
    /// Clock ticks since boot at which it started.
    pub start_time: u64,
}

impl Stat {
    /// A zombie, or on its way there: nothing of it runs any more.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        matches!(self.state, 'Z' | 'X' | 'x')
    }

    fn parse(line: &str) -> Option<Self> {
        // The name is in parentheses and may itself contain any of these characters: the last `)` ends it.
        let rest = line.get(line.rfind(')')? + 2..)?;
        let mut fields = rest.split(' ');
        let state = fields.next()?.chars().next()?;
        let ppid = fields.next()?.parse().ok()?;
        let flags: u64 = fields.nth(4)?.parse().ok()?;
        let start_time = fields.nth(12)?.parse().ok()?;
        Some(Self { state, ppid, has_executed: flags & PF_FORKNOEXEC == 0, start_time })
    }
}

/// What ps(1) shows as flag 1. The kernel takes it away at exec, before it closes the descriptors.
const PF_FORKNOEXEC: u64 = 0x40;

/// Reads /proc/PID/stat of the mounted /proc; `None` when there is no such process.
#[must_use]
pub fn stat(pid: i32) -> Option<Stat> {
    // A process gives itself a name of any bytes.
    Stat::parse(&String::from_utf8_lossy(&read_proc_bytes(format!("/proc/{pid}/stat")).ok()?))
}

/// Whether this process is in the user namespace that the kernel started with: only there ids map to themselves over all
/// of their range. `None` where /proc does not tell.
#[must_use]
pub fn in_first_user_namespace() -> Option<bool> {
    let map = read_proc("/proc/self/uid_map").ok()?;
    Some(map.split_whitespace().eq(["0", "0", "4294967295"]))
}

/// Reads a small file of the mounted /proc, which has no size to ask for: as a rule in two calls of read(2).
///
/// # Errors
/// Those of open(2) and read(2), and for what is not UTF-8.
pub fn read_proc(path: impl AsRef<Path>) -> std::io::Result<String> {
    let invalid = |_bytes| std::io::Error::from(std::io::ErrorKind::InvalidData);
    String::from_utf8(read_proc_bytes(path)?).map_err(invalid)
}

/// As [`read_proc`], for a file that has what a process has named as it likes.
///
/// # Errors
/// Those of open(2) and read(2).
pub fn read_proc_bytes(path: impl AsRef<Path>) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(4096);
    // Limited by nothing, but so std does not ask for the size, nor begin with a few bytes.
    File::open(path)?.take(u64::MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A signalfd for all signals but those that can't be blocked. They have to be blocked ([`block_signals`]).
///
/// # Errors
/// `EMFILE`, `ENFILE`.
pub fn signal_fd() -> Result<nix::sys::signalfd::SignalFd> {
    use nix::sys::signalfd::{SfdFlags, SignalFd};
    SignalFd::with_flags(&SigSet::all(), SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
}

/// The executable of this process, as a handle to read (`O_PATH`).
///
/// # Errors
/// When /proc is not mounted.
pub fn executable() -> Result<OwnedFd> {
    use nix::fcntl::{OFlag, open};
    open("/proc/self/exe", OFlag::O_PATH | OFlag::O_CLOEXEC, nix::sys::stat::Mode::empty())
}

fn prctl(option: libc::c_int, value: u64) -> Result<()> {
    // SAFETY: the options used in this file take integers only, and unused arguments are 0 as they have to be.
    check(unsafe { libc::prctl(option, value, 0, 0, 0) }.into()).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_lines() {
        let line = "7 (a) b (c) S 3 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 1 2";
        assert_eq!(Stat::parse(line), Some(Stat { state: 'S', ppid: 3, has_executed: true, start_time: 987_654 }));
        assert_eq!(Stat::parse("7 (x"), None);
        // Cut anywhere, or with something else in any place, it is read or refused.
        for at in 0..line.len() {
            assert!(Stat::parse(&line[..at]).is_none_or(|stat| stat.ppid == 3 && stat.start_time <= 987_654));
            for other in ["", " ", ")", "-", "\u{fffd}", "99999999999999999999"] {
                let changed = [&line[..at], other, &line[at + 1..]].concat();
                assert!(Stat::parse(&changed).is_none_or(|stat| !stat.is_dead()), "{changed}");
            }
        }
        let own = stat(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(own.start_time > 0 && !own.is_dead() && own.has_executed);
    }
}
