//! Descriptors in bulk: closing ranges, inheriting on purpose, sealing bytes, sending them to another process.

use std::io::{IoSlice, IoSliceMut, Write};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::fcntl::{FcntlArg, FdFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use crate::clone::InChild;
use crate::raw::check;
use crate::{Errno, Result};

/// This process's 0, 1 and 2, without the buffers and locks of the standard library's streams. A call on one that is not open fails.
#[must_use]
pub fn standard() -> [BorrowedFd<'static>; 3] {
    // SAFETY: nobody in this workspace owns or closes these numbers.
    [0, 1, 2].map(|fd| unsafe { BorrowedFd::borrow_raw(fd) })
}

const CLOSE_RANGE_CLOEXEC: libc::c_uint = 1 << 2;

/// Marks every descriptor from `first` on close-on-exec (Linux 5.11).
///
/// # Errors
/// `EINVAL` when the kernel is too old.
pub fn cloexec_from(first: u32) -> Result<()> {
    // SAFETY: with CLOSE_RANGE_CLOEXEC nothing is closed, so no owner of a descriptor is affected.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, CLOSE_RANGE_CLOEXEC) }).map(drop)
}

/// Closes every descriptor from 3 on that `keep` does not name, for a process that has just been cloned.
///
/// A clone has copies of all descriptors of its parent, also of those that belong to others. What the child itself still
/// uses has to be named.
///
/// # Errors
/// `ENOSYS` before Linux 5.9.
pub fn keep_only(_: &InChild, keep: &mut [RawFd]) -> Result<()> {
    keep.sort_unstable();
    let mut first = 3;
    for &fd in keep.iter() {
        let Ok(fd) = u32::try_from(fd) else { continue };
        if fd > first {
            close_range(first, fd - 1)?;
        }
        first = first.max(fd + 1);
    }
    close_range(first, libc::c_uint::MAX)
}

fn close_range(first: u32, last: u32) -> Result<()> {
    // SAFETY: the contract of `keep_only`, the only caller: the owners of these numbers are frames of the parent process
    // that this copy of it never returns to.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) }).map(drop)
}

/// Lets a descriptor survive exec.
///
/// # Errors
/// `EBADF`.
pub fn clear_cloexec(fd: BorrowedFd<'_>) -> Result<()> {
    fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())).map(drop)
}

/// Lets the descriptor number `fd`, which was inherited from the parent's caller, survive exec.
///
/// # Errors
/// `EBADF` when it is not open.
pub fn inherit(_: &InChild, fd: RawFd) -> Result<()> {
    // SAFETY: F_SETFD changes only the flag; a number that is not open gives EBADF.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, 0) }.into()).map(drop)
}

/// Whether the number is an open descriptor of this process.
#[must_use]
pub fn is_open(fd: RawFd) -> bool {
    // SAFETY: F_GETFD only looks; a number that is not open gives EBADF.
    fd >= 0 && unsafe { libc::fcntl(fd, libc::F_GETFD) } != -1
}

/// Takes a descriptor that this process has inherited under a known number, e.g. 3 with LISTEN_FDS.
///
/// It becomes close-on-exec. `None` when the number is not open or below 3. The caller must be the only one who takes
/// that number, and do so before anything else could have opened a descriptor with it: at the start of `main`.
#[must_use]
pub fn take_inherited(fd: RawFd) -> Option<OwnedFd> {
    if fd < 3 || !is_open(fd) {
        return None;
    }
    // SAFETY: the number is open, and by the contract above nothing in this process owns it yet.
    let owned = unsafe { OwnedFd::from_raw_fd(fd) };
    fcntl(&owned, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).ok()?;
    Some(owned)
}

/// Makes `fd` the descriptor number `target` as well, inherited over exec, in a process that has just been cloned: what
/// was `target` is closed, so no frame may still own it (see [`keep_only`]).
///
/// # Errors
/// `EBADF`, `EBUSY`.
pub fn place(_: &InChild, fd: BorrowedFd<'_>, target: RawFd) -> Result<()> {
    if fd.as_raw_fd() == target {
        return clear_cloexec(fd);
    }
    // SAFETY: the contract above: the former owner of `target`, if any, is a frame that this process never returns to.
    check(unsafe { libc::dup3(fd.as_raw_fd(), target, 0) }.into()).map(drop)
}

/// Another descriptor for the same, with the lowest number from `first` on that is free; close-on-exec.
///
/// # Errors
/// `EMFILE`, `EINVAL` when the number is beyond the limit.
pub fn lift(fd: BorrowedFd<'_>, first: RawFd) -> Result<OwnedFd> {
    let number = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(first))?;
    // SAFETY: fcntl has just made this descriptor; nobody else knows the number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Anonymous memory with `bytes`, which nobody can change any more.
///
/// # Errors
/// memfd_create(2)'s and write(2)'s.
pub fn sealed(name: &str, bytes: &[u8]) -> Result<OwnedFd> {
    let fd = memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
    let mut file = std::fs::File::from(fd);
    let written = file.write_all(bytes).and_then(|()| std::io::Seek::rewind(&mut file));
    written.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
    let seals = SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file.into())
}

/// Sends one message with descriptors over a unix socket. `bytes` must not be empty.
///
/// # Errors
/// sendmsg(2)'s; no SIGPIPE is raised.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None) {
            Err(Errno::EINTR) => {}
            other => return other.map(drop),
        }
    }
}

/// Receives one message with up to four descriptors, which are close-on-exec. No bytes: the other side is gone.
///
/// # Errors
/// recvmsg(2)'s; `EMSGSIZE` when a message did not fit `buffer` or had more descriptors.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>)> {
    let mut space = nix::cmsg_space!([RawFd; 4]);
    loop {
        let mut slices = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = match recvmsg::<()>(socket.as_raw_fd(), &mut slices, Some(&mut space), flags) {
            Err(Errno::EINTR) => continue,
            other => other?,
        };
        let mut fds = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = control {
                // SAFETY: the kernel has just installed these descriptors for this call; nobody else knows the numbers.
                fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        if message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC) {
            return Err(Errno::EMSGSIZE);
        }
        return Ok((message.bytes, fds));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use std::io::Read;
    use std::os::fd::AsFd;

    #[test]
    fn messages_carry_descriptors() {
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let memory = sealed("test", b"content").unwrap();
        send(a.as_fd(), b"x", &[memory.as_fd(), a.as_fd()]).unwrap();
        let mut buffer = [0; 8];
        let (n, mut fds) = receive(b.as_fd(), &mut buffer).unwrap();
        assert_eq!((&buffer[..n], fds.len()), (&b"x"[..], 2));
        let mut text = String::new();
        std::fs::File::from(fds.remove(0)).read_to_string(&mut text).unwrap();
        assert_eq!(text, "content");
        send(a.as_fd(), b"too long for it", &[]).unwrap();
        assert_eq!(receive(b.as_fd(), &mut buffer).unwrap_err(), Errno::EMSGSIZE);
        drop((a, fds));
        assert_eq!(receive(b.as_fd(), &mut buffer).unwrap().0, 0);
    }

    #[test]
    fn sealed_memory_is_final() {
        let fd = sealed("test", b"abc").unwrap();
        assert_eq!(nix::unistd::write(&fd, b"x"), Err(Errno::EPERM));
        assert_eq!(nix::unistd::ftruncate(&fd, 0), Err(Errno::EPERM));
    }
}
