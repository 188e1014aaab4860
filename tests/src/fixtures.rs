//! Images that are made once per machine and kept under `fixtures` in the target directory.
//!
//! All of them lie in the storage of a registry, which a test gets as the lower layer of an overlay
//! ([`Registry::with_images`]): nothing is pushed or copied per test.

use std::fs;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::image::{Format, Image, Maker, Packing, busybox, busybox_tar};
use crate::tarball::{LongNames, Tarball};
use crate::{Registry, tool};

/// busybox with all applets in /bin, a page in /var/www, users root and user (1000).
pub const BUSYBOX: &str = "busybox";
/// A minbase root made by debootstrap: one gzip layer, over 100 MB unpacked.
pub const DEBIAN: &str = "debian:12";
/// Four layers with everything that is hard to unpack; see [`rich_layers`]. Tags: `gzip`, `zstd`, `mixed`, `docker`.
pub const RICH: &str = "rich";
/// An OCI index for amd64 and arm64; /arch names which.
pub const MULTI: &str = "multi";
/// The same as docker's manifest list.
pub const LIST: &str = "list";
/// One layer with a file of over 4 GiB, most of it hole.
pub const SPARSE: &str = "sparse";
/// Debian's layer and three big ones on top, for pulling in parallel.
pub const LAYERED: &str = "layered";

/// To be raised with every change to what is made here.
const VERSION: &str = "v5";

/// The directory of a registry's storage that holds them; made by the first who asks.
///
/// # Panics
/// When one cannot be made.
#[must_use]
pub fn registry_storage() -> PathBuf {
    let home = directory();
    let storage = home.join(format!("registry-{VERSION}"));
    let _lock = lock(&home, "registry");
    if storage.exists() {
        return storage;
    }
    let work = tempfile::Builder::new().prefix("making-").tempdir_in(&home).expect("a directory for the fixtures");
    let new = work.path().join("storage");
    fs::create_dir_all(&new).expect("a directory for the fixtures");
    fill(&Registry::on(work.path(), &new));
    fs::rename(&new, &storage).expect("the fixtures in their place");
    storage
}

