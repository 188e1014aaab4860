//! Pseudo terminals.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use crate::Result;
use crate::raw::{check, owned};

/// The other end of a pty, opened by the descriptor and not by a path (`TIOCGPTPEER`, Linux 4.13): it can't be another
/// file, whatever is mounted at /dev/pts.
///
/// # Errors
/// `ENOTTY` when `primary` is no pty's primary end, `EIO` when it is still locked.
pub fn peer(primary: BorrowedFd<'_>) -> Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags as an integer.
    owned(unsafe { libc::ioctl(primary.as_raw_fd(), libc::TIOCGPTPEER, flags) }.into())
}

/// Unlocks the other end of a pty.
///
/// # Errors
/// `ENOTTY`.
pub fn unlock(primary: BorrowedFd<'_>) -> Result<()> {
    let zero: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one int.
    check(unsafe { libc::ioctl(primary.as_raw_fd(), libc::TIOCSPTLCK, &raw const zero) }.into()).map(drop)
}

/// Rows and columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    /// Rows.
    pub rows: u16,
    /// Columns.
    pub columns: u16,
}

/// The size of a terminal.
///
/// # Errors
/// `ENOTTY`.
pub fn size(terminal: BorrowedFd<'_>) -> Result<Size> {
    let mut raw = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ fills in one winsize.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut raw) }.into())?;
    Ok(Size { rows: raw.ws_row, columns: raw.ws_col })
}

/// Changes the size of a terminal; its foreground processes get SIGWINCH when it differs.
///
/// # Errors
/// `ENOTTY`.
pub fn set_size(terminal: BorrowedFd<'_>, size: Size) -> Result<()> {
    let raw = libc::winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const raw) }.into()).map(drop)
}

/// Makes the terminal the controlling one of the caller's session, which it must lead.
///
/// # Errors
/// `EPERM` when the caller leads no session, has a terminal already, or the terminal has a session.
pub fn set_controlling(terminal: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: TIOCSCTTY takes an integer.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) }.into()).map(drop)
}
