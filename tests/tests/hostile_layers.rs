//! Layers that want out of their directory, and archives that lie.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

use std::path::Path;

use dhow_tests::image::{Format, Image, Maker, Packing, busybox};
use dhow_tests::tarball::{LongNames, Tarball};
use dhow_tests::{Instance, Registry, Sandbox, isolated};

/// Everything outside that a test's layers aim at.
fn targets(sandbox: &Sandbox) -> Vec<std::path::PathBuf> {
    vec!["/escaped".into(), "/tmp/escaped".into(), "/etc/escaped".into(), sandbox.path().join("escaped")]
}

fn image(layers: &[Vec<u8>]) -> Image {
    let mut maker = busybox(Format::Oci);
    for layer in layers {
        maker = maker.layer(layer, Packing::Gzip);
    }
    maker.finish()
}

/// Pulls; the image may be refused (in one line) or be unpacked inside itself, but nothing is written outside.
fn stays_inside(sandbox: &Sandbox, registry: &Registry, name: &str, layers: &[Vec<u8>]) -> bool {
    registry.put(name, "latest", &image(layers));
    let dhow = Instance::named(sandbox, name);
    let target = registry.image(name);
    let before = dhow_tests::command::text("/etc/passwd");
    let ran = dhow.run(&format!("pull {target}"));
    for path in targets(sandbox) {
        assert!(!path.exists(), "{name}: {} was written", path.display());
    }
    assert_eq!(before, dhow_tests::command::text("/etc/passwd"), "{name}");
    if ran.code == 0 {
        let tree = dhow.mount_image(sandbox, &target);
        assert!(tree.path().join("bin/busybox").exists());
        return true;
    }
    ran.one_line(1, &["layer sha256:"]);
    assert_eq!(dhow.ok("images -q"), "");
    false
}

#[test]
fn names_that_climb_out() {
    isolated(|sandbox| {
        let registry = Registry::empty(sandbox);
        let up = "../".repeat(12);
        for (name, path) in [
            ("dots", format!("{up}tmp/escaped")),
            ("inner-dots", format!("bin/{up}tmp/escaped")),
            ("plain", "..".into()),
        ] {
            let layer = Tarball::default().file(&path, 0o644, "escaped").finish();
            assert!(!stays_inside(sandbox, &registry, name, &[layer]), "{name}: a name with .. is refused");
        }
        let absolute = Tarball::default().file("/tmp/escaped", 0o644, "escaped").finish();
        stays_inside(sandbox, &registry, "absolute", &[absolute]);
        let long =
            Tarball::new(LongNames::Gnu).file(&format!("{}{up}escaped", "x/".repeat(60)), 0o644, "escaped").finish();
        assert!(!stays_inside(sandbox, &registry, "long", &[long]));
    });
}

#[test]
fn symlinks_that_point_out() {
    isolated(|sandbox| {
        let registry = Registry::empty(sandbox);
        let to_root = Tarball::default().symlink("out", "/").file("out/tmp/escaped", 0o644, "escaped").finish();
        stays_inside(sandbox, &registry, "one-layer", &[to_root]);
        let up = "../".repeat(12);
        let relative = Tarball::default().symlink("out", &up).file("out/tmp/escaped", 0o644, "escaped").finish();
        stays_inside(sandbox, &registry, "relative", &[relative]);
        let link = Tarball::default().symlink("out", "/").finish();
        let through = Tarball::default().file("out/tmp/escaped", 0o644, "escaped").finish();
        stays_inside(sandbox, &registry, "two-layers", &[link.clone(), through]);
        let overwrite =
            Tarball::default().symlink("etc/passwd", "/etc/passwd").file("etc/passwd", 0o644, "mine").finish();
        assert!(stays_inside(sandbox, &registry, "overwrite", &[overwrite]), "a file replaces a link of that name");
        let directory =
            Tarball::default().symlink("tmp", "/tmp").dir("tmp", 0o755).file("tmp/escaped", 0o644, "x").finish();
        stays_inside(sandbox, &registry, "directory", &[directory]);
        let opaque = Tarball::default().opaque("out").finish();
        stays_inside(sandbox, &registry, "opaque", &[link.clone(), opaque]);
        let whiteout = Tarball::default().whiteout("out/etc/passwd").finish();
        stays_inside(sandbox, &registry, "whiteout", &[link, whiteout]);
    });
}

#[test]
fn hard_links_to_what_lies_outside() {
    isolated(|sandbox| {
        let registry = Registry::empty(sandbox);
        for (name, target) in
            [("absolute", "/etc/passwd".to_owned()), ("climbing", format!("{}etc/passwd", "../".repeat(12)))]
        {
            // The image has no /srv: inside itself the link leads to nothing or to its own /etc/passwd.
            let layer = Tarball::default().hard_link("stolen", &target).file("stolen", 0o644, "overwritten").finish();
            stays_inside(sandbox, &registry, name, &[layer]);
        }
        let through = Tarball::default().symlink("out", "/etc").hard_link("stolen", "out/passwd").finish();
        stays_inside(sandbox, &registry, "through-a-link", &[through]);
        let itself = Tarball::default().hard_link("itself", "itself").finish();
        assert!(!stays_inside(sandbox, &registry, "itself", &[itself]));
        let nothing = Tarball::default().hard_link("dangling", "no/such/file").finish();
        assert!(!stays_inside(sandbox, &registry, "nothing", &[nothing]));
        let directory = Tarball::default().dir("d", 0o755).hard_link("d2", "d").finish();
        assert!(!stays_inside(sandbox, &registry, "directory", &[directory]));
    });
}

