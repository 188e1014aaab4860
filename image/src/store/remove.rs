//! Naming, unnaming and deleting images, and deleting what nobody needs.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use super::index::take_name;
use super::lock::{Mode, try_lock};
use super::{Entry, Image, Lock, Removed, Store};
use crate::cancel::Cancel;
use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::document::{Descriptor, Document};
use crate::error::Error;
use crate::reference::Reference;

impl Store {
    /// Gives `image` the name `reference`; an image that had it loses it (and stays, dangling).
    ///
    /// # Errors
    /// [`Error::NoSuchImage`] if the image is gone meanwhile; [`Error::File`].
    pub fn tag(&self, image: &Image, reference: &Reference) -> Result<(), Error> {
        let entries = self.entries()?;
        let known = entries.iter().find(|entry| entry.descriptor.digest == image.manifest);
        let known = known.ok_or_else(|| Error::NoSuchImage { name: image.id.to_string() })?;
        self.put_entry(Entry::new(known.descriptor.clone(), Some(reference.clone()), known.origins.clone()))?;
        Ok(())
    }

    /// Takes the name `reference` from its image, which goes if that was the last one.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], [`Error::File`].
    pub fn untag(&self, reference: &Reference) -> Result<Removed, Error> {
        let gone = self.change_entries(|entries| {
            let hit = super::images::find_entry(entries, reference);
            let hit = hit.ok_or_else(|| Error::NoSuchImage { name: reference.familiar() })?.clone();
            if hit.name.as_ref() == Some(reference) {
                take_name(entries, Some(reference));
            } else {
                // A digest the registry calls it by: only that goes.
                for entry in entries.iter_mut().filter(|entry| entry.descriptor.digest == hit.descriptor.digest) {
                    entry.origins.retain(|origin| origin.digest() != reference.digest());
                }
            }
            let digest = hit.descriptor.digest.clone();
            let named = entries.iter().any(|entry| entry.descriptor.digest == digest && entry.name.is_some());
            if !named {
                entries.retain(|entry| entry.descriptor.digest != digest);
            }
            Ok((true, (vec![reference.clone()], if named { Vec::new() } else { vec![hit] })))
        })?;
        self.sweep(gone.0, &gone.1)
    }

    /// Removes an image with all its names.
    ///
    /// # Errors
    /// [`Error::NoSuchImage`], [`Error::File`].
    pub fn remove(&self, id: &Digest) -> Result<Removed, Error> {
        let gone = self.change_entries(|entries| {
            let is_it = |entry: &Entry| match self.manifest(entry) {
                Ok(manifest) => manifest.config.digest == *id,
                // An image whose manifest is lost can still be removed by the manifest's digest.
                Err(_) => entry.descriptor.digest == *id,
            };
            let (gone, rest): (Vec<Entry>, Vec<Entry>) = entries.drain(..).partition(is_it);
            *entries = rest;
            if gone.is_empty() {
                return Err(Error::NoSuchImage { name: id.to_string() });
            }
            Ok((true, gone))
        })?;
        self.sweep(gone.iter().filter_map(|entry| entry.name.clone()).collect(), &gone)
    }

