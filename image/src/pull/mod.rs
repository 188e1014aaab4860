//! Pulling images.

use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::Error;
use crate::platform::Platform;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::registry::RegistryOptions;
use crate::sink::LayerSink;
use crate::store::{Image, Store};

/// When to ask the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullPolicy {
    /// Always: the tag may have moved. What is here already is not fetched again.
    #[default]
    Always,
    /// Only if there is no local image of that name.
    Missing,
    /// Not at all: fail if there is none.
    Never,
}

/// How to pull.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// For which platform; `None` is this machine's.
    pub platform: Option<Platform>,
    /// When to ask the registry.
    pub policy: PullPolicy,
    /// How to reach it.
    pub registry: RegistryOptions,
    /// Layers in work at once; docker's 3.
    pub parallel: usize,
    /// Stops it.
    pub cancel: Cancel,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self {
            platform: None,
            policy: PullPolicy::default(),
            registry: RegistryOptions::default(),
            parallel: 3,
            cancel: Cancel::new(),
        }
    }
}

/// What a pull brought.
#[derive(Debug, Clone)]
pub struct PulledImage {
    /// The image, complete in the store and unpacked in the sink.
    pub image: Image,
    /// What the registry calls it: the digest of the index, if the name is one's, else of the manifest.
    pub digest: Digest,
    /// Whether the name pointed elsewhere (or nowhere) before: "downloaded newer image" rather than "up to date".
    pub changed: bool,
}

/// Brings the image `reference` into `store` and its layers into `sink`.
///
/// # Errors
/// See [`Error`]; whatever was downloaded is kept for the next try, whatever was half unpacked is aborted.
pub fn pull(
    _reference: &Reference,
    _options: &PullOptions,
    _store: &Store,
    _sink: &dyn LayerSink,
    _progress: &dyn Progress,
) -> Result<PulledImage, Error> {
    Err(Error::Cancelled)
}

/// Unpacks the layers of a local image that `sink` lacks.
///
/// # Errors
/// As [`pull`].
pub fn unpack(
    _image: &Image,
    _store: &Store,
    _sink: &dyn LayerSink,
    _parallel: usize,
    _cancel: &Cancel,
    _progress: &dyn Progress,
) -> Result<(), Error> {
    Err(Error::Cancelled)
}
