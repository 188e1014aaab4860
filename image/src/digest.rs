//! Content digests: `algorithm:hex`, checked to the letter when they enter the program.
//!
//! A [`Digest`] is used as a file name in the blob store, so parsing is the security boundary: only the two
//! whitelisted algorithms, only lower-case hex of exactly the right length, never a separator or `..`
//! (CVE-2024-3727). Source: OCI image-spec 1.1.1, descriptor.md, "Digests".

use std::fmt;
use std::str::FromStr;

pub use dhow_layer::digest::Algorithm;
use serde::{Deserialize, Serialize};

/// A verified digest string such as `sha256:6c3c…`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

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
        let (name, hex) = text.split_once(':').ok_or_else(|| fail("no algorithm"))?;
        let algorithm = algorithm(name).ok_or_else(|| fail("unsupported algorithm"))?;
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
        Self::with(Algorithm::Sha256, bytes)
    }

    /// The digest of `bytes` by `algorithm`.
    #[must_use]
    pub fn with(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
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

/// A running hash.
#[derive(Debug, Clone)]
pub struct Hasher(dhow_layer::digest::Hasher);

impl Hasher {
    /// A hash of nothing yet.
    #[must_use]
    pub fn new(algorithm: Algorithm) -> Self {
        Self(dhow_layer::digest::Hasher::new(algorithm))
    }

    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The digest of everything that was added.
    #[must_use]
    pub fn finish(self) -> Digest {
        Digest(self.0.finish())
    }
}

impl From<dhow_layer::digest::Hasher> for Hasher {
    fn from(hasher: dhow_layer::digest::Hasher) -> Self {
        Self(hasher)
    }
}

fn algorithm(name: &str) -> Option<Algorithm> {
    [Algorithm::Sha256, Algorithm::Sha512].into_iter().find(|algorithm| algorithm.name() == name)
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
        assert_eq!(Digest::with(Algorithm::Sha512, b"").short(), "cf83e1357eef");
    }

    #[test]
    fn chains() {
        let a = Digest::of(b"a");
        let b = Digest::of(b"b");
        assert_eq!(Digest::chain(None, &a), a);
        assert_eq!(Digest::chain(Some(&a), &b), Digest::of(format!("{a} {b}").as_bytes()));
    }
}
