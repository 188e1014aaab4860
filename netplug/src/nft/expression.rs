//! Rules' expressions, in the kernel's register machine (`linux/netfilter/nf_tables.h`).
//!
//! A rule is a list of expressions; each loads into, compares, or uses registers. Registers 1 to 4 have 16 bytes;
//! 8 to 23 are the same space in pieces of 4 (register 1 is 8 to 11). The fields of a concatenation lie one after the
//! other, each padded to 4 bytes.

use std::net::IpAddr;

use crate::netlink::wire::Writer;

/// Where a value lies, by the kernel's number.
pub(crate) type Register = u32;

/// The first 16-byte register, where a key begins.
pub(crate) const KEY: Register = 1;
/// The second 16-byte register: the second interface name of a pair.
pub(crate) const SECOND: Register = 2;
/// The second 4 bytes of [`KEY`].
pub(crate) const WORD_1: Register = 9;
/// The third 4 bytes of [`KEY`].
pub(crate) const WORD_2: Register = 10;

/// One expression.
#[derive(Clone, Debug)]
pub(crate) enum Expression {
    /// Loads something about the packet that is not in it.
    Meta(Meta, Register),
    /// Loads bytes of the packet.
    Payload { base: Base, offset: u32, length: u32, to: Register },
    /// Loads a property of the connection.
    Connection(Connection, Register),
    /// Loads the type that the routing table gives an address.
    AddressType(Address, Register),
    /// Keeps only these bits of a 4-byte register.
    Mask(Register, [u8; 4]),
    /// Goes on if the register holds this value.
    Equal(Register, Vec<u8>),
    /// Goes on if the register does not hold this value.
    NotEqual(Register, Vec<u8>),
    /// Goes on if the set has this key.
    In(&'static str, Register),
    /// Goes on if the set does not have this key.
    NotIn(&'static str, Register),
    /// Replaces the key by what the map has for it; ends the rule if it has nothing.
    Map(&'static str, Register),
    /// Translates the destination to the IPv4 address and port in two registers.
    DestinationNat { address: Register, port: Register },
    /// Translates the source to the address of the outgoing interface.
    Masquerade,
    /// Ends the chain, or enters another.
    Verdict(Verdict),
}

/// What `meta` loads.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Meta {
    InName = 6,
    OutName = 7,
    Family = 15,
    Protocol = 16,
}

/// What a payload offset counts from.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Base {
    Network = 1,
    Transport = 2,
}

/// Whose type `fib` loads.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Address {
    Source = 1 << 0,
    Destination = 1 << 1,
}

/// What `ct` loads.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Connection {
    State = 0,
    Status = 2,
}

/// The end of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Accept,
    Drop,
    Return,
    Jump(&'static str),
}

impl Expression {
    /// Writes the expression as a list element.
    pub(crate) fn write(&self, list: &mut Writer) {
        list.nest(LIST_ELEMENT, |element| {
            element.string(EXPRESSION_NAME, self.name());
            element.nest(EXPRESSION_DATA, |data| self.write_data(data));
        });
    }

    fn name(&self) -> &'static str {
        match self {
            Self::Meta(..) => "meta",
            Self::Payload { .. } => "payload",
            Self::Connection(..) => "ct",
            Self::AddressType(..) => "fib",
            Self::Mask(..) => "bitwise",
            Self::Equal(..) | Self::NotEqual(..) => "cmp",
            Self::In(..) | Self::NotIn(..) | Self::Map(..) => "lookup",
            Self::DestinationNat { .. } => "nat",
            Self::Masquerade => "masq",
            Self::Verdict(_) => "immediate",
        }
    }

    fn write_data(&self, data: &mut Writer) {
        match self {
            Self::Meta(key, to) => {
                data.be32(1, *to).be32(2, *key as u32);
            }
            Self::Payload { base, offset, length, to } => {
                data.be32(1, *to).be32(2, *base as u32).be32(3, *offset).be32(4, *length);
            }
            Self::Connection(key, to) => {
                data.be32(1, *to).be32(2, *key as u32);
            }
            Self::AddressType(address, to) => {
                data.be32(1, *to).be32(2, FIB_RESULT_ADDRESS_TYPE).be32(3, *address as u32);
            }
            Self::Mask(register, mask) => {
                data.be32(1, *register).be32(2, *register).be32(3, 4);
                data.nest(4, |value| value_of(value, mask)).nest(5, |value| value_of(value, &[0; 4]));
            }
            Self::Equal(register, value) => compare(data, *register, 0, value),
            Self::NotEqual(register, value) => compare(data, *register, 1, value),
            Self::In(set, key) => {
                data.string(1, set).be32(2, *key);
            }
            Self::NotIn(set, key) => {
                data.string(1, set).be32(2, *key).be32(5, LOOKUP_INVERTED);
            }
            Self::Map(set, key) => {
                data.string(1, set).be32(2, *key).be32(3, *key);
            }
            Self::DestinationNat { address, port } => {
                data.be32(1, NAT_DESTINATION).be32(2, FAMILY_IPV4).be32(3, *address).be32(5, *port);
            }
            Self::Masquerade => {}
            Self::Verdict(verdict) => {
                data.be32(1, VERDICT_REGISTER).nest(2, |value| {
                    value.nest(2, |fields| verdict.write(fields));
                });
            }
        }
    }
}

impl Verdict {
    fn write(self, fields: &mut Writer) {
        let code: i32 = match self {
            Self::Drop => 0,
            Self::Accept => 1,
            Self::Jump(_) => -3,
            Self::Return => -5,
        };
        fields.bytes(1, &code.to_be_bytes());
        if let Self::Jump(chain) = self {
            fields.string(2, chain);
        }
    }
}

fn compare(data: &mut Writer, register: Register, operation: u32, value: &[u8]) {
    data.be32(1, register).be32(2, operation).nest(3, |nest| value_of(nest, value));
}

fn value_of(nest: &mut Writer, value: &[u8]) {
    nest.bytes(1, value);
}

/// A 16-byte interface name, as the kernel compares them.
pub(crate) fn link_name(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.resize(16, 0);
    bytes
}

/// An address as a concatenation's field.
pub(crate) fn address(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// A protocol number or a port, in network byte order, as a concatenation's field.
pub(crate) fn padded(bytes: &[u8]) -> Vec<u8> {
    let mut field = bytes.to_vec();
    field.resize(4, 0);
    field
}

/// IPv4's number as an address family.
pub(crate) const FAMILY_IPV4: u32 = 2;
const LIST_ELEMENT: u16 = 1;
const EXPRESSION_NAME: u16 = 1;
const EXPRESSION_DATA: u16 = 2;
const VERDICT_REGISTER: u32 = 0;
const FIB_RESULT_ADDRESS_TYPE: u32 = 3;
const LOOKUP_INVERTED: u32 = 1;
const NAT_DESTINATION: u32 = 1;
