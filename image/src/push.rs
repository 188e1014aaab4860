//! Pushing images.

use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::Error;
use crate::progress::Progress;
use crate::reference::Reference;
use crate::registry::RegistryOptions;
use crate::store::Store;

/// How to push.
#[derive(Debug, Clone)]
pub struct PushOptions {
    /// How to reach the registry.
    pub registry: RegistryOptions,
    /// Blobs in work at once; docker's 5.
    pub parallel: usize,
    /// Stops it.
    pub cancel: Cancel,
}

impl Default for PushOptions {
    fn default() -> Self {
        Self { registry: RegistryOptions::default(), parallel: 5, cancel: Cancel::new() }
    }
}

/// What was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The manifest's digest.
    pub digest: Digest,
    /// The manifest's size in bytes.
    pub size: u64,
}

/// Pushes the local image `reference` to the registry it names.
///
/// # Errors
/// See [`Error`].
pub fn push(
    _reference: &Reference,
    _options: &PushOptions,
    _store: &Store,
    _progress: &dyn Progress,
) -> Result<Pushed, Error> {
    Err(Error::Cancelled)
}
