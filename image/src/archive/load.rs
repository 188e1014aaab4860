//! Images out of an archive.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::path::{Component, Path};

use dhow_layer::decompress::{Compression, Decoder};

use super::{BLOCK, CONTAINERD_NAME, DockerEntry, is_tar};
use crate::cancel::Cancel;
use crate::commit;
use crate::config::ImageConfig;
use crate::digest::{Algorithm, Digest, Hasher};
use crate::document::{Descriptor, Document, Index, Manifest, media_type};
use crate::error::Error;
use crate::platform::Platform;
use crate::reference::Reference;
use crate::store::{Entry, Image, MAX_DOCUMENT, REF_NAME, Store};

/// Brings the images of an archive into the store. Of an image for several platforms the one for `platform` (`None`:
/// this machine's) is taken.
///
/// # Errors
/// [`Error::Document`] if it is no image archive, [`Error::DigestMismatch`] if a blob is not what its name says, and
/// what a manifest may be refused for. Then none of its images is there.
pub fn load(
    reader: impl Read,
    platform: Option<&Platform>,
    store: &Store,
    cancel: &Cancel,
) -> Result<Vec<Image>, Error> {
    let result = load_locked(reader, platform, store, cancel);
    // Blobs of a refused archive, and files that belong to no image.
    if let Err(error) = store.try_gc() {
        log::warn!("clean up after loading: {error}");
    }
    result
}

fn load_locked(
    reader: impl Read,
    platform: Option<&Platform>,
    store: &Store,
    cancel: &Cancel,
) -> Result<Vec<Image>, Error> {
    let _adding = store.lock_shared(cancel)?;
    let content = Content::read(reader, store, cancel)?;
    let host = Platform::host();
    let platform = platform.unwrap_or(&host);
    let entries = match (content.documents.get("index.json"), content.documents.get("manifest.json")) {
        (Some(index), docker) => from_layout(index, docker, platform, store)?,
        (None, Some(docker)) => content.docker_images(docker, store)?,
        (None, None) => {
            let reason = "it has neither index.json nor manifest.json".to_owned();
            return Err(Error::Document { what: ARCHIVE.into(), reason });
        }
    };
    let mut images: Vec<Image> = Vec::new();
    for entry in entries {
        let digest = entry.descriptor.digest.clone();
        store.put_entry(entry)?;
        let image = store.image(&digest)?;
        images.retain(|known| known.manifest != digest);
        images.push(image);
    }
    Ok(images)
}

/// What was in an archive: documents in memory, everything else in the store.
#[derive(Default)]
struct Content {
    documents: BTreeMap<String, Vec<u8>>,
    files: BTreeMap<String, Stored>,
    /// Links of old docker archives: a layer that occurs twice.
    links: BTreeMap<String, String>,
}

/// A file that became a blob.
#[derive(Clone)]
struct Stored {
    digest: Digest,
    size: u64,
    compression: Compression,
}

impl Content {
    fn read(reader: impl Read, store: &Store, cancel: &Cancel) -> Result<Self, Error> {
        let broken = |source| Error::File { operation: "read", path: ARCHIVE.into(), source };
        let mut inner = Decoder::new(reader).map_err(broken)?;
        let mut start = Vec::new();
        inner.by_ref().take(BLOCK as u64).read_to_end(&mut start).map_err(broken)?;
        if !is_tar(&start) {
            return Err(Error::Document { what: ARCHIVE.into(), reason: "it is no tar".into() });
        }
        let mut archive = tar::Archive::new(start.as_slice().chain(inner));
        let mut content = Self::default();
        for entry in archive.entries().map_err(broken)? {
            cancel.check()?;
            let mut entry = entry.map_err(broken)?;
            let path = normal(&entry.path().map_err(broken)?)?;
            let kind = entry.header().entry_type();
            if kind.is_symlink() || kind.is_hard_link() {
                let target = entry.link_name().map_err(broken)?.unwrap_or_default().into_owned();
                let base = if kind.is_symlink() { Path::new(&path).parent() } else { None };
                content.links.insert(path.clone(), resolve(base.unwrap_or(Path::new("")), &target)?);
            } else if matches!(path.as_str(), "index.json" | "manifest.json" | "oci-layout" | "repositories") {
                let mut bytes = Vec::new();
                entry.take(MAX_DOCUMENT + 1).read_to_end(&mut bytes).map_err(broken)?;
                if bytes.len() as u64 > MAX_DOCUMENT {
                    let actual = bytes.len() as u64;
                    return Err(Error::SizeMismatch { what: path, expected: MAX_DOCUMENT, actual });
                }
                content.documents.insert(path, bytes);
            } else if kind.is_file() && !path.ends_with("/VERSION") && !path.ends_with("/json") {
                let expected = entry.size();
                let stored = keep(&mut entry, &path, store, cancel)?;
                if stored.size != expected {
                    return Err(Error::SizeMismatch { what: path, expected, actual: stored.size });
                }
                content.files.insert(path, stored);
            }
        }
        Ok(content)
    }

