//! Content digests: `algorithm:hex`, checked to the letter when they enter the program.
//!
//! A [`Digest`] is used as a file name in the blob store, so parsing is the security boundary: only the two
//! whitelisted algorithms, only lower-case hex of exactly the right length, never a separator or `..`
//! (CVE-2024-3727). Source: OCI image-spec 1.1.1, descriptor.md, "Digests".

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// A verified digest string such as `sha256:6c3c…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

/// The digest algorithms we accept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// SHA-256, the one in use everywhere.
    Sha256,
    /// SHA-512, registered by the OCI image specification.
    Sha512,
}

/// Why a string is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid digest {digest:?}: {reason}")]
pub struct DigestError {
    /// What was given, cut to a printable length.
    pub digest: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Digest {
    /// Parses `algorithm:hex`.
    ///
    /// # Errors
    /// [`DigestError`] for an unknown algorithm, upper-case or non-hex digits, or a wrong length.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        let fail = |reason| DigestError { digest: text.chars().take(160).collect(), reason };
        let (algorithm, hex) = text.split_once(':').ok_or_else(|| fail("no algorithm"))?;
        let algorithm = Algorithm::parse(algorithm).ok_or_else(|| fail("unsupported algorithm"))?;
        if hex.len() != algorithm.hex_len() {
            return Err(fail("wrong length"));
        }
        if !hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(fail("not lower-case hexadecimal"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The SHA-256 of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Algorithm::Sha256.digest(bytes)
    }

    /// The chain id of a layer (image-spec config.md, "Layer ChainID") on top of `parent`.
    #[must_use]
    pub fn chain(parent: Option<&Self>, diff_id: &Self) -> Self {
        parent.map_or_else(|| diff_id.clone(), |parent| Self::of(format!("{parent} {diff_id}").as_bytes()))
    }

    /// The algorithm before the colon.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        if self.0.starts_with("sha512:") { Algorithm::Sha512 } else { Algorithm::Sha256 }
    }

    /// The hexadecimal digits behind the colon.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.0[self.algorithm().name().len() + 1..]
    }

    /// The first twelve hexadecimal digits, as docker prints ids.
    #[must_use]
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }

    /// The whole text, `algorithm:hex`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Digest {
    type Error = DigestError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text)
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl Algorithm {
    /// The name before the colon.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    /// A hasher that is fed as bytes pass by.
    #[must_use]
    pub fn hasher(self) -> Hasher {
        match self {
            Self::Sha256 => Hasher::Sha256(sha2::Sha256::new()),
            Self::Sha512 => Hasher::Sha512(sha2::Sha512::new()),
        }
    }

    /// The digest of `bytes`.
    #[must_use]
    pub fn digest(self, bytes: &[u8]) -> Digest {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finish()
    }

    fn parse(name: &str) -> Option<Self> {
        match name {
            "sha256" => Some(Self::Sha256),
            "sha512" => Some(Self::Sha512),
            _ => None,
        }
    }

    fn hex_len(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

/// A running hash of one [`Algorithm`].
#[derive(Clone)]
pub enum Hasher {
    /// SHA-256.
    Sha256(sha2::Sha256),
    /// SHA-512.
    Sha512(sha2::Sha512),
}

impl Hasher {
    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(state) => state.update(bytes),
            Self::Sha512(state) => state.update(bytes),
        }
    }

    /// The digest of everything that was added.
    #[must_use]
    pub fn finish(self) -> Digest {
        match self {
            Self::Sha256(state) => Digest(format!("sha256:{}", hex(&state.finalize()))),
            Self::Sha512(state) => Digest(format!("sha512:{}", hex(&state.finalize()))),
        }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").finish_non_exhaustive()
    }
}

/// Lower-case hexadecimal of `bytes`.
pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_only_strict_digests() {
        let good = "a".repeat(64);
        assert_eq!(Digest::parse(&format!("sha256:{good}")).unwrap().hex(), good);
        let long = "0f".repeat(64);
        assert_eq!(Digest::parse(&format!("sha512:{long}")).unwrap().hex(), long);
        for (text, reason) in [
            ("", "no algorithm"),
            ("sha256", "no algorithm"),
            ("sha256:", "wrong length"),
            ("sha256:abc", "wrong length"),
            ("md5:d41d8cd98f00b204e9800998ecf8427e", "unsupported algorithm"),
            ("../sha256:aa", "unsupported algorithm"),
            ("sha256:../../x", "wrong length"),
        ] {
            assert_eq!(Digest::parse(text).unwrap_err().reason, reason, "{text}");
        }
        for bad in [format!("sha256:{}", "A".repeat(64)), format!("sha256:../{}", "a".repeat(61))] {
            assert_eq!(Digest::parse(&bad).unwrap_err().reason, "not lower-case hexadecimal");
        }
    }

    #[test]
    fn hashes() {
        let empty = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::of(b"").as_str(), empty);
        assert_eq!(Algorithm::Sha512.digest(b"").short(), "cf83e1357eef");
    }

    #[test]
    fn chains() {
        let a = Digest::of(b"a");
        let b = Digest::of(b"b");
        assert_eq!(Digest::chain(None, &a), a);
        assert_eq!(Digest::chain(Some(&a), &b), Digest::of(format!("{a} {b}").as_bytes()));
    }
}
