//! Netlink sockets: opening one with the options that nix has no names for.
//!
//! Owns the descriptor's creation only; messages are the business of whoever speaks the protocol.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use crate::{Errno, Result};

/// The netlink families dhow speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// Links, addresses and routes (`NETLINK_ROUTE`).
    Route,
    /// nftables and connection tracking (`NETLINK_NETFILTER`).
    Netfilter,
}

/// Opens a blocking, close-on-exec netlink socket in the calling thread's network namespace, where it stays even when
/// the thread moves on.
///
/// Errors carry the kernel's text (`NETLINK_EXT_ACK`) and not the whole request (`NETLINK_CAP_ACK`). A kernel that
/// lacks one of these options is no error.
///
/// # Errors
/// As socket(2).
pub fn open(protocol: Protocol) -> Result<OwnedFd> {
    let number = match protocol {
        Protocol::Route => libc::NETLINK_ROUTE,
        Protocol::Netfilter => libc::NETLINK_NETFILTER,
    };
    // SAFETY: socket takes no pointers; a non-negative result is a new descriptor that nobody else knows.
    let raw = unsafe { libc::socket(libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_CLOEXEC, number) };
    let raw = Errno::result(raw)?;
    // SAFETY: `raw` was returned by socket just now and is owned by nothing else.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
        enable(&socket, option);
    }
    Ok(socket)
}

/// Switches a boolean netlink option on, if the kernel has it.
fn enable(socket: &OwnedFd, option: libc::c_int) {
    let on: libc::c_int = 1;
    // SAFETY: the option's value is `on`, a live local int whose exact size is passed; the kernel only reads it.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            std::ptr::from_ref(&on).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        )
    };
    // An old kernel answers ENOPROTOOPT; the socket works the same, its errors only say less.
    let _unsupported = result;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_both_families() {
        for protocol in [Protocol::Route, Protocol::Netfilter] {
            let socket = open(protocol).unwrap();
            let flags = nix::fcntl::fcntl(&socket, nix::fcntl::FcntlArg::F_GETFD).unwrap();
            assert_eq!(flags & libc::FD_CLOEXEC, libc::FD_CLOEXEC);
        }
    }
}
