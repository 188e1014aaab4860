//! What can go wrong with a snapshot, and as which gRPC code a caller sees it.

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

use crate::Kind;

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed operation on snapshots, with its operands.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No snapshot has that name.
    #[error("snapshot {name} does not exist")]
    NotFound {
        /// The name.
        name: String,
    },
    /// The parent named does not exist.
    #[error("parent snapshot {name} does not exist")]
    NoParent {
        /// The parent's name.
        name: String,
    },
    /// The name is taken.
    #[error("snapshot {name} exists already")]
    AlreadyExists {
        /// The name.
        name: String,
    },
    /// Only a snapshot without children can go.
    #[error("snapshot {name} has {children} children")]
    HasChildren {
        /// The name.
        name: String,
        /// How many.
        children: usize,
    },
    /// The operation is for snapshots of another kind.
    #[error("snapshot {name} is {is}, not {wanted}")]
    WrongKind {
        /// The name.
        name: String,
        /// Its kind.
        is: Kind,
        /// What the operation needs.
        wanted: &'static str,
    },
    /// Only a committed snapshot can be a parent.
    #[error("parent snapshot {name} is {is}, not committed")]
    UncommittedParent {
        /// The parent's name.
        name: String,
        /// Its kind.
        is: Kind,
    },
    /// A snapshot that was prepared with one parent cannot be committed with another.
    #[error("snapshot {name} was prepared over {has}, not over {wanted}")]
    OtherParent {
        /// The snapshot.
        name: String,
        /// Its parent.
        has: String,
        /// What Commit said.
        wanted: String,
    },
    /// Another operation has not ended.
    #[error("snapshot {name} is being changed by another call")]
    Busy {
        /// The name.
        name: String,
    },
    /// A name or label that cannot be.
    #[error("{what}")]
    Invalid {
        /// What is wrong.
        what: String,
    },
    /// Another process works on this root.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The root's snapshots directory.
        path: PathBuf,
    },
    /// A system call on a file of ours failed.
    #[error("{op} {}", path.display())]
    Disk {
        /// The call, as a verb.
        op: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The layer could not be fitted to its parents.
    #[error("settle the layer of snapshot {name}")]
    Settle {
        /// The snapshot.
        name: String,
        /// The cause.
        source: dhow_layer::Error,
    },
    /// A directory could not be measured.
    #[error("measure {}", path.display())]
    Measure {
        /// The directory.
        path: PathBuf,
        /// The cause.
        source: dhow_sys::tree::WalkError,
    },
}

impl Error {
    /// As what a caller sees it.
    #[must_use]
    pub fn kind(&self) -> dhow_api::Kind {
        use dhow_api::Kind as Code;
        match self {
            Self::NotFound { .. } | Self::NoParent { .. } => Code::NotFound,
            Self::AlreadyExists { .. } => Code::AlreadyExists,
            Self::HasChildren { .. } | Self::WrongKind { .. } | Self::OtherParent { .. } | Self::InUse { .. } => {
                Code::FailedPrecondition
            }
            Self::UncommittedParent { .. } | Self::Invalid { .. } => Code::InvalidArgument,
            Self::Busy { .. } => Code::Aborted,
            Self::Disk { source, .. } => io_code(source),
            Self::Settle { source, .. } => match source.kind() {
                dhow_layer::Kind::InvalidLayer => Code::InvalidArgument,
                dhow_layer::Kind::NoSpace => Code::ResourceExhausted,
                dhow_layer::Kind::Permission => Code::PermissionDenied,
                _ => Code::Internal,
            },
            Self::Measure { source, .. } => errno_code(source.source),
        }
    }
}

fn io_code(error: &io::Error) -> dhow_api::Kind {
    error.raw_os_error().map_or(dhow_api::Kind::Internal, |raw| errno_code(Errno::from_raw(raw)))
}

fn errno_code(errno: Errno) -> dhow_api::Kind {
    match errno {
        Errno::ENOSPC | Errno::EDQUOT | Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM => {
            dhow_api::Kind::ResourceExhausted
        }
        Errno::EACCES | Errno::EPERM | Errno::EROFS => dhow_api::Kind::PermissionDenied,
        _ => dhow_api::Kind::Internal,
    }
}
