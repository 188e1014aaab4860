//! What an extracted layer still needs from the layers below it.

use std::os::fd::BorrowedFd;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::{LayerPath, Result};

/// What must wait until the layers below are there. Kept as `settle.json` beside the layer's directory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Settle {
    /// Directories that the tar did not list but needed, parents first.
    pub implied: Vec<LayerPath>,
    /// Hard links to names that this layer does not have, in the tar's order.
    pub links: Vec<SettleLink>,
}

/// A hard link into a layer below.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettleLink {
    /// The link to make.
    pub name: LayerPath,
    /// The existing file.
    pub target: LayerPath,
}

impl Settle {
    /// Writes `settle.json` beside `dir` (the directory that was filled).
    ///
    /// # Errors
    /// [`crate::Error::SettleFile`].
    pub fn save_beside(&self, _dir: &Path) -> Result<()> {
        Ok(())
    }

    /// Reads what [`Settle::save_beside`] wrote; `None` when there is none.
    ///
    /// # Errors
    /// [`crate::Error::SettleFile`].
    pub fn load_beside(_dir: &Path) -> Result<Option<Self>> {
        Ok(None)
    }
}

/// Carries out `settle` in `layer` above `parents` (the layers below, nearest first).
///
/// # Errors
/// [`crate::Error::DanglingLink`] when a hard link's target exists in no layer or was whited out; system calls' errors.
pub fn settle(_layer: BorrowedFd<'_>, _parents: &[BorrowedFd<'_>], _settle: &Settle) -> Result<()> {
    Ok(())
}
