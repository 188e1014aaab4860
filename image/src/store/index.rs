//! `index.json`: the names.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use serde_json::Map;

use super::blobs::write_durably;
use super::lock::Mode;
use super::{Lock, Store};
use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::document::{Descriptor, Index, media_type};
use crate::error::Error;
use crate::reference::Reference;

/// An entry of `index.json` that is an image.
///
/// Tools that read layouts want OCI manifests. An image that came with a docker manifest keeps it, byte for byte, for
/// pushes; the entry shows an OCI manifest of the same configuration and layers, and the annotation `dhow.manifest`
/// says which one is meant.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Entry {
    /// The manifest as the image came with it.
    pub(crate) descriptor: Descriptor,
    /// The OCI manifest that stands for a docker one.
    pub(crate) shown: Option<Descriptor>,
    /// The name, if it has one.
    pub(crate) name: Option<Reference>,
    /// What registries call it.
    pub(crate) origins: Vec<Reference>,
}

impl Entry {
    pub(crate) fn new(descriptor: Descriptor, name: Option<Reference>, origins: Vec<Reference>) -> Self {
        Self { descriptor, shown: None, name, origins }
    }

    fn read(descriptor: Descriptor) -> Self {
        let parse = |text: &str| Reference::parse_as_written(text).ok();
        let name = descriptor.annotation(REF_NAME).and_then(parse);
        let origins = descriptor.annotation(ORIGIN).unwrap_or_default().split(' ').filter_map(parse).collect();
        let meant = descriptor.annotation(MEANT).and_then(|text| {
            let [media_type, digest, size] = text.split(' ').collect::<Vec<_>>().try_into().ok()?;
            Some(Descriptor::new(media_type, Digest::parse(digest).ok()?, size.parse().ok()?))
        });
        match meant {
            Some(meant) => Self { descriptor: meant, shown: Some(descriptor), name, origins },
            None => Self { descriptor, shown: None, name, origins },
        }
    }

    fn write(&self) -> Descriptor {
        let shown = self.shown.as_ref().unwrap_or(&self.descriptor);
        let mut annotations: BTreeMap<String, String> = shown.annotations.clone().unwrap_or_default();
        if self.shown.is_some() {
            let meant = &self.descriptor;
            annotations.insert(MEANT.to_owned(), format!("{} {} {}", meant.media_type, meant.digest, meant.size));
        }
        // A name we cannot read (another tool's) stays as it is.
        if let Some(name) = &self.name {
            annotations.insert(REF_NAME.to_owned(), name.to_string());
        } else if annotations.get(REF_NAME).is_some_and(|text| Reference::parse_as_written(text).is_ok()) {
            annotations.remove(REF_NAME);
        }
        let origins: Vec<String> = self.origins.iter().map(Reference::to_string).collect();
        if origins.is_empty() {
            annotations.remove(ORIGIN);
        } else {
            annotations.insert(ORIGIN.to_owned(), origins.join(" "));
        }
        let annotations = (!annotations.is_empty()).then_some(annotations);
        Descriptor { annotations, ..shown.clone() }
    }
}

impl Store {
    /// The entries as they are now. Needs no lock: the file is replaced by rename.
    pub(crate) fn entries(&self) -> Result<Vec<Entry>, Error> {
        Ok(self.read_index()?.manifests.into_iter().map(Entry::read).collect())
    }

    /// Changes the entries under the lock, durably. `change` says whether there is something to write.
    pub(crate) fn change_entries<T>(
        &self,
        change: impl FnOnce(&mut Vec<Entry>) -> Result<(bool, T), Error>,
    ) -> Result<T, Error> {
        let _lock = Lock::acquire(&self.root.join("index.lock"), Mode::Exclusive, &Cancel::new())?;
        let index = self.read_index()?;
        let mut entries: Vec<Entry> = index.manifests.iter().cloned().map(Entry::read).collect();
        let (changed, value) = change(&mut entries)?;
        if changed {
            self.write_index(&Index { manifests: entries.iter().map(Entry::write).collect(), ..index })?;
        }
        Ok(value)
    }

