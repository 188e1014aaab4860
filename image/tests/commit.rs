//! Commits of real upper directories, read back by ourselves and by umoci.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use dhow_image::*;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use support::*;

/// A pulled image and an upper directory over its layers.
fn container(bench: &Bench) -> (Image, PathBuf, Vec<PathBuf>) {
    assert!(nix::unistd::geteuid().is_root(), "whiteouts are devices: this test needs root");
    let image =
        TestImage::of(&[tarball(&[("keep", b"k"), ("gone", b"g"), ("dir/old", b"o")]), tarball(&[("top", b"t")])]);
    let server = image.serve();
    let pulled = bench.pull(&format!("{}/app:1", server.host)).unwrap().image;
    let lowers = pulled.config.chain_ids().iter().rev().map(|chain| bench.sink.dir_of(chain)).collect();
    let upper = bench.dir.path().join("upper");
    fs::create_dir_all(&upper).unwrap();
    (pulled, upper, lowers)
}

fn change(upper: &Path) {
    fs::write(upper.join("new"), noise(300_000, 1)).unwrap();
    mknod(&upper.join("gone"), SFlag::S_IFCHR, Mode::empty(), makedev(0, 0)).unwrap();
}

#[test]
fn commits_and_unpacks_again() {
    let bench = Bench::new();
    let (parent, upper, lowers) = container(&bench);
    change(&upper);
    let reference = Reference::parse("mine:v2").unwrap();
    let request = CommitRequest {
        upper: upper.clone(),
        lowers: lowers.clone(),
        parent: Some(&parent),
        changes: vec!["ENV A=b".into(), r#"CMD ["run"]"#.into()],
        message: "a message".into(),
        author: "an author".into(),
        created_by: "sh -c x".into(),
        reference: Some(reference.clone()),
        ..CommitRequest::default()
    };
    let committed = commit(&request, &bench.store).unwrap();
    let image = bench.store.resolve("mine:v2").unwrap();
    assert_eq!((&image.id, &image.manifest), (&committed.id, &committed.manifest));
    assert_eq!(image.layers.len(), 3);
    assert_eq!(image.layers[..2], parent.layers[..]);
    assert_eq!(image.config.config.env, ["A=b"]);
    assert_eq!(image.config.config.cmd.as_deref(), Some(&["run".to_owned()][..]));
    let last = image.config.history.last().unwrap();
    assert_eq!(
        (last.comment.as_str(), last.author.as_str(), last.created_by.as_str()),
        ("a message", "an author", "sh -c x")
    );
    assert_eq!(bench.parts(), 0);

    // The same directory gives the same layer with any number of threads.
    for threads in [1, 4] {
        let again = CommitRequest { threads, reference: Some(Reference::parse("again").unwrap()), ..request.clone() };
        commit(&again, &bench.store).unwrap();
        assert_eq!(bench.store.resolve("again").unwrap().layers[2], image.layers[2]);
    }

    // Unpacked, the new layer is the upper directory.
    unpack(&image, &bench.store, &bench.sink, 3, &Cancel::new(), &Silent).unwrap();
    let layer = bench.sink.dir_of(image.config.chain_ids().last().unwrap());
    assert_eq!(fs::read(layer.join("new")).unwrap(), noise(300_000, 1));
    assert!(!layer.join("keep").exists());

    // And umoci, who applies whiteouts, sees the file gone.
    let bundle = bench.dir.path().join("bundle");
    let from = format!("{}:{reference}", bench.store.root().display());
    let output = Command::new("umoci").args(["unpack", "--image", &from]).arg(&bundle).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let root = bundle.join("rootfs");
    assert_eq!(fs::read(root.join("new")).unwrap(), noise(300_000, 1));
    assert_eq!((root.join("gone").exists(), root.join("keep").exists()), (false, true));
}

#[test]
fn nothing_changed_is_no_layer() {
    let bench = Bench::new();
    let (parent, upper, lowers) = container(&bench);
    let request = CommitRequest { upper, lowers, parent: Some(&parent), ..CommitRequest::default() };
    let committed = commit(&request, &bench.store).unwrap();
    let image = bench.store.resolve(committed.id.as_str()).unwrap();
    assert_eq!(image.layers, parent.layers);
    assert!(image.names.is_empty());
    assert!(image.config.history.last().unwrap().empty_layer);
    assert_eq!(bench.parts(), 0);
}

#[test]
fn what_fails_leaves_nothing() {
    let bench = Bench::new();
    let (parent, upper, lowers) = container(&bench);
    change(&upper);
    let request = CommitRequest { upper, lowers, parent: Some(&parent), ..CommitRequest::default() };
    let wrong = CommitRequest { changes: vec!["RUN x".into()], ..request.clone() };
    assert_eq!(commit(&wrong, &bench.store).unwrap_err().kind(), ErrorKind::InvalidInput);
    let missing = CommitRequest { upper: "/nonexistent".into(), ..request.clone() };
    assert_eq!(commit(&missing, &bench.store).unwrap_err().to_string(), "open /nonexistent");
    let stopped = CommitRequest { cancel: Cancel::new(), ..request };
    stopped.cancel.cancel();
    assert!(matches!(commit(&stopped, &bench.store), Err(Error::Cancelled)));
    assert_eq!((bench.parts(), bench.store.list().unwrap().len()), (0, 1));
    assert_eq!(bench.store.gc().unwrap(), []);
}
