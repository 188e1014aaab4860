//! Tars that lie, and tars of every age.

use super::*;
use crate::Kind;
use crate::testing::{Tar, pax_text};

fn entries(bytes: &[u8]) -> Result<Vec<Entry>> {
    let mut archive = Archive::new(bytes);
    let mut all = Vec::new();
    while let Some(entry) = archive.next()? {
        all.push(entry);
    }
    Ok(all)
}

fn names(bytes: &[u8]) -> Vec<String> {
    entries(bytes).unwrap().iter().map(|entry| entry.name.escape_ascii().to_string()).collect()
}

fn v7(name: &str, change: impl FnOnce(&mut tar::Header)) -> Vec<u8> {
    let mut header = tar::Header::new_old();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    change(&mut header);
    header.set_cksum();
    header.as_bytes().to_vec()
}

#[test]
fn ambiguous_archives_are_refused() {
    let size = |size: u64| move |header: &mut tar::Header| header.set_size(size);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        // CVE-2025-62518, CVE-2026-33055: two sizes, of which each reader takes another.
        (
            "PAX size contradicts",
            Tar::new().pax(&[("size", b"512")]).entry(b'0', b"a", b"", &[0; 512], size(0)).finish(),
        ),
        ("PAX size contradicts", Tar::new().pax(&[("size", b"0")]).file("a", &[0; 512]).finish()),
        ("no data", Tar::new().entry(b'5', b"a", b"", &[0; 512], size(512)).finish()),
        ("no data", Tar::new().entry(b'1', b"a", b"b", &[0; 512], size(512)).finish()),
        ("no data", Tar::new().pax(&[("GNU.sparse.map", b""), ("GNU.sparse.size", b"0")]).dir("a", 0o755).finish()),
        ("two PAX", Tar::new().pax(&[("path", b"a")]).pax(&[("path", b"b")]).file("c", b"").finish()),
        (
            "two long names",
            Tar::new()
                .entry(b'L', b"", b"", b"a\0", |_| ())
                .entry(b'L', b"", b"", b"b\0", |_| ())
                .file("c", b"")
                .finish(),
        ),
        ("differ", Tar::new().entry(b'L', b"", b"", b"a\0", |_| ()).pax(&[("path", b"b")]).file("c", b"").finish()),
        ("NUL", Tar::new().entry(b'L', b"", b"", b"a\0b\0", |_| ()).file("c", b"").finish()),
        ("no entry behind", Tar::new().pax(&[("path", b"a")]).finish()),
        ("global", Tar::new().entry(b'g', b"", b"", &pax_text(&[("path", b"b")]), |_| ()).file("c", b"").finish()),
        ("more than a MiB", Tar::new().entry(b'x', b"", b"", b"", size(1 << 30)).finish()),
        ("checksum", {
            let mut tar = Tar::new().file("a", b"").finish();
            tar[0] = b'b';
            tar
        }),
        ("unknown type", Tar::new().entry(b'V', b"label", b"", b"", |_| ()).finish()),
        (
            "no number",
            Tar::new().entry(b'0', b"a", b"", b"", |header| header.as_old_mut().size = *b"0000000009\0\0").finish(),
        ),
        ("negative", Tar::new().entry(b'0', b"a", b"", b"", |header| header.as_old_mut().size = [0xff; 12]).finish()),
        ("single zero block", Tar::new().raw(&[0; 512]).file("a", b"").finish()),
        ("slash", Tar::new().file("a/", b"").finish()),
        ("slash", Tar::new().file("a/", b"data").finish()),
        // containerd 0205398ac: numbers that wrap around.
        (
            "out of range",
            Tar::new().entry(b'3', b"a", b"", b"", |header| header.set_device_major(0x1000).unwrap()).finish(),
        ),
        (
            "out of range",
            Tar::new().entry(b'4', b"a", b"", b"", |header| header.set_device_minor(0x10_0000).unwrap()).finish(),
        ),
        ("out of range", Tar::new().pax(&[("uid", b"4294967295")]).file("a", b"").finish()),
        ("out of range", Tar::new().pax(&[("gid", b"4294967296")]).file("a", b"").finish()),
        ("out of order", sparse(&[("GNU.sparse.map", b"512,1,0,4")], b"hello")),
        ("out of order", sparse(&[("GNU.sparse.map", b"0,3,2,2")], b"hello")),
        ("beyond", sparse(&[("GNU.sparse.map", b"999,5")], b"hello")),
        ("beyond", sparse(&[("GNU.sparse.map", b"18446744073709551615,5")], b"hello")),
        ("contradicts", sparse(&[("GNU.sparse.map", b"0,4")], b"hello")),
        ("breaks off", sparse(&[("GNU.sparse.map", b"0,4,3")], b"hello")),
        ("breaks off", sparse(&[("GNU.sparse.offset", b"1")], b"hello")),
        ("without its map", sparse(&[], b"hello")),
        ("longer than", sparse(&[("GNU.sparse.major", b"1")], b"3\n1\n")),
        ("million", sparse(&[("GNU.sparse.major", b"1")], b"99999999\n")),
        ("malformed", sparse(&[("GNU.sparse.major", b"1")], b"1x\n")),
        ("unknown version", sparse(&[("GNU.sparse.major", b"2")], b"")),
    ];
    for (want, tar) in cases {
        let error = entries(&tar).unwrap_err();
        assert!(error.to_string().contains(want), "{want}: {error}");
        assert_eq!(error.kind(), Kind::InvalidLayer);
    }
}

