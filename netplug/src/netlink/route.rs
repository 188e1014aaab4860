//! Addresses and routes (rtnetlink(7)).

use std::net::IpAddr;

use nix::errno::Errno;
use nix::libc;

use super::wire::{Writer, attributes, read_ip, read_u32};
use super::{Request, Socket, libc_u16};
use crate::error::Result;
use crate::prefix::Prefix;

/// A unicast route of the host, or the subnet of one of its addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// None: the default route.
    pub(crate) destination: Option<Prefix>,
    /// The link it leaves by.
    pub(crate) link: Option<u32>,
    /// The smaller the better.
    pub(crate) metric: u32,
}

impl Socket {
    /// Every unicast route of one address family, of every table.
    pub(crate) fn routes(&mut self, family: Family) -> Result<Vec<Route>> {
        let what = "list routes";
        let request = Request {
            kind: libc::RTM_GETROUTE,
            flags: libc_u16(libc::NLM_F_DUMP),
            payload: Writer::new(&[family.number(), 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]).finish(what)?,
            what: what.to_owned(),
            tolerate: None,
        };
        let mut routes = Vec::new();
        self.query(&request, |_kind, payload| routes.extend(parse_route(payload)))?;
        Ok(routes)
    }

    /// Whether a link has an address.
    pub(crate) fn has_address(&mut self, link: u32, address: IpAddr) -> Result<bool> {
        let what = "list addresses";
        let family = Family::of(address);
        let request = Request {
            kind: libc::RTM_GETADDR,
            flags: libc_u16(libc::NLM_F_DUMP),
            payload: Writer::new(&[family.number(), 0, 0, 0, 0, 0, 0, 0]).finish(what)?,
            what: what.to_owned(),
            tolerate: None,
        };
        let mut found = false;
        self.query(&request, |_kind, payload| {
            let of_link = read_u32(payload, 4) == Some(link);
            let rest = payload.get(IFADDRMSG..).unwrap_or_default();
            let is_it = |(kind, value)| kind == libc::IFA_ADDRESS && read_ip(value) == Some(address);
            found |= of_link && attributes(rest).any(is_it);
        })?;
        Ok(found)
    }
}

/// An address family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl Family {
    /// The family of an address.
    pub(crate) fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    fn number(self) -> u8 {
        match self {
            Self::V4 => 2,
            Self::V6 => 10,
        }
    }
}

/// Gives a link an address; one that it has already is left.
pub(crate) fn add_address(link: u32, address: Prefix) -> Result<Request> {
    let family = Family::of(address.address());
    let mut writer = Writer::new(&[family.number(), address.length(), 0, 0]);
    writer.raw(&link.to_ne_bytes());
    writer.ip(libc::IFA_LOCAL, address.address()).ip(libc::IFA_ADDRESS, address.address());
    if let (IpAddr::V4(_), true) = (address.address(), address.length() < 31) {
        let (_, last) = address.hosts();
        writer.ip(libc::IFA_BROADCAST, address.nth(last + 1));
    }
    let what = format!("add address {address} to link {link}");
    let flags = libc_u16(libc::NLM_F_CREATE | libc::NLM_F_EXCL);
    let payload = writer.finish(&what)?;
    Ok(Request { kind: libc::RTM_NEWADDR, flags, payload, what, tolerate: Some(Errno::EEXIST) })
}

/// The default route of a container.
pub(crate) fn add_default_route(gateway: IpAddr) -> Result<Request> {
    let family = Family::of(gateway);
    let mut writer = Writer::new(&[
        family.number(),
        0,
        0,
        0,
        libc::RT_TABLE_MAIN,
        libc::RTPROT_STATIC,
        libc::RT_SCOPE_UNIVERSE,
        libc::RTN_UNICAST,
        0,
        0,
        0,
        0,
    ]);
    writer.ip(libc::RTA_GATEWAY, gateway);
    let what = format!("add default route via {gateway}");
    let flags = libc_u16(libc::NLM_F_CREATE | libc::NLM_F_EXCL);
    let payload = writer.finish(&what)?;
    Ok(Request { kind: libc::RTM_NEWROUTE, flags, payload, what, tolerate: None })
}

fn parse_route(payload: &[u8]) -> Option<Route> {
    let header = payload.get(..RTMSG)?;
    let (family, length, kind) = (header[0], header[1], header[7]);
    if kind != libc::RTN_UNICAST {
        return None;
    }
    let mut route = Route { destination: None, link: None, metric: 0 };
    let unspecified = if family == Family::V4.number() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let mut destination = unspecified;
    for (kind, value) in attributes(&payload[RTMSG..]) {
        match kind {
            libc::RTA_DST => destination = read_ip(value)?,
            libc::RTA_OIF => route.link = read_u32(value, 0),
            libc::RTA_PRIORITY => route.metric = read_u32(value, 0)?,
            _ => {}
        }
    }
    route.destination = if length == 0 { None } else { Some(Prefix::new(destination, length).ok()?) };
    Some(route)
}

const RTMSG: usize = 12;
const IFADDRMSG: usize = 8;
