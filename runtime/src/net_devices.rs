//! `linux.netDevices`: devices of the runtime's network namespace move into the container's, by rtnetlink(7).
//!
//! A move takes a device down and its addresses away, so those that the specification wants kept (permanent, of global
//! scope) are read before and set again after. When the container's namespace goes the kernel gives hardware back.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use dhow_sys::Errno;
use dhow_sys::netlink::{Protocol, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{MsgFlags, recv, send};

use crate::error::errno_text;
use crate::plan::NetDevice;
use crate::{Error, Result};

/// A device that is there, with what it is to keep.
#[derive(Debug)]
pub(crate) struct Found<'a> {
    device: &'a NetDevice,
    index: u32,
    addresses: Vec<Address>,
}

/// The devices, all of them present.
///
/// # Errors
/// [`Error::Config`] with the field of one that is not.
pub(crate) fn find<'d>(devices: &'d [NetDevice]) -> Result<Vec<Found<'d>>> {
    if devices.is_empty() {
        return Ok(Vec::new());
    }
    let mut socket = Socket::open().map_err(Error::sys("open a netlink socket"))?;
    let links = socket.links().map_err(Error::sys("list network devices"))?;
    let addresses = socket.addresses().map_err(Error::sys("list addresses"))?;
    let find = |device: &'d NetDevice| {
        let link = links.iter().find(|link| link.name == device.name);
        let index = link.ok_or_else(|| Error::config(device.field(), "there is no such network device"))?.index;
        let addresses = addresses.iter().filter(|a| a.index == index).cloned().collect();
        Ok(Found { device, index, addresses })
    };
    devices.iter().map(find).collect()
}

/// Moves them into the network namespace of this file, renames them, gives them their addresses back and brings them up.
///
/// # Errors
/// [`Error::Config`] with the field.
pub(crate) fn move_into(found: &[Found<'_>], namespace: &Path) -> Result<()> {
    if found.is_empty() {
        return Ok(());
    }
    let namespace = File::open(namespace).map_err(Error::file("open", namespace))?;
    let mut here = Socket::open().map_err(Error::sys("open a netlink socket"))?;
    let mut there = Socket::open_in(&namespace).map_err(Error::sys("open a netlink socket in the container"))?;
    for one in found {
        let error = |e| Error::config(one.device.field(), errno_text(e));
        let before = there.links().map_err(error)?;
        if before.iter().any(|link| link.name == one.device.rename) {
            return Err(Error::config(one.device.field(), "the container has a network device of this name already"));
        }
        here.change(RTM_SETLINK, 0, one.departure(&namespace)).map_err(error)?;
        // The index may be another one there, and the name one that the kernel has made from a template.
        let after = there.links().map_err(error)?;
        let new = after.iter().find(|link| before.iter().all(|old| old.index != link.index));
        let index = new.ok_or_else(|| error(Errno::ENODEV))?.index;
        for address in &one.addresses {
            there.change(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, address.message(index)).map_err(error)?;
        }
        let up = link_header(index, IFF_UP, IFF_UP);
        there.change(RTM_SETLINK, 0, up).map_err(error)?;
    }
    Ok(())
}

impl Found<'_> {
    /// The request that moves it.
    fn departure(&self, namespace: &File) -> Vec<u8> {
        let mut message = link_header(self.index, 0, 0);
        put(&mut message, IFLA_NET_NS_FD, &namespace.as_raw_fd().to_ne_bytes());
        put(&mut message, IFLA_IFNAME, &[self.device.rename.as_bytes(), &[0]].concat());
        message
    }
}

/// A device, as far as it matters here.
#[derive(Debug, PartialEq, Eq)]
struct Link {
    index: u32,
    name: String,
}

impl Link {
    /// From an `ifinfomsg` and its attributes.
    fn parse(message: &[u8]) -> Option<Self> {
        let index = number(message.get(4..8)?)?;
        let name = attributes(message.get(16..)?).find(|(kind, _)| *kind == IFLA_IFNAME)?.1;
        let name = name.split(|b| *b == 0).next().unwrap_or_default();
        Some(Self { index, name: String::from_utf8_lossy(name).into_owned() })
    }
}

/// An address that is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Address {
    family: u8,
    prefix: u8,
    index: u32,
    flags: u32,
    /// Kind and value of the attributes that go with it.
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Address {
    /// From an `ifaddrmsg` and its attributes; none for one that is not to be kept.
    fn parse(message: &[u8]) -> Option<Self> {
        let &[family, prefix, few_flags, scope, ..] = message else { return None };
        let index = number(message.get(4..8)?)?;
        let all = || attributes(message.get(8..).unwrap_or_default());
        let flags = all().find(|(kind, _)| *kind == IFA_FLAGS).and_then(|(_, value)| number(value));
        let flags = flags.unwrap_or(few_flags.into());
        if scope != RT_SCOPE_UNIVERSE || flags & IFA_F_PERMANENT == 0 {
            return None;
        }
        let kept = all().filter(|(kind, _)| [IFA_ADDRESS, IFA_LOCAL, IFA_BROADCAST, IFA_RT_PRIORITY].contains(kind));
        let attributes = kept.map(|(kind, value)| (kind, value.to_owned())).collect();
        Some(Self { family, prefix, index, flags: flags & IFA_F_NOPREFIXROUTE, attributes })
    }

    /// The same address for another device.
    fn message(&self, index: u32) -> Vec<u8> {
        let mut message = vec![self.family, self.prefix, 0, RT_SCOPE_UNIVERSE];
        message.extend(index.to_ne_bytes());
        put(&mut message, IFA_FLAGS, &self.flags.to_ne_bytes());
        self.attributes.iter().for_each(|(kind, value)| put(&mut message, *kind, value));
        message
    }
}

