//! Layers extracted alone and settled over others.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::*;
use crate::testing::{Node, Tar, Target};

/// Extracts layers (lowest first) and settles each over those before it; gives the last one's files.
fn stack(tars: Vec<Tar>) -> (Vec<Target>, Result<()>) {
    let mut layers: Vec<Target> = Vec::new();
    for tar in tars {
        let layer = Target::new();
        let extracted = layer.extract(&tar.finish()).unwrap();
        let parents: Vec<BorrowedFd<'_>> = layers.iter().rev().map(|layer| layer.dir.as_fd()).collect();
        if let Err(error) = settle(layer.dir.as_fd(), &parents, &extracted.settle) {
            layers.push(layer);
            return (layers, Err(error));
        }
        // Doing it again changes nothing.
        let before = layer.snapshot();
        settle(layer.dir.as_fd(), &parents, &extracted.settle).unwrap();
        assert_eq!(layer.snapshot(), before);
        layers.push(layer);
    }
    (layers, Ok(()))
}

fn top(tars: Vec<Tar>) -> (Vec<Target>, BTreeMap<String, Node>) {
    let (layers, result) = stack(tars);
    result.unwrap();
    let nodes = layers.last().unwrap().snapshot();
    (layers, nodes)
}

fn owned_dir(tar: Tar, name: &str, mode: u32, gid: u64) -> Tar {
    tar.pax(&[("mtime", b"77.5"), ("SCHILY.xattr.user.tag", name.as_bytes())]).entry(
        b'5',
        name.as_bytes(),
        b"",
        b"",
        |header| {
            header.set_mode(mode);
            header.set_gid(gid);
        },
    )
}

/// `tmp/x` without `tmp/`: /tmp keeps its 1777.
#[test]
fn implied_directories_take_after_the_nearest_parent() {
    let base = owned_dir(owned_dir(Tar::new(), "./", 0o711, 3), "tmp", 0o1777, 4).dir("tmp/deep", 0o700);
    let middle = owned_dir(Tar::new(), "tmp/deep", 0o2750, 5);
    let (_layers, nodes) = top(vec![base, middle, Tar::new().file("tmp/deep/x", b"").file("own/y", b"")]);
    assert_eq!((nodes["."].mode, nodes["."].owner.1, nodes["."].mtime), (0o711, 3, (77, 500_000_000)));
    assert_eq!((nodes["tmp"].mode, nodes["tmp"].owner.1), (0o1777, 4));
    assert_eq!(nodes["tmp"].xattrs, [("user.tag".to_owned(), b"tmp".to_vec())]);
    assert_eq!((nodes["tmp/deep"].mode, nodes["tmp/deep"].owner.1), (0o2750, 5));
    assert_eq!((nodes["own"].mode, nodes["own"].owner, nodes["own"].mtime), (0o755, (0, 0), (0, 0)));
}

#[test]
fn what_is_hidden_below_gives_no_attributes() {
    let base = owned_dir(owned_dir(Tar::new(), "a", 0o700, 1), "a/b", 0o700, 2);
    let (_layers, nodes) = top(vec![base, Tar::new().file(".wh.a", b""), Tar::new().file("a/b/x", b"")]);
    assert_eq!((nodes["a"].mode, nodes["a/b"].owner.1), (0o755, 0));
    let base = owned_dir(owned_dir(Tar::new(), "a", 0o700, 1), "a/b", 0o700, 2);
    let (_layers, nodes) = top(vec![base, Tar::new().file("a/.wh..wh..opq", b"").file("a/b/x", b"")]);
    assert_eq!((nodes["a"].mode, nodes["a/b"].mode), (0o700, 0o755));
}

#[test]
fn hard_links_into_layers_below() {
    let base = Tar::new()
        .dir("bin", 0o711)
        .pax(&[("SCHILY.xattr.user.a", b"1"), ("mtime", b"5.25")])
        .entry(b'0', b"bin/tool", b"", b"contents", |header| {
            header.set_mode(0o4755);
            header.set_uid(9);
        })
        .symlink("bin/sym", "tool")
        .entry(b'3', b"bin/dev", b"", b"", |header| {
            header.set_device_major(1).unwrap();
            header.set_device_minor(5).unwrap();
        });
    let links = Tar::new()
        .dir("new", 0o755)
        .link("new/one", "bin/tool")
        .link("new/two", "/bin/tool")
        .link("new/sym", "bin/sym")
        .link("new/dev", "bin/dev");
    let (_layers, nodes) = top(vec![base, Tar::new().file("unrelated", b""), links]);
    assert_eq!(nodes["bin/tool"].mode, 0o4755);
    assert_eq!((nodes["bin/tool"].owner.0, nodes["bin/tool"].mtime), (9, (5, 250_000_000)));
    assert_eq!(nodes["bin/tool"].kind, "file contents");
    assert_eq!(nodes["bin/tool"].xattrs.len(), 1);
    for (name, target) in
        [("new/one", "bin/tool"), ("new/two", "bin/tool"), ("new/sym", "bin/sym"), ("new/dev", "bin/dev")]
    {
        assert_eq!(nodes[name].same_as.as_deref(), Some(target));
    }
    // The directory made for the copy is the one below, and the link's directory keeps its time.
    assert_eq!((nodes["bin"].mode, nodes["new"].mtime), (0o711, (1_000_000_000, 0)));
}

