//! Hostile and odd layers. CVE numbers name the peer's bug that a test would have found.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use super::*;
use crate::testing::{Tar, Target};
use crate::{Kind, extract};

const OPAQUE: &str = "trusted.overlay.opaque";

fn path(text: &str) -> LayerPath {
    LayerPath::parse(text.as_bytes()).unwrap()
}

fn mode_of(target: &Target, name: &str) -> u32 {
    fs::symlink_metadata(target.path(name)).unwrap().mode() & 0o7777
}

fn is_opaque_dir(target: &Target, name: &str) -> bool {
    target.snapshot()[name].xattrs.iter().any(|(key, value)| key == OPAQUE && value == b"y")
}

fn is_whiteout_at(target: &Target, name: &str) -> bool {
    let meta = fs::symlink_metadata(target.path(name)).unwrap();
    meta.file_type().is_char_device() && meta.rdev() == 0
}

#[test]
fn every_kind_with_every_attribute() {
    let target = Target::new();
    let cap = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let tar = Tar::new()
        .dir("./", 0o751)
        .pax(&[("mtime", b"1234567890.123456789")])
        .dir("dir", 0o2775)
        .pax(&[("SCHILY.xattr.security.capability", &cap), ("SCHILY.xattr.user.note", b"a\0b"), ("mtime", b"-1.5")])
        .entry(b'0', b"dir/prog", b"", b"#!", |header| {
            header.set_mode(0o4755);
            header.set_uid(1000);
            header.set_gid(1001);
        })
        .link("dir/same", "/dir/prog")
        .symlink("dir/link", "../../../etc/passwd")
        .entry(b'3', b"dir/null", b"", b"", |header| {
            header.set_mode(0o666);
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        })
        .entry(b'4', b"dir/disk", b"", b"", |header| {
            header.set_device_major(0xfff).unwrap();
            header.set_device_minor(0xfffff).unwrap();
        })
        .entry(b'6', b"dir/fifo", b"", b"", |header| header.set_uid(5))
        .finish();
    let extracted = target.extract(&tar).unwrap();
    assert_eq!((extracted.entries, extracted.bytes, extracted.settle.clone()), (8, 2, Settle::default()));
    let nodes = target.snapshot();
    assert_eq!(nodes["."].mode, 0o751);
    assert_eq!((nodes["dir"].mode, nodes["dir"].mtime), (0o2775, (1_234_567_890, 123_456_789)));
    let program = &nodes["dir/prog"];
    assert_eq!((program.mode, program.owner, program.mtime), (0o4755, (1000, 1001), (-2, 500_000_000)));
    let names: Vec<&str> = program.xattrs.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["security.capability", "user.note"]);
    assert_eq!(nodes["dir/same"].same_as.as_deref(), Some("dir/prog"));
    assert_eq!(nodes["dir/link"].kind, "-> \"../../../etc/passwd\"");
    assert_eq!(nodes["dir/null"].kind, "node 20000 103");
    assert_eq!(fs::metadata(target.path("dir/null")).unwrap().mode() & 0o7777, 0o666);
    assert_eq!(nodes["dir/fifo"].owner, (5, 0));
}

#[test]
fn dot_dot_is_refused_wherever_it_stands() {
    for tar in [
        Tar::new().file("../x", b""),
        Tar::new().file("a/../../x", b""),
        Tar::new().dir("..", 0o777),
        Tar::new().file(".wh...", b""),
        Tar::new().link("l", "../canary"),
        Tar::new().file("a", b"").link("l", "x/../../canary"),
    ] {
        let error = Target::new().extract(&tar.finish()).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidLayer, "{error}");
    }
}

#[test]
fn absolute_names_and_link_targets_stay_inside() {
    let target = Target::new();
    let tar = Tar::new().file("/etc/x", b"1").link("y", "/etc/x").symlink("z", "/etc").file("z/w", b"2").finish();
    target.extract(&tar).unwrap();
    assert_eq!(fs::read(target.path("y")).unwrap(), b"1");
    assert_eq!(fs::read(target.path("etc/w")).unwrap(), b"2");
}

