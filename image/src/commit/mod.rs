//! Turning a container's writable layer into an image.

pub(crate) mod change;

use std::fs::File;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use dhow_layer::compress::Encoder;
use dhow_layer::decompress::Compression;
use dhow_layer::digest::{Algorithm, HashWriter};
use dhow_layer::{DiffOptions, diff};

use crate::cancel::Cancel;
use crate::config::{ContainerConfig, History, ImageConfig};
use crate::digest::{Digest, Hasher};
use crate::document::{Descriptor, Manifest, media_type};
use crate::error::Error;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::{Entry, Image, Store};

/// What to commit.
#[derive(Debug, Clone, Default)]
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
    /// How the layer is compressed; gzip is what every registry and engine takes.
    pub compression: LayerCompression,
    /// Threads that compress; 0 is one per processor.
    pub threads: usize,
    /// Stops it.
    pub cancel: Cancel,
}

/// How a new layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum LayerCompression {
    /// gzip.
    #[default]
    Gzip,
    /// zstd: faster and smaller, but not for old engines.
    Zstd,
    /// Not at all.
    None,
}

/// What a commit made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The image's id.
    pub id: Digest,
    /// Its manifest.
    pub manifest: Digest,
}

/// Makes an image of a container's writable layer on top of its image. One pass over the directory: tar, both hashes
/// and compression go on together. A container that changed nothing gives an image without a new layer.
///
/// # Errors
/// [`Error::Change`] before anything is done; [`Error::Pack`]; [`Error::File`].
pub fn commit(request: &CommitRequest<'_>, store: &Store) -> Result<Committed, Error> {
    let base = request.parent.map_or_else(new_config, |parent| parent.config.clone());
    let mut config = ImageConfig { config: request.config.clone().unwrap_or_else(|| base.config.clone()), ..base };
    change::apply(&mut config.config, &request.changes)?;

    let _adding = store.lock_shared(&request.cancel)?;
    let mut layers = match request.parent {
        Some(parent) => parent_layers(parent, store)?,
        None => Vec::new(),
    };
    let packed = pack(request, store)?;
    let created = now();
    config.created = Some(created.clone());
    config.author.clone_from(&request.author);
    config.history.push(History {
        created: Some(created),
        created_by: request.created_by.clone(),
        author: request.author.clone(),
        comment: request.message.clone(),
        empty_layer: packed.is_none(),
        ..History::default()
    });
    if let Some(packed) = packed {
        config.rootfs.diff_ids.push(packed.diff_id);
        layers.push(packed.descriptor);
    }
    save(store, &config, layers, request.reference.as_ref())
}

/// Stores a configuration and a manifest over `layers`, whose blobs are there, and names the image.
pub(crate) fn save(
    store: &Store,
    config: &ImageConfig,
    layers: Vec<Descriptor>,
    reference: Option<&Reference>,
) -> Result<Committed, Error> {
    let bytes =
        serde_json::to_vec(config).map_err(|source| Error::Parse { what: "the new configuration".into(), source })?;
    let id = store.write_blob(&bytes)?;
    let config = Descriptor::new(media_type::OCI_CONFIG, id.clone(), bytes.len() as u64);
    let descriptor = write_manifest(store, config, layers)?;
    let digest = descriptor.digest.clone();
    store.put_entry(Entry::new(descriptor, reference.cloned(), Vec::new()))?;
    Ok(Committed { id, manifest: digest })
}

/// Stores an OCI manifest.
pub(crate) fn write_manifest(store: &Store, config: Descriptor, layers: Vec<Descriptor>) -> Result<Descriptor, Error> {
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.to_owned()),
        config,
        layers,
        annotations: None,
        extra: serde_json::Map::new(),
    };
    let bytes =
        serde_json::to_vec(&manifest).map_err(|source| Error::Parse { what: "the new manifest".into(), source })?;
    let digest = store.write_blob(&bytes)?;
    Ok(Descriptor::new(media_type::OCI_MANIFEST, digest, bytes.len() as u64))
}

/// A layer that was written.
pub(crate) struct Packed {
    pub(crate) descriptor: Descriptor,
    pub(crate) diff_id: Digest,
}

