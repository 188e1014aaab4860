//! Netlink's encoding: messages and their attributes, written and read.
//!
//! ```text
//! message    length u32 · type u16 · flags u16 · sequence u32 · port u32 · family header · attributes
//! attribute  length u16 (header and value) · type u16 (bit 15: nested) · value · padding to 4 bytes
//! ```
//!
//! An attribute's length has 16 bits. A longer value would wrap and reach the kernel as other attributes
//! (CVE-2021-43784), so the writer remembers the overflow and the message is never sent.

use std::net::IpAddr;

use crate::error::{Error, Result};

/// The length of a message's header.
pub(crate) const MESSAGE_HEADER: usize = 16;
const ATTRIBUTE_HEADER: usize = 4;
const NESTED: u16 = 1 << 15;
const TYPE_MASK: u16 = !(3 << 14);

/// Writes attributes.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
    overflow: bool,
}

impl Writer {
    /// A writer that begins with a family header (`ifinfomsg`, `rtmsg`, `nfgenmsg`, …).
    pub(crate) fn new(family_header: &[u8]) -> Self {
        let mut writer = Self { bytes: Vec::with_capacity(256), overflow: false };
        writer.raw(family_header);
        writer
    }

    /// Bytes that are no attribute: a header inside a nest.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// An attribute of bytes.
    pub(crate) fn bytes(&mut self, kind: u16, value: &[u8]) -> &mut Self {
        self.attribute(kind, |bytes| bytes.extend_from_slice(value))
    }

    /// A NUL-terminated string.
    pub(crate) fn string(&mut self, kind: u16, value: &str) -> &mut Self {
        self.attribute(kind, |bytes| {
            bytes.extend_from_slice(value.as_bytes());
            bytes.push(0);
        })
    }

    /// A byte.
    pub(crate) fn u8(&mut self, kind: u16, value: u8) -> &mut Self {
        self.bytes(kind, &[value])
    }

    /// A number in the host's byte order, as rtnetlink has them.
    pub(crate) fn u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// A number in network byte order, as nftables has them.
    pub(crate) fn be32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// An IP address.
    pub(crate) fn ip(&mut self, kind: u16, value: IpAddr) -> &mut Self {
        match value {
            IpAddr::V4(v4) => self.bytes(kind, &v4.octets()),
            IpAddr::V6(v6) => self.bytes(kind, &v6.octets()),
        }
    }

    /// An attribute of attributes.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let start = self.begin(kind | NESTED);
        fill(self);
        self.end(start);
        self
    }

    /// The attributes written, if none was too long.
    pub(crate) fn finish(self, request: &str) -> Result<Vec<u8>> {
        if self.overflow { Err(Error::TooLarge { request: request.to_owned() }) } else { Ok(self.bytes) }
    }

    fn attribute(&mut self, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) -> &mut Self {
        let start = self.begin(kind);
        fill(&mut self.bytes);
        self.end(start);
        self
    }

    fn begin(&mut self, kind: u16) -> usize {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0, 0]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    fn end(&mut self, start: usize) {
        match u16::try_from(self.bytes.len() - start) {
            Ok(length) => self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes()),
            Err(_) => self.overflow = true,
        }
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// A message's header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) sequence: u32,
}

impl Header {
    /// Appends a whole message.
    pub(crate) fn emit(self, payload: &[u8], buffer: &mut Vec<u8>) {
        let length = u32::try_from(MESSAGE_HEADER + payload.len()).unwrap_or(u32::MAX);
        buffer.extend_from_slice(&length.to_ne_bytes());
        buffer.extend_from_slice(&self.kind.to_ne_bytes());
        buffer.extend_from_slice(&self.flags.to_ne_bytes());
        buffer.extend_from_slice(&self.sequence.to_ne_bytes());
        buffer.extend_from_slice(&0_u32.to_ne_bytes());
        buffer.extend_from_slice(payload);
        buffer.resize(buffer.len().next_multiple_of(4), 0);
    }
}

/// Splits a datagram into its messages; stops at what is malformed.
pub(crate) fn messages(mut datagram: &[u8]) -> impl Iterator<Item = (Header, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::try_from(read_u32(datagram, 0)?).ok()?;
        let message = datagram.get(..length)?;
        let header =
            Header { kind: read_u16(message, 4)?, flags: read_u16(message, 6)?, sequence: read_u32(message, 8)? };
        let payload = message.get(MESSAGE_HEADER..)?;
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((header, payload))
    })
}

/// The attributes in a payload after its family header; stops at what is malformed.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(read_u16(bytes, 0)?);
        let kind = read_u16(bytes, 2)? & TYPE_MASK;
        let value = bytes.get(ATTRIBUTE_HEADER..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, value))
    })
}

/// The first attribute of a kind.
pub(crate) fn attribute(bytes: &[u8], kind: u16) -> Option<&[u8]> {
    attributes(bytes).find(|(found, _)| *found == kind).map(|(_, value)| value)
}

/// A number in the host's byte order at an offset.
pub(crate) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

/// A number in network byte order at an offset.
pub(crate) fn read_be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_be_bytes)
}

fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

/// A string that may end in a NUL.
pub(crate) fn read_string(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// An IP address of 4 or 16 bytes.
pub(crate) fn read_ip(bytes: &[u8]) -> Option<IpAddr> {
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(IpAddr::from),
        16 => <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_wrote() {
        let mut writer = Writer::new(&[1, 2, 3, 4]);
        writer.string(3, "eth0").nest(18, |nest| {
            nest.u8(1, 7).be32(2, 0x0102_0304);
        });
        let payload = writer.finish("test").unwrap();
        let mut datagram = Vec::new();
        for sequence in [8, 9] {
            Header { kind: 16, flags: 5, sequence }.emit(&payload, &mut datagram);
        }
        let found: Vec<_> = messages(&datagram).collect();
        assert_eq!(found.len(), 2);
        assert_eq!((found[1].0.kind, found[1].0.flags, found[1].0.sequence), (16, 5, 9));
        let attributes_of = &found[1].1[4..];
        assert_eq!(read_string(attribute(attributes_of, 3).unwrap()), "eth0");
        let nest = attribute(attributes_of, 18).unwrap();
        assert_eq!(attribute(nest, 1).unwrap(), [7]);
        assert_eq!(read_be32(attribute(nest, 2).unwrap(), 0), Some(0x0102_0304));
    }

    #[test]
    fn refuses_what_would_wrap() {
        let mut writer = Writer::new(&[]);
        writer.nest(1, |nest| {
            nest.bytes(1, &[0; 40_000]).bytes(2, &[0; 40_000]);
        });
        assert!(matches!(writer.finish("test"), Err(Error::TooLarge { .. })));
    }

    #[test]
    fn survives_foreign_bytes() {
        for bytes in [
            &[][..],
            &[1],
            &[0; 16],
            &[255; 64],
            &[3, 0, 0, 0, 9],
            &[16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7],
        ] {
            assert!(messages(bytes).count() <= 1);
            let mut seen = 0;
            for _ in attributes(bytes) {
                seen += 1;
                assert!(seen < 100);
            }
        }
    }
}
