//! save, load, import and export, and what skopeo thinks of our archives and we of its.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod support;

use std::fs;
use std::process::Command;

use dhow_image::archive::{ImportRequest, export, import, load, save};
use dhow_image::*;
use support::*;

fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A store with an image called `name`, and the image.
fn stocked(name: &str) -> (Bench, Image) {
    let image = TestImage::sample(50_000);
    let server = image.serve();
    let bench = Bench::new();
    let pulled = bench.pull(&format!("{}/app:1", server.host)).unwrap().image;
    bench.store.tag(&pulled, &Reference::parse(name).unwrap()).unwrap();
    (bench, pulled)
}

fn saved(bench: &Bench, name: &str) -> Vec<u8> {
    let image = bench.store.resolve(name).unwrap();
    let mut bytes = Vec::new();
    let what = [(image, vec![Reference::parse(name).unwrap()])];
    save(&what, &bench.store, &mut bytes, &Cancel::new()).unwrap();
    bytes
}

#[test]
fn saves_and_loads() {
    let (bench, image) = stocked("team/app:v1");
    let bytes = saved(&bench, "team/app:v1");
    assert_eq!(bytes, saved(&bench, "team/app:v1"), "the same bytes every time");
    for archive in [bytes.clone(), gzip(&bytes)] {
        let other = Bench::new();
        let loaded = load(archive.as_slice(), None, &other.store, &Cancel::new()).unwrap();
        assert_eq!(loaded.len(), 1);
        assert_eq!((&loaded[0].id, &loaded[0].manifest), (&image.id, &image.manifest));
        assert_eq!(other.store.resolve("team/app:v1").unwrap().id, image.id);
        unpack(&loaded[0], &other.store, &other.sink, 3, &Cancel::new(), &Silent).unwrap();
        assert_eq!(other.sink.committed(), bench.sink.committed());
        assert_eq!((other.parts(), other.store.gc().unwrap()), (0, vec![]));
    }
    // It is an OCI archive and a docker archive at once.
    let file = bench.dir.path().join("saved.tar");
    fs::write(&file, &bytes).unwrap();
    for (kind, reference) in [("oci-archive", "docker.io/team/app:v1"), ("docker-archive", "docker.io/team/app:v1")] {
        let copy = format!("oci:{}:x", bench.dir.path().join(kind).display());
        run("skopeo", &["copy", "-q", &format!("{kind}:{}:{reference}", file.display()), &copy]);
    }
}

#[test]
fn loads_what_skopeo_wrote() {
    let (bench, image) = stocked("team/app:v1");
    let from = format!("oci:{}:docker.io/team/app:v1", bench.store.root().display());
    for kind in ["oci-archive", "docker-archive"] {
        let file = bench.dir.path().join(format!("{kind}.tar"));
        run("skopeo", &["copy", "-q", &from, &format!("{kind}:{}:docker.io/team/other:v2", file.display())]);
        let other = Bench::new();
        let loaded = load(fs::File::open(&file).unwrap(), None, &other.store, &Cancel::new()).unwrap();
        assert_eq!(loaded[0].id, image.id, "{kind}");
        let found = other.store.resolve("team/other:v2").unwrap();
        unpack(&found, &other.store, &other.sink, 3, &Cancel::new(), &Silent).unwrap();
        assert_eq!(other.sink.committed(), bench.sink.committed(), "{kind}");
        assert_eq!((other.parts(), other.store.gc().unwrap()), (0, vec![]), "{kind}");
    }
}

#[test]
fn bad_archives_leave_nothing() {
    let (bench, _) = stocked("app:1");
    let good = saved(&bench, "app:1");
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 1;
    for (bytes, kind) in [
        (flipped, ErrorKind::Corrupt),
        (good[..good.len() / 2].to_vec(), ErrorKind::Corrupt),
        (tarball(&[("some", b"file")]), ErrorKind::Corrupt),
        (tarball(&[("blobs/sha256/abc", b"x"), ("index.json", b"{}")]), ErrorKind::InvalidInput),
        (tarball(&[("manifest.json", br#"[{"Config":"../../etc/passwd","Layers":[]}]"#)]), ErrorKind::Corrupt),
        (b"not a tar at all".to_vec(), ErrorKind::Corrupt),
    ] {
        let other = Bench::new();
        let error = load(bytes.as_slice(), None, &other.store, &Cancel::new()).unwrap_err();
        assert_eq!(error.kind(), kind, "{}", chain(&error));
        assert_eq!((other.store.list().unwrap().len(), other.parts(), other.store.gc().unwrap()), (0, 0, vec![]));
    }
}

#[test]
fn imports_and_exports() {
    let bench = Bench::new();
    let tree = bench.dir.path().join("tree");
    fs::create_dir_all(tree.join("etc")).unwrap();
    fs::write(tree.join("etc/name"), "value").unwrap();
    let mut tar = Vec::new();
    assert_eq!(export(&tree, &mut tar).unwrap(), tar.len() as u64);
    let request = ImportRequest {
        reference: Some(Reference::parse("imported").unwrap()),
        changes: vec!["CMD sh".into()],
        ..ImportRequest::default()
    };
    for archive in [tar.clone(), gzip(&tar)] {
        import(archive.as_slice(), &request, &bench.store).unwrap();
        let image = bench.store.resolve("imported").unwrap();
        assert_eq!(image.config.rootfs.diff_ids, [Digest::of(&tar)]);
        unpack(&image, &bench.store, &bench.sink, 1, &Cancel::new(), &Silent).unwrap();
        let dir = bench.sink.dir_of(&image.config.chain_ids()[0]);
        assert_eq!(fs::read_to_string(dir.join("etc/name")).unwrap(), "value");
    }
    let error = import(&noise(2000, 3)[..], &request, &bench.store).unwrap_err();
    assert_eq!(error.to_string(), "the archive: it is no tar");
    assert_eq!(bench.parts(), 0);
}
