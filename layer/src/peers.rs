//! Our unpacking beside umoci's and GNU tar's: the same tree, entry by entry.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::process::Command;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};

use crate::decompress::Decoder;
use crate::testing::{Node, Tar, Target, snapshot};
use crate::{DiffOptions, diff, extract, settle};

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Runs in a mount namespace of its own; what it mounts goes with it.
fn in_own_mounts<T: Send>(body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
            body()
        });
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// Unpacks the image's layers as a pull does and gives the merged tree.
fn ours(layers: &[Vec<u8>]) -> BTreeMap<String, Node> {
    let mut unpacked: Vec<Target> = Vec::new();
    for layer in layers {
        let target = Target::new();
        let extracted = extract(Decoder::new(&layer[..]).unwrap(), target.dir.as_fd(), &Default::default()).unwrap();
        let parents: Vec<BorrowedFd<'_>> = unpacked.iter().rev().map(|layer| layer.dir.as_fd()).collect();
        settle(target.dir.as_fd(), &parents, &extracted.settle).unwrap();
        unpacked.push(target);
    }
    let merged = tempfile::tempdir().unwrap();
    let empty = tempfile::tempdir().unwrap();
    let dirs = unpacked.iter().rev().map(|layer| layer.path("").display().to_string());
    let lower = dirs.chain([empty.path().display().to_string()]).collect::<Vec<_>>().join(":");
    let options = format!("index=off,lowerdir={lower}");
    in_own_mounts(|| {
        mount(Some("overlay"), merged.path(), Some("overlay"), MsFlags::empty(), Some(options.as_str())).unwrap();
        snapshot(&File::open(merged.path()).unwrap())
    })
}

/// Makes an image of the layers with umoci, unpacks it with umoci, and gives what umoci unpacked and stored.
fn umocis(tars: &[Vec<u8>]) -> (BTreeMap<String, Node>, Vec<Vec<u8>>) {
    let dir = tempfile::tempdir().unwrap();
    let layout = dir.path().join("image");
    let image = format!("{}:test", layout.display());
    run(Command::new("umoci").arg("init").arg("--layout").arg(&layout));
    run(Command::new("umoci").args(["new", "--image", &image]));
    for tar in tars {
        let path = dir.path().join("layer.tar");
        fs::write(&path, tar).unwrap();
        run(Command::new("umoci").args(["raw", "add-layer", "--image", &image]).arg(&path));
    }
    run(Command::new("umoci").args(["unpack", "--image", &image]).arg(dir.path().join("bundle")));
    let tree = snapshot(&File::open(dir.path().join("bundle/rootfs")).unwrap());
    let blob = |digest: &serde_json::Value| layout.join("blobs").join(digest.as_str().unwrap().replace(':', "/"));
    let read = |path: &Path| -> serde_json::Value { serde_json::from_slice(&fs::read(path).unwrap()).unwrap() };
    let index = read(&layout.join("index.json"));
    let manifest = read(&blob(&index["manifests"][0]["digest"]));
    let layers = manifest["layers"].as_array().unwrap().iter();
    (tree, layers.map(|layer| fs::read(blob(&layer["digest"])).unwrap()).collect())
}

