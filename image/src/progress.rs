//! What a pull, push, commit or unpack tells while it works. Pure data: the caller draws bars or lines.

use std::time::Duration;

use crate::digest::Digest;
use crate::reference::Reference;

/// Receives events, from several threads at once. Calls should return quickly: they run on the pipeline's threads.
pub trait Progress: Sync {
    /// One thing happened.
    fn event(&self, event: &Event<'_>);
}

/// A [`Progress`] that listens to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Progress for Silent {
    fn event(&self, _event: &Event<'_>) {}
}

/// One event.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The manifest is known; `layers` in the order of the image, base first.
    Resolved {
        /// What was asked for.
        reference: &'a Reference,
        /// The digest the registry (or store) names it by: of the index, if it is one.
        digest: &'a Digest,
        /// Every layer: digest of the blob and its size in bytes.
        layers: &'a [LayerInfo],
    },
    /// A layer (`digest` is its blob's) moved on.
    Layer {
        /// The blob.
        digest: &'a Digest,
        /// Where it is now.
        status: LayerStatus<'a>,
    },
    /// A request that belongs to no layer failed and is tried again.
    Retrying {
        /// Pause before the next try.
        delay: Duration,
        /// What went wrong.
        reason: &'a str,
    },
}

/// A layer in [`Event::Resolved`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerInfo {
    /// The blob's digest.
    pub digest: Digest,
    /// The blob's size in bytes.
    pub size: u64,
}

/// Where a layer is. Sizes are bytes of the (compressed) blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayerStatus<'a> {
    /// Pull: its turn has not come. Push: being prepared.
    Waiting,
    /// It is already where it should be.
    Exists,
    /// Bytes arrive and are unpacked as they come.
    Downloading {
        /// Bytes here.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The blob is complete and verified.
    Downloaded,
    /// The blob is complete; unpacking still goes on.
    Extracting {
        /// Bytes unpacked.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// Unpacked and committed: done.
    Complete,
    /// Bytes leave.
    Uploading {
        /// Bytes sent.
        done: u64,
        /// Bytes in all.
        total: u64,
    },
    /// The registry took it from another of its repositories.
    Mounted {
        /// That repository.
        from: &'a str,
    },
    /// Uploaded and acknowledged: done.
    Pushed,
    /// Something failed and is tried again.
    Retrying {
        /// Pause before the next try.
        delay: Duration,
        /// What went wrong.
        reason: &'a str,
    },
}
