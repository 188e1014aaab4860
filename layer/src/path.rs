//! A path inside a layer: bytes without NUL, relative to the layer's root, without `.`, `..` or empty components.

use std::fmt;
use std::ops::Bound;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A path inside a layer, in its canonical spelling: components joined by single slashes, none of them `.` or `..`, no
/// leading or trailing slash. The empty path is the layer's root.
///
/// Any byte but NUL may occur, so the text form (display and JSON) writes bytes outside printable UTF-8, and `%`, as `%XX`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct LayerPath(Vec<u8>);

impl LayerPath {
    /// The layer's root.
    #[must_use]
    pub fn root() -> Self {
        Self::default()
    }

    /// A path from raw bytes as a tar or a directory has them: a leading slash, `.` and empty components fall away.
    /// `None` when a component is `..` or a byte is NUL.
    #[must_use]
    pub fn parse(raw: &[u8]) -> Option<Self> {
        if raw.contains(&0) {
            return None;
        }
        let mut path = Self::default();
        for part in raw.split(|byte| *byte == b'/') {
            match part {
                b"" | b"." => {}
                b".." => return None,
                part => path.push(part),
            }
        }
        Some(path)
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether this is the layer's root.
    #[must_use]
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The components from the root down.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|byte| *byte == b'/').filter(|part| !part.is_empty())
    }

    /// Parent and last component; `None` for the root.
    #[must_use]
    pub fn split(&self) -> Option<(Self, &[u8])> {
        if self.is_root() {
            return None;
        }
        Some(match self.0.iter().rposition(|byte| *byte == b'/') {
            Some(at) => (Self(self.0[..at].to_vec()), &self.0[at + 1..]),
            None => (Self::root(), &self.0[..]),
        })
    }

    /// This path with one more component.
    #[must_use]
    pub fn join(&self, component: &[u8]) -> Self {
        let mut joined = self.clone();
        joined.push(component);
        joined
    }

    /// Whether `self` is `other` or lies below it.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        other.is_root() || (self.0.starts_with(&other.0) && matches!(self.0.get(other.0.len()), None | Some(b'/')))
    }

    /// Where everything below this path (not the root) lies in the order of paths: from `a/` to just before `a0`.
    pub(crate) fn range_below(&self) -> (Bound<Self>, Bound<Self>) {
        let (mut from, mut to) = (self.clone(), self.clone());
        from.0.push(b'/');
        to.0.push(b'/' + 1);
        (Bound::Included(from), Bound::Excluded(to))
    }

    pub(crate) fn push(&mut self, component: &[u8]) {
        if !self.0.is_empty() {
            self.0.push(b'/');
        }
        self.0.extend_from_slice(component);
    }

    pub(crate) fn pop(&mut self) {
        let end = self.0.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
        self.0.truncate(end);
    }

    /// The text form of any bytes, for messages about names that are no path.
    pub(crate) fn lossy(raw: &[u8]) -> Self {
        Self(raw.to_vec())
    }
}

impl fmt::Display for LayerPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return out.write_str("/");
        }
        out.write_str(&escape(&self.0))
    }
}

impl fmt::Debug for LayerPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "LayerPath({})", escape(&self.0))
    }
}

impl Serialize for LayerPath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&escape(&self.0))
    }
}

impl<'de> Deserialize<'de> for LayerPath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = unescape(&text).ok_or_else(|| D::Error::custom("bad %XX escape in a layer path"))?;
        Self::parse(&bytes).ok_or_else(|| D::Error::custom("`..` or NUL in a layer path"))
    }
}

fn escape(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for symbol in chunk.valid().chars() {
            if symbol == '%' || symbol.is_control() {
                let mut buffer = [0; 4];
                symbol.encode_utf8(&mut buffer).bytes().for_each(|byte| text.push_str(&format!("%{byte:02X}")));
            } else {
                text.push(symbol);
            }
        }
        chunk.invalid().iter().for_each(|byte| text.push_str(&format!("%{byte:02X}")));
    }
    text
}

fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        if *first == b'%' {
            let digits = std::str::from_utf8(tail.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &tail[2..];
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_to_one_spelling() {
        for (raw, want) in [
            (&b"./a//b/"[..], Some(&b"a/b"[..])),
            (b"/etc/passwd", Some(b"etc/passwd")),
            (b".", Some(b"")),
            (b"/", Some(b"")),
            (b"a/../b", None),
            (b"..", None),
            (b"..a/...", Some(b"..a/...")),
            (b"a\0b", None),
            (b"\xff\xfe", Some(b"\xff\xfe")),
        ] {
            assert_eq!(LayerPath::parse(raw).as_ref().map(LayerPath::as_bytes), want, "{raw:?}");
        }
    }

    #[test]
    fn text_form_round_trips() {
        for raw in [&b"a/b c"[..], b"100%", b"\xff/\n\x01", "é/ü".as_bytes(), b""] {
            let path = LayerPath::parse(raw).unwrap();
            let json = serde_json::to_string(&path).unwrap();
            assert_eq!(serde_json::from_str::<LayerPath>(&json).unwrap(), path, "{json}");
        }
    }

    #[test]
    fn within_respects_component_borders() {
        let path = |raw: &[u8]| LayerPath::parse(raw).unwrap();
        assert!(path(b"a/b").is_within(&path(b"a")));
        assert!(path(b"a").is_within(&path(b"a")));
        assert!(path(b"a").is_within(&path(b"")));
        assert!(!path(b"ab").is_within(&path(b"a")));
    }
}