/// CVE-2019-5021-like classics, CVE-2021-29136 (umoci), CVE-2025-47290 (containerd), CVE-2026-33056 (tar).
#[test]
fn symlinks_never_lead_out() {
    for link in ["..", "../..", "/", "../fs/../..", "a/../../../.."] {
        let target = Target::new();
        let tar = Tar::new().symlink("a", link).file("a/canary", b"overwritten").dir("a", 0o700).finish();
        // Followed inside the root, or refused: never outside.
        let _either = target.extract(&tar);
    }
    let target = Target::new();
    let outside = target.outer.path().join("canary");
    let tar = Tar::new().symlink("l", outside.to_str().unwrap()).file("l", b"replaced, not followed").finish();
    target.extract(&tar).unwrap();
    assert!(fs::symlink_metadata(target.path("l")).unwrap().is_file());
    let tar = Tar::new().symlink("m", outside.to_str().unwrap()).link("n", "m").dir("m", 0o711).finish();
    target.extract(&tar).unwrap();
    assert!(fs::symlink_metadata(target.path("n")).unwrap().is_symlink());
    assert!(fs::symlink_metadata(target.path("m")).unwrap().is_dir());
}

/// CVE-2021-29136: `.` replaced by a symbolic link.
#[test]
fn the_root_stays_a_directory() {
    for tar in [
        Tar::new().symlink(".", "/etc"),
        Tar::new().file("./", b"").entry(b'0', b"/", b"", b"x", |_| ()),
        Tar::new().entry(b'6', b"./.", b"", b"", |_| ()),
        Tar::new().file("f", b"").link("/", "f"),
    ] {
        let error = Target::new().extract(&tar.finish()).unwrap_err();
        assert_eq!(error.kind(), Kind::InvalidLayer, "{error}");
    }
    // Its whiteouts mean the same and are as impossible.
    assert!(Target::new().extract(&Tar::new().file(".wh.", b"").finish()).is_err());
    assert!(Target::new().extract(&Tar::new().file(".wh..", b"").finish()).is_err());
}

#[test]
fn symlink_loops_end() {
    let tar = Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", b"").finish();
    let error = Target::new().extract(&tar).unwrap_err();
    assert!(error.to_string().contains("resolve"), "{error}");
    // A link to its own directory is no loop.
    let target = Target::new();
    target.extract(&Tar::new().dir("d", 0o755).symlink("d/self", ".").file("d/self/self/x", b"1").finish()).unwrap();
    assert_eq!(fs::read(target.path("d/x")).unwrap(), b"1");
}

#[test]
fn parents_through_links_of_the_same_layer() {
    let target = Target::new();
    let tar = Tar::new()
        .dir("usr", 0o755)
        .dir("usr/lib", 0o755)
        .symlink("lib", "usr/lib")
        .symlink("l2", "/lib/./../lib")
        .file("lib/a", b"1")
        .file("l2/b", b"2")
        .file("usr/lib/c", b"3")
        .symlink("dangling", "opt/new")
        .file("dangling/d", b"4")
        .finish();
    let extracted = target.extract(&tar).unwrap();
    for (name, want) in [("usr/lib/a", "1"), ("usr/lib/b", "2"), ("usr/lib/c", "3"), ("opt/new/d", "4")] {
        assert_eq!(fs::read_to_string(target.path(name)).unwrap(), want);
    }
    assert_eq!(extracted.settle.implied, [path(""), path("opt"), path("opt/new")]);
    // Times of directories count although files were made in them through a link later.
    assert_eq!(target.snapshot()["usr/lib"].mtime, (1_000_000_000, 0));
}

