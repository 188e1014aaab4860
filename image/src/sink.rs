//! Where unpacked layers go: the seam between this crate and a snapshotter it does not know.

use std::path::PathBuf;

use crate::digest::Digest;

/// Whatever a sink failed with.
pub type SinkError = Box<dyn std::error::Error + Send + Sync>;

/// Takes layers as directories named by chain id. Every method may be called from several threads at once.
///
/// The order for one layer is `has` → `prepare` → (the layer is extracted into the directory) → `commit` or `abort`.
/// A layer is committed only when its parent is; several layers are prepared and filled at once.
pub trait LayerSink: Sync {
    /// Whether the layer `chain` is committed already.
    ///
    /// # Errors
    /// Whatever keeps the sink from telling.
    fn has(&self, chain: &Digest) -> Result<bool, SinkError>;

    /// Makes an empty directory for the layer `chain`. No parent is given: none is needed to unpack.
    ///
    /// # Errors
    /// Whatever keeps the sink from making it.
    fn prepare(&self, chain: &Digest) -> Result<PreparedLayer, SinkError>;

    /// Turns the filled directory of `key` into the layer `chain` on top of `parent`, durably. If somebody else has
    /// committed `chain` meanwhile, that is success, and `key` is dropped.
    ///
    /// # Errors
    /// Whatever keeps the sink from committing; the layer then is aborted by the caller.
    fn commit(&self, key: &str, chain: &Digest, parent: Option<&Digest>) -> Result<(), SinkError>;

    /// Drops the directory of `key` and what is in it. Failures are the sink's to repair later.
    fn abort(&self, key: &str);
}

/// An empty directory that waits for a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreparedLayer {
    /// The sink's name for it.
    pub key: String,
    /// The directory to extract into; `settle.json` is written beside it.
    pub dir: PathBuf,
}
