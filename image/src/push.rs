//! Pushing images: blobs first, several at once, the manifest last and byte for byte as it is stored.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::document::{Descriptor, Manifest};
use crate::error::Error;
use crate::progress::{Event, LayerInfo, LayerStatus, Progress};
use crate::reference::{Reference, ReferenceError};
use crate::registry::{Client, Placed, RegistryOptions, Upload};
use crate::store::{Entry, Store};

/// How to push.
#[derive(Debug, Clone)]
pub struct PushOptions {
    /// How to reach the registry.
    pub registry: RegistryOptions,
    /// Blobs in work at once; docker's 5.
    pub parallel: usize,
    /// Stops it.
    pub cancel: Cancel,
}

impl Default for PushOptions {
    fn default() -> Self {
        Self { registry: RegistryOptions::default(), parallel: 5, cancel: Cancel::new() }
    }
}

/// What was pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// The manifest's digest.
    pub digest: Digest,
    /// The manifest's size in bytes.
    pub size: u64,
}

/// Pushes the local image `reference` to the registry it names. What the registry has is not sent; what another of its
/// repositories is known to have is mounted from there.
///
/// # Errors
/// [`Error::NoSuchImage`] if there is no local image of that name; else see [`Error`].
pub fn push(
    reference: &Reference,
    options: &PushOptions,
    store: &Store,
    progress: &dyn Progress,
) -> Result<Pushed, Error> {
    if reference.tag().is_none() || reference.digest().is_some() {
        let reason = "a push needs a tag and no digest";
        return Err(ReferenceError { reference: reference.familiar(), reason }.into());
    }
    // No removal may take the blobs away meanwhile.
    let _using = store.lock_shared(&options.cancel)?;
    let entries = store.entries()?;
    let entry = entries.iter().find(|entry| entry.name.as_ref() == Some(reference));
    let entry = entry.ok_or_else(|| Error::NoSuchImage { name: reference.familiar() })?;
    let manifest = store.manifest(entry)?;
    let bytes = store.read_blob(&entry.descriptor.digest)?;
    let layers: Vec<LayerInfo> =
        manifest.layers.iter().map(|l| LayerInfo { digest: l.digest.clone(), size: l.size }).collect();
    progress.event(&Event::Resolved { reference, digest: &entry.descriptor.digest, layers: &layers });

    let stop = options.cancel.child();
    let client = Client::new(reference.registry(), &options.registry, &stop);
    let blobs = blobs(&manifest);
    let sources = sources(store, &entries, reference);
    let work = Blobs { client: &client, store, repository: reference.path(), sources: &sources, progress, stop: &stop };
    work.place_all(&blobs, options.parallel)?;

    let on_retry = |delay, reason: &str| progress.event(&Event::Retrying { delay, reason });
    client.put_manifest(reference, &entry.descriptor.media_type, &bytes, &on_retry)?;
    let pushed = Pushed { digest: entry.descriptor.digest.clone(), size: bytes.len() as u64 };
    let origin = reference.with_digest(&pushed.digest);
    store.put_entry(Entry::new(entry.descriptor.clone(), Some(reference.clone()), vec![origin]))?;
    Ok(pushed)
}

/// What has to be on the registry before the manifest: each blob once, the layers first. Layers that may not be
/// distributed stay here (image-spec, "Non-Distributable Layers").
fn blobs(manifest: &Manifest) -> Vec<&Descriptor> {
    let mut blobs: Vec<&Descriptor> = Vec::new();
    for descriptor in manifest.layers.iter().chain([&manifest.config]) {
        if !descriptor.is_foreign() && !blobs.iter().any(|known| known.digest == descriptor.digest) {
            blobs.push(descriptor);
        }
    }
    blobs
}

/// For each blob the other repositories of the same registry that have it: those that images with the blob were pulled
/// from or pushed to.
fn sources(store: &Store, entries: &[Entry], reference: &Reference) -> BTreeMap<Digest, Vec<String>> {
    let mut sources: BTreeMap<Digest, Vec<String>> = BTreeMap::new();
    for entry in entries {
        let repositories: Vec<&str> = entry
            .origins
            .iter()
            .filter(|origin| origin.registry() == reference.registry() && origin.path() != reference.path())
            .map(Reference::path)
            .collect();
        if repositories.is_empty() {
            continue;
        }
        // A damaged image is no source.
        let Ok(manifest) = store.manifest(entry) else { continue };
        for blob in blobs(&manifest) {
            let known = sources.entry(blob.digest.clone()).or_default();
            for repository in &repositories {
                if !known.iter().any(|other| other == repository) {
                    known.push((*repository).to_owned());
                }
            }
        }
    }
    sources
}

/// The work on the blobs of one image.
struct Blobs<'a> {
    client: &'a Client,
    store: &'a Store,
    repository: &'a str,
    sources: &'a BTreeMap<Digest, Vec<String>>,
    progress: &'a dyn Progress,
    stop: &'a Cancel,
}

impl Blobs<'_> {
    fn place_all(&self, blobs: &[&Descriptor], parallel: usize) -> Result<(), Error> {
        let next = AtomicUsize::new(0);
        let failure: Mutex<Option<Error>> = Mutex::new(None);
        thread::scope(|scope| {
            for _ in 0..parallel.max(1).min(blobs.len()) {
                scope.spawn(|| {
                    while let Some(blob) = blobs.get(next.fetch_add(1, Ordering::Relaxed)) {
                        if let Err(error) = self.place(blob) {
                            let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                            // The others stop because of the first.
                            failure.get_or_insert(error);
                            self.stop.cancel();
                            return;
                        }
                    }
                });
            }
        });
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn place(&self, blob: &Descriptor) -> Result<(), Error> {
        self.stop.check()?;
        let total = blob.size;
        self.tell(blob, LayerStatus::Waiting);
        let file = self.store.open_blob(&blob.digest)?;
        let placed = self.client.place_blob(&Upload {
            repository: self.repository,
            descriptor: blob,
            file: &file,
            sources: self.sources.get(&blob.digest).map_or(&[], Vec::as_slice),
            sent: &|done| self.tell(blob, LayerStatus::Uploading { done, total }),
            on_retry: &|delay, reason| self.tell(blob, LayerStatus::Retrying { delay, reason }),
        })?;
        match &placed {
            Placed::Exists => self.tell(blob, LayerStatus::Exists),
            Placed::Mounted(from) => self.tell(blob, LayerStatus::Mounted { from }),
            Placed::Uploaded => self.tell(blob, LayerStatus::Pushed),
        }
        Ok(())
    }

    fn tell(&self, blob: &Descriptor, status: LayerStatus<'_>) {
        self.progress.event(&Event::Layer { digest: &blob.digest, status });
    }
}
