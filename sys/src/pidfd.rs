//! Pidfds (Linux 5.3): a process that can't be confused with a later one of the same number.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::raw::{check, owned};
use crate::{Errno, Result};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// It returned this code.
    Code(u8),
    /// It was killed by this signal.
    Signal(i32),
}

impl Exit {
    /// The shell's notation: the code, or 128 + the signal.
    #[must_use]
    pub fn code(self) -> i32 {
        match self {
            Self::Code(code) => i32::from(code),
            Self::Signal(signal) => 128 + signal,
        }
    }

    /// Decodes a wait status word.
    #[must_use]
    pub fn from_wait_status(status: i32) -> Self {
        let signal = status & 0x7f;
        if signal == 0 {
            Self::Code(u8::try_from((status >> 8) & 0xff).unwrap_or(u8::MAX))
        } else {
            Self::Signal(signal)
        }
    }
}

/// Opens the process with this pid (of the caller's pid namespace).
///
/// # Errors
/// `ESRCH` when there is none, `EINVAL` when it is a thread.
pub fn open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers and touches no memory of ours.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })
}

/// Sends a signal.
///
/// # Errors
/// `ESRCH` when the process has ended and was reaped, `EPERM`, `EINVAL` for no such signal.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    let info: *const libc::siginfo_t = std::ptr::null();
    // SAFETY: a null siginfo asks the kernel to fill in what kill(2) would; nothing else is passed by pointer.
    check(unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, info, 0) }).map(drop)
}

/// Duplicates descriptor number `target` of the process (Linux 5.6). Needs the right to ptrace it.
///
/// # Errors
/// `EBADF` when the process has no such descriptor, `EPERM`, `ESRCH`.
pub fn getfd(pidfd: BorrowedFd<'_>, target: i32) -> Result<OwnedFd> {
    // SAFETY: pidfd_getfd takes three integers and touches no memory of ours.
    owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), target, 0) })
}

/// Waits until the process, which may be anybody's, has ended; `false` when `timeout` passed first.
///
/// # Errors
/// `EBADF` when it is no pidfd.
pub fn wait_ended(pidfd: BorrowedFd<'_>, timeout: Option<Duration>) -> Result<bool> {
    let deadline = timeout.map(|t| std::time::Instant::now() + t);
    loop {
        let left = match deadline {
            None => PollTimeout::NONE,
            Some(at) => {
                let left = at.saturating_duration_since(std::time::Instant::now());
                // Rounded up: a poll of 0 ms would spin for the last millisecond.
                PollTimeout::try_from(left.as_nanos().div_ceil(1_000_000)).unwrap_or(PollTimeout::MAX)
            }
        };
        let mut fds = [PollFd::new(pidfd, PollFlags::POLLIN)];
        match poll(&mut fds, left) {
            Ok(0) if deadline.is_none_or(|at| std::time::Instant::now() < at) => {}
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
        }
    }
}

/// Reaps a child of the caller: how it ended, or `None` when `block` is false and it still runs.
///
/// # Errors
/// `ECHILD` when it is no child of the caller or was reaped already.
pub fn reap(pidfd: BorrowedFd<'_>, block: bool) -> Result<Option<Exit>> {
    let flags = libc::WEXITED | if block { 0 } else { libc::WNOHANG };
    loop {
        // SAFETY: siginfo_t is plain data for which zeroes are a valid value.
        let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
        // SAFETY: `info` is a valid siginfo_t that outlives the call.
        let ret = unsafe { libc::waitid(libc::P_PIDFD, pidfd.as_raw_fd().unsigned_abs(), &raw mut info, flags) };
        match check(ret.into()) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        // SAFETY: waitid has filled in the SIGCHLD variant of the union (or left the zeroes).
        let pid = unsafe { info.si_pid() };
        if pid == 0 {
            return Ok(None);
        }
        // SAFETY: as above.
        let status = unsafe { info.si_status() };
        return Ok(Some(match info.si_code {
            libc::CLD_EXITED => Exit::Code(u8::try_from(status & 0xff).unwrap_or(u8::MAX)),
            _ => Exit::Signal(status),
        }));
    }
}

/// What the kernel tells of a process through its pidfd (Linux 6.13; the exit status since 6.15).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Info {
    /// Pid in the caller's pid namespace; 0 when the process is gone.
    pub pid: i32,
    /// Parent's pid in the caller's pid namespace.
    pub ppid: i32,
    /// How it ended: known once somebody has reaped it, for as long as this pidfd is open.
    pub exit: Option<Exit>,
}

