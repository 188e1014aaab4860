//! What the runtime and the process it has cloned tell each other.
//!
//! ```text
//!  runtime                                  the container's process
//!     │  clone3                                │
//!     │◀─────────────────────── Born{pid} ────│  from a helper, only when a user namespace is joined
//!     │◀───────────────────────── Unshared ────│  only with a new user or time namespace
//!     │── Mapped ─────────────────────────────▶│  its ids are mapped, its clocks set
//!     │── Attached{pid} ──────────────────────▶│  it is in its cgroup, the limits hold; read when it first matters
//!     │◀───────── MapMount{index} (+ fd) ──────│  only for an id-mapped mount whose source is the container's own
//!     │── MountMapped ────────────────────────▶│
//!     │◀──────────────────────── RootReady ────│  only with hooks
//!     │── HooksDone ──────────────────────────▶│
//!     │◀──────────────────── Console (+ fd) ───│  only with a terminal
//!     │◀──────────────────────────── Ready ────│  init: everything is set up
//!     │── Recorded ───────────────────────────▶│  the state names it: it may outlive the runtime, and waits on start.sock
//!     │── Start ──────────────────────────────▶│  in place of that when its creator holds it: then there is no start.sock
//!     │                                        │
//!  start                                       │  another process, a connection to start.sock
//!     │◀───────────────────────── Accepted ────│
//!     │◀────────────────── end of stream ──────│  the program is executed (the descriptor is close-on-exec)
//! ```
//!
//! At any point the process may send `Failed` instead; then it ends. exec has no `Ready`: end of stream on the first
//! socket is its success. One datagram per message; descriptors travel with it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use dhow_sys::{Errno, fd};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::error::{Kind, errno_text};

/// A message, in either direction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Message {
    Unshared,
    Mapped,
    Attached { pid: i32 },
    MapMount { index: u32 },
    MountMapped,
    RootReady,
    HooksDone,
    Console,
    Ready,
    Start,
    Recorded,
    Accepted,
    Born { pid: i32 },
    Failed(Failure),
}

/// Why the container's process could not go on: an error as data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    pub(crate) text: String,
}

impl Failure {
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self { kind: Kind::Internal, text: text.into() }
    }

    /// `what: errno`.
    pub(crate) fn errno(what: impl std::fmt::Display) -> impl FnOnce(Errno) -> Self {
        move |errno| Self::new(format!("{what}: {}", errno_text(errno)))
    }
}

/// Kinds that travel; everything else arrives as internal.
const KINDS: [Kind; 5] =
    [Kind::Internal, Kind::CommandNotFound, Kind::NotExecutable, Kind::InvalidArgument, Kind::FailedPrecondition];

impl Message {
    fn encode(&self) -> Vec<u8> {
        match self {
            Self::Unshared => vec![1],
            Self::Mapped => vec![2],
            Self::Attached { pid } => [&[3][..], &pid.to_ne_bytes()].concat(),
            Self::RootReady => vec![4],
            Self::HooksDone => vec![5],
            Self::Console => vec![6],
            Self::Ready => vec![7],
            Self::Accepted => vec![8],
            Self::Start => vec![11],
            Self::Recorded => vec![12],
            Self::MapMount { index } => [&[13][..], &index.to_ne_bytes()].concat(),
            Self::MountMapped => vec![14],
            Self::Born { pid } => [&[10][..], &pid.to_ne_bytes()].concat(),
            Self::Failed(failure) => {
                let kind = KINDS.iter().position(|k| *k == failure.kind).and_then(|k| u8::try_from(k).ok());
                // A receiver's buffer is finite: an error text that fills pages helps nobody.
                let text = failure.text.as_bytes();
                [&[9, kind.unwrap_or(0)][..], &text[..text.len().min(LONGEST - 2)]].concat()
            }
        }
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        Some(match bytes {
            [1] => Self::Unshared,
            [2] => Self::Mapped,
            [3, pid @ ..] => Self::Attached { pid: i32::from_ne_bytes(pid.try_into().ok()?) },
            [4] => Self::RootReady,
            [5] => Self::HooksDone,
            [6] => Self::Console,
            [7] => Self::Ready,
            [8] => Self::Accepted,
            [11] => Self::Start,
            [12] => Self::Recorded,
            [13, index @ ..] => Self::MapMount { index: u32::from_ne_bytes(index.try_into().ok()?) },
            [14] => Self::MountMapped,
            [10, pid @ ..] => Self::Born { pid: i32::from_ne_bytes(pid.try_into().ok()?) },
            [9, kind, text @ ..] => Self::Failed(Failure {
                kind: *KINDS.get(usize::from(*kind))?,
                text: String::from_utf8_lossy(text).into_owned(),
            }),
            _ => return None,
        })
    }
}

