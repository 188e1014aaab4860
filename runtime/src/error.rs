//! What can go wrong, with its operands; and what callers have to tell apart.

use std::io;
use std::path::PathBuf;

use dhow_sys::Errno;

use crate::state::Status;

/// An error of the runtime. The texts of the variants that engines look for are runc's.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// config.json (or a process document) is wrong.
    #[error("{field}: {problem}")]
    Config {
        /// The field, in dotted notation.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A container can't have this name.
    #[error("invalid container ID format: {id:?}: {problem}")]
    InvalidId {
        /// The name.
        id: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The name is taken.
    #[error("container with given ID already exists")]
    Exists {
        /// The name.
        id: String,
    },
    /// No container has this name.
    #[error("container does not exist")]
    NotFound {
        /// The name.
        id: String,
    },
    /// There is no process to act on.
    #[error("container not running")]
    NotRunning,
    /// There is no container to join.
    #[error("cannot exec in a stopped container: container not running")]
    Stopped,
    /// A new process would hang.
    #[error("cannot exec in a paused container (use --ignore-paused to override)")]
    Paused,
    /// The container is not in a state in which this can be done.
    #[error("{}", refusal(verb, *status))]
    Status {
        /// What was asked.
        verb: &'static str,
        /// What it is.
        status: Status,
    },
    /// It can't be deleted without force.
    #[error("cannot delete container {id} that is not stopped: {status}")]
    NotStopped {
        /// The container.
        id: String,
        /// What it is.
        status: Status,
    },
    /// state.json can't be understood.
    #[error("state of container {id}: {problem}")]
    BadState {
        /// The container.
        id: String,
        /// Why.
        problem: String,
    },
    /// A file could not be read, written, made or removed.
    #[error("{verb} {}", path.display())]
    File {
        /// `read`, `write`, …
        verb: &'static str,
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A system call failed.
    #[error("{step}")]
    Sys {
        /// What was being done.
        step: &'static str,
        /// Why.
        source: Errno,
    },
    /// The process that makes or runs the container has other threads.
    #[error("the runtime was called from a process with more than one thread")]
    Threads,
    /// The container's process could not be set up.
    #[error("unable to start container process: {text}")]
    Child {
        /// The child's own error, as data.
        text: String,
        /// What kind it is.
        kind: Kind,
    },
    /// The container's process died before it could say why.
    #[error("unable to start container process: it ended during {step}")]
    ChildGone {
        /// What it was doing.
        step: &'static str,
    },
    /// A hook failed.
    #[error("error running {kind} hook #{index}: error running hook {path}: {problem}")]
    Hook {
        /// `createRuntime`, …
        kind: &'static str,
        /// From 0.
        index: usize,
        /// The program.
        path: String,
        /// What happened.
        problem: String,
    },
    /// criu can't be used.
    #[error("{problem}")]
    CriuStart {
        /// Why.
        problem: String,
    },
    /// criu did not do what it was asked.
    #[error("criu failed: type {request} {problem}")]
    Criu {
        /// `DUMP`, `RESTORE`, … or `NOTIFY`.
        request: &'static str,
        /// What it says, and where its log is.
        problem: String,
    },
    /// Cgroups.
    #[error(transparent)]
    Cgroup(#[from] crate::cgroup::CgroupError),
    /// The seccomp profile can't be compiled.
    #[error("linux.seccomp")]
    Seccomp(#[from] crate::seccomp::SeccompError),
}

/// What callers tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// No such container.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// The container is not in a state in which this can be done.
    FailedPrecondition,
    /// The request or config.json is wrong.
    InvalidArgument,
    /// The container's program does not exist (127).
    CommandNotFound,
    /// The container's program can't be executed (126).
    NotExecutable,
    /// Anything else.
    Internal,
}

impl Error {
    /// What the caller has to tell apart.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Config { .. } | Self::InvalidId { .. } | Self::Seccomp(_) => Kind::InvalidArgument,
            Self::Exists { .. } => Kind::AlreadyExists,
            Self::NotFound { .. } => Kind::NotFound,
            Self::NotRunning | Self::Stopped | Self::Paused | Self::NotStopped { .. } | Self::Status { .. } => {
                Kind::FailedPrecondition
            }
            Self::Child { kind, .. } => *kind,
            _ => Kind::Internal,
        }
    }

    /// The error with its sources, joined by colons, for the one who prints it.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text.push_str(": ");
            text.push_str(&plain(error));
            source = error.source();
        }
        text
    }

    pub(crate) fn config(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Config { field: field.into(), problem: problem.into() }
    }

    pub(crate) fn sys(step: &'static str) -> impl FnOnce(Errno) -> Self {
        move |source| Self::Sys { step, source }
    }

    pub(crate) fn file(verb: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { verb, path: path.to_owned(), source }
    }
}

/// Why something can't be done with a container in this state, in the words that engines look for.
fn refusal(verb: &str, status: Status) -> String {
    match (verb, status) {
        ("start", Status::Running | Status::Paused) => "cannot start an already running container".into(),
        ("start", Status::Stopped) => "cannot start a container that has stopped".into(),
        ("pause", _) => "container not running".into(),
        ("resume", _) => "container not paused".into(),
        ("checkpoint", status) => format!("Container cannot be checkpointed in {status} state"),
        _ => format!("cannot {verb} a container that is {status}"),
    }
}

/// An errno in the words that engines look for: the kernel's, in lower case, without number.
pub(crate) fn errno_text(errno: Errno) -> String {
    // nix has another text than all C libraries and runc.
    let text = if errno == Errno::EAGAIN { "resource temporarily unavailable" } else { errno.desc() };
    let mut chars = text.chars();
    chars.next().map(|first| first.to_lowercase().chain(chars).collect()).unwrap_or_default()
}

/// An error in the words that engines look for: `Errno` and `io::Error` decorate the text.
#[must_use]
pub fn plain(error: &(dyn std::error::Error + 'static)) -> String {
    if let Some(errno) = error.downcast_ref::<Errno>() {
        return errno_text(*errno);
    }
    match error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
        Some(number) => errno_text(Errno::from_raw(number)),
        None => error.to_string(),
    }
}