fn assert_same(ours: &BTreeMap<String, Node>, theirs: &BTreeMap<String, Node>) {
    let names: std::collections::BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let differing: Vec<String> = names
        .into_iter()
        .filter(|name| ours.get(*name) != theirs.get(*name))
        .map(|name| format!("{name}\n  ours   {:?}\n  theirs {:?}", ours.get(name), theirs.get(name)))
        .collect();
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

#[test]
fn a_rich_image_as_umoci_unpacks_it() {
    let long = "l".repeat(180);
    let very_long = format!("deep/{}/{}", "m".repeat(200), "n".repeat(200));
    let cap = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let base = Tar::new()
        .dir("./", 0o755)
        .dir("tmp", 0o1777)
        .dir("usr", 0o755)
        .dir("usr/lib", 0o755)
        .symlink("lib", "usr/lib")
        .dir("dir-to-file", 0o755)
        .file("dir-to-file/x", b"")
        .file("file-to-dir", b"")
        .dir("opaque", 0o750)
        .file("opaque/old", b"")
        .dir("opaque/olddir", 0o755)
        .dir("etc", 0o755)
        .file("etc/gone", b"")
        .file("etc/kept", b"1")
        .pax(&[("SCHILY.xattr.security.capability", &cap), ("mtime", b"1500000000.123456789")])
        .entry(b'0', b"etc/capable", b"", b"", |header| header.set_mode(0o755))
        .entry(b'0', b"etc/setuid", b"", b"x", |header| header.set_mode(0o4755))
        .link("etc/linked", "etc/kept")
        .entry(b'3', b"etc/null", b"", b"", |header| {
            header.set_device_major(1).unwrap();
            header.set_device_minor(3).unwrap();
        })
        .entry(b'6', b"etc/fifo", b"", b"", |header| header.set_uid(77));
    let second = Tar::new()
        .file("tmp/x", b"implied tmp keeps 1777")
        .file("lib/y", b"follows the link below")
        .file("dir-to-file", b"now a file")
        .dir("file-to-dir", 0o711)
        .file("file-to-dir/in", b"")
        .file("etc/.wh.gone", b"")
        .dir("opaque", 0o705)
        .file("opaque/.wh..wh..opq", b"")
        .file("opaque/new", b"")
        .link("etc/below", "etc/setuid")
        .pax(&[("path", long.as_bytes())])
        .file("x", b"long")
        .dir("deep", 0o755)
        .dir(&format!("deep/{}", "d".repeat(80)), 0o755)
        .pax(&[("path", format!("deep/{}", "m".repeat(200)).as_bytes())])
        .dir("x", 0o755)
        .pax(&[("path", very_long.as_bytes())])
        .file("x", b"very long")
        .pax(&[("path", "ümläut/\u{1F980}".as_bytes())])
        .file("x", b"");
    let third = Tar::new()
        .dir("dir-to-file", 0o700)
        .file("dir-to-file/back", b"")
        .file("file-to-dir", b"file again")
        .file(".wh.ümläut", b"")
        .dir("etc", 0o700)
        .pax(&[("SCHILY.xattr.user.a", b"1")])
        .file("etc/kept", b"replaced, its old link not");
    let (mut theirs, layers) = umocis(&[base.finish(), second.finish(), third.finish()]);
    let mut ours = ours(&layers);
    // umoci leaves the time of unpacking where the tar has none.
    for tree in [&mut ours, &mut theirs] {
        for (name, node) in tree.iter_mut() {
            if matches!(name.as_str(), "." | "tmp" | "usr/lib" | "usr") {
                node.mtime = (0, 0);
            }
        }
    }
    assert_same(&ours, &theirs);
}

/// The machine's own /usr/share (or what there is of it), packed by GNU tar in each of its formats.
#[test]
fn a_real_tree_as_gnu_tar_packs_and_unpacks_it() {
    let source = Path::new("/usr/lib/python3");
    let source = if source.exists() { source } else { Path::new("/usr/share/doc") };
    let dir = tempfile::tempdir().unwrap();
    for format in ["gnu", "posix", "ustar", "oldgnu"] {
        let tar = dir.path().join("t.tar");
        run(Command::new("tar").arg(format!("--format={format}")).arg("-C").arg(source).arg("-cf").arg(&tar).arg("."));
        let theirs = dir.path().join(format);
        fs::create_dir(&theirs).unwrap();
        run(Command::new("tar").args(["--numeric-owner", "-p", "-C"]).arg(&theirs).arg("-xf").arg(&tar));
        let target = Target::new();
        target.extract(&fs::read(&tar).unwrap()).unwrap();
        assert_same(&target.snapshot(), &snapshot(&File::open(&theirs).unwrap()));
        fs::remove_dir_all(&theirs).unwrap();
    }
}

/// Sparse files in each of GNU tar's dialects.
#[test]
fn sparse_files_as_gnu_tar_packs_them() {
    let dir = tempfile::tempdir().unwrap();
    let file = File::create(dir.path().join("sparse")).unwrap();
    for block in 0..60u64 {
        std::os::unix::fs::FileExt::write_all_at(&file, &[7; 4096], block * 1_000_000).unwrap();
    }
    file.set_len(80 << 20).unwrap();
    let want = snapshot(&File::open(dir.path()).unwrap())["sparse"].kind.clone();
    for format in
        ["gnu", "oldgnu", "posix --sparse-version=0.0", "posix --sparse-version=0.1", "posix --sparse-version=1.0"]
    {
        let mut words = format.split(' ');
        let output = Command::new("tar")
            .args(["-S", "-c"])
            .arg(format!("--format={}", words.next().unwrap()))
            .args(words)
            .arg("-C")
            .arg(dir.path())
            .arg("sparse")
            .output()
            .unwrap();
        assert!(output.status.success() && output.stdout.len() < 1 << 20);
        let target = Target::new();
        target.extract(&output.stdout).unwrap();
        assert_eq!(target.snapshot()["sparse"].kind, want, "{format}");
    }
}

/// What we write, GNU tar and umoci read as we do.
#[test]
fn our_tars_are_read_by_the_peers() {
    let source = Target::new();
    let long = "p/".to_owned() + &"q".repeat(230);
    let tar = Tar::new()
        .dir("./", 0o755)
        .dir("p", 0o755)
        .pax(&[
            ("path", long.as_bytes()),
            ("mtime", b"1500000000.000000001"),
            ("uid", b"3000000"),
            ("SCHILY.xattr.user.k", b"v=\n"),
        ])
        .file("x", b"1")
        .file("p/hard", b"")
        .link("link", "p/hard")
        .symlink("s", &"t".repeat(99))
        .entry(b'6', b"f", b"", b"", |_| ())
        .finish();
    source.extract(&tar).unwrap();
    let mut ours = Vec::new();
    diff(source.dir.as_fd(), &[], &mut ours, &DiffOptions::default()).unwrap();
    let (theirs, _layers) = umocis(&[ours.clone()]);
    assert_same(&source.snapshot(), &theirs);
    let dir = tempfile::tempdir().unwrap();
    let (tar, out) = (dir.path().join("t.tar"), dir.path().join("out"));
    fs::write(&tar, &ours).unwrap();
    fs::create_dir(&out).unwrap();
    run(Command::new("tar")
        .args(["--numeric-owner", "--xattrs", "--xattrs-include=*", "-p", "-C"])
        .arg(&out)
        .arg("-xf")
        .arg(&tar));
    assert_same(&source.snapshot(), &snapshot(&File::open(&out).unwrap()));
}

/// A disk that fills up in the middle of contents, or has no inode left.
#[test]
fn a_full_disk_is_said_so() {
    let dir = tempfile::tempdir().unwrap();
    for (options, tar, name) in [
        ("size=256k", Tar::new().file("a", b"").file("big/file", &vec![1; 1 << 20]), "write big/file"),
        ("nr_inodes=5", (0..9).fold(Tar::new(), |tar, number| tar.file(&format!("f{number}"), b"")), "create f"),
        (
            "nr_inodes=5",
            (0..9).fold(Tar::new(), |tar, number| tar.dir(&format!("d{number}"), 0o755)),
            "make the directory d",
        ),
    ] {
        in_own_mounts(|| {
            mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some(options)).unwrap();
            let target = File::open(dir.path()).unwrap();
            let error = extract(&tar.finish()[..], target.as_fd(), &Default::default()).unwrap_err();
            assert!(error.to_string().starts_with(name), "{error}");
            assert_eq!(error.kind(), crate::Kind::NoSpace);
        });
    }
}