#[test]
fn the_last_entry_of_a_name_wins() {
    let target = Target::new();
    let tar = Tar::new()
        .file("a", b"first")
        .link("keep", "a")
        .file("a", b"second")
        .dir("d", 0o700)
        .file("d/x", b"")
        .dir("d/e", 0o700)
        .file("d", b"a file now")
        .file("e", b"a file first")
        .dir("e", 0o755)
        .file("e/x", b"")
        .dir("m", 0o700)
        .file("m/x", b"stays")
        .dir("m", 0o711)
        .symlink("s", "m")
        .dir("s", 0o755)
        .finish();
    target.extract(&tar).unwrap();
    assert_eq!(fs::read(target.path("a")).unwrap(), b"second");
    assert_eq!(fs::read(target.path("keep")).unwrap(), b"first");
    assert_eq!(fs::read(target.path("d")).unwrap(), b"a file now");
    assert_eq!(fs::read(target.path("m/x")).unwrap(), b"stays");
    assert_eq!(mode_of(&target, "m"), 0o711);
    // A directory in place of a file hides what the layers below have of that name, as it would on a real overlay.
    assert!(is_opaque_dir(&target, "e") && is_opaque_dir(&target, "s"));
    assert!(!is_opaque_dir(&target, "m"));
    assert!(fs::symlink_metadata(target.path("s")).unwrap().is_dir());
}

#[test]
fn directory_replaced_by_file_and_back() {
    let target = Target::new();
    let tar = Tar::new().dir("d", 0o755).file("d/old", b"").file("d", b"").dir("d", 0o750).file("d/new", b"").finish();
    target.extract(&tar).unwrap();
    assert!(is_opaque_dir(&target, "d"));
    assert_eq!(fs::read_dir(target.path("d")).unwrap().count(), 1);
    assert_eq!(mode_of(&target, "d"), 0o750);
}

#[test]
fn an_entry_below_a_file_is_refused() {
    let error = Target::new().extract(&Tar::new().file("f", b"").file("f/x", b"").finish()).unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidLayer);
    assert!(error.to_string().contains("entry f refused"), "{error}");
}

#[test]
fn whiteouts_in_every_order() {
    let target = Target::new();
    let tar = Tar::new()
        .file("gone/.wh.file", b"")
        .file(".wh.dir", b"ignored contents")
        .dir("dir", 0o755)
        .file("dir/new", b"")
        .file("also", b"kept")
        .file(".wh.also", b"")
        .dir("late", 0o755)
        .file("late/kept", b"")
        .file(".wh.late", b"")
        .file("opq/.wh..wh..opq", b"")
        .file("opq/x", b"")
        .dir("opq", 0o711)
        .file("opq2/x", b"")
        .file("opq2/.wh..wh..opq", b"")
        .file(".wh..wh.aufs", b"")
        .file(".wh..wh.plnk/1.2", b"")
        .file(".wh.implied", b"")
        .file("implied/x", b"")
        .entry(b'3', b"spelled", b"", b"", |_| ())
        .file(".wh.twice", b"")
        .file(".wh.twice", b"")
        .finish();
    let extracted = target.extract(&tar).unwrap();
    for name in ["gone/file", "spelled", "twice"] {
        assert!(is_whiteout_at(&target, name), "{name}");
    }
    for name in ["dir", "late", "opq", "opq2", "implied"] {
        assert!(is_opaque_dir(&target, name), "{name}");
    }
    assert_eq!(fs::read(target.path("also")).unwrap(), b"kept");
    assert!(target.path("dir/new").exists() && target.path("late/kept").exists() && target.path("implied/x").exists());
    assert_eq!(mode_of(&target, "opq"), 0o711);
    assert!(!target.path(".wh..wh.aufs").exists() && !target.path(".wh..wh.plnk").exists());
    let implied: Vec<String> = extracted.settle.implied.iter().map(ToString::to_string).collect();
    assert_eq!(implied, ["/", "gone", "opq2"]);
}

#[test]
fn opaque_at_the_root() {
    let target = Target::new();
    target.extract(&Tar::new().file(".wh..wh..opq", b"").finish()).unwrap();
    assert!(is_opaque_dir(&target, "."));
}

#[test]
fn user_namespaces_mark_opaque_otherwise() {
    let target = Target::new();
    let options = ExtractOptions { overlay_xattrs: OverlayXattrs::User, ..ExtractOptions::default() };
    extract(&Tar::new().file("d/.wh..wh..opq", b"").finish()[..], std::os::fd::AsFd::as_fd(&target.dir), &options)
        .unwrap();
    assert_eq!(target.snapshot()["d"].xattrs, [("user.overlay.opaque".to_owned(), b"y".to_vec())]);
}

