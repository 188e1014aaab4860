//! What can go wrong between two parts, on the caller's side ([`Error`]) and on the answering side ([`status`]).
//!
//! A service's error crosses the wire as a gRPC code and a text: the code is chosen where the error is understood, the
//! text is its whole chain. The caller gets both back and need not know the service's own error type.

use std::io;
use std::path::PathBuf;

/// The gRPC status codes (google.rpc.Code), without OK.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// The operation was cancelled by its caller.
    Cancelled,
    /// Nothing better fits.
    Unknown,
    /// The request can never work, whatever the state.
    InvalidArgument,
    /// The answer did not come in time.
    DeadlineExceeded,
    /// What was named does not exist.
    NotFound,
    /// What was to be made exists.
    AlreadyExists,
    /// The caller may not do this.
    PermissionDenied,
    /// A disk, quota, port or address pool is used up.
    ResourceExhausted,
    /// The state does not allow it now.
    FailedPrecondition,
    /// A conflict with another operation; trying again may work.
    Aborted,
    /// Past the valid range.
    OutOfRange,
    /// Not supported.
    Unimplemented,
    /// A broken invariant or failing system call.
    Internal,
    /// The service is not there or went away; trying again may work.
    Unavailable,
    /// Data is lost or damaged for good.
    DataLoss,
    /// The caller is not known.
    Unauthenticated,
}

/// Each kind with its code on the wire.
const CODES: [(Kind, ttrpc::Code); 16] = [
    (Kind::Cancelled, ttrpc::Code::CANCELLED),
    (Kind::Unknown, ttrpc::Code::UNKNOWN),
    (Kind::InvalidArgument, ttrpc::Code::INVALID_ARGUMENT),
    (Kind::DeadlineExceeded, ttrpc::Code::DEADLINE_EXCEEDED),
    (Kind::NotFound, ttrpc::Code::NOT_FOUND),
    (Kind::AlreadyExists, ttrpc::Code::ALREADY_EXISTS),
    (Kind::PermissionDenied, ttrpc::Code::PERMISSION_DENIED),
    (Kind::ResourceExhausted, ttrpc::Code::RESOURCE_EXHAUSTED),
    (Kind::FailedPrecondition, ttrpc::Code::FAILED_PRECONDITION),
    (Kind::Aborted, ttrpc::Code::ABORTED),
    (Kind::OutOfRange, ttrpc::Code::OUT_OF_RANGE),
    (Kind::Unimplemented, ttrpc::Code::UNIMPLEMENTED),
    (Kind::Internal, ttrpc::Code::INTERNAL),
    (Kind::Unavailable, ttrpc::Code::UNAVAILABLE),
    (Kind::DataLoss, ttrpc::Code::DATA_LOSS),
    (Kind::Unauthenticated, ttrpc::Code::UNAUTHENTICATED),
];

impl Kind {
    /// The kind of a code; codes that we don't know, and OK, are [`Kind::Unknown`].
    #[must_use]
    pub fn from_code(code: ttrpc::Code) -> Self {
        CODES.iter().find(|(_, known)| *known == code).map_or(Self::Unknown, |(kind, _)| *kind)
    }

    /// The code on the wire.
    #[must_use]
    pub fn code(self) -> ttrpc::Code {
        CODES.iter().find(|(kind, _)| *kind == self).map_or(ttrpc::Code::UNKNOWN, |(_, code)| *code)
    }
}

