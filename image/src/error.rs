//! The crate's one error type. A variant is an operation that failed, with what it was done to.

use std::io;
use std::path::PathBuf;

use crate::digest::{Digest, DigestError};
use crate::reference::{Reference, ReferenceError};
use crate::sink::SinkError;

/// What went wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operation was told to stop.
    #[error("interrupted")]
    Cancelled,
    /// The text is no reference.
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    /// The text is no digest.
    #[error(transparent)]
    Digest(#[from] DigestError),
    /// No local image is called that.
    #[error("no such image: {name}")]
    NoSuchImage {
        /// As it was asked for.
        name: String,
    },
    /// Several images begin with that id.
    #[error("the image id {prefix} is ambiguous: {count} images begin with it")]
    AmbiguousId {
        /// What was given.
        prefix: String,
        /// How many there are.
        count: usize,
    },
    /// An operation on a file or directory of the store.
    #[error("{operation} {}", path.display())]
    File {
        /// "create", "rename", …
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A document of the store or from a registry does not read.
    #[error("parse {what}")]
    Parse {
        /// Which document.
        what: String,
        /// Why not.
        source: serde_json::Error,
    },
    /// A document reads, but says what must not be.
    #[error("{what}: {reason}")]
    Document {
        /// Which document.
        what: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Content has another digest than its name.
    #[error("{what} is corrupt: its digest is {actual}, not {expected}")]
    DigestMismatch {
        /// Which content.
        what: String,
        /// What it should be.
        expected: Digest,
        /// What it is.
        actual: Digest,
    },
    /// Content is shorter or longer than its descriptor says.
    #[error("{what} is {actual} bytes long, its descriptor says {expected}")]
    SizeMismatch {
        /// Which content.
        what: String,
        /// Bytes there should be.
        expected: u64,
        /// Bytes there were, at least.
        actual: u64,
    },
    /// The store has no such blob.
    #[error("the image store lacks the blob {0}")]
    MissingBlob(Digest),
    /// No manifest of an index fits.
    #[error("{reference} has no image for {wanted}; it has {}", available.join(", "))]
    NoPlatform {
        /// The image.
        reference: String,
        /// The platform asked for.
        wanted: String,
        /// The platforms there are.
        available: Vec<String>,
    },
    /// The image is of a kind we do not read.
    #[error("{what} is not supported: {kind}")]
    Unsupported {
        /// Which document or blob.
        what: String,
        /// Its kind.
        kind: String,
    },
    /// The registry does not know the name or tag.
    #[error("{reference} not found in the registry")]
    NotInRegistry {
        /// What was asked for.
        reference: String,
    },
    /// The registry's answer to a request.
    #[error("{method} {url}: {status}{}", suffix(message))]
    Registry {
        /// The request's method.
        method: &'static str,
        /// Its address, without a query.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What the registry says, if it says something.
        message: String,
    },
    /// The registry refuses these credentials, or wants some.
    #[error("{registry}: unauthorized{}", suffix(message))]
    Unauthorized {
        /// Which registry.
        registry: String,
        /// What it says.
        message: String,
    },
    /// The registry knows who asks and says no.
    #[error("{registry}: access to {what} denied{}", suffix(message))]
    Denied {
        /// Which registry.
        registry: String,
        /// To what.
        what: String,
        /// What it says.
        message: String,
    },
    /// The registry's certificate is not to be trusted.
    #[error("{host}: TLS certificate not trusted: {reason}")]
    Untrusted {
        /// Which host.
        host: String,
        /// Why.
        reason: String,
    },
    /// The registry cannot be talked to.
    #[error("cannot talk to {host}: {reason}")]
    Unreachable {
        /// Which host.
        host: String,
        /// Why.
        reason: String,
    },
    /// The host answers what is no HTTP, or no registry.
    #[error("{host}: {reason}")]
    Protocol {
        /// Which host.
        host: String,
        /// What is wrong.
        reason: String,
    },
    /// A redirect, upload location or token realm leads where it must not.
    #[error("{host} sends us to {target}: {reason}")]
    Forbidden {
        /// Who sends us.
        host: String,
        /// Where to.
        target: String,
        /// Why we don't go.
        reason: &'static str,
    },
    /// Credentials could not be read or stored.
    #[error("credentials: {reason}")]
    Credentials {
        /// What is wrong.
        reason: String,
    },
    /// A certificate or key of a certs.d directory does not read.
    #[error("{}: {reason}", path.display())]
    Certificate {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Unpacking a layer.
    #[error("unpack layer {layer}")]
    Unpack {
        /// The layer's blob.
        layer: Digest,
        /// Why not.
        source: SinkError,
    },
    /// Unpacking the files of a tar.
    #[error("unpack the archive into {}", path.display())]
    Extract {
        /// The directory.
        path: PathBuf,
        /// Why not.
        source: SinkError,
    },
    /// The snapshot side of a layer.
    #[error("{operation} layer {chain}")]
    Sink {
        /// "look up", "prepare", "commit".
        operation: &'static str,
        /// The layer's chain id.
        chain: Digest,
        /// Why not.
        source: SinkError,
    },
    /// Packing a layer.
    #[error("pack layer of {}", path.display())]
    Pack {
        /// The directory packed.
        path: PathBuf,
        /// Why not.
        source: SinkError,
    },
    /// A change instruction of a commit.
    #[error("invalid change {change:?}: {reason}")]
    Change {
        /// As given.
        change: String,
        /// What is wrong.
        reason: String,
    },
    /// The local copy is not there and may not be fetched.
    #[error("{reference} is not here and is not to be pulled")]
    PullForbidden {
        /// Which.
        reference: Reference,
    },
}

/// What a caller may want to tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// No such image, tag, blob.
    NotFound,
    /// What was given does not parse or cannot mean anything.
    InvalidInput,
    /// Credentials are missing or wrong.
    Unauthorized,
    /// Credentials are right and not enough.
    Denied,
    /// Content is not what its name or descriptor says, or a peer misbehaves.
    Corrupt,
    /// A registry cannot be reached or is out of order: another try may help.
    Unavailable,
    /// TLS trust.
    Untrusted,
    /// A kind of image we do not read.
    Unsupported,
    /// The disk is full, or a quota.
    NoSpace,
    /// Stopped by the caller.
    Cancelled,
    /// The operating system or another part failed.
    Io,
}

impl Error {
    /// The class of this error.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        if self.is_disk_full() {
            return ErrorKind::NoSpace;
        }
        match self {
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Reference(_) | Self::Digest(_) | Self::AmbiguousId { .. } | Self::Change { .. } => {
                ErrorKind::InvalidInput
            }
            Self::NoSuchImage { .. } | Self::NotInRegistry { .. } | Self::MissingBlob(_) | Self::NoPlatform { .. } => {
                ErrorKind::NotFound
            }
            Self::PullForbidden { .. } => ErrorKind::NotFound,
            Self::Parse { .. } | Self::Document { .. } | Self::Protocol { .. } | Self::Forbidden { .. } => {
                ErrorKind::Corrupt
            }
            Self::DigestMismatch { .. } | Self::SizeMismatch { .. } => ErrorKind::Corrupt,
            Self::Unsupported { .. } => ErrorKind::Unsupported,
            Self::Registry { status, .. } => match status {
                404 => ErrorKind::NotFound,
                401 => ErrorKind::Unauthorized,
                403 => ErrorKind::Denied,
                429 | 500.. => ErrorKind::Unavailable,
                _ => ErrorKind::Corrupt,
            },
            Self::Unauthorized { .. } | Self::Credentials { .. } => ErrorKind::Unauthorized,
            Self::Denied { .. } => ErrorKind::Denied,
            Self::Untrusted { .. } | Self::Certificate { .. } => ErrorKind::Untrusted,
            Self::Unreachable { .. } => ErrorKind::Unavailable,
            Self::File { .. } | Self::Unpack { .. } | Self::Extract { .. } | Self::Sink { .. } | Self::Pack { .. } => {
                ErrorKind::Io
            }
        }
    }

    /// Makes a `map_err` closure for an operation on a path.
    pub(crate) fn file(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { operation, path, source }
    }

    /// Whether the fault is this machine's, so that more bytes from a registry would not help.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::File { .. } | Self::Sink { .. } => true,
            Self::Unpack { source, .. } => source.downcast_ref::<dhow_layer::Error>().is_some_and(|error| {
                !matches!(error.kind(), dhow_layer::Kind::InvalidLayer | dhow_layer::Kind::Stream)
            }),
            _ => false,
        }
    }

    /// Whether it is a mismatch of exactly this digest.
    pub(crate) fn concerns(&self, digest: &Digest) -> bool {
        matches!(self, Self::DigestMismatch { expected, .. } if expected == digest)
    }

    fn is_disk_full(&self) -> bool {
        let mut next = Some(self as &(dyn std::error::Error + 'static));
        while let Some(error) = next {
            if let Some(io) = error.downcast_ref::<io::Error>()
                && matches!(io.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
            {
                return true;
            }
            if error.downcast_ref::<dhow_layer::Error>().is_some_and(|e| e.kind() == dhow_layer::Kind::NoSpace) {
                return true;
            }
            next = error.source();
        }
        false
    }
}

fn suffix(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}
