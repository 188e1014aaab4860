//! The image store: an OCI image layout that skopeo and umoci read as it stands.
//!
//! ```text
//! ROOT/image/oci-layout            the layout's version
//! ROOT/image/index.json            one entry per name (org.opencontainers.image.ref.name = the full reference), and
//!                                  one without a name per dangling image; `dhow.origin` = what registries call it,
//!                                  `dhow.manifest` = the docker manifest an OCI one stands for
//! ROOT/image/blobs/<alg>/<hex>     manifests, configurations, layers
//! ROOT/image/partial/<alg>-<hex>   what has arrived of a blob; locked while somebody fetches it
//! ROOT/image/partial/tmp-…         blobs in the making
//! ROOT/image/lock                  shared: somebody adds blobs; exclusive: somebody deletes blobs
//! ROOT/image/index.lock            exclusive: somebody rewrites index.json
//! ```
//!
//! A blob appears under its name only complete, verified and flushed; an image appears in `index.json` only when all
//! its blobs have. So a crash leaves at most blobs and parts that [`Store::gc`] finds.

mod blobs;
mod images;
mod index;
mod lock;
mod remove;

use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

pub(crate) use blobs::{MAX_DOCUMENT, Partial};
pub(crate) use index::{Entry, REF_NAME};
pub(crate) use lock::Lock;
pub use remove::Quiet;

use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::document::Descriptor;
use crate::error::Error;
use crate::reference::Reference;

/// The images of one root. Cheap to open; safe to use from many threads and processes at once.
#[derive(Debug, Clone)]
pub struct Store {
    root: PathBuf,
}

/// A local image.
#[derive(Debug, Clone, PartialEq)]
pub struct Image {
    /// The id: the digest of the configuration.
    pub id: Digest,
    /// The digest of the manifest.
    pub manifest: Digest,
    /// Its names. None: it is dangling.
    pub names: Vec<Name>,
    /// Repositories and the digests they know the image by: docker's `RepoDigests`.
    pub repo_digests: Vec<Reference>,
    /// The configuration.
    pub config: ImageConfig,
    /// Bytes of manifest, configuration and layer blobs (compressed as they are).
    pub size: u64,
    /// The layer blobs, base first.
    pub layers: Vec<LayerBlob>,
}

/// A layer's blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerBlob {
    /// Its digest.
    pub digest: Digest,
    /// Its size in bytes.
    pub size: u64,
    /// Its media type.
    pub media_type: String,
}

impl LayerBlob {
    pub(crate) fn descriptor(&self) -> Descriptor {
        Descriptor::new(&self.media_type, self.digest.clone(), self.size)
    }
}

/// A name of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// With a tag, or with the digest it was pulled by.
    pub reference: Reference,
    /// What the registry calls it (index or manifest), if it was pulled or pushed by this repository.
    pub digest: Option<Digest>,
}

/// What [`Store::remove`] did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Removed {
    /// Names that are gone.
    pub untagged: Vec<Reference>,
    /// The image's id, if it is gone altogether.
    pub deleted: Option<Digest>,
    /// Chain ids no image has any more, topmost first: their snapshots may go.
    pub chains: Vec<Digest>,
    /// Blobs no image has any more. They are deleted already unless a pull was running; then the next [`Store::gc`]
    /// does it.
    pub blobs: Vec<Digest>,
}

impl Store {
    /// Opens the store at `root` (`ROOT/image`), making it if there is none.
    ///
    /// # Errors
    /// [`Error::File`] if it cannot be made; [`Error::Document`] if it is a layout of a version we do not know.
    pub fn open(root: &Path) -> Result<Self, Error> {
        let store = Self { root: root.to_owned() };
        match fs::read(root.join(LAYOUT_FILE)) {
            Ok(bytes) => check_layout(&bytes, &root.join(LAYOUT_FILE))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => store.create()?,
            Err(source) => return Err(Error::File { operation: "read", path: root.join(LAYOUT_FILE), source }),
        }
        Ok(store)
    }

    /// The directory.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn create(&self) -> Result<(), Error> {
        for dir in ["blobs/sha256", "blobs/sha512", "partial"] {
            let path = self.root.join(dir);
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(Error::file("create", path))?;
        }
        self.write_index_if_missing()?;
        // Last: its presence says that the rest is there.
        blobs::write_durably(&self.root.join(LAYOUT_FILE), br#"{"imageLayoutVersion":"1.0.0"}"#)
    }
}

const LAYOUT_FILE: &str = "oci-layout";

fn check_layout(bytes: &[u8], path: &Path) -> Result<(), Error> {
    let what = path.display().to_string();
    let value: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|source| Error::Parse { what: what.clone(), source })?;
    match value.get("imageLayoutVersion").and_then(serde_json::Value::as_str) {
        Some("1.0.0") => Ok(()),
        other => Err(Error::Document { what, reason: format!("unknown layout version {other:?}") }),
    }
}

#[cfg(test)]
pub(crate) mod tests;