    /// A file of the archive, by a path that may be a link.
    fn file(&self, path: &str) -> Result<&Stored, Error> {
        let mut path = path.trim_start_matches("./");
        for _ in 0..MAX_LINKS {
            if let Some(stored) = self.files.get(path) {
                return Ok(stored);
            }
            match self.links.get(path) {
                Some(target) => path = target,
                None => break,
            }
        }
        Err(Error::Document { what: ARCHIVE.into(), reason: format!("{path} is not in it") })
    }

    /// The images of a docker archive; they get manifests of ours.
    fn docker_images(&self, document: &[u8], store: &Store) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        for image in docker_entries(document)? {
            let config = self.file(&image.config)?.clone();
            let layers = image
                .layers
                .iter()
                .map(|path| {
                    let layer = self.file(path)?;
                    let kind = match layer.compression {
                        Compression::Gzip => media_type::OCI_LAYER_GZIP,
                        Compression::Zstd => media_type::OCI_LAYER_ZSTD,
                        Compression::None => media_type::OCI_LAYER,
                    };
                    Ok(Descriptor::new(kind, layer.digest.clone(), layer.size))
                })
                .collect::<Result<Vec<_>, Error>>()?;
            let config = Descriptor::new(media_type::OCI_CONFIG, config.digest, config.size);
            let descriptor = commit::write_manifest(store, config, layers)?;
            check_complete(&descriptor, store)?;
            entries.extend(named(&descriptor, &tags(image.repo_tags.unwrap_or_default())));
        }
        Ok(entries)
    }
}

/// The images of an OCI layout whose blobs are in the store; docker's names are used where the index has none.
fn from_layout(
    index: &[u8],
    docker: Option<&Vec<u8>>,
    platform: &Platform,
    store: &Store,
) -> Result<Vec<Entry>, Error> {
    let parse_error = |source| Error::Parse { what: format!("index.json of {ARCHIVE}"), source };
    let index: Index = serde_json::from_slice(index).map_err(parse_error)?;
    let docker = docker.map_or_else(|| Ok(Vec::new()), |document| docker_entries(document))?;
    let mut entries = Vec::new();
    for descriptor in index.manifests {
        let name = [CONTAINERD_NAME, REF_NAME].iter().find_map(|key| {
            // A bare tag, as some tools write, is no name.
            let text = descriptor.annotation(key).filter(|text| text.contains(['/', ':']))?;
            Reference::parse(text).ok()
        });
        let bare = choose(&descriptor, platform, store)?;
        let manifest = check_complete(&bare, store)?;
        let config = format!("blobs/sha256/{}", manifest.config.digest.hex());
        let names = match name {
            Some(name) => vec![name],
            None => {
                tags(docker.iter().filter(|e| e.config == config).flat_map(|e| e.repo_tags.clone().unwrap_or_default()))
            }
        };
        entries.extend(named(&bare, &names));
    }
    Ok(entries)
}

/// The manifest a descriptor means, through an index if it is one's.
fn choose(descriptor: &Descriptor, platform: &Platform, store: &Store) -> Result<Descriptor, Error> {
    let mut descriptor = descriptor.clone();
    for _ in 0..=MAX_INDEX_DEPTH {
        let what = format!("manifest {} of {ARCHIVE}", descriptor.digest);
        let bytes = store.read_blob(&descriptor.digest)?;
        let (document, media_type) = Document::parse(&bytes, &descriptor.media_type, &what)?;
        match document {
            Document::Manifest(_) => {
                return Ok(Descriptor::new(&media_type, descriptor.digest, bytes.len() as u64));
            }
            Document::Index(index) => descriptor = index.choose(platform, ARCHIVE)?.clone(),
        }
    }
    Err(Error::Unsupported { what: ARCHIVE.into(), kind: "an index of indexes of indexes".into() })
}

