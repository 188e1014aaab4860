//! The store on a real directory.

use tempfile::TempDir;

use super::*;
use crate::cancel::Cancel;
use crate::digest::Hasher;
use crate::document::{Descriptor, Manifest, media_type};

/// A store in a directory of its own.
pub(crate) fn temp_store() -> (TempDir, Store) {
    let dir = TempDir::new().unwrap();
    let store = Store::open(&dir.path().join("image")).unwrap();
    (dir, store)
}

/// Adds an image of these (fake) layers under `name`.
pub(crate) fn add_image(store: &Store, name: &str, layers: &[&str]) -> Image {
    let mut config = ImageConfig::default();
    config.config.cmd = Some(vec![name.to_owned()]);
    config.rootfs.diff_ids = layers.iter().map(|layer| Digest::of(layer.as_bytes())).collect();
    let config = serde_json::to_vec(&config).unwrap();
    let describe =
        |kind: &str, bytes: &[u8]| Descriptor::new(kind, store.write_blob(bytes).unwrap(), bytes.len() as u64);
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media_type::OCI_MANIFEST.into()),
        config: describe(media_type::OCI_CONFIG, &config),
        layers: layers.iter().map(|layer| describe(media_type::OCI_LAYER, layer.as_bytes())).collect(),
        annotations: None,
        extra: serde_json::Map::new(),
    };
    let descriptor = describe(media_type::OCI_MANIFEST, &serde_json::to_vec(&manifest).unwrap());
    let digest = descriptor.digest.clone();
    store.put_entry(Entry::new(descriptor, Some(Reference::parse(name).unwrap()), Vec::new())).unwrap();
    store.image(&digest).unwrap()
}

fn names(image: &Image) -> Vec<String> {
    image.names.iter().map(|name| name.reference.familiar()).collect()
}

fn blob_count(store: &Store) -> usize {
    fs::read_dir(store.root().join("blobs/sha256")).unwrap().count()
}

#[test]
fn finds_by_name_id_and_prefix() {
    let (_dir, store) = temp_store();
    let a = add_image(&store, "a:1", &["x", "y"]);
    let b = add_image(&store, "host:5000/b", &["x"]);
    assert_eq!(store.list().unwrap().len(), 2);
    assert_eq!(store.resolve("a:1").unwrap(), a);
    assert_eq!(store.resolve("docker.io/library/a:1").unwrap(), a);
    assert_eq!(store.resolve("host:5000/b").unwrap(), b);
    assert_eq!(store.resolve(a.id.as_str()).unwrap(), a);
    assert_eq!(store.resolve(a.id.hex()).unwrap(), a);
    assert_eq!(store.resolve(a.id.short()).unwrap(), a);
    assert_eq!(store.resolve(&format!("sha256:{}", &a.id.hex()[..6])).unwrap(), a);
    assert_eq!(store.resolve(&format!("a@{}", a.manifest)).unwrap(), a);
    assert!(matches!(store.resolve("a"), Err(Error::NoSuchImage { .. })));
    assert!(matches!(store.resolve("nope!"), Err(Error::NoSuchImage { .. })));
    assert_eq!(a.config.chain_ids().len(), 2);
    assert_eq!(Store::open(store.root()).unwrap().list().unwrap().len(), 2);
}

#[test]
fn ambiguous_prefixes_are_named() {
    let (_dir, store) = temp_store();
    // Seventeen images: two of them begin with the same digit.
    let first: Vec<char> =
        (0..17).map(|n| add_image(&store, &format!("i{n}"), &["l"]).id.hex().chars().next().unwrap()).collect();
    let twice = first.iter().find(|c| first.iter().filter(|other| other == c).count() > 1).unwrap();
    assert!(matches!(store.resolve(&twice.to_string()), Err(Error::AmbiguousId { count: 2.., .. })));
}

#[test]
fn a_moved_tag_leaves_a_dangling_image() {
    let (_dir, store) = temp_store();
    let a = add_image(&store, "a", &["x"]);
    let b = add_image(&store, "b", &["y"]);
    store.tag(&b, &Reference::parse("a").unwrap()).unwrap();
    assert_eq!(names(&store.resolve("a").unwrap()), ["a:latest", "b:latest"]);
    assert_eq!(names(&store.resolve(a.id.as_str()).unwrap()), Vec::<String>::new());
    // Tagging the dangling one names it again without a second entry.
    store.tag(&a, &Reference::parse("c").unwrap()).unwrap();
    assert_eq!(store.entries().unwrap().len(), 3);
    // The same again changes nothing.
    store.tag(&a, &Reference::parse("c").unwrap()).unwrap();
    assert_eq!(store.entries().unwrap().len(), 3);
}