/// The parent's layers in OCI's words; their blobs are as they were.
fn parent_layers(parent: &Image, store: &Store) -> Result<Vec<Descriptor>, Error> {
    let entries = store.entries()?;
    let entry = entries.iter().find(|entry| entry.descriptor.digest == parent.manifest);
    let entry = entry.ok_or_else(|| Error::NoSuchImage { name: parent.id.to_string() })?;
    let layers = store.manifest(entry)?.layers.into_iter();
    Ok(layers.map(|layer| Descriptor { media_type: media_type::to_oci(&layer.media_type), ..layer }).collect())
}

/// Packs the upper directory; `None` if nothing is in it.
fn pack(request: &CommitRequest<'_>, store: &Store) -> Result<Option<Packed>, Error> {
    let open = |path: &Path| File::open(path).map_err(Error::file("open", path));
    let upper = open(&request.upper)?;
    let lowers = request.lowers.iter().map(|path| open(path)).collect::<Result<Vec<_>, _>>()?;
    let lowers: Vec<_> = lowers.iter().map(AsFd::as_fd).collect();
    let fail = |source: dhow_layer::Error| match request.cancel.check() {
        Err(cancelled) => cancelled,
        Ok(()) => Error::Pack { path: request.upper.clone(), source: Box::new(source) },
    };
    let mut entries = 0;
    let packed = write_layer(store, request.compression, request.threads, &request.cancel, |writer| {
        entries = diff(upper.as_fd(), &lowers, writer, &DiffOptions::default()).map_err(fail)?.entries;
        Ok(entries > 0)
    })?;
    Ok(packed)
}

/// Writes one layer blob from what `fill` writes; dropped if `fill` says `false`.
pub(crate) fn write_layer(
    store: &Store,
    compression: LayerCompression,
    threads: usize,
    cancel: &Cancel,
    fill: impl FnOnce(&mut dyn Write) -> Result<bool, Error>,
) -> Result<Option<Packed>, Error> {
    let blob = store.new_blob()?;
    let path = blob.path().to_owned();
    let io_error = |source| match cancel.check() {
        Err(cancelled) => cancelled,
        Ok(()) => Error::File { operation: "write", path: path.clone(), source },
    };
    let threads =
        NonZeroUsize::new(threads).or_else(|| std::thread::available_parallelism().ok()).unwrap_or(NonZeroUsize::MIN);
    let compressed = HashWriter::new(blob, Algorithm::Sha256);
    let encoder = Encoder::new(compressed, compression.into(), threads).map_err(io_error)?;
    let mut tar = HashWriter::new(Stoppable { inner: encoder, cancel }, Algorithm::Sha256);
    if !fill(&mut tar)? {
        return Ok(None);
    }
    let (encoder, diff_hasher) = tar.into_parts();
    let (blob, hasher) = encoder.inner.finish().map_err(io_error)?.into_parts();
    let size = hasher.bytes();
    let digest = Hasher::from(hasher).finish();
    cancel.check()?;
    blob.finish(&digest)?;
    let descriptor = Descriptor::new(compression.media_type(), digest, size);
    Ok(Some(Packed { descriptor, diff_id: Hasher::from(diff_hasher).finish() }))
}

impl LayerCompression {
    fn media_type(self) -> &'static str {
        match self {
            Self::Gzip => media_type::OCI_LAYER_GZIP,
            Self::Zstd => media_type::OCI_LAYER_ZSTD,
            Self::None => media_type::OCI_LAYER,
        }
    }
}

impl From<LayerCompression> for Compression {
    fn from(compression: LayerCompression) -> Self {
        match compression {
            LayerCompression::Gzip => Self::Gzip,
            LayerCompression::Zstd => Self::Zstd,
            LayerCompression::None => Self::None,
        }
    }
}

/// A writer that fails when its operation is cancelled.
struct Stoppable<'a, W> {
    inner: W,
    cancel: &'a Cancel,
}

impl<W: Write> Write for Stoppable<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("interrupted"));
        }
        self.inner.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

pub(crate) fn new_config() -> ImageConfig {
    let host = Platform::host();
    ImageConfig {
        architecture: host.architecture,
        variant: host.variant.unwrap_or_default(),
        os: host.os,
        ..ImageConfig::default()
    }
}

pub(crate) fn now() -> String {
    jiff::Timestamp::now().to_string()
}
