//! Upper directories into tars and back.

use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};

use nix::sys::stat::mknod;
use proptest::prelude::*;

use super::*;
use crate::archive::{Archive, EntryKind};
use crate::testing::{Tar, Target as Dir};

fn tar_of(upper: &Dir, lowers: &[&Dir]) -> Result<Vec<u8>> {
    let lowers: Vec<BorrowedFd<'_>> = lowers.iter().map(|lower| lower.dir.as_fd()).collect();
    let mut tar = Vec::new();
    let diffed = diff(upper.dir.as_fd(), &lowers, &mut tar, &DiffOptions::default())?;
    assert_eq!(diffed.bytes, tar.len() as u64);
    Ok(tar)
}

/// Name and kind of every entry.
fn listing(tar: &[u8]) -> Vec<String> {
    let mut archive = Archive::new(tar);
    let mut lines = Vec::new();
    while let Some(entry) = archive.next().unwrap() {
        let kind = match entry.kind {
            EntryKind::File { size, .. } => format!("{size}"),
            EntryKind::HardLink { target } => format!("= {}", target.escape_ascii()),
            EntryKind::Symlink { target } => format!("-> {}", target.escape_ascii()),
            EntryKind::Device { major, minor, .. } => format!("{major}:{minor}"),
            EntryKind::Directory => "d".to_owned(),
            EntryKind::Fifo => "p".to_owned(),
        };
        lines.push(format!("{} {kind}", entry.name.escape_ascii()));
    }
    lines
}

