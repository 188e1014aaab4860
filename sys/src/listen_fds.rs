//! Taking over a listening socket that the parent left behind (`LISTEN_FDS`, sd_listen_fds(3)).
//!
//! The protocol numbers inherited descriptors from 3 up. Such a descriptor is open, but nothing in the program owns it:
//! this file turns it into an [`OwnedFd`], at most once in the life of the process.

use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// Number of the first passed descriptor.
pub const FIRST: i32 = 3;

/// Takes the one socket that `LISTEN_FDS` announces, close-on-exec from now on.
///
/// `None` when none was passed, when `LISTEN_PID` names another process, or when it was taken before. More than one
/// descriptor is not expected by any part of dhow; the others are left alone.
///
/// # Errors
///
/// `EBADF` when the environment announces a descriptor that is not open.
pub fn take() -> nix::Result<Option<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let announced = std::env::var("LISTEN_FDS").ok().and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
    let ours = std::env::var("LISTEN_PID").map_or(true, |pid| pid == std::process::id().to_string());
    if announced == 0 || !ours || TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(None);
    }
    // SAFETY: the environment says that the parent left this descriptor for us. Nothing in this program can own it:
    // whatever std or a library opens gets another number as 3 is in use since before main, and TAKEN lets exactly one
    // caller come here. When the environment lies, fcntl below says EBADF and the value is forgotten unused.
    let fd = unsafe { OwnedFd::from_raw_fd(FIRST) };
    if let Err(error) = fcntl(&fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)) {
        std::mem::forget(fd);
        return Err(error);
    }
    Ok(Some(fd))
}