/// A layer must not speak to overlayfs: `redirect` and `metacopy` name other files.
#[test]
fn overlay_attributes_of_the_tar_are_dropped() {
    let target = Target::new();
    let records: &[(&str, &[u8])] = &[
        ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
        ("SCHILY.xattr.user.overlay.opaque", b"y"),
        ("SCHILY.xattr.security.selinux", b"x"),
        ("SCHILY.xattr.trusted.other", b"kept"),
    ];
    target.extract(&Tar::new().pax(records).dir("d", 0o755).pax(records).file("f", b"").finish()).unwrap();
    for name in ["d", "f"] {
        assert_eq!(target.snapshot()[name].xattrs, [("trusted.other".to_owned(), b"kept".to_vec())]);
    }
}

/// A setgid directory and a default ACL act on what is made in them later, not on what the layer puts there.
#[test]
fn directories_do_not_leak_into_their_children() {
    let target = Target::new();
    let acl = [
        &2u32.to_le_bytes()[..],
        &[1, 0, 7, 0, 255, 255, 255, 255, 4, 0, 5, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255],
    ]
    .concat();
    let tar = Tar::new()
        .pax(&[("SCHILY.xattr.system.posix_acl_default", &acl)])
        .entry(b'5', b"d", b"", b"", |header| {
            header.set_mode(0o2777);
            header.set_gid(50);
        })
        .dir("d/sub", 0o755)
        .file("d/f", b"")
        .finish();
    target.extract(&tar).unwrap();
    let nodes = target.snapshot();
    assert_eq!((nodes["d"].mode, nodes["d"].owner.1), (0o2777, 50));
    assert_eq!((nodes["d/sub"].mode, nodes["d/sub"].owner.1, nodes["d/sub"].xattrs.len()), (0o755, 0, 0));
    assert_eq!((nodes["d/f"].mode, nodes["d/f"].owner.1, nodes["d/f"].xattrs.len()), (0o644, 0, 0));
}

/// CVE-2021-32760 (containerd): a hard link's own mode must not change its target's.
#[test]
fn a_hard_link_changes_nothing_about_its_target() {
    let target = Target::new();
    let tar = Tar::new()
        .file("f", b"x")
        .symlink("s", "f")
        .entry(b'1', b"l", b"f", b"", |header| {
            header.set_mode(0o4777);
            header.set_uid(7);
        })
        .entry(b'1', b"t", b"s", b"", |header| header.set_mode(0o4777))
        .finish();
    target.extract(&tar).unwrap();
    assert_eq!((mode_of(&target, "f"), target.snapshot()["f"].owner), (0o644, (0, 0)));
    assert_eq!(target.snapshot()["t"].same_as.as_deref(), Some("s"));
}

#[test]
fn hard_links_to_nothing_here_wait() {
    let target = Target::new();
    let tar = Tar::new()
        .link("a/l", "bin/below")
        .link("b", "x")
        .file("b", b"a file after all")
        .link("c/d", "x")
        .file("c", b"took the directory with the link")
        .link("self", "self")
        .file("old", b"")
        .link("old", "elsewhere")
        .file("n", b"")
        .link("n", "n")
        .file(".wh.w", b"")
        .link("toward", "w")
        .link("stays", "below")
        .file(".wh.stays", b"")
        .finish();
    let extracted = target.extract(&tar).unwrap();
    let links: Vec<String> =
        extracted.settle.links.iter().map(|link| format!("{} {}", link.name, link.target)).collect();
    assert_eq!(links, ["a/l bin/below", "self self", "old elsewhere", "toward w", "stays below"]);
    assert!(!target.path("old").exists() && fs::symlink_metadata(target.path("stays")).is_err());
    assert!(target.path("n").exists());
    let error = Target::new().extract(&Tar::new().dir("d", 0o755).link("l", "d").finish()).unwrap_err();
    assert_eq!(error.kind(), Kind::InvalidLayer);
}

