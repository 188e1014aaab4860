//! Pulling: what lies on the disk afterwards is, entry by entry, what other unpackers make of the same image.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

use dhow_tests::fake_registry::{FakeRegistry, Fault};
use dhow_tests::image::{Format, busybox};
use dhow_tests::tree::{self, Leave};
use dhow_tests::{BUSYBOX, DEBIAN, Instance, Registry, Sandbox, fixtures, isolated, tool};

/// The tree that umoci makes of an image.
fn umoci(sandbox: &Sandbox, image: &str) -> std::path::PathBuf {
    let layout = sandbox.path().join("layout");
    let bundle = sandbox.path().join("umoci");
    tool("skopeo", ["copy", "--quiet", "--src-tls-verify=false", &format!("docker://{image}")])
        .arg(format!("oci:{}:image", layout.display()))
        .run()
        .ok();
    tool("umoci", ["unpack", "--image"]).arg(format!("{}:image", layout.display())).arg(&bundle).run().ok();
    bundle.join("rootfs")
}

#[test]
fn a_rich_image_has_the_tree_that_umoci_makes_however_it_is_packed() {
    isolated(|sandbox| {
        let registry = Registry::with_images(sandbox);
        let expected = umoci(sandbox, &registry.image("rich:gzip"));
        for tag in ["gzip", "zstd", "mixed", "docker"] {
            let dhow = Instance::named(sandbox, tag);
            let image = registry.image(&format!("rich:{tag}"));
            dhow.ok(&format!("pull -q {image}"));
            let ours = dhow.mount_image(sandbox, &image);
            tree::assert_equal(&expected, ours.path(), Leave { directory_times: true, root: true });
        }
    });
}

#[test]
fn what_is_hard_to_unpack_comes_out_right() {
    isolated(|sandbox| {
        let registry = Registry::with_images(sandbox);
        let dhow = Instance::new(sandbox);
        let image = registry.image("rich:gzip");
        dhow.ok(&format!("pull -q {image}"));
        let ours = dhow.mount_image(sandbox, &image);
        let stat = |name: &str| ours.path().join(name).symlink_metadata();
        let mode = |name: &str| stat(name).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode("tmp"), 0o1777, "a directory that a layer only implies keeps its mode");
        let implied = stat("implied").unwrap();
        assert_eq!((mode("implied"), implied.uid(), implied.gid()), (0o1770, 5, 6));
        assert_eq!(mode("tree/setuid"), 0o4755);
        assert_eq!(mode("tree/setgid"), 0o2755);
        let owned = stat("tree/second-name").unwrap();
        assert_eq!((owned.uid(), owned.gid(), owned.len()), (1000, 2000, 15));
        assert_eq!(stat("tree/high-ids").unwrap().uid(), 3_000_000);
        assert_eq!(stat("tree").unwrap().mtime_nsec(), 111_111_111);
        assert_eq!(stat("tree/owned").unwrap().mtime_nsec(), 999_999_999);
        for gone in [
            "gone/file",
            "gone/directory/inside",
            "opaque/below",
            "opaque/deep/below",
            "tree/fifo",
            "flip/was-file/inside",
        ] {
            assert!(stat(gone).is_err(), "{gone} is deleted");
        }
        for there in
            ["gone/kept", "gone/directory/back", "opaque/above", "opaque/third", "flip/was-directory/again", "tmp/x"]
        {
            assert!(stat(there).is_ok(), "{there} is there");
        }
        let [a, b] = ["linked-across", "linked-twice"].map(|name| stat(name).unwrap());
        assert_eq!((a.ino(), mode("linked-across")), (b.ino(), 0o4711), "hard links to a file of a lower layer");
        assert_eq!(stat("tree/null").unwrap().rdev(), 0x103);
    });
}

#[test]
fn a_debian_has_the_tree_that_umoci_makes() {
    isolated(|sandbox| {
        let registry = Registry::with_images(sandbox);
        let dhow = Instance::new(sandbox);
        let image = registry.image(DEBIAN);
        dhow.ok(&format!("pull -q {image}"));
        let ours = dhow.mount_image(sandbox, &image);
        tree::assert_equal(&umoci(sandbox, &image), ours.path(), Leave::default());
    });
}