/// Whether everything the manifest needs is in the store and fits together.
fn check_complete(descriptor: &Descriptor, store: &Store) -> Result<Manifest, Error> {
    let what = format!("manifest {} of {ARCHIVE}", descriptor.digest);
    let manifest = Manifest::parse(&store.read_blob(&descriptor.digest)?, &descriptor.media_type, &what)?;
    manifest.check_is_image(&what)?;
    let config = ImageConfig::parse(&store.read_blob(&manifest.config.digest)?).map_err(|source| Error::Parse {
        what: format!("configuration {} of {ARCHIVE}", manifest.config.digest),
        source,
    })?;
    let (layers, diff_ids) = (manifest.layers.len(), config.rootfs.diff_ids.len());
    if layers != diff_ids {
        return Err(Error::Document { what, reason: format!("it has {diff_ids} diff ids for {layers} layers") });
    }
    match manifest.layers.iter().find(|layer| !store.has_blob(layer)) {
        Some(missing) => Err(Error::MissingBlob(missing.digest.clone())),
        None => Ok(manifest),
    }
}

/// Stores a file as a blob; one in `blobs/` must be what its name says.
fn keep(mut file: impl Read, path: &str, store: &Store, cancel: &Cancel) -> Result<Stored, Error> {
    let broken = |source| Error::File { operation: "read", path: ARCHIVE.into(), source };
    let told = match path.strip_prefix("blobs/") {
        Some(name) => Some(Digest::parse(&name.replacen('/', ":", 1))?),
        None => None,
    };
    let mut hasher = Hasher::new(told.as_ref().map_or(Algorithm::Sha256, Digest::algorithm));
    let mut blob = store.new_blob()?;
    let mut buffer = vec![0; 256 << 10];
    let mut size = 0;
    let mut compression = Compression::None;
    loop {
        cancel.check()?;
        let count = file.read(&mut buffer).map_err(broken)?;
        if count == 0 {
            break;
        }
        if size == 0 {
            compression = Compression::detect(&buffer[..count]);
        }
        hasher.update(&buffer[..count]);
        blob.write_all(&buffer[..count]).map_err(|source| blob.write_error(source))?;
        size += count as u64;
    }
    let digest = hasher.finish();
    if let Some(expected) = told.filter(|told| *told != digest) {
        return Err(Error::DigestMismatch { what: format!("{path} of {ARCHIVE}"), expected, actual: digest });
    }
    blob.finish(&digest)?;
    Ok(Stored { digest, size, compression })
}

fn docker_entries(document: &[u8]) -> Result<Vec<DockerEntry>, Error> {
    let what = || format!("manifest.json of {ARCHIVE}");
    serde_json::from_slice(document).map_err(|source| Error::Parse { what: what(), source })
}

/// Names that parse; docker writes `<none>:<none>` now and then.
fn tags(texts: impl IntoIterator<Item = String>) -> Vec<Reference> {
    texts.into_iter().filter_map(|text| Reference::parse(&text).ok()).collect()
}

/// One entry per name, or one without.
fn named(descriptor: &Descriptor, names: &[Reference]) -> Vec<Entry> {
    let entry = |name: Option<&Reference>| Entry::new(descriptor.clone(), name.cloned(), Vec::new());
    if names.is_empty() { vec![entry(None)] } else { names.iter().map(|name| entry(Some(name))).collect() }
}

/// A path of the archive without `./`; one that leads out of it is refused.
fn normal(path: &Path) -> Result<String, Error> {
    resolve(Path::new(""), path)
}

/// What `target` means beside `base`, within the archive. Nothing is opened by it: it is a key of a table.
fn resolve(base: &Path, target: &Path) -> Result<String, Error> {
    let fail = || Error::Document { what: ARCHIVE.into(), reason: format!("it has a bad path: {}", target.display()) };
    let mut parts: Vec<&str> = Vec::new();
    for component in base.components().chain(target.components()) {
        match component {
            Component::Normal(part) => parts.push(part.to_str().ok_or_else(fail)?),
            Component::CurDir => {}
            Component::ParentDir => drop(parts.pop().ok_or_else(fail)?),
            Component::RootDir | Component::Prefix(_) => return Err(fail()),
        }
    }
    Ok(parts.join("/"))
}

const ARCHIVE: &str = "the archive";
const MAX_LINKS: usize = 8;
const MAX_INDEX_DEPTH: usize = 2;
