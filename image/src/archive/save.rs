//! Images into an archive.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read, Write};

use serde_json::{Map, json};

use super::{CONTAINERD_NAME, DockerEntry};
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::document::{Descriptor, Index, media_type};
use crate::error::Error;
use crate::reference::Reference;
use crate::store::{Entry, Image, REF_NAME, Store};

/// Writes `images` with these of their names as one archive; the same images give the same bytes.
///
/// # Errors
/// [`Error::NoSuchImage`], [`Error::MissingBlob`], [`Error::File`].
pub fn save(
    images: &[(Image, Vec<Reference>)],
    store: &Store,
    writer: impl Write,
    cancel: &Cancel,
) -> Result<(), Error> {
    let _using = store.lock_shared(cancel)?;
    let entries = store.entries()?;
    let mut blobs: BTreeSet<Digest> = BTreeSet::new();
    let mut manifests = Vec::new();
    let mut docker = Vec::new();
    for (image, names) in images {
        let entry = entries.iter().find(|entry| entry.descriptor.digest == image.manifest);
        let entry = entry.ok_or_else(|| Error::NoSuchImage { name: image.id.to_string() })?;
        let manifest = store.manifest(entry)?;
        blobs.insert(image.manifest.clone());
        blobs.insert(manifest.config.digest.clone());
        blobs.extend(manifest.layers.iter().map(|layer| layer.digest.clone()));
        manifests.extend(describe(entry, names));
        docker.push(DockerEntry {
            config: path(&manifest.config.digest),
            repo_tags: Some(names.iter().filter(|name| name.tag().is_some()).map(Reference::familiar).collect()),
            layers: manifest.layers.iter().map(|layer| path(&layer.digest)).collect(),
        });
    }
    let index = Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.into()),
        manifests,
        annotations: None,
        extra: Map::new(),
    };

    let write_error = |source| match cancel.check() {
        Err(cancelled) => cancelled,
        Ok(()) => Error::File { operation: "write", path: "the archive".into(), source },
    };
    let mut builder = tar::Builder::new(writer);
    for digest in &blobs {
        cancel.check()?;
        let file = store.open_blob(digest)?;
        let size = file.metadata().map_err(Error::file("stat", store.blob_path(digest)))?.len();
        add(&mut builder, &path(digest), size, Stoppable { inner: file, cancel }).map_err(write_error)?;
    }
    for (name, value) in [
        ("index.json", json!(index)),
        ("manifest.json", json!(docker)),
        ("oci-layout", json!({"imageLayoutVersion": "1.0.0"})),
    ] {
        let bytes = value.to_string().into_bytes();
        add(&mut builder, name, bytes.len() as u64, bytes.as_slice()).map_err(write_error)?;
    }
    builder.into_inner().and_then(|mut writer| writer.flush()).map_err(write_error)
}

/// One descriptor per name, or one without.
fn describe(entry: &Entry, names: &[Reference]) -> Vec<Descriptor> {
    let bare = Descriptor { annotations: None, ..entry.descriptor.clone() };
    if names.is_empty() {
        return vec![bare];
    }
    let named = |name: &Reference| {
        let annotation = |key: &str| (key.to_owned(), name.to_string());
        let annotations = Some(BTreeMap::from([annotation(CONTAINERD_NAME), annotation(REF_NAME)]));
        Descriptor { annotations, ..bare.clone() }
    };
    names.iter().map(named).collect()
}

fn add<W: Write>(builder: &mut tar::Builder<W>, name: &str, size: u64, content: impl Read) -> io::Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    builder.append(&header, content)
}

/// A blob's path in an archive.
fn path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// A reader that fails when its operation is cancelled.
struct Stoppable<'a, R> {
    inner: R,
    cancel: &'a Cancel,
}

impl<R: Read> Read for Stoppable<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.cancel.is_cancelled() {
            return Err(io::Error::other("interrupted"));
        }
        self.inner.read(buffer)
    }
}
