//! Connection tracking entries that outlive a published UDP port (ctnetlink, `linux/netfilter/nfnetlink_conntrack.h`).
//!
//! UDP has no end: an entry lives as long as its client keeps sending. One that was made before a port was published
//! keeps its packets away from the container, and one made for a container that has gone keeps sending them there.

use std::net::IpAddr;

use nix::errno::Errno;
use nix::libc;

use super::wire::{Writer, attribute, read_ip};
use super::{Request, Socket, libc_u16};
use crate::error::Result;

/// One direction of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Tuple {
    source: IpAddr,
    protocol: u8,
    destination_port: u16,
}

/// Forgets the connections of `protocol` to any of the host's `ports`, and those that were sent to `container`.
pub(crate) fn forget(socket: &mut Socket, protocol: u8, ports: &[u16], container: IpAddr) -> Result<()> {
    let family = if container.is_ipv4() { 2 } else { 10 };
    let header = [family, 0, 0, 0];
    let what = "list tracked connections";
    let request = Request {
        kind: SUBSYSTEM | GET,
        flags: libc_u16(libc::NLM_F_DUMP),
        payload: Writer::new(&header).finish(what)?,
        what: what.to_owned(),
        tolerate: None,
    };
    let mut stale = Vec::new();
    socket.query(&request, |_kind, payload| {
        let rest = payload.get(header.len()..).unwrap_or_default();
        let Some(original) = attribute(rest, CTA_TUPLE_ORIG) else { return };
        let reply = attribute(rest, CTA_TUPLE_REPLY).and_then(parse);
        let to_port = parse(original).is_some_and(|to| to.protocol == protocol && ports.contains(&to.destination_port));
        let to_container = reply.is_some_and(|from| from.protocol == protocol && from.source == container);
        if to_port || to_container {
            stale.push(original.to_vec());
        }
    })?;
    for original in stale {
        let mut writer = Writer::new(&header);
        writer.bytes(CTA_TUPLE_ORIG | 1 << 15, &original);
        let what = "forget a tracked connection";
        let payload = writer.finish(what)?;
        let request = Request {
            kind: SUBSYSTEM | DELETE,
            flags: 0,
            payload,
            what: what.to_owned(),
            tolerate: Some(Errno::ENOENT),
        };
        socket.execute(&[request])?;
    }
    Ok(())
}

fn parse(tuple: &[u8]) -> Option<Tuple> {
    let ip = attribute(tuple, CTA_TUPLE_IP)?;
    let proto = attribute(tuple, CTA_TUPLE_PROTO)?;
    let source = attribute(ip, CTA_IP_V4_SRC).or_else(|| attribute(ip, CTA_IP_V6_SRC)).and_then(read_ip)?;
    let protocol = *attribute(proto, CTA_PROTO_NUM)?.first()?;
    let port = attribute(proto, CTA_PROTO_DST_PORT)?;
    Some(Tuple { source, protocol, destination_port: u16::from_be_bytes(port.try_into().ok()?) })
}

const SUBSYSTEM: u16 = 1 << 8;
const GET: u16 = 1;
const DELETE: u16 = 2;
const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_DST_PORT: u16 = 3;
