//! Pulling images, and unpacking local ones.
//!
//! ```text
//! manifest ─ configuration ─┬─ layer ─ download ─┬─ blob file + hash
//!                           │                    └─ inflate + hash ─ untar into the sink's directory ─┐
//!                           ├─ layer ─ …                                                              ├─ commit, base first
//!                           └─ layer ─ …                                                              ┘
//! ```
//!
//! The image gets its name when everything is committed, last of all. Until then the store's lock is held shared, so
//! that no collection takes a blob that was found or fetched.

mod channel;
mod layers;
mod pipeline;
mod resolve;

use crate::cancel::Cancel;
use crate::digest::Digest;
use crate::error::Error;
use crate::platform::Platform;
use crate::progress::{Event, LayerInfo, Progress};
use crate::reference::Reference;
use crate::registry::{Client, RegistryOptions};
use crate::sink::LayerSink;
use crate::store::{Entry, Image, Store};
use layers::{Job, Layers, Source};

/// When to ask the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PullPolicy {
    /// Always: the tag may have moved. What is here already is not fetched again.
    #[default]
    Always,
    /// Only if there is no local image of that name.
    Missing,
    /// Not at all: fail if there is none.
    Never,
}

/// How to pull.
#[derive(Debug, Clone)]
pub struct PullOptions {
    /// For which platform; `None` is this machine's.
    pub platform: Option<Platform>,
    /// When to ask the registry.
    pub policy: PullPolicy,
    /// How to reach it.
    pub registry: RegistryOptions,
    /// Layers in work at once; docker's 3.
    pub parallel: usize,
    /// Stops it.
    pub cancel: Cancel,
}

impl Default for PullOptions {
    fn default() -> Self {
        Self {
            platform: None,
            policy: PullPolicy::default(),
            registry: RegistryOptions::default(),
            parallel: 3,
            cancel: Cancel::new(),
        }
    }
}

/// What a pull brought.
#[derive(Debug, Clone)]
pub struct PulledImage {
    /// The image, complete in the store and unpacked in the sink.
    pub image: Image,
    /// What the registry calls it: the digest of the index, if the name is one's, else of the manifest.
    pub digest: Digest,
    /// Whether the name pointed elsewhere (or nowhere) before: "downloaded newer image" rather than "up to date".
    pub changed: bool,
}

/// Brings the image `reference` into `store` and its layers into `sink`.
///
/// # Errors
/// See [`Error`]; whatever was downloaded is kept for the next try, whatever was half unpacked is aborted.
pub fn pull(
    reference: &Reference,
    options: &PullOptions,
    store: &Store,
    sink: &dyn LayerSink,
    progress: &dyn Progress,
) -> Result<PulledImage, Error> {
    // Held to the end: what is found now must still be there then.
    let _adding = store.lock_shared(&options.cancel)?;
    let known = usable(store.find(reference), options)?;
    match (known, options.policy) {
        (Some(image), PullPolicy::Missing | PullPolicy::Never) => {
            unpack_locked(&image, store, sink, options.parallel, &options.cancel, progress)?;
            let digest = origin(&image, reference).unwrap_or_else(|| image.manifest.clone());
            Ok(PulledImage { image, digest, changed: false })
        }
        (None, PullPolicy::Never) => Err(Error::PullForbidden { reference: reference.clone() }),
        (known, _) => fetch(reference, known, options, store, sink, progress),
    }
}

/// Unpacks the layers of a local image that `sink` lacks.
///
/// # Errors
/// As [`pull`].
pub fn unpack(
    image: &Image,
    store: &Store,
    sink: &dyn LayerSink,
    parallel: usize,
    cancel: &Cancel,
    progress: &dyn Progress,
) -> Result<(), Error> {
    let _adding = store.lock_shared(cancel)?;
    unpack_locked(image, store, sink, parallel, cancel, progress)
}

