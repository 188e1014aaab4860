//! Links: the bridge of a network, and the veth pair between it and a container (rtnetlink(7), `linux/if_link.h`).

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::libc;

use super::wire::{Writer, attribute, attributes, read_string, read_u32};
use super::{Request, Socket, libc_u16};
use crate::error::{Error, Result};
use crate::mac::Mac;

/// What is asked about a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Link {
    pub(crate) index: u32,
    pub(crate) name: String,
    pub(crate) up: bool,
    pub(crate) mtu: u32,
    /// bridge, veth, …; empty for hardware.
    pub(crate) kind: String,
    pub(crate) alias: String,
    pub(crate) mac: Option<Mac>,
    /// The index of the bridge that it is a port of.
    pub(crate) master: Option<u32>,
}

/// The two ends of a veth pair.
#[derive(Debug)]
pub(crate) struct Veth<'a> {
    /// The end that becomes a port of the bridge, in the namespace of the socket.
    pub(crate) host_name: &'a str,
    /// The bridge's index.
    pub(crate) bridge: u32,
    /// The end in the container.
    pub(crate) name: &'a str,
    pub(crate) mac: Mac,
    /// The container's network namespace.
    pub(crate) namespace: BorrowedFd<'a>,
    pub(crate) mtu: u32,
    /// Whether the bridge may send a frame back where it came from, so that a container reaches its own published port.
    pub(crate) hairpin: bool,
}

impl Socket {
    /// The link of a name, if there is one.
    pub(crate) fn link(&mut self, name: &str) -> Result<Option<Link>> {
        let mut writer = Writer::new(&header(0, 0, 0));
        writer.string(libc::IFLA_IFNAME, name);
        self.one_link(writer, name)
    }

    /// The link of an index, if there is one.
    pub(crate) fn link_by_index(&mut self, index: u32) -> Result<Option<Link>> {
        self.one_link(Writer::new(&header(index, 0, 0)), &format!("link {index}"))
    }

    /// Every link of the namespace.
    pub(crate) fn links(&mut self) -> Result<Vec<Link>> {
        let request = Request {
            kind: libc::RTM_GETLINK,
            flags: libc_u16(libc::NLM_F_DUMP),
            payload: Writer::new(&header(0, 0, 0)).finish("list links")?,
            what: "list links".to_owned(),
            tolerate: None,
        };
        let mut links = Vec::new();
        self.query(&request, |_kind, payload| links.extend(parse(payload)))?;
        Ok(links)
    }

