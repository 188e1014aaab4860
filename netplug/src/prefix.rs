//! An address with a prefix length (CIDR): subnets, and interface addresses.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, invalid};

/// An address and the length of its network part; host bits may be set (an interface's address) or not (a subnet).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

impl Prefix {
    /// A prefix, if `length` fits the address family.
    pub fn new(address: IpAddr, length: u8) -> Result<Self> {
        if u32::from(length) > width(address) {
            return Err(invalid("prefix", format!("{address}/{length}"), "the length exceeds the address"));
        }
        Ok(Self { address, length })
    }

    /// An IPv4 prefix with a constant length.
    pub(crate) const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Self {
        Self { address: IpAddr::V4(Ipv4Addr::new(a, b, c, d)), length }
    }

    /// The address with its host bits.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// The length of the network part in bits.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// The subnet: host bits cleared.
    pub fn network(&self) -> Self {
        Self { address: from_bits(self.bits() & self.mask(), self.address), length: self.length }
    }

    /// This subnet's prefix length with another address.
    pub fn with_address(&self, address: IpAddr) -> Self {
        Self { address, length: self.length }
    }

    /// Whether the address lies in the subnet.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && to_bits(address) & self.mask() == self.bits() & self.mask()
    }

    /// Whether two subnets share an address.
    pub fn overlaps(&self, other: &Self) -> bool {
        if self.length <= other.length { self.contains(other.address) } else { other.contains(self.address) }
    }

    /// The addresses that hosts may have: IPv4 without the network's own and the broadcast address, IPv6 without the
    /// subnet-router anycast address. Offsets into the subnet, first and last.
    pub fn hosts(&self) -> (u128, u128) {
        let host_bits = width(self.address) - u32::from(self.length);
        let last = if host_bits == 128 { u128::MAX } else { (1_u128 << host_bits) - 1 };
        match (self.address, host_bits) {
            (_, 0 | 1) => (0, last),
            (IpAddr::V4(_), _) => (1, last - 1),
            (IpAddr::V6(_), _) => (1, last),
        }
    }

    /// The address at an offset into the subnet.
    pub fn nth(&self, offset: u128) -> IpAddr {
        from_bits((self.bits() & self.mask()).wrapping_add(offset), self.address)
    }

    /// Where an address of the subnet lies in it.
    pub fn offset(&self, address: IpAddr) -> u128 {
        to_bits(address) & !self.mask()
    }

    /// Whether an address of the subnet may be given to a host.
    pub fn is_host(&self, address: IpAddr) -> bool {
        let (first, last) = self.hosts();
        self.contains(address) && (first..=last).contains(&self.offset(address))
    }

    fn bits(&self) -> u128 {
        to_bits(self.address)
    }

    fn mask(&self) -> u128 {
        let host_bits = width(self.address) - u32::from(self.length);
        u128::MAX.checked_shl(host_bits).unwrap_or(0)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Prefix {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let (address, length) =
            text.split_once('/').ok_or_else(|| invalid("subnet", text, "want ADDRESS/LENGTH, as 10.9.0.0/24"))?;
        let address: IpAddr = address.parse().map_err(|_error| invalid("subnet", text, "not an IP address"))?;
        let length: u8 = length.parse().map_err(|_error| invalid("subnet", text, "not a prefix length"))?;
        Self::new(address, length)
    }
}

impl TryFrom<String> for Prefix {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Prefix> for String {
    fn from(prefix: Prefix) -> Self {
        prefix.to_string()
    }
}

fn width(address: IpAddr) -> u32 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn to_bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(v4) => u128::from(v4.to_bits()),
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

/// The address of `like`'s family with these bits.
fn from_bits(bits: u128, like: IpAddr) -> IpAddr {
    match like {
        #[expect(clippy::cast_possible_truncation, reason = "an IPv4 address is the low 32 bits")]
        IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from_bits(bits as u32)),
        IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from_bits(bits)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    #[test]
    fn parses_and_refuses() {
        assert_eq!(prefix("10.88.3.4/16").network().to_string(), "10.88.0.0/16");
        assert_eq!(prefix("fd00::12/64").network().to_string(), "fd00::/64");
        assert_eq!(prefix("0.0.0.0/0").hosts(), (1, u128::from(u32::MAX) - 1));
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "fd00::/129", "10.0.0/8", "a/8", "10.0.0.0/-1"] {
            assert!(bad.parse::<Prefix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn knows_what_overlaps() {
        for (one, other, wanted) in [
            ("10.88.0.0/16", "10.88.7.0/24", true),
            ("10.88.0.0/16", "10.89.0.0/24", false),
            ("0.0.0.0/0", "10.0.0.0/8", true),
            ("10.0.0.0/8", "fd00::/8", false),
            ("fd00::/8", "fd12::/64", true),
        ] {
            assert_eq!(prefix(one).overlaps(&prefix(other)), wanted, "{one} {other}");
            assert_eq!(prefix(other).overlaps(&prefix(one)), wanted, "{other} {one}");
        }
    }

    #[test]
    fn counts_hosts() {
        for (text, first, last) in [
            ("10.9.0.0/24", "10.9.0.1", "10.9.0.254"),
            ("10.9.0.0/30", "10.9.0.1", "10.9.0.2"),
            ("10.9.0.4/31", "10.9.0.4", "10.9.0.5"),
            ("10.9.0.4/32", "10.9.0.4", "10.9.0.4"),
            ("fd00::/64", "fd00::1", "fd00::ffff:ffff:ffff:ffff"),
        ] {
            let subnet = prefix(text);
            let (low, high) = subnet.hosts();
            assert_eq!(subnet.nth(low).to_string(), first);
            assert_eq!(subnet.nth(high).to_string(), last);
            assert_eq!(subnet.offset(subnet.nth(high)), high);
        }
        assert!(!prefix("10.9.0.0/24").is_host("10.9.0.255".parse().unwrap()));
        assert!(!prefix("10.9.0.0/24").is_host("10.9.1.1".parse().unwrap()));
    }
}