fn unpack_locked(
    image: &Image,
    store: &Store,
    sink: &dyn LayerSink,
    parallel: usize,
    cancel: &Cancel,
    progress: &dyn Progress,
) -> Result<(), Error> {
    Layers { store, sink, source: Source::Store, progress, cancel: cancel.child(), parallel }.run(&Job::of(image))
}

/// The local image, unless it is for another platform or too damaged to use; then it is as if it were not there.
fn usable(found: Result<Option<Image>, Error>, options: &PullOptions) -> Result<Option<Image>, Error> {
    let image = match found {
        Ok(image) => image,
        Err(error) if options.policy == PullPolicy::Never => return Err(error),
        Err(error) => {
            log::warn!("the local image is damaged and is pulled anew: {error}");
            None
        }
    };
    Ok(image.filter(|image| {
        options.platform.as_ref().is_none_or(|wanted| wanted.distance(&image.config.platform()).is_some())
    }))
}

/// What the registry of `reference` called the local image when it came.
fn origin(image: &Image, reference: &Reference) -> Option<Digest> {
    let same = |o: &&Reference| o.registry() == reference.registry() && o.path() == reference.path();
    image.repo_digests.iter().find(same).and_then(|origin| origin.digest().cloned())
}

fn fetch(
    reference: &Reference,
    known: Option<Image>,
    options: &PullOptions,
    store: &Store,
    sink: &dyn LayerSink,
    progress: &dyn Progress,
) -> Result<PulledImage, Error> {
    let stop = options.cancel.child();
    let bring = |client: &Client, jobs: &[Job]| {
        let source = Source::Registry { client, repository: reference.path() };
        Layers { store, sink, source, progress, cancel: stop.clone(), parallel: options.parallel }.run(jobs)
    };
    let client = Client::new(reference.registry(), &options.registry, &stop);
    let on_retry = |delay, reason: &str| progress.event(&Event::Retrying { delay, reason });
    let platform = options.platform.clone().unwrap_or_else(Platform::host);

    if let Some(image) = &known
        && let Some(digest) = origin(image, reference)
        && image.layers.iter().all(|layer| store.has_blob(&layer.descriptor()))
        && client.manifest_digest(reference, &on_retry)? == Some(digest.clone())
        && platform.distance(&image.config.platform()) == Some(0)
    {
        announce(reference, &digest, image.layers.iter().map(|l| (&l.digest, l.size)), progress);
        bring(&client, &Job::of(image))?;
        return Ok(PulledImage { image: image.clone(), digest, changed: false });
    }

    let resolved = resolve::resolve(&client, store, reference, &platform, options.platform.is_some(), &on_retry)?;
    let layers = &resolved.manifest.layers;
    announce(reference, &resolved.digest, layers.iter().map(|l| (&l.digest, l.size)), progress);
    bring(&client, &Job::list(layers, &resolved.config))?;

    store.write_blob_as(&resolved.manifest.config.digest, &resolved.config_bytes)?;
    store.write_blob_as(&resolved.descriptor.digest, &resolved.manifest_bytes)?;
    let origin = reference.with_digest(&resolved.digest);
    // A digest decides over a tag beside it, so the image has only the digest's name.
    let name = if reference.digest().is_some() { origin.clone() } else { reference.clone() };
    let manifest = resolved.descriptor.digest.clone();
    store.put_entry(Entry::new(resolved.descriptor, Some(name), vec![origin]))?;
    let image = store.image(&manifest)?;
    let changed = known.is_none_or(|before| before.manifest != manifest);
    Ok(PulledImage { image, digest: resolved.digest, changed })
}

fn announce<'a>(
    reference: &Reference,
    digest: &Digest,
    layers: impl Iterator<Item = (&'a Digest, u64)>,
    progress: &dyn Progress,
) {
    let layers: Vec<LayerInfo> = layers.map(|(digest, size)| LayerInfo { digest: digest.clone(), size }).collect();
    progress.event(&Event::Resolved { reference, digest, layers: &layers });
}