fn whiteout(dir: &Dir, name: &str) {
    mknod(&dir.path(name), SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
}

fn opaque(dir: &Dir, name: &str) {
    let fd = File::open(dir.path(name)).unwrap();
    xattr::set(Target::File(fd.as_fd()), c"trusted.overlay.opaque", b"y").unwrap();
}

/// A lower directory, and an upper one that has nothing but the same root.
fn pair(lower: Tar) -> (Dir, Dir) {
    let (below, upper) = (Dir::new(), Dir::new());
    below.extract(&lower.finish()).unwrap();
    copy::directory_attributes(below.dir.as_fd(), upper.dir.as_fd(), &LayerPath::root()).unwrap();
    (below, upper)
}

#[test]
fn everything_round_trips() {
    let long = "n".repeat(255);
    let deep = format!("{}/{}", "d".repeat(150), "e".repeat(150));
    let target = "t".repeat(300);
    let cap = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let source = Dir::new();
    let tar = Tar::new()
        .dir("./", 0o751)
        .dir("dir", 0o2775)
        .pax(&[("mtime", b"-1.5"), ("SCHILY.xattr.security.capability", &cap), ("SCHILY.xattr.user.n", b"\0\n=")])
        .entry(b'0', b"dir/prog", b"", b"#!", |header| header.set_mode(0o6755))
        .link("dir/same", "dir/prog")
        .symlink("dir/link", "../x")
        .pax(&[("linkpath", target.as_bytes())])
        .symlink("dir/longlink", "x")
        .entry(b'3', b"dir/null", b"", b"", |header| {
            header.set_device_major(259).unwrap();
            header.set_device_minor(70_000).unwrap();
        })
        .entry(b'6', b"fifo", b"", b"", |_| ())
        .pax(&[
            ("path", long.as_bytes()),
            ("uid", b"4000000000"),
            ("gid", b"3000000"),
            ("mtime", b"99999999999.000000001"),
        ])
        .file("x", &[9; 1000])
        .pax(&[("path", deep.as_bytes())])
        .file("x", b"")
        .pax(&[("path", b"\xff\xfe\n")])
        .file("x", b"")
        .file("many/.wh.gone", b"")
        .finish();
    let extracted = source.extract(&tar).unwrap();
    assert!(!extracted.settle.implied.is_empty());
    // The whiteout has nothing below and would be left out.
    fs::remove_file(source.path("many/gone")).unwrap();
    let first = tar_of(&source, &[]).unwrap();
    assert_eq!(first, tar_of(&source, &[]).unwrap());
    let copy = Dir::new();
    assert_eq!(copy.extract(&first).unwrap().settle, crate::Settle::default());
    assert_eq!(copy.snapshot(), source.snapshot());
    assert_eq!(tar_of(&copy, &[]).unwrap(), first);
}

#[test]
fn only_changes_are_written() {
    let (below, upper) = pair(
        Tar::new()
            .dir("./", 0o755)
            .dir("a", 0o755)
            .file("a/same", b"same")
            .file("a/changed", b"old")
            .file("a/touched", b"t")
            .dir("b", 0o755)
            .dir("b/c", 0o755)
            .file("gone", b""),
    );
    // As overlayfs copies up: directories on the way, and a file that was opened for writing and left alone.
    fs::create_dir_all(upper.path("a")).unwrap();
    fs::create_dir_all(upper.path("b/c")).unwrap();
    for dir in ["b/c", "b", "a"] {
        let (from, to) = (File::open(below.path(dir)).unwrap(), File::open(upper.path(dir)).unwrap());
        copy::directory_attributes(from.as_fd(), to.as_fd(), &LayerPath::root()).unwrap();
    }
    let (from, to) = (File::open(below.path("a")).unwrap(), File::open(upper.path("a")).unwrap());
    for name in [c"same", c"changed", c"touched"] {
        let stat = nix::sys::stat::fstatat(&from, name, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW).unwrap();
        copy::file(from.as_fd(), to.as_fd(), name, &stat, &LayerPath::root()).unwrap();
    }
    // Same length and time, other contents.
    let changed = File::options().write(true).open(upper.path("a/changed")).unwrap();
    let modified = changed.metadata().unwrap().modified().unwrap();
    changed.write_all_at(b"new", 0).unwrap();
    changed.set_modified(modified).unwrap();
    fs::set_permissions(upper.path("a/touched"), fs::Permissions::from_mode(0o600)).unwrap();
    whiteout(&upper, "gone");
    whiteout(&upper, "never-was");
    let lines = listing(&tar_of(&upper, &[&below]).unwrap());
    assert_eq!(lines, ["a/ d", "a/changed 3", "a/touched 1", ".wh.gone 0"]);
}

#[test]
fn opaque_marks_only_where_something_is_hidden() {
    let (below, upper) = pair(Tar::new().dir("./", 0o755).dir("old", 0o755).file("old/f", b"").dir("plain", 0o755));
    for dir in ["old", "old/sub", "new", "new/sub"] {
        fs::create_dir(upper.path(dir)).unwrap();
        opaque(&upper, dir);
    }
    whiteout(&upper, "old/f");
    let lines = listing(&tar_of(&upper, &[&below]).unwrap());
    assert_eq!(lines, ["new/ d", "new/sub/ d", "old/ d", "old/.wh..wh..opq 0", "old/sub/ d"]);
}

#[test]
fn the_stack_below_is_seen_as_overlayfs_sees_it() {
    let (bottom, middle) = (Dir::new(), Dir::new());
    bottom.extract(&Tar::new().dir("./", 0o755).file("d/hidden", b"").file("e/seen", b"").finish()).unwrap();
    middle.extract(&Tar::new().dir("./", 0o755).file("d/.wh..wh..opq", b"").file("e/x", b"").finish()).unwrap();
    let upper = Dir::new();
    upper.extract(&Tar::new().dir("./", 0o755).file("d/.wh.hidden", b"").file("e/.wh.seen", b"").finish()).unwrap();
    let lines = listing(&tar_of(&upper, &[&middle, &bottom]).unwrap());
    assert_eq!(lines, ["e/ d", "e/.wh.seen 0"]);
}

#[test]
fn links_sockets_and_names_that_a_layer_cannot_say() {
    let upper = Dir::new();
    fs::write(upper.path("a"), "x").unwrap();
    fs::hard_link(upper.path("a"), upper.path("b")).unwrap();
    symlink("/etc/passwd", upper.path("l")).unwrap();
    let _listener = std::os::unix::net::UnixListener::bind(upper.path("s")).unwrap();
    let lines = listing(&tar_of(&upper, &[]).unwrap());
    assert_eq!(lines, ["./ d", "a 1", "b = a", "l -> /etc/passwd"]);
    fs::write(upper.path(".wh.x"), "").unwrap();
    assert!(matches!(tar_of(&upper, &[]), Err(Error::Inexpressible { .. })));
    fs::remove_file(upper.path(".wh.x")).unwrap();
    let file = File::open(upper.path("a")).unwrap();
    xattr::set(Target::File(file.as_fd()), c"trusted.overlay.metacopy", b"").unwrap();
    assert!(matches!(tar_of(&upper, &[]), Err(Error::Inexpressible { .. })));
}

#[test]
fn huge_sparse_file_keeps_its_size() {
    let upper = Dir::new();
    File::create(upper.path("big")).unwrap().set_len((8 << 30) + 5).unwrap();
    let mut counter = crate::digest::HashWriter::new(std::io::sink(), crate::digest::Algorithm::Sha256);
    // Only the header and the first bytes matter; the rest would be eight gigabytes of zeros.
    struct Head(Vec<u8>);
    impl Write for Head {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            if self.0.len() > 1 << 20 {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            self.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    counter.flush().unwrap();
    let mut head = Head(Vec::new());
    assert!(matches!(diff(upper.dir.as_fd(), &[], &mut head, &DiffOptions::default()), Err(Error::Write { .. })));
    let mut archive = Archive::new(&head.0[..]);
    archive.next().unwrap().unwrap();
    assert_eq!(archive.next().unwrap().unwrap().kind, EntryKind::File { size: (8 << 30) + 5, segments: None });
}

fn any_tree() -> impl Strategy<Value = Vec<(String, u8, u32, Vec<u8>)>> {
    let name = "[a-c]{1,2}(/[a-c]{1,2}){0,3}";
    proptest::collection::vec((name, 0u8..6, 0u32..0o10000, proptest::collection::vec(any::<u8>(), 0..40)), 0..25)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// Whatever a tar made, its diff makes again.
    #[test]
    fn extract_of_diff_is_identity(tree in any_tree()) {
        let source = Dir::new();
        let mut tar = Tar::new().dir("./", 0o755);
        for (name, kind, mode, data) in &tree {
            let change = |header: &mut tar::Header| {
                header.set_mode(*mode);
                header.set_uid(u64::from(*mode % 7));
                header.set_mtime(u64::from(*mode) * 1000);
            };
            tar = match kind {
                0 | 1 => tar.pax(&[("SCHILY.xattr.user.data", data)]).entry(b'0', name.as_bytes(), b"", data, change),
                2 => tar.entry(b'5', name.as_bytes(), b"", b"", change),
                3 => tar.symlink(name, "somewhere/else"),
                4 => tar.entry(b'6', name.as_bytes(), b"", b"", change),
                _ => tar.link(name, &tree[0].0),
            };
        }
        // Entries below files and links are refused; what was made until then is as good a tree.
        let _either = source.extract(&tar.finish());
        let first = tar_of(&source, &[]).unwrap();
        let copy = Dir::new();
        copy.extract(&first).unwrap();
        let (mut want, mut got) = (source.snapshot(), copy.snapshot());
        // Opaque marks have nothing to hide here.
        for node in want.values_mut().chain(got.values_mut()) {
            node.xattrs.retain(|(name, _)| name != "trusted.overlay.opaque");
        }
        prop_assert_eq!(want, got);
        prop_assert_eq!(tar_of(&copy, &[]).unwrap(), first);
    }
}
