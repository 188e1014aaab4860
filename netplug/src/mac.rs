//! Ethernet addresses: parsed from requests, or made from an IP address.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result, invalid};

/// A unicast Ethernet address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Mac(pub(crate) [u8; 6]);

impl Mac {
    /// The locally administered address that belongs to an IP address. An IP address that is leased again keeps its
    /// Ethernet address, so no neighbour's ARP cache is ever stale.
    pub fn of_address(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(v4) => {
                let [a, b, c, d] = v4.octets();
                Self([0x02, 0x88, a, b, c, d])
            }
            IpAddr::V6(v6) => Self::of_bytes(&v6.octets()),
        }
    }

    /// A locally administered address from the hash of something stable.
    pub(crate) fn of_bytes(bytes: &[u8]) -> Self {
        let digest = Sha256::digest(bytes);
        Self([0x02, 0x89, digest[0], digest[1], digest[2], digest[3]])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

impl FromStr for Mac {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |reason: &str| invalid("MAC address", text, reason);
        let mut bytes = [0_u8; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts
                .next()
                .filter(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
                .ok_or_else(|| wrong("want xx:xx:xx:xx:xx:xx"))?;
            *byte = u8::from_str_radix(part, 16).map_err(|_error| wrong("not hexadecimal"))?;
        }
        if parts.next().is_some() {
            return Err(wrong("want xx:xx:xx:xx:xx:xx"));
        }
        if bytes[0] & 1 == 1 || bytes == [0; 6] {
            return Err(wrong("not a unicast address"));
        }
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Mac {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Mac> for String {
    fn from(mac: Mac) -> Self {
        mac.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_unicast_only() {
        let mac: Mac = "02:42:ac:11:00:02".parse().unwrap();
        assert_eq!(mac.to_string(), "02:42:ac:11:00:02");
        for bad in [
            "",
            "02:42:ac:11:00",
            "02:42:ac:11:00:02:03",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
            "+2:42:ac:11:00:02",
            "g2:42:ac:11:00:02",
        ] {
            assert!(bad.parse::<Mac>().is_err(), "{bad}");
        }
    }

    #[test]
    fn follows_the_address() {
        assert_eq!(Mac::of_address("10.88.0.2".parse().unwrap()).to_string(), "02:88:0a:58:00:02");
    }
}