#[test]
fn a_sparse_file_over_4_gib_takes_no_room() {
    isolated(|sandbox| {
        let registry = Registry::with_images(sandbox);
        let dhow = Instance::new(sandbox);
        let image = registry.image(fixtures::SPARSE);
        dhow.ok(&format!("pull -q {image}"));
        let ours = dhow.mount_image(sandbox, &image);
        let meta = ours.path().join("big").metadata().unwrap();
        assert_eq!((meta.len(), meta.permissions().mode() & 0o7777), ((4 << 30) + 4096, 0o640));
        assert!(meta.blocks() < 2048, "{} blocks", meta.blocks());
        let read = tool(
            "sh",
            [
                "-c",
                "for at in 0 262144 1048576; do dd if=big bs=4096 skip=$at count=1 status=none | tr -d '\\0'; echo; done",
            ],
        );
        assert_eq!(read.dir(ours.path()).run().ok().out(), "first\nmiddle\nlast");
    });
}

#[test]
fn the_platform_is_chosen_from_an_index_or_a_list() {
    isolated(|sandbox| {
        let registry = Registry::with_images(sandbox);
        for name in [fixtures::MULTI, fixtures::LIST] {
            let dhow = Instance::named(sandbox, name);
            let image = registry.image(name);
            assert_eq!(dhow.ok(&format!("run --rm --net none {image} cat /arch")), "amd64");
            assert_eq!(dhow.field(&image, "/Architecture"), "amd64");
            let other = Instance::named(sandbox, &format!("{name}-arm"));
            other.ok(&format!("pull -q --platform linux/arm64 {image}"));
            assert_eq!(other.field(&image, "/Architecture"), "arm64");
            other.run(&format!("pull --platform linux/s390x {image}")).one_line(1, &[&image, "s390x"]);
        }
    });
}

#[test]
fn what_was_pulled_is_listed_and_found() {
    isolated(|sandbox| {
        let registry = Registry::with_images(sandbox);
        let dhow = Instance::new(sandbox);
        let image = registry.image(BUSYBOX);
        assert_eq!(dhow.ok("images -q"), "");
        let first = dhow.ok(&format!("pull {image}"));
        assert!(first.contains("Status: Downloaded newer image for"), "{first}");
        assert!(first.ends_with(&format!("{image}:latest")), "{first}");
        let again = dhow.ok(&format!("pull {image}:latest"));
        assert!(again.contains("Status: Image is up to date for"), "{again}");
        assert_eq!(dhow.ok(&format!("pull -q {image}")), format!("{image}:latest"));

        let table = dhow.ok("images");
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0], ["REPOSITORY", "TAG", "IMAGE", "ID", "CREATED", "SIZE"]);
        assert_eq!(lines[1][..2], [image.as_str(), "latest"]);
        let id = dhow.ok("images -q");
        assert_eq!(id.len(), 12, "a short id: {id}");
        let full = dhow.field(&id, "/Id").as_str().unwrap().to_owned();
        assert!(full.starts_with(&format!("sha256:{id}")), "{full}");
        let digest = dhow.field(&image, "/RepoDigests/0").as_str().unwrap().to_owned();
        assert!(digest.starts_with(&format!("{image}@sha256:")), "{digest}");
        assert_eq!(dhow.ok(&format!("run --rm --net none {digest} echo by digest")), "by digest");
        let history = dhow.ok(&format!("history {image}"));
        assert!(history.contains("layer 1"), "{history}");
        let json: serde_json::Value =
            serde_json::from_str(dhow.ok("images --format json").lines().next().unwrap()).unwrap();
        assert_eq!(json["Repository"], image.as_str());

        let other = Instance::named(sandbox, "by-digest");
        other.ok(&format!("pull -q {digest}"));
        assert_eq!(other.ok(&format!("run --rm --net none {digest} echo pulled by digest")), "pulled by digest");
    });
}