#[test]
fn names_of_any_bytes_and_lengths() {
    let target = Target::new();
    let long = "n".repeat(255);
    let deep = vec!["d".repeat(200); 40].join("/");
    let tar = Tar::new()
        .pax(&[("path", b"\xff\xfe/\n\t*")])
        .file("x", b"1")
        .pax(&[("path", long.as_bytes())])
        .file("x", b"2")
        .pax(&[("path", deep.as_bytes())])
        .file("x", b"3")
        .entry(b'L', b"././@LongLink", b"", &[&vec![b'g'; 150][..], b"\0"].concat(), |_| ())
        .file("x", b"4")
        .finish();
    assert_eq!(target.extract(&tar).unwrap().entries, 4);
    let nodes = target.snapshot();
    assert!(nodes.contains_key("\\xff\\xfe/\\n\\t*") && nodes.contains_key(&long) && nodes.contains_key(&deep));
    assert!(nodes.contains_key(&"g".repeat(150)));
    let too_long = "n".repeat(256);
    for tar in [
        Tar::new().pax(&[("path", too_long.as_bytes())]).file("x", b""),
        Tar::new().pax(&[("path", format!("{too_long}/x").as_bytes())]).file("x", b""),
    ] {
        let error = Target::new().extract(&tar.finish()).unwrap_err();
        let text = format!("{error}: {}", std::error::Error::source(&error).unwrap());
        assert!(text.contains("ENAMETOOLONG") && text.contains("nnn"), "{text}");
        assert_eq!(error.kind(), Kind::InvalidLayer);
    }
}

#[test]
fn thousands_of_levels_need_no_descriptors() {
    let target = Target::new();
    let deep = vec!["d"; 3000].join("/");
    let side = vec!["d"; 1500].join("/") + "/side";
    let tar = Tar::new()
        .pax(&[("path", format!("{deep}/f").as_bytes())])
        .file("x", b"")
        .pax(&[("path", side.as_bytes())])
        .file("x", b"")
        .pax(&[("path", format!("{deep}/g").as_bytes())])
        .file("x", b"")
        .file("d", b"all gone")
        .finish();
    target.extract(&tar).unwrap();
    assert_eq!(target.snapshot().len(), 2);
    let too_deep = vec!["d"; 5000].join("/");
    assert!(Target::new().extract(&Tar::new().pax(&[("path", too_deep.as_bytes())]).file("x", b"").finish()).is_err());
}

#[test]
fn sparse_files_in_four_dialects_and_zeros_in_full() {
    let target = Target::new();
    let mut zeros = vec![0; 3 << 20];
    zeros[2 << 20] = 7;
    let map = b"2\n512\n5\n10000000000\n0\n";
    let mut data = map.to_vec();
    data.resize(512, 0);
    data.extend_from_slice(b"hello");
    let tar = Tar::new()
        .pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"one"),
            ("GNU.sparse.realsize", b"10000000000"),
        ])
        .file("GNUSparseFile.1/one", &data)
        .pax(&[
            ("GNU.sparse.map", b"512,5"),
            ("GNU.sparse.size", b"1000"),
            ("GNU.sparse.name", b"tenth"),
            ("GNU.sparse.numblocks", b"1"),
        ])
        .file("x", b"hello")
        .pax(&[("GNU.sparse.size", b"1000"), ("GNU.sparse.offset", b"0"), ("GNU.sparse.numbytes", b"5")])
        .file("zeroth", b"hello")
        .raw(&gnu_sparse_entry())
        .raw(b"hello")
        .file("zeros", &zeros)
        .finish();
    target.extract(&tar).unwrap();
    let one = fs::metadata(target.path("one")).unwrap();
    assert_eq!(one.len(), 10_000_000_000);
    assert!(one.blocks() < 100);
    let mut want = vec![0; 512];
    want.extend_from_slice(b"hello");
    want.resize(1000, 0);
    assert_eq!(fs::read(target.path("tenth")).unwrap(), want);
    assert_eq!(fs::read(target.path("old")).unwrap(), want);
    assert_eq!(fs::read(target.path("zeroth")).unwrap()[..6], *b"hello\0");
    assert_eq!(fs::read(target.path("zeros")).unwrap(), zeros);
    assert!(fs::metadata(target.path("zeros")).unwrap().blocks() * 512 <= 256 << 10);
}

