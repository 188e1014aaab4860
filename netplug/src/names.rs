//! Names that come from requests (container ids, network names, hostnames) and names that are made for the kernel.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result, invalid};

/// A container's id: a file name that is no path and not hidden.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ContainerId(String);

/// A network's name, of the same alphabet as a container's id.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct NetworkName(String);

macro_rules! name {
    ($type:ident, $what:literal) => {
        impl $type {
            /// The name, if it is one.
            pub fn parse(text: &str) -> Result<Self> {
                check(text).map_err(|reason| invalid($what, text, reason))?;
                Ok(Self(text.to_owned()))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $type {
            type Error = Error;

            fn try_from(text: String) -> Result<Self> {
                Self::parse(&text)
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> Self {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    };
}

name!(ContainerId, "container id");
name!(NetworkName, "network name");

/// The longest name a link can have, without its NUL (`IFNAMSIZ` - 1).
pub(crate) const LINK_NAME_MAX: usize = 15;

fn check(text: &str) -> Result<(), &'static str> {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    match text.as_bytes() {
        [] => Err("empty"),
        bytes if bytes.len() > 128 => Err("longer than 128 bytes"),
        [first, ..] if !first.is_ascii_alphanumeric() => Err("must begin with a letter or digit"),
        bytes if !bytes.iter().all(allowed) => Err("only letters, digits, _, . and - are allowed"),
        _ => Ok(()),
    }
}

/// A hostname or alias as it may stand in a hosts file: RFC 1123 labels, and underscores, which people use.
pub(crate) fn check_hostname(what: &'static str, text: &str) -> Result<()> {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.len() <= 253 && name.split('.').all(label) { Ok(()) } else { Err(invalid(what, text, "not a hostname")) }
}

/// A link's name as a request may give it.
pub(crate) fn check_link_name(text: &str) -> Result<()> {
    let bad = |byte: u8| byte == b'/' || byte == b':' || byte == b'"' || byte <= b' ' || byte >= 127;
    if text.is_empty() || text.len() > LINK_NAME_MAX || text == "." || text == ".." || text.bytes().any(bad) {
        return Err(invalid("interface name", text, "want 1 to 15 printable characters without / : and quotes"));
    }
    Ok(())
}

/// The first `digits` hexadecimal digits of the SHA-256 of the parts, which are kept apart by their lengths.
pub(crate) fn hash(parts: &[&[u8]], digits: usize) -> String {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    hasher.finalize().iter().flat_map(|byte| [byte >> 4, byte & 15]).take(digits).map(hex_digit).collect()
}

/// A new random id of 64 hexadecimal digits.
pub(crate) fn random_id() -> Result<String> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(Error::Random)?;
    Ok(bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]).map(hex_digit).collect())
}

fn hex_digit(nibble: u8) -> char {
    char::from(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_file_names() {
        for good in ["a", "0f", "my-net_1.2", &"f".repeat(64)] {
            assert!(ContainerId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", ".", "..", ".hidden", "-x", "a/b", "a b", "a\n", "ä", &"f".repeat(129)] {
            assert!(ContainerId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn hostnames_stay_on_their_line() {
        for good in ["web", "web.example.org", "my_host", "a.b."] {
            assert!(check_hostname("hostname", good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a\nb", "a#b", "a..b", &"x".repeat(64)] {
            assert!(check_hostname("hostname", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn link_names_fit() {
        assert!(check_link_name("br-0123456789ab").is_ok());
        for bad in ["", ".", "..", "0123456789abcdef", "a/b", "a b", "a\"b"] {
            assert!(check_link_name(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn hashes_keep_parts_apart() {
        assert_ne!(hash(&[b"ab", b"c"], 8), hash(&[b"a", b"bc"], 8));
        assert_eq!(hash(&[b"a"], 12).len(), 12);
    }
}