    /// Adds the image to the names: `entry.name` now is this image and no other; a former owner that has no other name
    /// stays as a dangling image. Returns whether anything changed.
    pub(crate) fn put_entry(&self, mut entry: Entry) -> Result<bool, Error> {
        if entry.descriptor.media_type == media_type::DOCKER_MANIFEST {
            entry.shown = Some(self.write_oci_twin(&entry)?);
        }
        self.change_entries(|entries| {
            let before = entries.clone();
            let digest = entry.descriptor.digest.clone();
            let mut origins = entry.origins.clone();
            for other in entries.iter_mut().filter(|other| other.descriptor.digest == digest) {
                origins.extend(other.origins.iter().filter(|o| !entry.origins.contains(o)).cloned());
                if entry.name.is_none() || other.name == entry.name {
                    // The same image under the same name: nothing moves but origins.
                    other.origins.clone_from(&origins);
                    return Ok((*entries != before, *entries != before));
                }
            }
            // An unnamed entry of this image gets the name; another image's entry of the name loses it.
            entries.retain(|other| other.descriptor.digest != digest || other.name.is_some());
            if entry.name.is_some() {
                take_name(entries, entry.name.as_ref());
            }
            entries.push(Entry { origins, ..entry });
            Ok((true, true))
        })
    }

    /// Stores the OCI manifest that shows a docker image to other tools.
    fn write_oci_twin(&self, entry: &Entry) -> Result<Descriptor, Error> {
        let mut twin = self.manifest(entry)?;
        twin.media_type = Some(media_type::OCI_MANIFEST.to_owned());
        media_type::OCI_CONFIG.clone_into(&mut twin.config.media_type);
        for layer in &mut twin.layers {
            layer.media_type = media_type::to_oci(&layer.media_type);
        }
        let what = || format!("an OCI manifest for {}", entry.descriptor.digest);
        let bytes = serde_json::to_vec(&twin).map_err(|source| Error::Parse { what: what(), source })?;
        let digest = self.write_blob(&bytes)?;
        Ok(Descriptor::new(media_type::OCI_MANIFEST, digest, bytes.len() as u64))
    }

    pub(super) fn write_index_if_missing(&self) -> Result<(), Error> {
        let _lock = Lock::acquire(&self.root.join("index.lock"), Mode::Exclusive, &Cancel::new())?;
        if self.index_path().exists() {
            return Ok(());
        }
        self.write_index(&empty_index())
    }

    fn read_index(&self) -> Result<Index, Error> {
        let path = self.index_path();
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(empty_index()),
            Err(source) => return Err(Error::File { operation: "read", path, source }),
        };
        serde_json::from_slice(&bytes).map_err(|source| Error::Parse { what: path.display().to_string(), source })
    }

    fn write_index(&self, index: &Index) -> Result<(), Error> {
        let path = self.index_path();
        let bytes =
            serde_json::to_vec(index).map_err(|source| Error::Parse { what: path.display().to_string(), source })?;
        write_durably(&path, &bytes)
    }

    fn index_path(&self) -> PathBuf {
        self.root.join("index.json")
    }
}

/// Takes `name` from whatever image has it; that image stays, without a name if it had no other.
pub(super) fn take_name(entries: &mut Vec<Entry>, name: Option<&Reference>) {
    let Some(position) = entries.iter().position(|entry| entry.name.as_ref() == name && name.is_some()) else {
        return;
    };
    let digest = entries[position].descriptor.digest.clone();
    if entries.iter().filter(|entry| entry.descriptor.digest == digest).count() > 1 {
        entries.remove(position);
    } else {
        entries[position].name = None;
    }
}

fn empty_index() -> Index {
    Index {
        schema_version: 2,
        media_type: Some(media_type::OCI_INDEX.to_owned()),
        manifests: Vec::new(),
        annotations: None,
        extra: Map::new(),
    }
}

/// The OCI annotation that names an image in a layout.
pub(crate) const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// Ours: `repository@digest` for each repository the image was pulled from or pushed to, separated by a space.
const ORIGIN: &str = "dhow.origin";
/// Ours: media type, digest and size of the docker manifest that the entry's OCI manifest stands for.
const MEANT: &str = "dhow.manifest";