/// A socket of one network namespace.
#[derive(Debug)]
struct Socket(OwnedFd);

impl Socket {
    fn open() -> dhow_sys::Result<Self> {
        open(Protocol::Route).map(Self)
    }

    /// In another network namespace: this process enters it for as long as that takes.
    fn open_in(namespace: &File) -> dhow_sys::Result<Self> {
        let own = File::open(Path::new("/proc/self/ns/net"));
        let own = own.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)?;
        let socket = Self::open();
        setns(own.as_fd(), CloneFlags::CLONE_NEWNET)?;
        socket
    }

    fn links(&mut self) -> dhow_sys::Result<Vec<Link>> {
        let answer = self.ask(RTM_GETLINK, NLM_F_DUMP, &link_header(0, 0, 0))?;
        Ok(answer.iter().filter_map(|message| Link::parse(message)).collect())
    }

    fn addresses(&mut self) -> dhow_sys::Result<Vec<Address>> {
        let answer = self.ask(RTM_GETADDR, NLM_F_DUMP, &[0; 8])?;
        Ok(answer.iter().filter_map(|message| Address::parse(message)).collect())
    }

    #[expect(clippy::needless_pass_by_value, reason = "a message that the call has just made")]
    fn change(&mut self, kind: u16, flags: u16, message: Vec<u8>) -> dhow_sys::Result<()> {
        self.ask(kind, NLM_F_ACK | flags, &message).map(drop)
    }

    /// Sends one request and collects the messages of the answer.
    fn ask(&mut self, kind: u16, flags: u16, message: &[u8]) -> dhow_sys::Result<Vec<Vec<u8>>> {
        let length = u32::try_from(HEADER + message.len()).or(Err(Errno::EMSGSIZE))?;
        let mut request = length.to_ne_bytes().to_vec();
        request.extend(kind.to_ne_bytes());
        request.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        // Number and sender: there is one request at a time, and the kernel knows who asks.
        request.extend([0; 8]);
        request.extend(message);
        send(self.0.as_raw_fd(), &request, MsgFlags::empty())?;
        let mut answer = Vec::new();
        let mut buffer = vec![0; 64 << 10];
        loop {
            let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let mut rest = buffer.get(..length).unwrap_or_default();
            while let Some((kind, message, after)) = split(rest) {
                match kind {
                    NLMSG_DONE => return Ok(answer),
                    NLMSG_ERROR => {
                        let code = message.get(..4).and_then(number).unwrap_or_default().cast_signed();
                        return if code == 0 { Ok(answer) } else { Err(Errno::from_raw(-code)) };
                    }
                    _ => answer.push(message.to_owned()),
                }
                rest = after;
            }
        }
    }
}

/// The first message of a datagram: kind, payload, and what comes after it.
fn split(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let length = number(bytes.get(..4)?)? as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let after = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, bytes.get(HEADER..length)?, after))
}

/// Kind and value of each attribute.
fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(bytes.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(bytes.get(2..4)?.try_into().ok()?) & !NLA_FLAGS;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

fn number(bytes: &[u8]) -> Option<u32> {
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

/// An `ifinfomsg`.
fn link_header(index: u32, flags: u32, change: u32) -> Vec<u8> {
    [0, index, flags, change].iter().flat_map(|n| n.to_ne_bytes()).collect()
}

/// Appends an attribute, padded.
fn put(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    // Names and addresses are some bytes long.
    message.extend(u16::try_from(value.len() + 4).unwrap_or(u16::MAX).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

// linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/if_addr.h
const HEADER: usize = 16;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE: u16 = 0x400;
/// Nested, or in network byte order.
const NLA_FLAGS: u16 = 0xc000;
const RTM_GETLINK: u16 = 18;
const RTM_SETLINK: u16 = 19;
const RTM_NEWADDR: u16 = 20;
const RTM_GETADDR: u16 = 22;
const RT_SCOPE_UNIVERSE: u8 = 0;
const IFF_UP: u32 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;
const IFA_RT_PRIORITY: u16 = 9;
const IFA_F_PERMANENT: u32 = 0x80;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_the_way_through_a_message() {
        let address = Address {
            family: 2,
            prefix: 24,
            index: 3,
            flags: IFA_F_NOPREFIXROUTE,
            attributes: vec![(IFA_ADDRESS, vec![10, 0, 0, 2]), (IFA_LOCAL, vec![10, 0, 0, 2])],
        };
        let mut message = address.message(3);
        // As the kernel tells of it: permanent.
        message[12..16].copy_from_slice(&(IFA_F_PERMANENT | IFA_F_NOPREFIXROUTE).to_ne_bytes());
        assert_eq!(Address::parse(&message), Some(address));
        message[3] = 253;
        assert_eq!(Address::parse(&message), None, "of the link only");
    }

    #[test]
    fn lengths_that_lie_end_the_reading() {
        assert_eq!(split(&[0; 15]), None);
        assert_eq!(split(&[200, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), None);
        assert_eq!(attributes(&[9, 0, 3, 0, 1]).count(), 0);
        assert_eq!(attributes(&[2, 0, 3, 0]).count(), 0);
    }

    #[test]
    fn every_namespace_has_loopback() {
        let links = Socket::open().unwrap().links().unwrap();
        assert!(links.contains(&Link { index: 1, name: "lo".into() }), "{links:?}");
    }
}
