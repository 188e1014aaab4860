//! What can go wrong with a layer, and of what kind it is.

use std::io;

use nix::errno::Errno;

use crate::LayerPath;

/// Shorthand for this crate's results.
pub type Result<T> = std::result::Result<T, Error>;

/// A failed operation on a layer, with its operands.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The stream that carries the tar broke: the network, the disk, or the compression inside it.
    #[error("read the layer")]
    Read {
        /// What the stream said.
        source: io::Error,
    },
    /// The bytes are no tar that every reader would understand alike.
    #[error("malformed tar at byte {offset}: {flaw}")]
    Malformed {
        /// Offset of the header in the uncompressed stream.
        offset: u64,
        /// What is wrong with it.
        flaw: String,
    },
    /// A well-formed entry that must not be unpacked.
    #[error("entry {name} refused: {why}")]
    Refused {
        /// The entry's name, escaped.
        name: LayerPath,
        /// The rule it breaks.
        why: String,
    },
    /// The layer holds more than the caller allows.
    #[error("layer unpacks to more than {limit} {unit}")]
    TooLarge {
        /// The limit in `unit`s.
        limit: u64,
        /// `bytes` or `entries`.
        unit: &'static str,
    },
    /// A system call on a file of the layer failed.
    #[error("{op} {path}")]
    Os {
        /// The call, as a verb.
        op: &'static str,
        /// The file inside the layer's directory.
        path: LayerPath,
        /// The kernel's answer.
        source: Errno,
    },
    /// A hard link whose target is in no layer.
    #[error("hard link {name}: target {target} {why}")]
    DanglingLink {
        /// The link.
        name: LayerPath,
        /// What it should be linked to.
        target: LayerPath,
        /// Why it cannot be.
        why: &'static str,
    },
    /// A file of the upper directory that a layer cannot say.
    #[error("{path} cannot be expressed in a layer: {why}")]
    Inexpressible {
        /// The file.
        path: LayerPath,
        /// Why not.
        why: &'static str,
    },
    /// The upper directory changed while it was read.
    #[error("{path} changed while it was read")]
    Changed {
        /// The file that changed.
        path: LayerPath,
    },
    /// The differ's output could not be written.
    #[error("write the layer")]
    Write {
        /// What the writer said.
        source: io::Error,
    },
    /// `settle.json` could not be read or written.
    #[error("{op} {}", path.display())]
    SettleFile {
        /// `read` or `write`.
        op: &'static str,
        /// The file.
        path: std::path::PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// What an [`Error`] means to a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// The layer is bad and will be bad the next time too.
    InvalidLayer,
    /// The disk (or a quota) is full.
    NoSpace,
    /// The stream broke off or failed: another try may work.
    Stream,
    /// This user may not make what the layer asks for.
    Permission,
    /// Something of this machine failed.
    System,
}

impl Error {
    /// What the error means to a caller.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Malformed { .. } | Self::Refused { .. } | Self::TooLarge { .. } | Self::DanglingLink { .. } => {
                Kind::InvalidLayer
            }
            Self::Inexpressible { .. } => Kind::InvalidLayer,
            Self::Read { source } if source.kind() == io::ErrorKind::InvalidData => Kind::InvalidLayer,
            Self::Read { .. } => Kind::Stream,
            Self::Os { source, .. } => errno_kind(*source),
            Self::Write { source } | Self::SettleFile { source, .. } => {
                source.raw_os_error().map_or(Kind::System, |raw| errno_kind(Errno::from_raw(raw)))
            }
            Self::Changed { .. } => Kind::System,
        }
    }
}

fn errno_kind(errno: Errno) -> Kind {
    match errno {
        Errno::ENOSPC | Errno::EDQUOT => Kind::NoSpace,
        Errno::ENAMETOOLONG | Errno::ELOOP => Kind::InvalidLayer,
        Errno::EPERM | Errno::EACCES => Kind::Permission,
        _ => Kind::System,
    }
}
