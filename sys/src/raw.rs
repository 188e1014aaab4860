//! Turning the results of raw system calls into Rust.

use std::os::fd::{FromRawFd, OwnedFd};

use crate::{Errno, Result};

/// -1 becomes `errno`.
pub(crate) fn check(ret: libc::c_long) -> Result<libc::c_long> {
    if ret == -1 { Err(Errno::last()) } else { Ok(ret) }
}

/// Takes ownership of a descriptor that a system call has just returned.
pub(crate) fn owned(ret: libc::c_long) -> Result<OwnedFd> {
    let fd = check(ret)?;
    let fd = libc::c_int::try_from(fd).or(Err(Errno::EBADF))?;
    // SAFETY: the kernel has just allocated this descriptor for the caller of the system call, so nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
