//! What users write on the command line, as values: each file parses one notation and refuses the rest with a reason.
//! Nothing here touches the disk, except where a flag itself names a file (`env`).

pub(crate) mod device;
pub(crate) mod duration;
pub(crate) mod env;
pub(crate) mod filter;
pub(crate) mod mount;
pub(crate) mod port;
pub(crate) mod security;
pub(crate) mod signal;
pub(crate) mod size;
pub(crate) mod timestamp;
pub(crate) mod ulimit;

use std::fmt;

/// Why a value on the command line was refused.
///
/// Displays as `invalid VALUE for WHAT: WHY` so that it makes sense without the command line at hand.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) struct Invalid {
    /// The notation that was expected, as the user knows it (`--publish`, `size`).
    pub what: &'static str,
    /// What was given.
    pub value: String,
    /// What is wrong with it.
    pub why: String,
}

impl Invalid {
    /// A refusal of `value`.
    pub(crate) fn new(what: &'static str, value: impl Into<String>, why: impl Into<String>) -> Self {
        Self { what, value: value.into(), why: why.into() }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "invalid {} {:?}: {}", self.what, self.value, self.why)
    }
}

/// A `key=value` list as `--label` and `--annotation` take it; a key alone has an empty value.
pub(crate) fn key_value(text: &str) -> (String, String) {
    match text.split_once('=') {
        Some((key, value)) => (key.to_owned(), value.to_owned()),
        None => (text.to_owned(), String::new()),
    }
}
