//! What can go wrong in a command, and which exit code that is.

use std::io;
use std::path::PathBuf;

use dhow_api::Kind;

use crate::output::template::TemplateError;
use crate::parse::Invalid;

/// The result of a command's parts.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// A failed operation.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum Error {
    /// A value on the command line.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// Flags that don't go together, or one that is missing.
    #[error("{0}")]
    Usage(String),
    /// A flag that dhow knows and does not do.
    #[error("{flag} is not supported: {why}")]
    Unsupported {
        /// The flag.
        flag: String,
        /// Since when, or what to do instead.
        why: &'static str,
    },
    /// `--format`.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// The image crate.
    #[error(transparent)]
    Image(#[from] dhow_image::Error),
    /// The snapshotter, netplug or a shim.
    #[error(transparent)]
    Service(#[from] dhow_api::Error),
    /// A container could not be made or started; the code is 125, 126 or 127.
    #[error("{message}")]
    Start {
        /// What the shim said.
        message: String,
        /// The exit code.
        code: u8,
    },
    /// A file or directory of ours or of the user's.
    #[error("{action} {}", path.display())]
    File {
        /// read, write, create, …
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A path in a container.
    #[error("{action} {path} in the container")]
    InContainer {
        /// read, open, …
        action: &'static str,
        /// Which path, as the container sees it.
        path: String,
        /// Why not.
        source: io::Error,
    },
    /// A container's files could not be mounted.
    #[error("mount the files of container {name}")]
    Mount {
        /// Its id.
        name: String,
        /// Why not.
        source: dhow_sys::rootfs::Error,
    },
    /// Standard output.
    #[error("write to standard output")]
    Output {
        /// Why not.
        source: io::Error,
    },
    /// Terminal, signals, polling.
    #[error("{action}")]
    System {
        /// What failed.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// Something of ours does not encode as JSON.
    #[error("encode {what}")]
    Encode {
        /// What.
        what: &'static str,
        /// Why not.
        source: serde_json::Error,
    },
    /// A document of ours or of the user's does not read.
    #[error("{} is not a valid {document}", path.display())]
    Document {
        /// Its kind.
        document: &'static str,
        /// Which file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// No container of that name or id.
    #[error("no such container: {0}")]
    NoSuchContainer(String),
    /// Neither a container nor an image nor anything else of that name.
    #[error("no such object: {0}")]
    NoSuchObject(String),
    /// No volume of that name.
    #[error("no such volume: {0}")]
    NoSuchVolume(String),
    /// Several containers begin with that id.
    #[error("the container id {prefix} is ambiguous: {count} containers begin with it")]
    Ambiguous {
        /// What was given.
        prefix: String,
        /// How many there are.
        count: usize,
    },
    /// The name belongs to another container.
    #[error(
        "conflict: the container name \"/{name}\" is already in use by container \"{holder}\"; \
         remove (or rename) that container to be able to reuse that name"
    )]
    NameTaken {
        /// The name.
        name: String,
        /// The id of the container that has it.
        holder: String,
    },
    /// The state of a container does not allow an operation.
    #[error("container {name} is {state}: {why}")]
    State {
        /// As the user called it.
        name: String,
        /// Its state.
        state: &'static str,
        /// What does not go, or what to do.
        why: &'static str,
    },
    /// An image is in use.
    #[error("conflict: unable to {operation} {image}: {why}")]
    ImageInUse {
        /// What was to be done.
        operation: &'static str,
        /// With which image.
        image: String,
        /// Who uses it, or what to do.
        why: String,
    },
    /// A volume is in use.
    #[error("volume {name} is in use by {}", users.join(", "))]
    VolumeInUse {
        /// Which.
        name: String,
        /// Containers.
        users: Vec<String>,
    },
    /// The user of a container is not in its files.
    #[error("unable to find user {user}: {why}")]
    User {
        /// As asked for.
        user: String,
        /// What is wrong.
        why: String,
    },
    /// Random numbers.
    #[error("draw random numbers")]
    Random(#[from] getrandom::Error),
    /// Several objects of one command failed; each has its line.
    #[error("several failures")]
    Several(Vec<Self>),
}

/// 128 + SIGINT, as shells have it.
const INTERRUPTED: u8 = 130;
/// 128 + SIGPIPE.
const BROKEN_PIPE: u8 = 141;

impl Error {
    /// An operation on a file that failed.
    pub(crate) fn file(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    /// Standard output that cannot be written.
    pub(crate) fn output(source: io::Error) -> Self {
        Self::Output { source }
    }

    /// A system call of terminal or signal handling.
    pub(crate) fn system(action: &'static str) -> impl FnOnce(nix::Error) -> Self {
        move |errno| Self::System { action, source: errno.into() }
    }

    /// Whether a service says that what was named is not there.
    pub(crate) fn is_not_found(&self) -> bool {
        matches!(self, Self::Service(error) if error.is(Kind::NotFound))
    }

    /// The exit code, where a plain failure of the command is `default` (1, or 125 for run and its kin).
    pub(crate) fn exit_code(&self, default: u8) -> u8 {
        match self {
            Self::Start { code, .. } => *code,
            Self::Image(error) if error.kind() == dhow_image::ErrorKind::Cancelled => INTERRUPTED,
            Self::Output { source } if source.kind() == io::ErrorKind::BrokenPipe => BROKEN_PIPE,
            _ => default,
        }
    }

    /// The lines to print: one per failure, none where there is nobody to read them.
    pub(crate) fn lines(&self) -> Vec<String> {
        match self {
            Self::Several(errors) => errors.iter().flat_map(Self::lines).collect(),
            Self::Output { source } if source.kind() == io::ErrorKind::BrokenPipe => Vec::new(),
            other => vec![one_line(&dhow_api::error::chain(other))],
        }
    }

    /// `Ok` when nothing failed, the failure itself when one did.
    pub(crate) fn of_all(mut errors: Vec<Self>) -> Result<()> {
        match errors.len() {
            0 => Ok(()),
            1 => errors.pop().map_or(Ok(()), Err),
            _ => Err(Self::Several(errors)),
        }
    }
}

/// A message that quotes foreign bytes stays one line, and says nothing to a terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_codes() {
        let missing = || Error::NoSuchContainer("x".into());
        let both = Error::of_all(vec![missing(), Error::NoSuchVolume("y".into())]).unwrap_err();
        assert_eq!(both.lines(), ["no such container: x", "no such volume: y"]);
        assert_eq!(both.exit_code(1), 1);
        assert_eq!(missing().exit_code(125), 125);
        assert_eq!(Error::Image(dhow_image::Error::Cancelled).exit_code(125), 130);
        let pipe = Error::output(io::ErrorKind::BrokenPipe.into());
        assert!(pipe.lines().is_empty());
        assert_eq!(pipe.exit_code(1), 141);
        assert_eq!(Error::NoSuchContainer("a\nb\u{1b}[1m".into()).lines(), ["no such container: a b [1m"]);
        let file = Error::file("read", "/x")(io::ErrorKind::NotFound.into());
        assert_eq!(file.lines(), ["read /x: entity not found"]);
    }
}
