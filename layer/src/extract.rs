//! A layer's tar into an empty directory.

use std::io::Read;
use std::os::fd::BorrowedFd;

use crate::{Result, Settle};

/// Under which names overlayfs keeps its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OverlayXattrs {
    /// `trusted.overlay.*`, for a mount by the real root.
    #[default]
    Trusted,
    /// `user.overlay.*`, for a mount with `userxattr` in a user namespace.
    User,
}

/// How to extract.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ExtractOptions {
    /// Where the opaque mark goes.
    pub overlay_xattrs: OverlayXattrs,
    /// Stop with [`crate::Error::TooLarge`] when file contents exceed this many bytes.
    pub max_bytes: Option<u64>,
    /// Stop with [`crate::Error::TooLarge`] when the tar has more entries.
    pub max_entries: Option<u64>,
}

/// What came out of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Extracted {
    /// Entries of the tar, whiteouts included.
    pub entries: u64,
    /// Bytes of file contents written.
    pub bytes: u64,
    /// What [`crate::settle()`] must do when the layers below are there.
    pub settle: Settle,
}

/// Reads the tar (uncompressed) to the end of the stream and makes its files in `target`, an empty directory.
///
/// # Errors
/// See [`crate::Error`]; what was made until then stays in `target`, for the caller to remove.
pub fn extract(_reader: impl Read, _target: BorrowedFd<'_>, _options: &ExtractOptions) -> Result<Extracted> {
    Ok(Extracted::default())
}
