//! What can go wrong in a shim.

use std::io;
use std::path::PathBuf;

use dhow_api::Kind;
use nix::errno::Errno;

/// An operation of the shim that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The runtime's answer.
    #[error(transparent)]
    Runtime(#[from] dhow_runtime::Error),
    /// Another part, a document, or a socket.
    #[error(transparent)]
    Api(#[from] dhow_api::Error),
    /// The root file system could not be mounted.
    #[error("mount the root file system")]
    Rootfs {
        /// Which step.
        source: dhow_sys::rootfs::Error,
    },
    /// No such container or process.
    #[error("{what} not found")]
    NotFound {
        /// Which.
        what: String,
    },
    /// The id is taken.
    #[error("{what} already exists")]
    Exists {
        /// Whose.
        what: String,
    },
    /// The process is not in the state that this needs.
    #[error("cannot {verb} a process that is {state}")]
    State {
        /// What was to be done.
        verb: &'static str,
        /// What it is.
        state: &'static str,
    },
    /// The request cannot be understood.
    #[error("{field}: {problem}")]
    Request {
        /// Which part of it.
        field: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The container's pids are those of another pid namespace.
    #[error("the container runs in pid namespace {theirs} and can be taken over only there; this is {ours}")]
    PidNamespace {
        /// Where it was made.
        theirs: u64,
        /// Where we are.
        ours: u64,
    },
    /// Not supported.
    #[error("{what} is not supported")]
    Unsupported {
        /// What.
        what: String,
    },
    /// A fifo, a log or another file.
    #[error("{action} {}", path.display())]
    File {
        /// What was to be done with it.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A system call.
    #[error("{step}")]
    Sys {
        /// What it was for.
        step: &'static str,
        /// Why.
        source: Errno,
    },
    /// The event loop.
    #[error("set up the event loop")]
    EventLoop {
        /// Why.
        source: io::Error,
    },
}

/// What most functions of this crate return.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// The gRPC code. A program that does not exist is `NotFound` (the shell's 127), one that cannot be executed is
    /// `PermissionDenied` (126).
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Runtime(error) => match error.kind() {
                dhow_runtime::Kind::NotFound | dhow_runtime::Kind::CommandNotFound => Kind::NotFound,
                dhow_runtime::Kind::AlreadyExists => Kind::AlreadyExists,
                dhow_runtime::Kind::FailedPrecondition => Kind::FailedPrecondition,
                dhow_runtime::Kind::InvalidArgument => Kind::InvalidArgument,
                dhow_runtime::Kind::NotExecutable => Kind::PermissionDenied,
                _ => Kind::Internal,
            },
            Self::Api(error) => error.kind(),
            Self::NotFound { .. } => Kind::NotFound,
            Self::Exists { .. } => Kind::AlreadyExists,
            Self::State { .. } | Self::PidNamespace { .. } => Kind::FailedPrecondition,
            Self::Request { .. } => Kind::InvalidArgument,
            Self::Unsupported { .. } => Kind::Unimplemented,
            Self::Rootfs { .. } | Self::File { .. } | Self::Sys { .. } | Self::EventLoop { .. } => Kind::Internal,
        }
    }

    /// The exit code that a shell would give: 127, 126, or docker's 125 for a fault of ours.
    #[must_use]
    pub fn exit_code(&self) -> u32 {
        match self {
            Self::Runtime(error) if error.kind() == dhow_runtime::Kind::CommandNotFound => 127,
            Self::Runtime(error) if error.kind() == dhow_runtime::Kind::NotExecutable => 126,
            _ => 125,
        }
    }

    /// The whole chain in one line.
    #[must_use]
    pub fn chain(&self) -> String {
        match self {
            // The runtime's own chain has the words that engines search for.
            Self::Runtime(error) => error.chain(),
            other => dhow_api::error::chain(other),
        }
    }

    /// As a handler's answer.
    #[must_use]
    pub fn status(&self) -> ttrpc::Error {
        dhow_api::error::status_text(self.kind(), self.chain())
    }

    pub(crate) fn file(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { action, path, source }
    }

    pub(crate) fn sys(step: &'static str) -> impl FnOnce(Errno) -> Self {
        move |source| Self::Sys { step, source }
    }
}
