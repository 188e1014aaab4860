//! Images in files: what `save`, `load`, `import` and `export` move.
//!
//! A saved archive is two things at once, as docker writes it since version 25: an OCI image layout and, by its
//! `manifest.json`, a docker archive over the same blobs. Loading takes these, plain OCI archives, and docker archives
//! of any age (`<id>/layer.tar`), compressed or not.

mod load;
mod save;

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::Path;

use dhow_layer::decompress::Decoder;
use dhow_layer::{DiffOptions, ExtractOptions, diff, extract};
use serde::{Deserialize, Serialize};

pub use load::load;
pub use save::save;

use crate::cancel::Cancel;
use crate::commit::{self, Committed, LayerCompression, change, write_layer};
use crate::config::History;
use crate::error::Error;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::Store;

/// An entry of a docker archive's `manifest.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerEntry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// containerd's annotation for an image's full name.
const CONTAINERD_NAME: &str = "io.containerd.image.name";

/// What an import makes of a tar.
#[derive(Debug, Clone, Default)]
pub struct ImportRequest {
    /// The name to give it, if any.
    pub reference: Option<Reference>,
    /// `-m`.
    pub message: String,
    /// Dockerfile instructions, as for a commit.
    pub changes: Vec<String>,
    /// For which platform it is; `None` is this machine's.
    pub platform: Option<Platform>,
    /// How the layer is compressed.
    pub compression: LayerCompression,
    /// Stops it.
    pub cancel: Cancel,
}

/// Makes an image of one layer from the tar (compressed or not) of a root directory.
///
/// # Errors
/// [`Error::Change`]; [`Error::Document`] if it is no tar; [`Error::File`].
pub fn import(reader: impl Read, request: &ImportRequest, store: &Store) -> Result<Committed, Error> {
    let mut config = commit::new_config();
    if let Some(platform) = &request.platform {
        config.os.clone_from(&platform.os);
        config.architecture.clone_from(&platform.architecture);
        config.variant = platform.variant.clone().unwrap_or_default();
    }
    change::apply(&mut config.config, &request.changes)?;
    let _adding = store.lock_shared(&request.cancel)?;
    let read_error = |source| Error::File { operation: "read", path: "the archive".into(), source };
    let mut tar = Decoder::new(reader).map_err(read_error)?;
    let mut start = Vec::new();
    tar.by_ref().take(BLOCK as u64).read_to_end(&mut start).map_err(read_error)?;
    if !is_tar(&start) {
        return Err(Error::Document { what: "the archive".into(), reason: "it is no tar".into() });
    }
    let packed = write_layer(store, request.compression, 0, &request.cancel, |writer| {
        io::copy(&mut start.as_slice().chain(tar), writer).map_err(|source| match request.cancel.check() {
            Err(cancelled) => cancelled,
            Ok(()) => Error::File { operation: "copy", path: "the archive".into(), source },
        })?;
        Ok(true)
    })?;
    let created = commit::now();
    config.created = Some(created.clone());
    let comment = if request.message.is_empty() { "imported".to_owned() } else { request.message.clone() };
    config.history.push(History { created: Some(created), comment, ..History::default() });
    let mut layers = Vec::new();
    if let Some(packed) = packed {
        config.rootfs.diff_ids.push(packed.diff_id);
        layers.push(packed.descriptor);
    }
    commit::save(store, &config, layers, request.reference.as_ref())
}

/// Writes the tree under `root`, a mounted root directory, as a tar. Returns its size in bytes.
///
/// # Errors
/// [`Error::Pack`].
pub fn export(root: &Path, writer: impl Write) -> Result<u64, Error> {
    let dir = File::open(root).map_err(Error::file("open", root))?;
    let packed = diff(dir.as_fd(), &[], writer, &DiffOptions::default());
    let packed = packed.map_err(|source| Error::Pack { path: root.to_owned(), source: Box::new(source) })?;
    Ok(packed.bytes)
}

/// Makes the files of a tar (compressed or not) in `dir`, an empty directory that nobody else can reach.
///
/// # Errors
/// [`Error::Document`] if it is no tar, or one with a hard link to a file that is not in it; [`Error::Extract`].
pub fn unpack_files(reader: impl Read, dir: &Path) -> Result<(), Error> {
    let read_error = |source| Error::File { operation: "read", path: "the archive".into(), source };
    let refuse = |reason: String| Error::Document { what: "the archive".into(), reason };
    let mut tar = Decoder::new(reader).map_err(read_error)?;
    let mut start = Vec::new();
    tar.by_ref().take(BLOCK as u64).read_to_end(&mut start).map_err(read_error)?;
    if !is_tar(&start) {
        return Err(refuse("it is no tar".to_owned()));
    }
    let target = File::open(dir).map_err(Error::file("open", dir))?;
    let extracted = extract(start.as_slice().chain(tar), target.as_fd(), &ExtractOptions::default());
    let extracted = extracted.map_err(|source| Error::Extract { path: dir.to_owned(), source: Box::new(source) })?;
    match extracted.settle.links.first() {
        Some(link) => Err(refuse(format!("{} is a hard link to a file that is not in it", link.name))),
        None => Ok(()),
    }
}

/// Whether `block` is a tar's first: a header with the right checksum, or the end of an empty tar.
fn is_tar(block: &[u8]) -> bool {
    if block.len() < BLOCK {
        return false;
    }
    if block.iter().all(|&byte| byte == 0) {
        return true;
    }
    let text = std::str::from_utf8(&block[148..156]).unwrap_or_default();
    let told = u32::from_str_radix(text.trim_matches(['\0', ' ']), 8).ok();
    let sum = block.iter().enumerate().map(|(n, &b)| if (148..156).contains(&n) { 32 } else { u32::from(b) }).sum();
    told == Some(sum)
}

const BLOCK: usize = 512;
