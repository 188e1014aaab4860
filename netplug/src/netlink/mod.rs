//! Talking to the kernel over netlink: one blocking socket, several requests per datagram, errors by request.

pub(crate) mod conntrack;
pub(crate) mod link;
pub(crate) mod route;
pub(crate) mod wire;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use dhow_sys::netlink::{Protocol, open};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send, setsockopt, sockopt};

use self::wire::{Header, attribute, messages, read_string, read_u32};
use crate::error::{Error, Result};

/// One request of a datagram.
#[derive(Debug)]
pub(crate) struct Request {
    /// The message's type.
    pub(crate) kind: u16,
    /// `NLM_F_*` beside `NLM_F_REQUEST`, which is set anyway, and `NLM_F_ACK`, which the last request gets.
    pub(crate) flags: u16,
    /// The family header and the attributes.
    pub(crate) payload: Vec<u8>,
    /// The request in words, for errors.
    pub(crate) what: String,
    /// An error code that means that nothing needs doing.
    pub(crate) tolerate: Option<Errno>,
}

/// A netlink socket, which stays in the network namespace where it was opened.
#[derive(Debug)]
pub(crate) struct Socket {
    descriptor: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Socket {
    /// Opens a socket in the calling thread's network namespace.
    pub(crate) fn open(protocol: Protocol) -> Result<Self> {
        let descriptor = open(protocol).map_err(|errno| Error::Socket { operation: "open", source: errno.into() })?;
        Ok(Self { descriptor, sequence: 1, buffer: vec![0; BUFFER] })
    }

    /// Makes room for datagrams of `bytes`, beyond the limit for the unprivileged.
    pub(crate) fn reserve(&self, bytes: usize) -> Result<()> {
        // The kernel counts its own overhead and doubles the figure; below its default nothing has to be done.
        if bytes > DEFAULT_SEND {
            setsockopt(&self.descriptor, sockopt::SndBufForce, &(bytes * 2))
                .map_err(|errno| Error::Socket { operation: "enlarge the send buffer", source: errno.into() })?;
        }
        Ok(())
    }

    /// Sends the requests as one datagram and waits until the kernel has done them all. It does each one even when an
    /// earlier one failed; the first failure is returned.
    pub(crate) fn execute(&mut self, requests: &[Request]) -> Result<()> {
        let Some(last) = requests.len().checked_sub(1) else { return Ok(()) };
        let first_sequence = self.sequence;
        let mut datagram = Vec::with_capacity(512);
        for (index, request) in requests.iter().enumerate() {
            let acknowledge = if index == last { libc_u16(nix::libc::NLM_F_ACK) } else { 0 };
            self.emit(request, acknowledge, &mut datagram);
        }
        self.send(&datagram)?;
        let mut failure = None;
        loop {
            let done = self.receive(|header, payload| {
                let index = header.sequence.wrapping_sub(first_sequence) as usize;
                let Some(request) = requests.get(index) else { return false };
                if i32::from(header.kind) == nix::libc::NLMSG_ERROR {
                    if let Some(error) = refusal(header, payload, &request.what) {
                        let tolerated = request.tolerate.is_some_and(|errno| error.code() == Some(errno as i32));
                        if !tolerated {
                            failure.get_or_insert(error);
                        }
                    }
                    return index == last;
                }
                false
            })?;
            if done {
                return failure.map_or(Ok(()), Err);
            }
        }
    }

    /// Sends one request and hands each message of its answer to `each`. A dump that the kernel says was changed
    /// meanwhile is returned as it came: those who need more ask again.
    pub(crate) fn query(&mut self, request: &Request, mut each: impl FnMut(u16, &[u8])) -> Result<()> {
        let sequence = self.sequence;
        let mut datagram = Vec::with_capacity(128);
        let dump = request.flags & libc_u16(nix::libc::NLM_F_DUMP) == libc_u16(nix::libc::NLM_F_DUMP);
        self.emit(request, 0, &mut datagram);
        self.send(&datagram)?;
        let mut outcome = Ok(());
        loop {
            let done = self.receive(|header, payload| {
                if header.sequence != sequence {
                    return false;
                }
                match i32::from(header.kind) {
                    nix::libc::NLMSG_DONE => true,
                    nix::libc::NLMSG_ERROR => {
                        outcome = refusal(header, payload, &request.what).map_or(Ok(()), Err);
                        true
                    }
                    _ => {
                        each(header.kind, payload);
                        !dump
                    }
                }
            })?;
            if done {
                return outcome;
            }
        }
    }

    /// Sends bytes that hold whole messages.
    pub(crate) fn send(&self, datagram: &[u8]) -> Result<()> {
        loop {
            match send(self.descriptor.as_raw_fd(), datagram, MsgFlags::empty()) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::Socket { operation: "send", source: errno.into() }),
            }
        }
    }

    /// Receives one datagram and hands its messages to `each` until that says that the answer is whole.
    pub(crate) fn receive(&mut self, mut each: impl FnMut(Header, &[u8]) -> bool) -> Result<bool> {
        let length = loop {
            match recv(self.descriptor.as_raw_fd(), &mut self.buffer, MsgFlags::MSG_TRUNC) {
                Ok(length) => break length,
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(Error::Socket { operation: "receive", source: errno.into() }),
            }
        };
        let Some(datagram) = self.buffer.get(..length) else {
            let source = io::Error::new(io::ErrorKind::InvalidData, "a datagram was truncated");
            return Err(Error::Socket { operation: "receive", source });
        };
        // Every message of the datagram is looked at: an error may follow what looked like the end.
        Ok(messages(datagram).fold(false, |done, (header, payload)| each(header, payload) || done))
    }

    /// The sequence number that the next message gets, which is then used up.
    pub(crate) fn next_sequence(&mut self) -> u32 {
        let sequence = self.sequence;
        self.sequence = self.sequence.wrapping_add(1);
        sequence
    }

    fn emit(&mut self, request: &Request, flags: u16, datagram: &mut Vec<u8>) {
        let flags = request.flags | flags | libc_u16(nix::libc::NLM_F_REQUEST);
        Header { kind: request.kind, flags, sequence: self.next_sequence() }.emit(&request.payload, datagram);
    }
}

