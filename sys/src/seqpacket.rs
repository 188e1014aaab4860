//! Unix sockets that keep messages apart (SOCK_SEQPACKET), found by name in a directory that is given as a descriptor:
//! so the length of the path does not matter, which a socket address limits to 107 bytes.

use std::ffi::OsStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen as start, socket};

use crate::raw::owned;
use crate::{Errno, Result};

/// Makes the socket `name` in `dir` and listens on it. Its mode follows the umask.
///
/// # Errors
/// `EADDRINUSE` when the name is taken.
pub fn listen(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd> {
    let socket = new()?;
    bind(socket.as_raw_fd(), &address(dir, name)?)?;
    start(&socket, Backlog::new(8)?)?;
    Ok(socket)
}

/// Connects to the socket `name` in `dir`.
///
/// # Errors
/// `ENOENT` when there is none, `ECONNREFUSED` when nobody listens.
pub fn connect(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd> {
    let socket = new()?;
    let address = address(dir, name)?;
    loop {
        match nix::sys::socket::connect(socket.as_raw_fd(), &address) {
            Err(Errno::EINTR) => {}
            other => return other.map(|()| socket),
        }
    }
}

/// Takes a connection.
///
/// # Errors
/// accept4(2)'s.
pub fn accept(listener: BorrowedFd<'_>) -> Result<OwnedFd> {
    let none = std::ptr::null_mut();
    // SAFETY: null pointers ask for no address of the peer.
    owned(unsafe { libc::accept4(listener.as_raw_fd(), none, std::ptr::null_mut(), libc::SOCK_CLOEXEC) }.into())
}

fn new() -> Result<OwnedFd> {
    socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)
}

fn address(dir: BorrowedFd<'_>, name: &OsStr) -> Result<UnixAddr> {
    UnixAddr::new(&PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd())).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn works_in_deep_directories() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(200));
        std::fs::create_dir(&deep).unwrap();
        let handle = std::fs::File::open(&deep).unwrap();
        let name = OsStr::new("s.sock");
        assert_eq!(connect(handle.as_fd(), name).unwrap_err(), Errno::ENOENT);
        let listener = listen(handle.as_fd(), name).unwrap();
        let a = connect(handle.as_fd(), name).unwrap();
        let b = accept(listener.as_fd()).unwrap();
        crate::fd::send(a.as_fd(), b"hello", &[]).unwrap();
        let mut buffer = [0; 16];
        assert_eq!(crate::fd::receive(b.as_fd(), &mut buffer).unwrap().0, 5);
        drop(listener);
        assert_eq!(connect(handle.as_fd(), name).unwrap_err(), Errno::ECONNREFUSED);
    }
}
