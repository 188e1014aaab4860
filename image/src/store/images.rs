//! Finding images.

use std::collections::BTreeMap;

use super::{Entry, Image, LayerBlob, Name, Store};
use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::document::Manifest;
use crate::error::Error;
use crate::reference::Reference;

impl Store {
    /// All images, newest first.
    ///
    /// # Errors
    /// If the index does not read. A broken image is skipped with a warning in the log.
    pub fn list(&self) -> Result<Vec<Image>, Error> {
        let entries = self.entries()?;
        let mut images: Vec<Image> = group(&entries)
            .into_iter()
            .filter_map(|group| match self.load(&group) {
                Ok(image) => Some(image),
                Err(error) => {
                    log::warn!("image {}: {error}", group[0].descriptor.digest);
                    None
                }
            })
            .fold(BTreeMap::new(), merge_same_id)
            .into_values()
            .collect();
        images.sort_by(|a, b| b.config.created.cmp(&a.config.created).then_with(|| a.id.cmp(&b.id)));
        Ok(images)
    }

    /// The image a user means: a reference, an id, or a unique prefix of an id (with or without `sha256:`).
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], [`Error::AmbiguousId`].
    pub fn resolve(&self, name: &str) -> Result<Image, Error> {
        let missing = || Error::NoSuchImage { name: name.to_owned() };
        if let Ok(reference) = Reference::parse(name)
            && let Some(image) = self.find(&reference)?
        {
            return Ok(image);
        }
        let prefix = name.strip_prefix("sha256:").unwrap_or(name);
        if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            return Err(missing());
        }
        let mut images: Vec<Image> =
            self.list()?.into_iter().filter(|image| image.id.hex().starts_with(prefix)).collect();
        match images.len() {
            0 | 1 => images.pop().ok_or_else(missing),
            count => Err(Error::AmbiguousId { prefix: prefix.to_owned(), count }),
        }
    }

    /// The image of exactly this reference, if there is one. A digest names an image by its manifest or by what its
    /// registry calls it, and decides over a tag beside it.
    ///
    /// # Errors
    /// If the index or the image does not read.
    pub fn find(&self, reference: &Reference) -> Result<Option<Image>, Error> {
        let entries = self.entries()?;
        let Some(hit) = find_entry(&entries, reference) else { return Ok(None) };
        let same: Vec<&Entry> =
            entries.iter().filter(|entry| entry.descriptor.digest == hit.descriptor.digest).collect();
        self.load(&same).map(Some)
    }

    /// The image of one manifest.
    pub(crate) fn image(&self, manifest: &Digest) -> Result<Image, Error> {
        let entries = self.entries()?;
        let same: Vec<&Entry> = entries.iter().filter(|entry| entry.descriptor.digest == *manifest).collect();
        if same.is_empty() {
            return Err(Error::NoSuchImage { name: manifest.to_string() });
        }
        self.load(&same)
    }

    /// The manifest of an entry, verified.
    pub(crate) fn manifest(&self, entry: &Entry) -> Result<Manifest, Error> {
        let digest = &entry.descriptor.digest;
        let bytes = self.read_blob(digest)?;
        Manifest::parse(&bytes, &entry.descriptor.media_type, &format!("manifest {digest}"))
    }

    /// Builds an image from the entries of one manifest.
    fn load(&self, entries: &[&Entry]) -> Result<Image, Error> {
        let first = entries.first().ok_or_else(|| Error::NoSuchImage { name: String::new() })?;
        let manifest = self.manifest(first)?;
        let id = manifest.config.digest.clone();
        let config = ImageConfig::parse(&self.read_blob(&id)?)
            .map_err(|source| Error::Parse { what: format!("configuration {id}"), source })?;
        let mut image = Image {
            manifest: first.descriptor.digest.clone(),
            names: Vec::new(),
            repo_digests: Vec::new(),
            config,
            size: first.descriptor.size + manifest.config.size + manifest.layers.iter().map(|l| l.size).sum::<u64>(),
            layers: manifest
                .layers
                .into_iter()
                .map(|layer| LayerBlob { digest: layer.digest, size: layer.size, media_type: layer.media_type })
                .collect(),
            id,
        };
        for entry in entries {
            for origin in &entry.origins {
                if !image.repo_digests.contains(origin) {
                    image.repo_digests.push(origin.clone());
                }
            }
            if let Some(reference) = &entry.name {
                let same = |o: &&Reference| o.registry() == reference.registry() && o.path() == reference.path();
                let digest = entry.origins.iter().find(same).and_then(|origin| origin.digest().cloned());
                image.names.push(Name { reference: reference.clone(), digest });
            }
        }
        image.names.sort_by(|a, b| a.reference.cmp(&b.reference));
        image.repo_digests.sort();
        Ok(image)
    }
}

/// The entry that `reference` names.
pub(super) fn find_entry<'a>(entries: &'a [Entry], reference: &Reference) -> Option<&'a Entry> {
    let exact = entries.iter().find(|entry| entry.name.as_ref() == Some(reference));
    if exact.is_some() {
        return exact;
    }
    let digest = reference.digest()?;
    let same_repository =
        |other: &Reference| other.registry() == reference.registry() && other.path() == reference.path();
    entries.iter().find(|entry| {
        let by_origin = entry.origins.iter().any(|o| same_repository(o) && o.digest() == Some(digest));
        by_origin || (entry.descriptor.digest == *digest && entry.name.as_ref().is_some_and(same_repository))
    })
}

/// Entries by manifest, in their order.
fn group(entries: &[Entry]) -> Vec<Vec<&Entry>> {
    let mut groups: Vec<Vec<&Entry>> = Vec::new();
    let mut places = BTreeMap::new();
    for entry in entries {
        let place = *places.entry(&entry.descriptor.digest).or_insert_with(|| {
            groups.push(Vec::new());
            groups.len() - 1
        });
        groups[place].push(entry);
    }
    groups
}

/// Two manifests with one configuration (one image in OCI's and docker's clothes) are one image with all the names.
fn merge_same_id(mut images: BTreeMap<Digest, Image>, image: Image) -> BTreeMap<Digest, Image> {
    match images.entry(image.id.clone()) {
        std::collections::btree_map::Entry::Vacant(place) => {
            place.insert(image);
        }
        std::collections::btree_map::Entry::Occupied(mut place) => {
            let known = place.get_mut();
            known.names.extend(image.names);
            known.repo_digests.extend(image.repo_digests);
        }
    }
    images
}