#[test]
fn removing_deletes_what_nobody_else_has() {
    let (_dir, store) = temp_store();
    let a = add_image(&store, "a", &["base", "a"]);
    let b = add_image(&store, "b", &["base", "b"]);
    store.tag(&a, &Reference::parse("a2").unwrap()).unwrap();
    let first = store.untag(&Reference::parse("a").unwrap()).unwrap();
    assert_eq!(first, Removed { untagged: vec![Reference::parse("a").unwrap()], ..Removed::default() });
    let second = store.untag(&Reference::parse("a2").unwrap()).unwrap();
    assert_eq!(second.deleted.as_ref(), Some(&a.id));
    assert_eq!(second.chains, vec![a.config.chain_ids()[1].clone()]);
    assert_eq!(second.blobs.len(), 3);
    assert!(store.has_blob(&Descriptor::new("", Digest::of(b"base"), 4)));
    let last = store.remove(&b.id).unwrap();
    assert_eq!(last.untagged.len(), 1);
    assert_eq!(last.chains.len(), 2);
    assert_eq!(blob_count(&store), 0);
    assert!(matches!(store.remove(&b.id), Err(Error::NoSuchImage { .. })));
    assert!(matches!(store.untag(&Reference::parse("b").unwrap()), Err(Error::NoSuchImage { .. })));
}

#[test]
fn deletion_waits_for_who_adds() {
    let (_dir, store) = temp_store();
    let a = add_image(&store, "a", &["x"]);
    let adding = store.lock_shared(&Cancel::new()).unwrap();
    let removed = store.remove(&a.id).unwrap();
    assert_eq!(removed.blobs.len(), 3);
    assert_eq!(blob_count(&store), 3, "blobs must stay while a pull runs");
    drop(adding);
    assert_eq!(store.gc().unwrap().len(), 3);
    assert_eq!(blob_count(&store), 0);
}

#[test]
fn parts_survive_and_wrong_ones_do_not() {
    let (_dir, store) = temp_store();
    let cancel = Cancel::new();
    let descriptor = Descriptor::new("", Digest::of(b"hello"), 5);
    let mut part = store.partial(&descriptor, &cancel).unwrap().unwrap();
    part.append(b"hel").unwrap();
    drop(part);
    let mut part = store.partial(&descriptor, &cancel).unwrap().unwrap();
    assert_eq!(part.len(), 3);
    let mut start = [0; 3];
    assert_eq!(part.read_at(&mut start, 0).unwrap(), 3);
    part.append(b"lo").unwrap();
    let mut hasher = Hasher::new(descriptor.digest.algorithm());
    hasher.update(&start);
    hasher.update(b"lo");
    part.verify(hasher, "it").unwrap().publish().unwrap();
    assert!(store.partial(&descriptor, &cancel).unwrap().is_none());
    assert_eq!(store.read_blob(&descriptor.digest).unwrap(), b"hello");

    let descriptor = Descriptor::new("", Digest::of(b"other"), 5);
    let mut part = store.partial(&descriptor, &cancel).unwrap().unwrap();
    part.append(b"wrong").unwrap();
    let mut hasher = Hasher::new(descriptor.digest.algorithm());
    hasher.update(b"wrong");
    assert!(matches!(part.verify(hasher, "it"), Err(Error::DigestMismatch { .. })));
    assert_eq!(fs::read_dir(store.root().join("partial")).unwrap().count(), 0);
}

#[test]
fn a_damaged_image_does_not_hide_the_others() {
    let (_dir, store) = temp_store();
    let a = add_image(&store, "a", &["x"]);
    add_image(&store, "b", &["y"]);
    fs::write(store.blob_path(&a.manifest), "{}").unwrap();
    assert_eq!(store.list().unwrap().len(), 1);
    assert!(matches!(store.resolve("a"), Err(Error::DigestMismatch { .. })));
    store.untag(&Reference::parse("a").unwrap()).unwrap();
    store.gc().unwrap();
    assert_eq!(blob_count(&store), 3);
}

#[test]
fn many_writers_lose_nothing() {
    let (_dir, store) = temp_store();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let store = &store;
            scope.spawn(move || {
                for n in 0..5 {
                    add_image(store, &format!("i{thread}-{n}"), &["shared", &format!("{thread}-{n}")]);
                }
            });
        }
    });
    assert_eq!(store.list().unwrap().len(), 40);
    assert_eq!(store.gc().unwrap(), []);
}

#[test]
fn an_index_of_another_tool_keeps_its_blobs() {
    let (_dir, store) = temp_store();
    let a = add_image(&store, "a", &["x"]);
    let manifest = store.entries().unwrap()[0].descriptor.clone();
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": media_type::OCI_INDEX, "manifests": [manifest]});
    let bytes = index.to_string().into_bytes();
    let digest = store.write_blob(&bytes).unwrap();
    let descriptor = Descriptor::new(media_type::OCI_INDEX, digest, bytes.len() as u64);
    store.put_entry(Entry::new(descriptor, Some(Reference::parse("multi").unwrap()), Vec::new())).unwrap();
    store.remove(&a.id).unwrap();
    assert_eq!(store.gc().unwrap(), []);
    assert_eq!(blob_count(&store), 4);
}

#[test]
fn empty_parts_go_and_damaged_documents_are_replaced() {
    let (_dir, store) = temp_store();
    drop(store.partial(&Descriptor::new("", Digest::of(b"x"), 1), &Cancel::new()).unwrap());
    assert_eq!(fs::read_dir(store.root().join("partial")).unwrap().count(), 0);
    let digest = store.write_blob(b"document").unwrap();
    fs::write(store.blob_path(&digest), b"DOCUMENT").unwrap();
    store.write_blob(b"document").unwrap();
    assert_eq!(store.read_blob(&digest).unwrap(), b"document");
}