const LONGEST: usize = 4096;

/// One end.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

impl Channel {
    /// Two connected ends.
    pub(crate) fn pair() -> Result<(Self, Self), Errno> {
        let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self(a), Self(b)))
    }

    /// The end of a connection.
    pub(crate) fn from_socket(socket: OwnedFd) -> Self {
        Self(socket)
    }

    pub(crate) fn send(&self, message: &Message) -> Result<(), Errno> {
        self.deliver(message, &[])
    }

    pub(crate) fn send_with(&self, message: &Message, descriptor: BorrowedFd<'_>) -> Result<(), Errno> {
        self.deliver(message, &[descriptor])
    }

    fn deliver(&self, message: &Message, descriptors: &[BorrowedFd<'_>]) -> Result<(), Errno> {
        match fd::send(self.0.as_fd(), &message.encode(), descriptors) {
            // The other side is gone; why it went is still to be read.
            Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
            other => other,
        }
    }

    /// The next message; `None` at the end of the stream.
    pub(crate) fn receive(&self) -> Result<Option<(Message, Option<OwnedFd>)>, Errno> {
        let mut buffer = [0; LONGEST];
        let (n, mut fds) = match fd::receive(self.0.as_fd(), &mut buffer) {
            // The other side has gone with something of ours unread, which is told once and before what it had sent.
            Err(Errno::ECONNRESET) => fd::receive(self.0.as_fd(), &mut buffer)?,
            other => other?,
        };
        if n == 0 {
            return Ok(None);
        }
        let message = Message::decode(&buffer[..n]).ok_or(Errno::EBADMSG)?;
        Ok(Some((message, fds.pop())))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_message_survives_the_wire() {
        let (a, b) = Channel::pair().unwrap();
        let failed = Failure { kind: Kind::NotExecutable, text: "exec: permission denied".into() };
        for message in [
            Message::Unshared,
            Message::Mapped,
            Message::Attached { pid: 4711 },
            Message::RootReady,
            Message::HooksDone,
            Message::Console,
            Message::Ready,
            Message::Recorded,
            Message::Start,
            Message::Accepted,
            Message::Born { pid: 4712 },
            Message::Failed(failed),
        ] {
            a.send(&message).unwrap();
            assert_eq!(b.receive().unwrap().unwrap().0, message);
        }
        a.send(&Message::Failed(Failure::new("x".repeat(100_000)))).unwrap();
        assert!(matches!(b.receive().unwrap().unwrap().0, Message::Failed(_)));
        // What was sent before the end arrives, also when the sender left something unread.
        b.send(&Message::Mapped).unwrap();
        a.send(&Message::Ready).unwrap();
        drop(a);
        assert_eq!(b.receive().unwrap().unwrap().0, Message::Ready);
        b.send(&Message::Mapped).unwrap();
        assert!(b.receive().unwrap().is_none());
        for kind in 0..=u8::MAX {
            for length in 0..8 {
                let bytes = [&[kind][..], &vec![0xff; length]].concat();
                let known = Message::decode(&bytes);
                assert!(known.is_none_or(|message| message.encode() == bytes || kind == 9), "{bytes:?}");
            }
        }
        assert_eq!(Message::decode(&[77]), None);
        assert_eq!(Message::decode(&[3, 1]), None);
    }
}
