//! From a reference to one verified manifest and configuration.

use crate::config::ImageConfig;
use crate::digest::Digest;
use crate::document::{Descriptor, Document, Manifest};
use crate::error::Error;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::registry::{Client, OnRetry};
use crate::store::{MAX_DOCUMENT, Store};

/// An image that is known but for its layers' bytes.
#[derive(Debug)]
pub(super) struct Resolved {
    /// What the registry calls it: the index's or the manifest's digest.
    pub(super) digest: Digest,
    /// The manifest's.
    pub(super) descriptor: Descriptor,
    pub(super) manifest: Manifest,
    pub(super) manifest_bytes: Vec<u8>,
    pub(super) config: ImageConfig,
    pub(super) config_bytes: Vec<u8>,
}

/// Fetches the manifest (through an index, by `platform`) and the configuration, and checks that they fit together.
/// `strict`: the platform was asked for, so an image for another one is an error.
pub(super) fn resolve(
    client: &Client,
    store: &Store,
    reference: &Reference,
    platform: &Platform,
    strict: bool,
    on_retry: OnRetry<'_>,
) -> Result<Resolved, Error> {
    let mut raw = client.manifest(reference, on_retry)?;
    let digest = raw.digest.clone();
    let mut declared: Option<Descriptor> = None;
    let mut depth = 0;
    loop {
        let what = format!("the manifest of {reference}");
        let (document, media_type) = Document::parse(&raw.bytes, &raw.content_type, &what)?;
        if let Some(descriptor) = &declared {
            check_declared(descriptor, &raw.bytes, &media_type, &what)?;
        }
        match document {
            Document::Manifest(manifest) => {
                manifest.check_is_image(&what)?;
                let (config, config_bytes) = config(client, store, reference, &manifest, on_retry)?;
                if strict && platform.distance(&config.platform()).is_none() {
                    return Err(Error::NoPlatform {
                        reference: reference.familiar(),
                        wanted: platform.to_string(),
                        available: vec![config.platform().to_string()],
                    });
                }
                let descriptor = Descriptor::new(&media_type, raw.digest, raw.bytes.len() as u64);
                return Ok(Resolved { digest, descriptor, manifest, manifest_bytes: raw.bytes, config, config_bytes });
            }
            Document::Index(_) if depth >= MAX_INDEX_DEPTH => {
                return Err(Error::Unsupported { what, kind: "an index of indexes of indexes".into() });
            }
            Document::Index(index) => {
                let chosen = index.choose(platform, &reference.familiar())?.clone();
                raw = client.manifest(&reference.with_digest(&chosen.digest), on_retry)?;
                declared = Some(chosen);
                depth += 1;
            }
        }
    }
}

/// Whether what came is what the index said.
fn check_declared(descriptor: &Descriptor, bytes: &[u8], media_type: &str, what: &str) -> Result<(), Error> {
    let actual = bytes.len() as u64;
    if descriptor.size != actual {
        return Err(Error::SizeMismatch { what: what.to_owned(), expected: descriptor.size, actual });
    }
    if !descriptor.media_type.is_empty() && descriptor.media_type != media_type {
        let reason = format!("its index says {}, it is {media_type}", descriptor.media_type);
        return Err(Error::Document { what: what.to_owned(), reason });
    }
    Ok(())
}

/// The configuration, from the store if it is there.
fn config(
    client: &Client,
    store: &Store,
    reference: &Reference,
    manifest: &Manifest,
    on_retry: OnRetry<'_>,
) -> Result<(ImageConfig, Vec<u8>), Error> {
    let descriptor = &manifest.config;
    let what = format!("the configuration of {reference}");
    let bytes = match store.read_blob(&descriptor.digest) {
        Ok(bytes) if bytes.len() as u64 == descriptor.size => bytes,
        // Missing or damaged: the registry has it.
        _ => client.small_blob(reference.path(), descriptor, MAX_DOCUMENT, on_retry)?,
    };
    let actual = Digest::with(descriptor.digest.algorithm(), &bytes);
    if actual != descriptor.digest {
        return Err(Error::DigestMismatch { what, expected: descriptor.digest.clone(), actual });
    }
    let config = ImageConfig::parse(&bytes).map_err(|source| Error::Parse { what: what.clone(), source })?;
    let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if layers != diff_ids {
        let reason = format!("it has {diff_ids} diff ids for {layers} layers");
        return Err(Error::Document { what, reason });
    }
    Ok((config, bytes))
}

/// An index may lead to an index, once.
const MAX_INDEX_DEPTH: usize = 2;