#[test]
fn archives_that_lie() {
    isolated(|sandbox| {
        let registry = Registry::empty(sandbox);
        let longer = Tarball::default().claimed_size(1 << 40).file("lie", 0o644, "short").unfinished();
        let longer_with_end = Tarball::default().claimed_size(100_000).file("lie", 0o644, "short").finish();
        let huge = Tarball::default().claimed_size(u64::MAX / 2).file("lie", 0o644, "short").finish();
        let cut = {
            let whole = Tarball::default().file("cut", 0o644, vec![7; 10_000]).finish();
            whole[..5_000].to_vec()
        };
        let mut checksum = Tarball::default().file("sum", 0o644, "x").finish();
        checksum[0] ^= 1;
        let sparse = Tarball::default().sparse("sparse", 0o644, 10, &[(1 << 40, b"beyond the end")]).finish();
        let overlapping = Tarball::default().sparse("sparse", 0o644, 100, &[(50, b"one"), (10, b"two")]).finish();
        let text = b"this is no archive at all".repeat(100);
        let pax = Tarball::default().raw(&bad_pax()).file("after", 0o644, "x").finish();
        for (name, layer) in [
            ("longer", longer),
            ("longer-with-end", longer_with_end),
            ("huge", huge),
            ("cut", cut),
            ("checksum", checksum),
            ("sparse", sparse),
            ("overlapping", overlapping),
            ("text", text),
            ("pax", pax),
        ] {
            assert!(!stays_inside(sandbox, &registry, name, &[layer]), "{name} is refused");
        }
    });
}

/// An extended header whose record says it is longer than it is.
fn bad_pax() -> Vec<u8> {
    let mut entry = Tarball::default().file("PaxHeaders/x", 0o644, "999999 path=/tmp/escaped\n").unfinished();
    entry[156] = b'x';
    entry[148..156].fill(b' ');
    let sum: u32 = entry[..512].iter().map(|byte| u32::from(*byte)).sum();
    entry[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    entry
}

#[test]
fn a_layer_that_is_not_what_its_diff_id_says() {
    isolated(|sandbox| {
        let registry = Registry::empty(sandbox);
        let good = busybox(Format::Oci).finish();
        let tar = Tarball::default().file("swapped", 0o644, "x").finish();
        let other = Maker::new(Format::Oci).layer(&tar, Packing::Gzip).finish();
        let mut manifest = good.manifest();
        manifest["layers"][0] = other.blobs[0].descriptor();
        let mut forged = good.with_top(dhow_tests::image::OCI_MANIFEST, &manifest);
        forged.blobs.push(other.blobs[0].clone());
        registry.put("swapped", "latest", &forged);
        let dhow = Instance::new(sandbox);
        let target = registry.image("swapped");
        dhow.run(&format!("pull {target}")).one_line(1, &["layer sha256:", "corrupt"]);
        assert_eq!(dhow.ok("images -q"), "");
    });
}

#[test]
fn a_bomb_is_only_as_big_as_the_disk() {
    isolated(|sandbox| {
        let registry = Registry::empty(sandbox);
        let small = sandbox.dir("small");
        dhow_tests::tool("mount", ["-t", "tmpfs", "-o", "size=64m", "tmpfs"]).arg(&small).run().ok();
        let bomb = Tarball::default().file("bomb", 0o644, vec![1; 200 << 20]).finish();
        registry.put("bomb", "latest", &image(&[bomb]));
        {
            let dhow = Instance::with_root(sandbox, "bomb", &small.join("root"));
            dhow.run(&format!("pull {}", registry.image("bomb"))).one_line(1, &["No space left on device"]);
            let left = dhow_tests::tool("du", ["-sk"]).arg(Path::new(&small)).run().ok();
            let kib: u64 = left.out().split_whitespace().next().unwrap().parse().unwrap();
            assert!(kib < 20_000, "what was unpacked is gone again: {kib} KiB");
        }
        dhow_tests::tool("umount", [&small]).run().ok();
    });
}

#[test]
fn dangerous_nodes_are_harmless_inside() {
    isolated(|sandbox| {
        let registry = Registry::empty(sandbox);
        let tar = Tarball::default().block_device("disk", 0o666, 254, 0).char_device("mem", 0o666, 1, 1).finish();
        registry.put("nodes", "latest", &image(&[tar]));
        let dhow = Instance::new(sandbox);
        let target = registry.image("nodes");
        for node in ["/disk", "/mem"] {
            dhow.dhow(["run", "--rm", &target, "head", "-c", "1", node]).run().code(1);
        }
    });
}
