//! Taking over a listening socket that the parent left behind (`LISTEN_FDS`, sd_listen_fds(3)).
//!
//! The protocol numbers inherited descriptors from 3 up. Such a descriptor is open, but nothing in the program owns it:
//! this file turns it into an [`OwnedFd`], at most once in the life of the process.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Errno;

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
pub fn take() -> crate::Result<Option<OwnedFd>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let announced = std::env::var("LISTEN_FDS").ok().and_then(|n| n.parse::<u32>().ok()).unwrap_or(0);
    let ours = std::env::var("LISTEN_PID").map_or(true, |pid| pid == std::process::id().to_string());
    if announced == 0 || !ours || TAKEN.swap(true, Ordering::SeqCst) {
        return Ok(None);
    }
    crate::fd::take_inherited(FIRST).map(Some).ok_or(Errno::EBADF)
}
