//! What can go wrong on a bus.

use std::time::Duration;

/// A conversation over D-Bus that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BusError {
    /// Nobody answers at any of the addresses; of several the last one's reason.
    #[error("connect to {address}")]
    Connect {
        /// The address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// An address that is none, or of a kind other than a Unix socket.
    #[error("no address of a bus on a Unix socket: {address:?}")]
    Address {
        /// What was given.
        address: String,
    },
    /// The bus does not let this user in.
    #[error("the bus refused this user: {said}")]
    Refused {
        /// In its words.
        said: String,
    },
    /// The connection broke.
    #[error("{doing}")]
    Broken {
        /// What was being done.
        doing: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// No answer in time.
    #[error("no answer to {call} within {waited:?}")]
    Timeout {
        /// What was asked.
        call: &'static str,
        /// How long we waited.
        waited: Duration,
    },
    /// What came is no message, or more than any that is waited for.
    #[error("a message that can't be understood: {problem}")]
    Malformed {
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The call was answered with an error.
    #[error("{call}: {text}")]
    Answer {
        /// What was asked.
        call: &'static str,
        /// The error's name (`org.freedesktop.systemd1.NoSuchUnit`).
        name: String,
        /// In the words of the one who answered.
        text: String,
    },
}

impl BusError {
    /// Whether the call was answered with the error of this name.
    pub(crate) fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Answer { name, .. } if name == wanted)
    }
}