/// An old GNU sparse header with one segment in an extension block.
fn gnu_sparse_entry() -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_path("old").unwrap();
    header.set_entry_type(tar::EntryType::GNUSparse);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(5);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(1000);
    gnu.set_is_extended(true);
    header.set_cksum();
    let mut extension = tar::GnuExtSparseHeader::new();
    extension.sparse_mut()[0].set_offset(512);
    extension.sparse_mut()[0].set_length(5);
    extension.sparse_mut()[1].set_offset(1000);
    extension.sparse_mut()[1].set_length(0);
    [header.as_bytes().to_vec(), extension.as_bytes().to_vec()].concat()
}

#[test]
fn limits_are_kept() {
    let tar = Tar::new().file("a", &[1; 1000]).file("b", &[1; 1000]).finish();
    for (max_bytes, max_entries, ok) in [(Some(2000), Some(2), true), (Some(1999), None, false), (None, Some(1), false)]
    {
        let target = Target::new();
        let options = ExtractOptions { max_bytes, max_entries, ..ExtractOptions::default() };
        let result = extract(&tar[..], std::os::fd::AsFd::as_fd(&target.dir), &options);
        assert_eq!(result.is_ok(), ok, "{max_bytes:?} {max_entries:?}");
    }
}

#[test]
fn the_stream_is_read_to_its_end() {
    let mut tar = Tar::new().file("a", b"1").finish();
    tar.extend_from_slice(&[0; 9000]);
    let mut reader = &tar[..];
    extract(&mut reader, std::os::fd::AsFd::as_fd(&Target::new().dir), &ExtractOptions::default()).unwrap();
    assert!(reader.is_empty());
}

#[test]
fn a_million_bytes_of_symlinks() {
    let target = Target::new();
    let mut tar = Tar::new();
    for number in 0..2000 {
        tar = tar.symlink(&format!("farm/{number}"), &"t".repeat(99));
    }
    let long = "l".repeat(4095);
    tar = tar.pax(&[("linkpath", long.as_bytes())]).symlink("long", "x");
    target.extract(&tar.finish()).unwrap();
    assert_eq!(fs::read_link(target.path("long")).unwrap().as_os_str().len(), 4095);
    let too_long = "l".repeat(4096);
    let error = Target::new().extract(&Tar::new().pax(&[("linkpath", too_long.as_bytes())]).symlink("x", "x").finish());
    assert_eq!(error.unwrap_err().kind(), Kind::InvalidLayer);
    assert!(Target::new().extract(&Tar::new().symlink("x", "").finish()).is_err());
}

/// CVE-2018-20990, CVE-2021-38511 (tar), CVE-2021-20291: whatever a layer does with links, nothing outside changes, and
/// nothing hangs.
#[derive(Debug, Clone)]
enum Move {
    File(String),
    Dir(String),
    Symlink(String, String),
    Link(String, String),
    Whiteout(String),
}

fn any_move() -> impl proptest::strategy::Strategy<Value = Move> {
    use proptest::prelude::*;
    let name = "(a|b|c)(/(a|b|c|canary)){0,3}";
    let target = "(/|\\.\\./|a/|b/|\\./|\\.\\./\\.\\./){0,3}(a|b|\\.\\.|canary)";
    prop_oneof![
        name.prop_map(Move::File),
        name.prop_map(Move::Dir),
        (name, target).prop_map(|(name, target)| Move::Symlink(name, target)),
        (name, target).prop_map(|(name, target)| Move::Link(name, target)),
        "((a|b|c)/){0,2}\\.wh\\.(a|b|c|\\.wh\\.\\.opq)".prop_map(Move::Whiteout),
    ]
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(256))]
    #[test]
    fn no_dance_of_links_gets_out(moves in proptest::collection::vec(any_move(), 0..30)) {
        let mut tar = Tar::new();
        for step in &moves {
            tar = match step {
                Move::File(name) => tar.file(name, b"overwritten"),
                Move::Dir(name) => tar.dir(name, 0o777),
                Move::Symlink(name, target) => tar.symlink(name, target),
                Move::Link(name, target) => tar.link(name, target),
                Move::Whiteout(name) => tar.file(name, b""),
            };
        }
        // Refused or not: Target::extract looks outside.
        let _either = Target::new().extract(&tar.finish());
    }
}