/// The error in an `NLMSG_ERROR` message; none when it is an acknowledgement.
pub(crate) fn refusal(header: Header, payload: &[u8], request: &str) -> Option<Error> {
    let code = payload.get(..4).and_then(|bytes| bytes.try_into().ok()).map_or(-nix::libc::EPROTO, i32::from_ne_bytes);
    if code == 0 {
        return None;
    }
    // After the code comes the header of the refused message, then (its payload being left out) the kernel's text.
    let capped = header.flags & libc_u16(NLM_F_CAPPED) != 0;
    let explained = header.flags & libc_u16(NLM_F_ACK_TLVS) != 0;
    let quoted = read_u32(payload, 4).map_or(0, |length| length as usize);
    let text_at = 4 + if capped { wire::MESSAGE_HEADER } else { quoted.next_multiple_of(4) };
    let text = payload.get(text_at..).filter(|_| explained).and_then(|rest| attribute(rest, NLMSGERR_ATTR_MSG));
    Some(Error::Refused {
        request: request.to_owned(),
        message: text.map(read_string).unwrap_or_default(),
        source: io::Error::from_raw_os_error(code.saturating_neg()),
    })
}

/// A netlink flag or type of libc's, which has them as ints.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "netlink's flags and types have 16 bits")]
pub(crate) const fn libc_u16(value: i32) -> u16 {
    value as u16
}

/// The kernel builds dumps of at most 32 KiB per datagram.
const BUFFER: usize = 64 * 1024;
/// The kernel's default for a socket's send buffer, less what it adds by itself.
const DEFAULT_SEND: usize = 64 * 1024;
const NLM_F_CAPPED: i32 = 0x100;
const NLM_F_ACK_TLVS: i32 = 0x200;
const NLMSGERR_ATTR_MSG: u16 = 1;