/// The root file system of a small Debian as a tar (`cargo xtask demo` keeps it under the same name). Making it needs
/// the machine's network, which a sandbox has not: [`crate::isolated`] asks for it before it goes inside.
///
/// # Panics
/// When debootstrap fails.
#[must_use]
pub fn debian_tar() -> PathBuf {
    let home = directory();
    let tar = home.join("debian.tar");
    let _lock = lock(&home, "debian");
    if !tar.exists() {
        let script = r#"
set -e
work=$(mktemp -d "$1/debootstrap-XXXXXX"); trap 'rm -rf "$work"' EXIT
debootstrap --variant=minbase bookworm "$work/root" >"$work/log" 2>&1 || { tail -5 "$work/log"; exit 1; }
rm -rf "$work"/root/var/cache/apt/archives/*.deb
tar --sort=name --numeric-owner --xattrs --xattrs-include='*' -C "$work/root" -cf "$1/debian.tar.new" .
mv "$1/debian.tar.new" "$1/debian.tar"
"#;
        tool("bash", ["-c", script, "bash"]).arg(&home).deadline(1500).run().ok();
    }
    tar
}

fn directory() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let target =
        std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| here.join("../target"), |dir| here.join("..").join(dir));
    let home = target.join("fixtures");
    fs::create_dir_all(&home).expect("the fixtures' directory");
    home.canonicalize().expect("the fixtures' directory")
}

fn lock(home: &Path, name: &str) -> Flock<fs::File> {
    let file = fs::File::create(home.join(format!(".{name}.lock"))).expect("a lock file");
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error).expect("a lock")
}

fn fill(registry: &Registry) {
    registry.put("busybox", "latest", &busybox(Format::Oci).finish());
    registry.put("busybox", "docker", &busybox(Format::Docker).finish());
    let tar = fs::read(debian_tar()).expect("the Debian root");
    let debian = Maker::new(Format::Oci).config("Cmd", serde_json::json!(["bash"])).layer(&tar, Packing::Gzip);
    registry.put("debian", "12", &debian.clone().finish());
    registry.put("layered", "latest", &layered(debian, &tar));
    for (tag, format, packing) in [
        ("gzip", Format::Oci, [Packing::Gzip; 4]),
        ("zstd", Format::Oci, [Packing::Zstd; 4]),
        ("mixed", Format::Oci, [Packing::Members, Packing::Zstd, Packing::Plain, Packing::Gzip]),
        ("docker", Format::Docker, [Packing::Gzip; 4]),
    ] {
        registry.put("rich", tag, &rich(format, packing));
    }
    for (repository, format) in [("multi", Format::Oci), ("list", Format::Docker)] {
        let platforms = ["arm64", "amd64"].map(|name| (name, platform(format, name)));
        registry.put(repository, "latest", &Image::index(format, platforms.into()));
    }
    let sparse = Tarball::default()
        .sparse("big", 0o640, (4 << 30) + 4096, &[(0, b"first"), (1 << 30, b"middle"), (4 << 30, b"last")])
        .finish();
    registry.put("sparse", "latest", &busybox(Format::Oci).layer(&sparse, Packing::Gzip).finish());
}

/// Debian and, above it, three layers of 30 MB each that inflate like program text and libraries do.
fn layered(mut maker: Maker, tar: &[u8]) -> Image {
    for (number, piece) in tar[tar.len() / 4..].chunks(30 << 20).take(3).enumerate() {
        let mut layer = Tarball::default().dir("opt", 0o755);
        for (part, content) in piece.chunks(100_000).enumerate() {
            layer = layer.file(&format!("opt/{number}-{part}"), 0o644, content);
        }
        maker = maker.layer(&layer.finish(), Packing::Gzip);
    }
    maker.finish()
}

fn platform(format: Format, name: &str) -> Image {
    let tar = Tarball::default().file("arch", 0o644, format!("{name}\n")).finish();
    busybox(format).architecture(name).layer(&tar, Packing::Gzip).finish()
}

fn rich(format: Format, packing: [Packing; 4]) -> Image {
    let mut maker = Maker::new(format);
    for (tar, packing) in rich_layers().iter().zip(packing) {
        maker = maker.layer(tar, packing);
    }
    maker.finish()
}

/// Four layers, lowest first:
/// 1. busybox, and what the others change;
/// 2. deletions, a directory replaced by a file and a file by a directory, an opaque directory, implied directories,
///    hard links to files of the layer below;
/// 3. the replaced ones replaced back, more of everything on top of what layer 2 changed;
/// 4. a symlink farm, names of all lengths in GNU's form. (umoci knows no sparse files: [`SPARSE`] has one.)
#[must_use]
pub fn rich_layers() -> [Vec<u8>; 4] {
    [first_layer(), second_layer(), third_layer(), fourth_layer()]
}

/// `cap_net_raw+ep` in the kernel's version 2 format.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn first_layer() -> Vec<u8> {
    let long = format!("long/{}", "n".repeat(150));
    let longer = format!("long/{}/{}/file", "x".repeat(200), "y".repeat(240));
    let mut bytes = busybox_tar();
    // The end of one archive is two empty blocks: what follows them would not be read.
    bytes.truncate(bytes.len() - 1024);
    Tarball::new(LongNames::Pax)
        .raw(&bytes)
        .mtime(1_600_000_000, 111_111_111)
        .dir("tree", 0o755)
        .mtime(1_600_000_001, 1)
        .owner(1000, 2000)
        .file("tree/owned", 0o640, "owned by others")
        .owner(3_000_000, 3_000_001)
        .file("tree/high-ids", 0o600, "ids beyond seven octal digits")
        .file("tree/setuid", 0o4755, "setuid")
        .file("tree/setgid", 0o2755, "setgid")
        .dir("tree/sticky", 0o1777)
        .xattr("security.capability", CAPABILITY)
        .file("tree/capable", 0o755, "capable")
        .xattr("user.comment", "a value")
        .xattr("trusted.binary", vec![0_u8, 10, 255])
        .file("tree/attributes", 0o644, "attributes")
        .xattr("user.on-a-directory", "yes")
        .dir("tree/attributed", 0o700)
        .char_device("tree/null", 0o666, 1, 3)
        .block_device("tree/loop", 0o660, 7, 0)
        .fifo("tree/fifo", 0o622)
        .symlink("tree/link", "owned")
        .symlink("tree/absolute", "/etc/passwd")
        .symlink("tree/dangling", "no/such/../file")
        .hard_link("tree/second-name", "tree/owned")
        .file("tree/empty", 0, "")
        .file("tree/old", 0o644, "before 1970 comes only in PAX")
        .file("tree/name with spaces and \u{fc}\u{f1}\u{ef}", 0o644, "unicode")
        .dir("long", 0o755)
        .file(&long, 0o644, "over 100 bytes")
        .file(&longer, 0o644, "over 255 bytes")
        .dir("gone", 0o755)
        .file("gone/file", 0o644, "deleted by layer 2")
        .file("gone/kept", 0o644, "kept")
        .dir("gone/directory", 0o755)
        .file("gone/directory/inside", 0o644, "deleted with its directory")
        .dir("flip", 0o755)
        .dir("flip/was-directory", 0o755)
        .file("flip/was-directory/a", 0o644, "a")
        .file("flip/was-file", 0o644, "a file")
        .symlink("flip/was-link", "was-directory")
        .dir("opaque", 0o755)
        .file("opaque/below", 0o644, "hidden by layer 2")
        .dir("opaque/deep", 0o755)
        .file("opaque/deep/below", 0o644, "hidden by layer 2")
        .owner(5, 6)
        .mtime(1_500_000_000, 5)
        .xattr("user.of-the-first-layer", "kept")
        .dir("implied", 0o1770)
        .file("to-be-linked", 0o4711, "linked from above")
        .finish()
}

fn second_layer() -> Vec<u8> {
    Tarball::new(LongNames::Pax)
        .file("tmp/x", 0o644, "/tmp is only implied and keeps its 1777")
        .file("implied/by/this", 0o644, "implied keeps mode, owner, time and attributes; by is new")
        .whiteout("gone/file")
        .whiteout("gone/directory")
        .whiteout("tree/fifo")
        .whiteout("tree/never-there")
        .file("flip/was-directory", 0o600, "now a file")
        .dir("flip/was-file", 0o711)
        .file("flip/was-file/inside", 0o644, "in what was a file")
        .dir("flip/was-link", 0o755)
        .file("flip/was-link/inside", 0o644, "in what was a link")
        .dir("opaque", 0o750)
        .opaque("opaque")
        .file("opaque/above", 0o644, "seen")
        .dir("opaque/deep", 0o755)
        .file("opaque/deep/above", 0o644, "seen")
        .hard_link("linked-across", "to-be-linked")
        .hard_link("linked-twice", "linked-across")
        .file("here", 0o644, "one of a pair")
        .hard_link("there", "here")
        .file("bin/new-program", 0o755, "#!/bin/sh\necho new\n")
        .finish()
}

fn third_layer() -> Vec<u8> {
    Tarball::new(LongNames::Pax)
        .dir("flip/was-directory", 0o2775)
        .file("flip/was-directory/again", 0o644, "a directory again")
        .whiteout("flip/was-file")
        .file("flip/was-file", 0o644, "a file again")
        .file("gone/directory/back", 0o644, "implied where layer 2 deleted")
        .file("opaque/third", 0o644, "on top of the opaque one")
        .mtime(1_650_000_000, 999_999_999)
        .file("tree/owned", 0o600, "replaced; its second name keeps the old content")
        .dir("made", 0o755)
        .file("made/and-gone", 0o644, "x")
        .whiteout("made/of-below")
        .finish()
}

fn fourth_layer() -> Vec<u8> {
    let mut tar = Tarball::new(LongNames::Gnu).dir("farm", 0o755);
    // A million bytes of targets: 500 links of 2,000 bytes each.
    for number in 0..500 {
        let target = format!("{}/{number}", "t".repeat(200)).repeat(10);
        tar = tar.symlink(&format!("farm/{number:04}"), &target[..2000]);
    }
    let (deep, name) = (format!("gnu/{}", "d/".repeat(120)), "g".repeat(255));
    tar.file(&format!("{deep}{name}"), 0o644, "in GNU's form")
        .hard_link("gnu/link-to-long", &format!("{deep}{name}"))
        .finish()
}