    fn one_link(&mut self, mut writer: Writer, name: &str) -> Result<Option<Link>> {
        // Counters of bridges and ports are the larger half of an answer.
        writer.u32(libc::IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        let what = format!("look up link {name}");
        let payload = writer.finish(&what)?;
        let request = Request { kind: libc::RTM_GETLINK, flags: 0, payload, what, tolerate: None };
        let mut found = None;
        match self.query(&request, |_kind, payload| found = parse(payload)) {
            Ok(()) => Ok(found),
            Err(error) if error.code() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Makes a bridge, which stays down. One that exists is left as it is.
pub(crate) fn add_bridge(name: &str, mac: Mac, mtu: u32) -> Result<Request> {
    let mut writer = Writer::new(&header(0, 0, 0));
    writer.string(libc::IFLA_IFNAME, name).u32(libc::IFLA_MTU, mtu).bytes(libc::IFLA_ADDRESS, &mac.0);
    writer.nest(libc::IFLA_LINKINFO, |info| {
        info.string(libc::IFLA_INFO_KIND, "bridge");
    });
    let flags = libc_u16(libc::NLM_F_CREATE | libc::NLM_F_EXCL);
    request(libc::RTM_NEWLINK, flags, writer, format!("add bridge {name}"), Some(Errno::EEXIST))
}

/// Names the owner of a link and sets it up.
pub(crate) fn set_up(index: u32, alias: &str) -> Result<Request> {
    let mut writer = Writer::new(&header(index, IFF_UP, IFF_UP));
    if !alias.is_empty() {
        writer.string(libc::IFLA_IFALIAS, alias);
    }
    request(libc::RTM_SETLINK, 0, writer, format!("set link {index} up"), None)
}

/// Lets the kernel finish bringing a link up. It drops what is sent over a link whose carrier has just come until a worker
/// has run, which takes a while when many links come and go, and a lost ARP request costs a second. Looking a link up runs
/// that work at once (Linux 6.9; before, this does nothing).
pub(crate) fn settle(name: &str) -> Result<Request> {
    let mut writer = Writer::new(&header(0, 0, 0));
    writer.string(libc::IFLA_IFNAME, name).u32(libc::IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
    request(libc::RTM_GETLINK, 0, writer, format!("look up link {name}"), None)
}

/// Removes links in one go. The kernel waits for a grace period to remove one (19 ms), so those that go are gathered in a
/// group, which it removes with a single wait. Links that are gone already are no error.
pub(crate) fn delete(links: &[u32]) -> Result<Vec<Request>> {
    let mut requests = Vec::new();
    for index in links {
        let mut writer = Writer::new(&header(*index, 0, 0));
        writer.u32(libc::IFLA_GROUP, DOOMED);
        let what = format!("gather link {index} for removal");
        requests.push(request(libc::RTM_SETLINK, 0, writer, what, Some(Errno::ENODEV))?);
    }
    if !links.is_empty() {
        let mut writer = Writer::new(&header(0, 0, 0));
        writer.u32(libc::IFLA_GROUP, DOOMED);
        requests.push(request(libc::RTM_DELLINK, 0, writer, "delete links".to_owned(), Some(Errno::ENODEV))?);
    }
    Ok(requests)
}

/// Makes a veth pair whose ends are born where they belong: one as a port of the bridge, one in the container's
/// namespace. Only the host's comes up: a peer has no peer yet when it is born, and refuses (`ENOTCONN`).
pub(crate) fn add_veth(veth: &Veth<'_>) -> Result<Vec<Request>> {
    let mut writer = Writer::new(&header(0, IFF_UP, IFF_UP));
    writer.string(libc::IFLA_IFNAME, veth.host_name).u32(libc::IFLA_MTU, veth.mtu).u32(libc::IFLA_MASTER, veth.bridge);
    #[expect(clippy::cast_sign_loss, reason = "an open descriptor is not negative")]
    let namespace = veth.namespace.as_raw_fd() as u32;
    writer.nest(libc::IFLA_LINKINFO, |info| {
        info.string(libc::IFLA_INFO_KIND, "veth").nest(libc::IFLA_INFO_DATA, |data| {
            data.nest(VETH_INFO_PEER, |peer| {
                peer.raw(&header(0, 0, 0))
                    .string(libc::IFLA_IFNAME, veth.name)
                    .u32(libc::IFLA_MTU, veth.mtu)
                    .bytes(libc::IFLA_ADDRESS, &veth.mac.0)
                    .u32(libc::IFLA_NET_NS_FD, namespace);
            });
        });
    });
    let flags = libc_u16(libc::NLM_F_CREATE | libc::NLM_F_EXCL);
    let mut requests = vec![request(libc::RTM_NEWLINK, flags, writer, format!("add veth {}", veth.host_name), None)?];
    if veth.hairpin {
        let mut writer = Writer::new(&header(0, 0, 0));
        writer.string(libc::IFLA_IFNAME, veth.host_name).nest(libc::IFLA_LINKINFO, |info| {
            info.string(IFLA_INFO_SLAVE_KIND, "bridge").nest(IFLA_INFO_SLAVE_DATA, |data| {
                data.u8(IFLA_BRPORT_MODE, 1);
            });
        });
        let what = format!("set hairpin mode of {}", veth.host_name);
        requests.push(request(libc::RTM_NEWLINK, 0, writer, what, None)?);
    }
    Ok(requests)
}

fn request(kind: u16, flags: u16, writer: Writer, what: String, tolerate: Option<Errno>) -> Result<Request> {
    let payload = writer.finish(&what)?;
    Ok(Request { kind, flags, payload, what, tolerate })
}

/// `struct ifinfomsg`.
fn header(index: u32, flags: u32, change: u32) -> [u8; IFINFOMSG] {
    let mut bytes = [0; IFINFOMSG];
    bytes[4..8].copy_from_slice(&index.to_ne_bytes());
    bytes[8..12].copy_from_slice(&flags.to_ne_bytes());
    bytes[12..16].copy_from_slice(&change.to_ne_bytes());
    bytes
}

fn parse(payload: &[u8]) -> Option<Link> {
    let mut link = Link {
        index: read_u32(payload, 4)?,
        name: String::new(),
        up: read_u32(payload, 8)? & IFF_UP != 0,
        mtu: 0,
        kind: String::new(),
        alias: String::new(),
        mac: None,
        master: None,
    };
    for (kind, value) in attributes(payload.get(IFINFOMSG..)?) {
        match kind {
            libc::IFLA_IFNAME => link.name = read_string(value),
            libc::IFLA_MTU => link.mtu = read_u32(value, 0)?,
            libc::IFLA_IFALIAS => link.alias = read_string(value),
            libc::IFLA_ADDRESS => link.mac = value.try_into().ok().map(Mac),
            libc::IFLA_MASTER => link.master = read_u32(value, 0),
            libc::IFLA_LINKINFO => {
                link.kind = attribute(value, libc::IFLA_INFO_KIND).map(read_string).unwrap_or_default();
            }
            _ => {}
        }
    }
    Some(link)
}

/// The error of a link that vanished between two requests.
pub(crate) fn vanished(name: &str) -> Error {
    Error::Refused {
        request: format!("look up link {name}"),
        message: String::new(),
        source: std::io::Error::from_raw_os_error(libc::ENODEV),
    }
}

/// The group of links that are about to be removed: a number that nobody else uses ("dhow").
const DOOMED: u32 = 0x6468_6f77;
const IFINFOMSG: usize = 16;
const IFF_UP: u32 = 1;
const VETH_INFO_PEER: u16 = 1;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;
const IFLA_BRPORT_MODE: u16 = 4;
const RTEXT_FILTER_SKIP_STATS: u32 = 1 << 3;