#[test]
fn the_store_is_a_layout_that_skopeo_and_umoci_read() {
    isolated(|sandbox| {
        let registry = Registry::with_images(sandbox);
        let dhow = Instance::new(sandbox);
        let image = registry.image(BUSYBOX);
        dhow.ok(&format!("pull -q {image}"));
        let layout = dhow.root().join("image");
        let copy = sandbox.path().join("copy");
        let name = format!("{image}:latest");
        tool("skopeo", ["copy", "--quiet", &format!("oci:{}:{name}", layout.display())])
            .arg(format!("oci:{}:copy", copy.display()))
            .run()
            .ok();
        let stat = tool("umoci", ["stat", "--json", "--image"]).arg(format!("{}:copy", copy.display())).run().ok();
        assert!(stat.stdout.contains("layer 1"), "{}", stat.stdout);
    });
}

#[test]
fn a_broken_download_goes_on_where_it_stopped() {
    isolated(|sandbox| {
        let registry = FakeRegistry::new();
        let image = busybox(Format::Oci).finish();
        registry.put("broken", "latest", &image);
        let layer = &image.blobs[0];
        let path = format!("/v2/broken/blobs/{}", layer.digest);
        registry.fault(&path, Fault::Break { after: 300_000, times: 2 });
        let dhow = Instance::new(sandbox);
        assert_eq!(dhow.ok(&format!("run --rm --net none {} echo whole", registry.image("broken"))), "whole");
        let ranges: Vec<String> =
            registry.requests().into_iter().filter(|line| line.contains("range bytes=")).collect();
        assert!(ranges.iter().any(|line| line.contains("bytes=300000-")), "{ranges:?}");
        assert!(ranges.iter().any(|line| line.contains("bytes=600000-")), "{ranges:?}");
    });
}

#[test]
fn a_busy_registry_is_asked_again() {
    isolated(|sandbox| {
        for code in [429, 503] {
            let registry = FakeRegistry::new();
            let image = busybox(Format::Oci).finish();
            registry.put("busy", "latest", &image);
            registry.fault("/v2/busy/manifests/latest", Fault::Status { code, times: 1 });
            registry.fault(&format!("/v2/busy/blobs/{}", image.blobs[0].digest), Fault::Status { code, times: 2 });
            let dhow = Instance::named(sandbox, &code.to_string());
            dhow.ok(&format!("pull -q {}", registry.image("busy")));
        }
    });
}

#[test]
fn credentials_do_not_follow_a_redirect() {
    isolated(|sandbox| {
        let (registry, elsewhere) = (FakeRegistry::new(), FakeRegistry::new());
        let image = busybox(Format::Oci).finish();
        registry.put("moved", "latest", &image);
        elsewhere.put("moved", "latest", &image);
        let path = format!("/v2/moved/blobs/{}", image.blobs[0].digest);
        registry.fault(&path, Fault::Redirect(format!("http://{}{path}", elsewhere.host)));
        let dhow = Instance::new(sandbox);
        // base64 of anna:secret, as docker's config.json has it
        let auth = format!(r#"{{"auths":{{"{}":{{"auth":"YW5uYTpzZWNyZXQ="}}}}}}"#, registry.host);
        std::fs::create_dir_all(dhow.home().join(".docker")).unwrap();
        std::fs::write(dhow.home().join(".docker/config.json"), auth).unwrap();
        dhow.ok(&format!("pull -q {}", registry.image("moved")));
        let leaked: Vec<_> = elsewhere.requests().into_iter().filter(|line| line.contains("authorization")).collect();
        assert_eq!(leaked, Vec::<String>::new());
    });
}

#[test]
fn many_pull_the_same_image_at_once() {
    isolated(|sandbox| {
        let registry = Registry::with_images(sandbox);
        let dhow = Instance::new(sandbox);
        let image = registry.image("layered");
        let pulls: Vec<_> = (0..4).map(|_| dhow.dhow(["pull", "-q", &image]).spawn()).collect();
        for pull in pulls {
            pull.end().ok();
        }
        assert!(dhow.ok(&format!("run --rm --net none {image} sh -c {}", "ls")).contains("opt"));
        assert_eq!(dhow.ok("images -q").lines().count(), 1);
    });
}

#[test]
fn no_name_of_ours_is_left_in_the_fixtures() {
    isolated(|sandbox| {
        // What a test pushes stays in its overlay: the next test sees the fixtures as they were made.
        let registry = Registry::with_images(sandbox);
        registry.put("mine", "1", &busybox(Format::Oci).finish());
        let storage = fixtures::registry_storage();
        assert!(!storage.join("docker/registry/v2/repositories/mine").exists());
    });
}