/// A failed conversation with another part, or a shared document that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The service answered that it failed. The text is its whole error chain.
    #[error("{message}")]
    Answer {
        /// `Service/Method`
        method: String,
        /// The status code.
        kind: Kind,
        /// The service's text.
        message: String,
    },
    /// Nobody could be reached at the socket.
    #[error("connect to {}", socket.display())]
    Connect {
        /// The socket's path.
        socket: PathBuf,
        /// `NotFound`, `ConnectionRefused`, …
        source: io::Error,
    },
    /// Another user listens at the socket, or connected to it.
    #[error("the other end of {} belongs to uid {uid}", socket.display())]
    Peer {
        /// The socket's path.
        socket: PathBuf,
        /// Whose process it is.
        uid: u32,
    },
    /// The socket could not be made.
    #[error("listen on {}", socket.display())]
    Listen {
        /// The socket's path.
        socket: PathBuf,
        /// `AddrInUse` when a living server listens there.
        source: io::Error,
    },
    /// No such program beside ours, in /usr/libexec/dhow or in PATH.
    #[error("{name} is not installed: looked beside this program, in /usr/libexec/dhow and in PATH")]
    NoBinary {
        /// The program's name.
        name: String,
    },
    /// The service's program could not be executed.
    #[error("start {}", binary.display())]
    Start {
        /// The program.
        binary: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The service ended before it took the first request, twice.
    #[error("{} ended at once{}", binary.display(), if last_words.is_empty() { String::new() } else { format!(": {last_words}") })]
    Died {
        /// The program.
        binary: PathBuf,
        /// The last line of its log, as far as there is one.
        last_words: String,
    },
    /// The connection broke before the answer came.
    #[error("connection lost during {method}")]
    Lost {
        /// `Service/Method`
        method: String,
        /// What the socket said.
        source: io::Error,
    },
    /// The answer did not come in time.
    #[error("no answer to {method} within {} ms", after.as_millis())]
    Timeout {
        /// `Service/Method`
        method: String,
        /// How long was waited.
        after: std::time::Duration,
    },
    /// A message that does not fit the protocol.
    #[error("malformed message of {method}: {what}")]
    Protocol {
        /// `Service/Method`
        method: String,
        /// What is wrong with it.
        what: String,
    },
    /// A file or directory of ours could not be used.
    #[error("{action} {}", path.display())]
    File {
        /// read, write, lock, …
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A document that cannot be understood.
    #[error("{} is not a valid {document}", path.display())]
    Document {
        /// The document's type.
        document: &'static str,
        /// Which file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// The server's event loop could not be set up.
    #[error("set up the event loop")]
    EventLoop {
        /// Why.
        source: io::Error,
    },
    /// A server of ttrpc's could not start.
    #[error("serve ttrpc on {}: {message}", socket.display())]
    Serve {
        /// The socket's path.
        socket: PathBuf,
        /// ttrpc's text.
        message: String,
    },
}

impl Error {
    /// What a caller decides by.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Answer { kind, .. } => *kind,
            Self::Connect { .. } | Self::Lost { .. } | Self::Died { .. } => Kind::Unavailable,
            Self::Peer { .. } => Kind::PermissionDenied,
            Self::NoBinary { .. } => Kind::NotFound,
            Self::Timeout { .. } => Kind::DeadlineExceeded,
            Self::File { source, .. } if source.kind() == io::ErrorKind::NotFound => Kind::NotFound,
            Self::Document { .. } => Kind::DataLoss,
            Self::Listen { source, .. } if source.kind() == io::ErrorKind::AddrInUse => Kind::AlreadyExists,
            Self::Start { .. }
            | Self::Listen { .. }
            | Self::Protocol { .. }
            | Self::File { .. }
            | Self::EventLoop { .. }
            | Self::Serve { .. } => Kind::Internal,
        }
    }

    /// Whether [`Error::kind`] is this one.
    #[must_use]
    pub fn is(&self, kind: Kind) -> bool {
        self.kind() == kind
    }
}

/// The error and everything behind it in one line, outermost first.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

/// What a handler returns for its own error: the code and the error's whole chain as the text.
#[must_use]
pub fn status(kind: Kind, error: &dyn std::error::Error) -> ttrpc::Error {
    status_text(kind, chain(error))
}

/// What a handler returns where there is a text and no error value.
#[must_use]
pub fn status_text(kind: Kind, text: impl Into<String>) -> ttrpc::Error {
    ttrpc::Error::RpcStatus(ttrpc::get_status(kind.code(), text.into()))
}

/// The reverse of [`status`] for callers that use ttrpc's own (asynchronous) client.
#[must_use]
pub fn from_ttrpc(method: &str, error: ttrpc::Error) -> Error {
    match error {
        ttrpc::Error::RpcStatus(status) => Error::Answer {
            method: method.to_owned(),
            kind: Kind::from_code(status.code()),
            message: status.message().to_owned(),
        },
        other => Error::Lost { method: method.to_owned(), source: io::Error::other(other.to_string()) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_round_trip() {
        for (kind, code) in CODES {
            assert_eq!(Kind::from_code(code), kind);
            assert_eq!(kind.code(), code);
        }
        assert_eq!(Kind::from_code(ttrpc::Code::OK), Kind::Unknown);
    }

    #[test]
    fn the_status_carries_the_chain() {
        let error = Error::Connect { socket: "/a".into(), source: io::Error::other("why") };
        assert_eq!(chain(&error), "connect to /a: why");
        let back = from_ttrpc("S/M", status(Kind::Unavailable, &error));
        assert_eq!(back.kind(), Kind::Unavailable);
        assert_eq!(back.to_string(), "connect to /a: why");
    }
}