fn sparse(records: &[(&str, &[u8])], data: &[u8]) -> Vec<u8> {
    let mut all: Vec<(&str, &[u8])> = vec![("GNU.sparse.size", b"1000")];
    all.extend_from_slice(records);
    Tar::new().pax(&all).file("s", data).finish()
}

#[test]
fn truncated_archives_are_noticed() {
    let tar = Tar::new().pax(&[("path", b"a/b")]).file("x", &[7; 700]).finish();
    for cut in [100, 600, 1024, 1200, 1536 + 600] {
        assert!(entries(&tar[..cut]).is_err(), "cut at {cut}");
    }
    // Without end marks, as some tools leave it.
    assert_eq!(names(&tar[..tar.len() - 1024]), ["a/b"]);
    assert_eq!(names(&tar[..tar.len() - 512]), ["a/b"]);
    assert!(names(&[]).is_empty());
}

#[test]
fn old_and_foreign_formats() {
    let old = v7("dir/", |header| header.as_old_mut().mtime = *b"00000000007\0");
    assert!(matches!(
        entries(&old).unwrap()[0],
        Entry { kind: EntryKind::Directory, mtime: Time { seconds: 7, .. }, .. }
    ));
    let prefixed = Tar::new().entry(b'0', b"name", b"", b"", |header| {
        header.as_ustar_mut().unwrap().prefix[..3].copy_from_slice(b"pre");
    });
    assert_eq!(names(&prefixed.finish()), ["pre/name"]);
    // Go before 1.8: GNU's magic and a ustar prefix.
    let mut go = tar::Header::new_gnu();
    go.set_path("name").unwrap();
    go.set_size(0);
    go.set_mode(0o644);
    go.as_mut_bytes()[345..352].copy_from_slice(b"old/dir");
    go.set_cksum();
    assert_eq!(names(go.as_bytes()), ["old/dir/name"]);
    // git archive's comment.
    let git =
        Tar::new().entry(b'g', b"pax_global_header", b"", &pax_text(&[("comment", b"0123")]), |_| ()).file("a", b"");
    assert_eq!(names(&git.finish()), ["a"]);
    let contiguous = Tar::new().entry(b'7', b"a", b"", b"x", |_| ());
    assert!(matches!(entries(&contiguous.finish()).unwrap()[0].kind, EntryKind::File { size: 1, .. }));
}

#[test]
fn sizes_beyond_the_old_field() {
    for header in [0u64, 1 << 33] {
        let tar =
            Tar::new().pax(&[("size", b"8589934592")]).entry(b'0', b"a", b"", b"", |h| h.set_size(header)).bytes();
        let mut archive = Archive::new(&tar[..]);
        assert!(matches!(archive.next().unwrap().unwrap().kind, EntryKind::File { size: 8_589_934_592, .. }));
        assert!(archive.next().is_err());
    }
    let huge = Tar::new().entry(b'0', b"a", b"", b"", |h| {
        h.as_old_mut().size = [0x80, 0, 0, 0, 0x7f, 255, 255, 255, 255, 255, 255, 255];
    });
    assert!(entries(&huge.finish()).is_err());
}

#[test]
fn contents_in_chunks() {
    let data: Vec<u8> = (0..2_000_000u32).map(|n| n as u8).collect();
    let tar = Tar::new().file("a", &data).file("b", b"tail").finish();
    let mut archive = Archive::new(&tar[..]);
    archive.next().unwrap().unwrap();
    let mut read = Vec::new();
    while let Some(chunk) = archive.chunk(300_000).unwrap() {
        read.extend_from_slice(chunk);
    }
    assert!(read == data);
    assert_eq!(archive.next().unwrap().unwrap().name, b"b");
}

proptest::proptest! {
    /// No bytes crash the reader or make it allocate without bound.
    #[test]
    fn any_bytes_are_survived(flips in proptest::collection::vec((0usize..4096, 0u8..=255), 0..20)) {
        let mut tar = Tar::new()
            .pax(&[("path", b"a/b"), ("mtime", b"1.5"), ("SCHILY.xattr.user.a", b"b")])
            .file("x", b"data")
            .entry(b'L', b"", b"", b"long\0", |_| ())
            .symlink("l", "x")
            .finish();
        for (at, byte) in flips {
            let len = tar.len();
            tar[at % len] = byte;
        }
        let _either = entries(&tar);
    }
}