#[test]
fn hard_links_to_nothing_are_errors() {
    let base = || Tar::new().dir("d", 0o755).file("d/f", b"").file("f", b"");
    for (layer, why) in [
        (Tar::new().link("l", "absent"), "in no layer"),
        (Tar::new().link("l", "absent/x"), "in no layer"),
        (Tar::new().link("l", "f/x"), "in no layer"),
        (Tar::new().file(".wh.f", b"").link("l", "f"), "deleted"),
        (Tar::new().file("d/.wh..wh..opq", b"").link("l", "d/f"), "in no layer"),
        (Tar::new().file(".wh.d", b"").link("l", "d/f"), "deleted"),
        (Tar::new().link("l", "d"), "directory"),
    ] {
        let (_layers, result) = stack(vec![base(), layer]);
        let error = result.unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
        assert_eq!(error.kind(), crate::Kind::InvalidLayer);
    }
}

/// Bazel's layers say `lib/x` over a Debian whose lib is a link.
#[test]
fn files_follow_links_of_the_layers_below() {
    let base = || {
        Tar::new()
            .dir("usr", 0o755)
            .dir("usr/lib", 0o751)
            .dir("usr/lib/both", 0o700)
            .symlink("lib", "usr/lib")
            .symlink("lib64", "/lib")
            .symlink("up", "usr/lib/../../srv/x")
            .dir("srv", 0o755)
            .dir("srv/x", 0o755)
            .symlink("nowhere", "absent")
    };
    let layer = Tar::new()
        .file("lib/a", b"1")
        .file("lib/both/b", b"2")
        .file("usr/lib/both/c", b"3")
        .file("lib64/d", b"4")
        .file("up/e", b"5")
        .file("nowhere/f", b"6")
        .link("lib/l", "lib/a");
    let (layers, nodes) = top(vec![base(), layer]);
    let names: Vec<&str> = nodes.keys().map(String::as_str).filter(|name| nodes[*name].kind != "dir").collect();
    assert_eq!(
        names,
        ["nowhere/f", "srv/x/e", "usr/lib/a", "usr/lib/both/b", "usr/lib/both/c", "usr/lib/d", "usr/lib/l"]
    );
    assert!(!nodes.contains_key("lib") && !nodes.contains_key("lib64"));
    assert_eq!((nodes["usr/lib"].mode, nodes["usr/lib/both"].mode), (0o751, 0o700));
    drop(layers);
    // A directory that the tar itself lists takes the link's place, as the specification has it.
    let (_layers, nodes) = top(vec![base(), Tar::new().dir("lib", 0o755).file("lib/a", b"")]);
    assert!(nodes.contains_key("lib/a"));
    // What the layer itself says of the directory at the other end stays.
    let (_layers, nodes) = top(vec![base(), Tar::new().dir("usr/lib", 0o711).file("lib/a", b"")]);
    assert_eq!(nodes["usr/lib"].mode, 0o711);
    // With the link deleted there is nothing to follow.
    let (_layers, nodes) = top(vec![base(), Tar::new().file(".wh.lib", b"").file("lib/a", b"")]);
    assert!(nodes.contains_key("lib/a"));
}

#[test]
fn links_below_that_lead_out_are_followed_inside() {
    let base = Tar::new().symlink("evil", "../../../../etc").dir("etc", 0o755).symlink("loop", "loop");
    let (_layers, nodes) = top(vec![base, Tar::new().file("evil/x", b"").file("other/y", b"")]);
    assert!(nodes.contains_key("etc/x"));
}

#[test]
fn whiteouts_survive_settling() {
    let (layers, _nodes) = top(vec![Tar::new().dir("d", 0o755).file("d/f", b""), Tar::new().file("d/.wh.f", b"")]);
    let meta = fs::symlink_metadata(layers[1].path("d/f")).unwrap();
    assert!(meta.file_type().is_char_device() && meta.rdev() == 0);
}

#[test]
fn whiteouts_over_nothing_go() {
    let below = Tar::new().dir("d", 0o755).file("d/f", b"").dir("o", 0o755).file("o/f", b"");
    let layer = Tar::new()
        .file("d/.wh.never-there", b"")
        .dir("new", 0o755)
        .file("new/.wh.f", b"")
        .file("implied/deep/.wh.f", b"")
        .file("o/.wh..wh..opq", b"")
        .file("o/.wh.f", b"");
    let (layers, nodes) = top(vec![below, layer]);
    for gone in ["new/f", "implied/deep/f", "o/f"] {
        assert!(fs::symlink_metadata(layers[1].path(gone)).is_err(), "{gone} would be listed");
    }
    assert!(fs::symlink_metadata(layers[1].path("d/never-there")).is_ok(), "a merged directory hides it");
    assert!(nodes.contains_key("new") && nodes.contains_key("implied/deep"));
}

#[test]
fn saved_and_loaded() {
    let outer = tempfile::tempdir().unwrap();
    let dir = outer.path().join("fs");
    assert_eq!(Settle::load_beside(&dir).unwrap(), None);
    let path = |raw: &[u8]| LayerPath::parse(raw).unwrap();
    let settle = Settle {
        overlay_xattrs: OverlayXattrs::User,
        implied: vec![path(b""), path(b"a/\xff")],
        links: vec![SettleLink { name: path(b"l%"), target: path(b"t\n") }],
        whiteouts: vec![path(b"w")],
    };
    settle.save_beside(&dir).unwrap();
    assert_eq!(Settle::load_beside(&dir).unwrap(), Some(settle));
    fs::write(outer.path().join("settle.json"), "{").unwrap();
    assert!(Settle::load_beside(&dir).unwrap_err().to_string().starts_with("read "));
}
