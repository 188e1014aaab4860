//! Turning a container's writable layer into an image.

use std::path::PathBuf;

use crate::cancel::Cancel;
use crate::config::ContainerConfig;
use crate::digest::Digest;
use crate::error::Error;
use crate::reference::Reference;
use crate::store::{Image, Store};

/// What to commit.
#[derive(Debug, Clone)]
pub struct CommitRequest<'a> {
    /// The overlay's upper directory.
    pub upper: PathBuf,
    /// The overlay's lower directories, topmost first.
    pub lowers: Vec<PathBuf>,
    /// The image the container was made from; `None` for a root of its own.
    pub parent: Option<&'a Image>,
    /// What the container ran with: becomes the image's `config`, after `changes`. `None` takes the parent's.
    pub config: Option<ContainerConfig>,
    /// Dockerfile instructions: `CMD`, `ENTRYPOINT`, `ENV`, `EXPOSE`, `LABEL`, `ONBUILD`, `STOPSIGNAL`, `USER`,
    /// `VOLUME`, `WORKDIR`, `HEALTHCHECK`, `SHELL`.
    pub changes: Vec<String>,
    /// `-m`.
    pub message: String,
    /// `-a`.
    pub author: String,
    /// The history entry's `created_by`: the command the container ran.
    pub created_by: String,
    /// The name to give it, if any.
    pub reference: Option<Reference>,
    /// Threads that compress; 0 is one per processor.
    pub threads: usize,
    /// Stops it.
    pub cancel: Cancel,
}

/// What a commit made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The image's id.
    pub id: Digest,
    /// Its manifest.
    pub manifest: Digest,
}

/// Makes an image of a container's writable layer on top of its image.
///
/// # Errors
/// See [`Error`].
pub fn commit(_request: &CommitRequest<'_>, _store: &Store) -> Result<Committed, Error> {
    Err(Error::Cancelled)
}
