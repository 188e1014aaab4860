//! The keys that leave an attachment without ending the process: ctrl-p ctrl-q unless told otherwise.

use std::str::FromStr;

/// A sequence of bytes to look for in what is typed; empty never matches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetachKeys(Vec<u8>);

/// A text that does not describe keys.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid detach keys {0:?}: use a comma-separated list of single characters and ctrl-X, X one of a-z @ [ \\ ] ^ _"
)]
pub struct BadKeys(String);

impl Default for DetachKeys {
    fn default() -> Self {
        Self(vec![0x10, 0x11])
    }
}

impl DetachKeys {
    /// No way to detach.
    #[must_use]
    pub fn none() -> Self {
        Self(Vec::new())
    }

    /// A scanner at the beginning of the input.
    #[must_use]
    pub fn scanner(self) -> DetachScanner {
        DetachScanner { keys: self.0, matched: 0 }
    }
}

impl FromStr for DetachKeys {
    type Err = BadKeys;

    /// docker's notation: `ctrl-p,ctrl-q`, `a,b`, `ctrl-[`. Empty is the default, `none` is none.
    fn from_str(text: &str) -> Result<Self, BadKeys> {
        match text {
            "" => return Ok(Self::default()),
            "none" => return Ok(Self::none()),
            _ => {}
        }
        let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
        keys.map(Self).ok_or_else(|| BadKeys(text.to_owned()))
    }
}

fn key(text: &str) -> Option<u8> {
    match text.strip_prefix("ctrl-").map(str::as_bytes) {
        Some([letter]) => match letter.to_ascii_lowercase() {
            letter @ b'a'..=b'z' => Some(letter - b'a' + 1),
            b'@' => Some(0),
            sign @ b'['..=b'_' => Some(sign - b'[' + 27),
            _ => None,
        },
        Some(_) => None,
        None => match text.as_bytes() {
            [byte] if byte.is_ascii() => Some(*byte),
            _ => None,
        },
    }
}

/// Looks for the keys in a stream that arrives in pieces. A beginning of the sequence is held back until it is clear
/// that it is not one.
#[derive(Debug, Clone)]
pub struct DetachScanner {
    keys: Vec<u8>,
    matched: usize,
}

/// What came of a piece of input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scanned {
    /// What goes to the process.
    pub pass: Vec<u8>,
    /// Whether the keys were typed; nothing after them was looked at.
    pub detach: bool,
}

impl DetachScanner {
    /// Takes the next piece of input.
    #[must_use]
    pub fn feed(&mut self, input: &[u8]) -> Scanned {
        if self.keys.is_empty() {
            return Scanned { pass: input.to_vec(), detach: false };
        }
        let mut pass = Vec::with_capacity(input.len() + self.matched);
        for &byte in input {
            // The longest beginning of the sequence that ends in this byte; what falls out of it passes.
            while self.matched > 0 && self.keys[self.matched] != byte {
                let shorter = self.fall_back();
                pass.extend_from_slice(&self.keys[..self.matched - shorter]);
                self.matched = shorter;
            }
            if self.keys[self.matched] == byte {
                self.matched += 1;
            } else {
                pass.push(byte);
            }
            if self.matched == self.keys.len() {
                self.matched = 0;
                return Scanned { pass, detach: true };
            }
        }
        Scanned { pass, detach: false }
    }

    /// The length of the longest proper beginning of the sequence that the matched part ends in.
    fn fall_back(&self) -> usize {
        (0..self.matched).rev().find(|&n| self.keys[..self.matched].ends_with(&self.keys[..n])).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notation() {
        for (text, keys) in [
            ("", vec![0x10, 0x11]),
            ("none", vec![]),
            ("ctrl-p,ctrl-q", vec![0x10, 0x11]),
            ("a,b", vec![b'a', b'b']),
            ("ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_", vec![0, 27, 28, 29, 30, 31]),
            ("ctrl-A", vec![1]),
            ("^", vec![b'^']),
        ] {
            assert_eq!(text.parse(), Ok(DetachKeys(keys)), "{text}");
        }
        for text in ["ab", "ctrl-", "ctrl-1", "a,,b", "ctrl-pp", "é", ","] {
            assert!(text.parse::<DetachKeys>().is_err(), "{text}");
        }
    }

    #[test]
    fn finds_the_keys_wherever_the_pieces_end() {
        let scan = |keys: &str, pieces: &[&str]| {
            let mut scanner = keys.parse::<DetachKeys>().unwrap().scanner();
            let mut pass = Vec::new();
            for piece in pieces {
                let scanned = scanner.feed(piece.as_bytes());
                pass.extend(scanned.pass);
                if scanned.detach {
                    return (String::from_utf8(pass).unwrap(), true);
                }
            }
            (String::from_utf8(pass).unwrap(), false)
        };
        for (keys, pieces, pass, detach) in [
            ("", &["ab\x10", "\x11cd"][..], "ab", true),
            ("", &["a\x10b\x10\x10\x11"], "a\x10b\x10", true),
            ("", &["a\x10"], "a", false),
            ("", &["a\x10", "b"], "a\x10b", false),
            ("none", &["\x10\x11"], "\x10\x11", false),
            ("a,a,b", &["aaab"], "a", true),
            ("a,b,a,c", &["ababac"], "ab", true),
            ("x", &["..x.."], "..", true),
        ] {
            assert_eq!(scan(keys, pieces), (pass.to_owned(), detach), "{keys} {pieces:?}");
        }
    }
}
