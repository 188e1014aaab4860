//! OCI layer tar ⇄ directory: a strict reader, an extractor, a differ, and the compressions between.
//!
//! [`extract`] fills an empty directory from one layer's tar without looking at any other layer: whiteouts become what
//! overlayfs understands (a character device 0:0, an opaque attribute), and the two things that need the layers below
//! come back as a [`Settle`], to be carried out by [`settle()`] when they are there. [`diff`] is the way back: an overlay
//! upper directory becomes a tar whose bytes depend on the directory alone.
//!
//! Nothing here trusts a byte of a layer. Names are resolved one component at a time from a directory handle, each step
//! refusing symbolic links (a link met on the way is read and resolved in here, inside the root), so that no entry can
//! reach anything outside the directory it is unpacked into.
#![forbid(unsafe_code)]

mod archive;
pub mod compress;
mod copy;
pub mod decompress;
mod diff;
pub mod digest;
mod error;
mod extract;
mod overlay;
mod path;
#[cfg(test)]
mod peers;
mod settle;
#[cfg(test)]
mod testing;

pub use diff::{DiffOptions, Diffed, diff};
pub use error::{Error, Kind, Result};
pub use extract::{ExtractOptions, Extracted, extract};
pub use overlay::OverlayXattrs;
pub use path::LayerPath;
pub use settle::{Settle, SettleLink, settle};

use std::os::fd::BorrowedFd;

/// Gives the open directory `to` the owner, mode, attributes and times of `from`, overlayfs's own marks left out: what a
/// new upper directory needs to look like the one below.
///
/// # Errors
/// [`Error::Os`].
pub fn copy_directory_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    copy::directory_attributes(from, to, &LayerPath::root())
}

/// Whether a layer's directory is marked to hide the layers below it.
///
/// # Errors
/// [`Error::Os`].
pub fn is_opaque(dir: BorrowedFd<'_>, xattrs: OverlayXattrs) -> Result<bool> {
    let path = LayerPath::root();
    overlay::Layers::new(&[], xattrs).is_opaque(dir).map_err(overlay::os("read the attributes of", &path))
}