    /// Deletes every blob and partial download that no image needs. Waits for running pulls and commits.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn gc(&self) -> Result<Vec<Digest>, Error> {
        self.quiet()?.gc()
    }

    /// Waits until nobody pulls, commits or loads any more, and keeps others from it.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn quiet(&self) -> Result<Quiet<'_>, Error> {
        let lock = Lock::acquire(&self.root.join("lock"), Mode::Exclusive, &Cancel::new())?;
        Ok(Quiet { store: self, lock })
    }

    /// As [`Store::quiet`], but `None` while somebody pulls, commits or loads.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn try_quiet(&self) -> Result<Option<Quiet<'_>>, Error> {
        let lock = Lock::try_acquire(&self.root.join("lock"), Mode::Exclusive)?;
        Ok(lock.map(|lock| Quiet { store: self, lock }))
    }

    /// As [`Store::gc`], but does nothing while others add images.
    pub(crate) fn try_gc(&self) -> Result<(), Error> {
        self.try_quiet()?.map_or(Ok(()), |quiet| quiet.gc().map(drop))
    }

    /// `_lock`: the exclusive lock, which says that nobody adds blobs.
    fn collect(&self, _lock: &Lock) -> Result<Vec<Digest>, Error> {
        let live = self.live()?;
        let mut deleted = Vec::new();
        for algorithm in ["sha256", "sha512"] {
            let dir = self.root.join("blobs").join(algorithm);
            for name in file_names(&dir)? {
                let Ok(digest) = Digest::parse(&format!("{algorithm}:{name}")) else { continue };
                if !live.blobs.contains(&digest) {
                    fs::remove_file(dir.join(&name)).map_err(Error::file("remove", dir.join(&name)))?;
                    deleted.push(digest);
                }
            }
        }
        self.sweep_partial()?;
        Ok(deleted)
    }

    /// Works out what went with `gone`, and deletes its blobs if nobody is adding any.
    fn sweep(&self, untagged: Vec<Reference>, gone: &[Entry]) -> Result<Removed, Error> {
        let mut removed = Removed { untagged, ..Removed::default() };
        if gone.is_empty() {
            return Ok(removed);
        }
        let lock = Lock::try_acquire(&self.root.join("lock"), Mode::Exclusive)?;
        let live = self.live()?;
        let mut chains = Vec::new();
        let mut blobs = Vec::new();
        for entry in gone {
            blobs.push(entry.descriptor.digest.clone());
            blobs.extend(entry.shown.iter().map(|shown| shown.digest.clone()));
            // What is lost already cannot be followed; gc finds the rest.
            let Ok(manifest) = self.manifest(entry) else { continue };
            if let Ok(config) = self.read_config(&manifest.config.digest) {
                chains.extend(config.chain_ids().into_iter().rev());
            }
            blobs.extend(manifest.layers.into_iter().map(|layer| layer.digest));
            removed.deleted = Some(manifest.config.digest.clone());
            blobs.push(manifest.config.digest);
        }
        let mut seen = BTreeSet::new();
        removed.chains = chains.into_iter().filter(|c| !live.chains.contains(c) && seen.insert(c.clone())).collect();
        seen.clear();
        removed.blobs = blobs.into_iter().filter(|b| !live.blobs.contains(b) && seen.insert(b.clone())).collect();
        if lock.is_some() {
            for digest in &removed.blobs {
                let path = self.blob_path(digest);
                match fs::remove_file(&path) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        return Err(Error::File { operation: "remove", path, source: error });
                    }
                    _ => {}
                }
            }
        }
        Ok(removed)
    }

    fn live(&self) -> Result<Live, Error> {
        let mut live = Live::default();
        for entry in self.entries()? {
            live.blobs.extend(entry.shown.iter().map(|shown| shown.digest.clone()));
            self.mark(&entry.descriptor, &mut live);
        }
        Ok(live)
    }

    /// Marks what a manifest needs; also below an index, which another tool may have put here.
    fn mark(&self, descriptor: &Descriptor, live: &mut Live) {
        if !live.blobs.insert(descriptor.digest.clone()) {
            return;
        }
        let parsed = self.read_blob(&descriptor.digest).and_then(|bytes| {
            Document::parse(&bytes, &descriptor.media_type, &format!("manifest {}", descriptor.digest))
        });
        match parsed {
            Ok((Document::Index(index), _)) => {
                for manifest in &index.manifests {
                    self.mark(manifest, live);
                }
            }
            Ok((Document::Manifest(manifest), _)) => {
                match self.read_config(&manifest.config.digest) {
                    Ok(config) => live.chains.extend(config.chain_ids()),
                    Err(error) => log::warn!("image {}: {error}", manifest.config.digest),
                }
                live.blobs.extend(manifest.layers.into_iter().map(|layer| layer.digest));
                live.blobs.insert(manifest.config.digest);
            }
            Err(error) => log::warn!("image {}: {error}", descriptor.digest),
        }
    }

    fn read_config(&self, digest: &Digest) -> Result<ImageConfig, Error> {
        ImageConfig::parse(&self.read_blob(digest)?)
            .map_err(|source| Error::Parse { what: format!("configuration {digest}"), source })
    }

    /// Deletes the parts that nobody is working on.
    fn sweep_partial(&self) -> Result<(), Error> {
        let dir = self.root.join("partial");
        for name in file_names(&dir)? {
            let path = dir.join(name);
            let Ok(file) = fs::File::open(&path) else { continue };
            if try_lock(&file, &path, Mode::Exclusive)? {
                fs::remove_file(&path).map_err(Error::file("remove", &path))?;
            }
        }
        Ok(())
    }
}

/// A store while nobody adds images, until it is dropped: whatever no image has now was left by somebody who is gone.
#[derive(Debug)]
#[must_use]
pub struct Quiet<'a> {
    store: &'a Store,
    lock: Lock,
}

impl Quiet<'_> {
    /// Deletes every blob and partial download that no image needs.
    ///
    /// # Errors
    /// [`Error::File`].
    pub fn gc(&self) -> Result<Vec<Digest>, Error> {
        self.store.collect(&self.lock)
    }

    /// All chain ids that some image has.
    ///
    /// # Errors
    /// If the index does not read.
    pub fn live_chains(&self) -> Result<BTreeSet<Digest>, Error> {
        Ok(self.store.live()?.chains)
    }
}

#[derive(Debug, Default)]
struct Live {
    blobs: BTreeSet<Digest>,
    chains: BTreeSet<Digest>,
}

fn file_names(dir: &PathBuf) -> Result<Vec<String>, Error> {
    let entries = fs::read_dir(dir).map_err(Error::file("list", dir))?;
    let mut names = Vec::new();
    for entry in entries {
        let entry = entry.map_err(Error::file("list", dir))?;
        names.extend(entry.file_name().into_string().ok());
    }
    Ok(names)
}