/// The kernel's `struct pidfd_info`, version 0.
#[repr(C)]
#[derive(Default)]
struct RawInfo {
    mask: u64,
    cgroupid: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    ids: [u32; 8],
    exit_code: i32,
}

const INFO_PID: u64 = 1 << 0;
const INFO_EXIT: u64 = 1 << 3;
/// `_IOWR(0xFF, 11, struct pidfd_info)`.
const PIDFD_GET_INFO: libc::c_ulong = 0xC000_FF0B | (size_of::<RawInfo>() as libc::c_ulong) << 16;

/// Asks the kernel about the process, whether it is a child of the caller or not.
///
/// # Errors
/// `ESRCH` when the process was reaped and the kernel can't tell its exit status (before 6.15, or the pidfd was opened
/// too late), `ENOTTY` or `EINVAL` before 6.13.
pub fn info(pidfd: BorrowedFd<'_>) -> Result<Info> {
    let mut raw = RawInfo { mask: INFO_PID | INFO_EXIT, ..RawInfo::default() };
    // SAFETY: the request number carries the size of RawInfo, which is what the kernel reads and writes.
    check(unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO, &raw mut raw) }.into())?;
    let known = raw.mask & INFO_PID != 0;
    let number = |n: u32| if known { i32::try_from(n).unwrap_or_default() } else { 0 };
    let exit = (raw.mask & INFO_EXIT != 0).then(|| Exit::from_wait_status(raw.exit_code));
    Ok(Info { pid: number(raw.tgid), ppid: number(raw.ppid), exit })
}

/// A process by number, as soon as it is certain that the number is still that process.
///
/// Opens a pidfd for `pid` and then compares its start time: after the check the descriptor can't refer to another one.
/// `None`: there is no such process, or another one has the number, or it is a zombie.
///
/// # Errors
/// What opening it gives, other than `ESRCH`.
pub fn open_checked(pid: i32, start_time: u64) -> Result<Option<OwnedFd>> {
    let pidfd = match open(pid) {
        Ok(fd) => fd,
        Err(Errno::ESRCH | Errno::EINVAL) => return Ok(None),
        Err(e) => return Err(e),
    };
    let Some(stat) = crate::process::stat(pid) else { return Ok(None) };
    Ok((stat.start_time == start_time && !stat.is_dead() && send_signal(pidfd.as_fd(), 0) != Err(Errno::ESRCH))
        .then_some(pidfd))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statuses() {
        assert_eq!(Exit::from_wait_status(0), Exit::Code(0));
        assert_eq!(Exit::from_wait_status(3 << 8), Exit::Code(3));
        assert_eq!(Exit::from_wait_status(9), Exit::Signal(9));
        assert_eq!(Exit::from_wait_status(0x86), Exit::Signal(6));
        assert_eq!(Exit::Signal(15).code(), 143);
        assert_eq!(size_of::<RawInfo>(), 64);
    }

    #[test]
    #[expect(clippy::zombie_processes, reason = "it is reaped by its pidfd")]
    fn exit_is_known_after_the_reaping() {
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "read x; exit 7"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let fd = open(pid).unwrap();
        assert_eq!(info(fd.as_fd()).unwrap().pid, pid);
        assert_eq!(reap(fd.as_fd(), false).unwrap(), None);
        assert!(!wait_ended(fd.as_fd(), Some(Duration::ZERO)).unwrap());
        drop(child.stdin.take());
        assert!(wait_ended(fd.as_fd(), None).unwrap());
        assert_eq!(reap(fd.as_fd(), true).unwrap(), Some(Exit::Code(7)));
        assert_eq!(reap(fd.as_fd(), true), Err(Errno::ECHILD));
        assert_eq!(info(fd.as_fd()).unwrap().exit, Some(Exit::Code(7)));
        assert_eq!(send_signal(fd.as_fd(), 0), Err(Errno::ESRCH));
    }

    #[test]
    fn start_time_tells_processes_apart() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let start = crate::process::stat(pid).unwrap().start_time;
        assert!(open_checked(pid, start).unwrap().is_some());
        assert!(open_checked(pid, start + 1).unwrap().is_none());
    }
}
