//! What is asked for is not there, not allowed, or not true: one clear line, the right code, and nothing left half-made.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

use std::time::Duration;

use dhow_tests::fake_registry::{FakeRegistry, Fault};
use dhow_tests::image::{Blob, DOCKER_MANIFEST, Format, Image, OCI_MANIFEST, busybox};
use dhow_tests::{BUSYBOX, Instance, Registry, Sandbox, Terminal, isolated, tool};
use nix::sys::signal::Signal;
use serde_json::json;

/// Everything under the state root but what an empty instance has: to see that a failure left nothing.
fn content(dhow: &Instance) -> Vec<String> {
    let keep = ["image/oci-layout", "image/index.json", "networks/"];
    let empty = |line: &String| line.ends_with(" 0");
    dhow.files().into_iter().filter(|line| !keep.iter().any(|name| line.starts_with(name)) && !empty(line)).collect()
}

/// A pull fails in one line with these words, leaves nothing, and works once `heal` has been called.
fn fails_and_heals(sandbox: &Sandbox, name: &str, image: &str, words: &[&str], heal: impl FnOnce()) {
    let dhow = Instance::named(sandbox, name);
    dhow.run(&format!("pull {image}")).one_line(1, words);
    assert_eq!(dhow.ok("images -q"), "");
    assert_eq!(dhow.run(&format!("run --rm {image} true")).code(125).stdout, "");
    heal();
    assert_eq!(dhow.ok(&format!("run --rm --net none {image} echo healed")), "healed");
    dhow.ok(&format!("rmi {image}"));
    dhow.ok("system prune -f");
    assert_eq!(content(&dhow), Vec::<String>::new(), "{name}");
}

#[test]
fn unknown_images_and_tags() {
    isolated(|sandbox| {
        let registry = Registry::with_images(sandbox);
        let dhow = Instance::new(sandbox);
        let image = registry.image("nothing");
        dhow.run(&format!("pull {image}")).one_line(1, &[&image]);
        let tag = registry.image("busybox:no-such-tag");
        dhow.run(&format!("pull {tag}")).one_line(1, &[&tag]);
        let digest = registry.image(&format!("busybox@sha256:{}", "0".repeat(64)));
        dhow.run(&format!("pull {digest}")).one_line(1, &["sha256:0000"]);
        let ran = dhow.run(&format!("run --rm {image} true")).code(125);
        assert!(
            ran.stderr.lines().last().is_some_and(|line| line.starts_with("dhow: ") && line.contains(&image)),
            "{}",
            ran.stderr
        );
        dhow.run(&format!("rmi {image}")).one_line(1, &[&image]);
        dhow.run(&format!("push {image}")).one_line(1, &[&image]);
        for bad in ["localhost/UPPER", "a//b", "x:y:z:", "@sha256:1"] {
            dhow.run(&format!("pull {bad}")).one_line(1, &[bad]);
        }
        assert_eq!(content(&dhow), Vec::<String>::new());
    });
}

#[test]
fn a_registry_that_is_down() {
    isolated(|sandbox| {
        let mut registry = Registry::with_images(sandbox);
        registry.down();
        let image = registry.image(BUSYBOX);
        let host = registry.host.clone();
        fails_and_heals(sandbox, "down", &image, &[&host, "refused"], || registry.up());
        let dhow = Instance::named(sandbox, "unknown");
        dhow.run("pull no-such-host.invalid/thing").one_line(1, &["no-such-host.invalid"]);
    });
}

#[test]
fn a_registry_that_fails_for_good() {
    isolated(|sandbox| {
        let registry = FakeRegistry::new();
        let image = busybox(Format::Oci).finish();
        registry.put("failing", "latest", &image);
        let path = format!("/v2/failing/blobs/{}", image.blobs[0].digest);
        registry.fault(&path, Fault::Status { code: 500, times: 1000 });
        let heal = registry.clone();
        fails_and_heals(sandbox, "failing", &registry.image("failing"), &["500"], || heal.heal());
    });
}

#[test]
fn damaged_blobs() {
    isolated(|sandbox| {
        let registry = FakeRegistry::new();
        let image = busybox(Format::Oci).finish();
        registry.put("damaged", "latest", &image);
        let layer = &image.blobs[0];
        let mut flipped = layer.bytes.clone();
        flipped[layer.bytes.len() / 2] ^= 1;
        let truncated = layer.bytes[..layer.bytes.len() / 2].to_vec();
        let longer = [layer.bytes.as_slice(), b"more"].concat();
        let other = b"something else".to_vec();
        for (name, bytes) in [("flipped", flipped), ("truncated", truncated), ("longer", longer), ("other", other)] {
            registry.fault(&format!("/v2/damaged/blobs/{}", layer.digest), Fault::Instead(bytes));
            let heal = registry.clone();
            fails_and_heals(sandbox, name, &registry.image("damaged"), &[&layer.digest], || heal.heal());
        }
        let config = &image.blobs[1];
        registry.fault(&format!("/v2/damaged/blobs/{}", config.digest), Fault::Instead(b"{}".to_vec()));
        let heal = registry.clone();
        fails_and_heals(sandbox, "config", &registry.image("damaged"), &[&config.digest], || heal.heal());
    });
}

#[test]
fn blobs_damaged_on_a_real_registry_s_disk() {
    isolated(|sandbox| {
        let registry = Registry::empty(sandbox);
        let image = busybox(Format::Oci).finish();
        registry.put("disk", "latest", &image);
        let layer = &image.blobs[0];
        let mut bytes = layer.bytes.clone();
        bytes[1000] ^= 0x40;
        std::fs::write(registry.blob_file(&layer.digest), bytes).unwrap();
        let file = registry.blob_file(&layer.digest);
        fails_and_heals(sandbox, "disk", &registry.image("disk"), &[&layer.digest], || {
            std::fs::write(file, &layer.bytes).unwrap();
        });
    });
}

/// A manifest over the blobs of busybox, changed.
fn forged(change: impl FnOnce(&mut serde_json::Value)) -> Image {
    let image = busybox(Format::Oci).finish();
    let mut manifest = image.manifest();
    change(&mut manifest);
    let media_type = manifest["mediaType"].as_str().unwrap_or(OCI_MANIFEST).to_owned();
    image.with_top(&media_type, &manifest)
}

#[test]
fn forged_manifests() {
    isolated(|sandbox| {
        let registry = FakeRegistry::new();
        let both = forged(|manifest| manifest["manifests"] = json!([]));
        let lying_size = forged(|manifest| manifest["layers"][0]["size"] = json!(5));
        let wrong_config = forged(|manifest| manifest["config"] = manifest["layers"][0].clone());
        let escaping = forged(|manifest| manifest["layers"][0]["digest"] = json!("sha256:../../../../etc/passwd"));
        let algorithm =
            forged(|manifest| manifest["layers"][0]["digest"] = json!("md5:d41d8cd98f00b204e9800998ecf8427e"));
        let more_layers = forged(|manifest| {
            let layer = manifest["layers"][0].clone();
            manifest["layers"] = json!([layer, layer]);
        });
        let schema_one = busybox(Format::Oci).finish().with_top(
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            &json!({"schemaVersion": 1, "name": "x", "tag": "y", "fsLayers": [], "history": []}),
        );
        let mut negative = forged(|manifest| manifest["layers"][0]["size"] = json!(-1));
        negative.top.media_type = DOCKER_MANIFEST.into();
        for (name, image) in [
            ("both", both),
            ("lying-size", lying_size),
            ("wrong-config", wrong_config),
            ("escaping", escaping),
            ("algorithm", algorithm),
            ("more-layers", more_layers),
            ("schema-one", schema_one),
            ("negative", negative),
        ] {
            registry.put(name, "latest", &image);
            let dhow = Instance::named(sandbox, name);
            let target = registry.image(name);
            dhow.run(&format!("pull {target}")).one_line(1, &[]);
            assert_eq!(dhow.ok("images -q"), "", "{name}");
            dhow.ok("system prune -f");
            assert_eq!(content(&dhow), Vec::<String>::new(), "{name}");
        }
    });
}

#[test]
fn a_manifest_with_another_digest_than_asked_for() {
    isolated(|sandbox| {
        let registry = FakeRegistry::new();
        let (image, other) = (busybox(Format::Oci).finish(), busybox(Format::Docker).finish());
        registry.put("thing", "latest", &other);
        let asked =
            Blob { media_type: OCI_MANIFEST.into(), digest: image.top.digest.clone(), bytes: other.top.bytes.clone() };
        registry.put_manifest("thing", &image.top.digest, &asked);
        let dhow = Instance::new(sandbox);
        dhow.run(&format!("pull {}@{}", registry.image("thing"), image.top.digest)).one_line(1, &[&image.top.digest]);
        assert_eq!(dhow.ok("images -q"), "");
    });
}

#[test]
fn an_endless_manifest_is_not_read_to_its_end() {
    isolated(|sandbox| {
        let registry = FakeRegistry::new();
        let huge = vec![b' '; 64 << 20];
        registry.put_manifest("huge", "latest", &Blob::new(OCI_MANIFEST, huge));
        let dhow = Instance::new(sandbox);
        let image = registry.image("huge");
        dhow.run(&format!("pull {image}")).one_line(1, &["/v2/huge/manifests/latest", "longer than"]);
    });
}

#[test]
fn the_disk_is_full_in_the_middle() {
    isolated(|sandbox| {
        let registry = Registry::with_images(sandbox);
        let small = sandbox.dir("small");
        tool("mount", ["-t", "tmpfs", "-o", "size=90m", "tmpfs"]).arg(&small).run().ok();
        {
            let dhow = Instance::with_root(sandbox, "full", &small.join("root"));
            let image = registry.image("debian:12");
            dhow.run(&format!("pull {image}")).one_line(1, &["No space left on device"]);
            assert_eq!(dhow.ok("images -q"), "");
            tool("mount", ["-o", "remount,size=900m"]).arg(&small).run().ok();
            assert_eq!(dhow.ok(&format!("run --rm {image} echo fits")), "fits");
            dhow.ok(&format!("rmi {image}"));
            dhow.ok("system prune -f");
            assert_eq!(content(&dhow), Vec::<String>::new());

            let busybox = registry.image(BUSYBOX);
            dhow.ok(&format!("pull -q {busybox}"));
            tool("sh", ["-c", "head -c 1g /dev/zero >fill; rm -f fill2; true"]).dir(&small).run();
            let ran = dhow.run(&format!("run --rm {busybox} sh -c true"));
            assert!(ran.code == 125 || ran.code == 0, "{}: {}", ran.code, ran.stderr);
            std::fs::remove_file(small.join("fill")).unwrap();
            assert_eq!(dhow.ok(&format!("run --rm {busybox} echo again")), "again");
            assert_eq!(dhow.ok("ps -aq"), "");
        }
        // A shim is there for a moment after its container has been removed.
        let free = || (tool("umount", [&small]).run().code == 0).then_some(());
        dhow_tests::eventually("nobody has anything open on the small disk", free);
    });
}

#[test]
fn a_name_that_is_taken() {
    isolated(|sandbox| {
        let registry = Registry::with_images(sandbox);
        let dhow = Instance::new(sandbox);
        let image = registry.image(BUSYBOX);
        dhow.ok(&format!("run -d --name web {image} sleep 1000"));
        dhow.run(&format!("run --name web {image} true")).one_line(125, &["web"]);
        dhow.run(&format!("create --name web {image} true")).one_line(125, &["web"]);
        dhow.run(&format!("run --name bad/name {image} true")).one_line(125, &["bad/name"]);
        assert_eq!(dhow.ok("ps -aq").lines().count(), 1);
        let both: Vec<_> =
            (0..6).map(|_| dhow.dhow(["run", "-d", "--name", "race", &image, "sleep", "1000"]).spawn()).collect();
        let codes: Vec<i32> = both.into_iter().map(|run| run.end().code).collect();
        assert_eq!(codes.iter().filter(|code| **code == 0).count(), 1, "{codes:?}");
        assert!(codes.iter().all(|code| [0, 125].contains(code)), "{codes:?}");
        assert_eq!(dhow.ok("ps -aq").lines().count(), 2);
        dhow.ok("rm -f web race");
    });
}

#[test]
fn containers_that_end_at_once() {
    isolated(|sandbox| {
        let registry = Registry::with_images(sandbox);
        let dhow = Instance::new(sandbox);
        let image = registry.image(BUSYBOX);
        for code in 0..10 {
            dhow.dhow(["run", "--name", "quick", &image, "sh", "-c", &format!("exit {code}")]).run().code(code);
            assert_eq!(dhow.field("quick", "/State/ExitCode"), code);
            dhow.ok("rm quick");
        }
        for _ in 0..10 {
            dhow.ok(&format!("run -d --rm {image} true"));
        }
        dhow_tests::eventually("they remove themselves", || dhow.ok("ps -aq").is_empty().then_some(()));
        let ran = dhow.run(&format!("run -d --name missing {image} no-such-program"));
        assert_eq!(ran.code, 127, "{}", ran.stderr);
        assert_eq!(dhow.ok("ps -aq"), "", "what never ran is not kept");
    });
}

#[test]
fn bad_mounts_users_and_directories() {
    isolated(|sandbox| {
        let registry = Registry::with_images(sandbox);
        let dhow = Instance::new(sandbox);
        let image = registry.image(BUSYBOX);
        dhow.ok(&format!("pull -q {image}"));
        dhow.run(&format!("run --rm -u nobody-here {image} true")).one_line(125, &["nobody-here"]);
        dhow.run(&format!("run --rm -v /no/such/../thing:relative {image} true")).one_line(125, &["relative"]);
        dhow.run(&format!("run --rm --mount type=bind,src=/no/such/dir,dst=/mnt {image} true"))
            .one_line(125, &["/no/such/dir"]);
        dhow.run(&format!("run --rm -m 1x {image} true")).one_line(125, &["1x"]);
        dhow.run(&format!("run --rm -p 99999:80 {image} true")).one_line(125, &["99999"]);
        dhow.run(&format!("run --rm --net no-such-network {image} true")).one_line(125, &["no-such-network"]);
        dhow.run("no-such-command").code(1);
        assert_eq!(dhow.ok("ps -aq"), "");
    });
}

#[test]
fn ctrl_c_at_any_moment_of_a_pull() {
    isolated(|sandbox| {
        let registry = FakeRegistry::new();
        let image = busybox(Format::Oci).finish();
        registry.put("slow", "latest", &image);
        let layer = format!("/v2/slow/blobs/{}", image.blobs[0].digest);
        let piece = image.blobs[0].bytes.len() / 20 + 1;
        let dhow = Instance::new(sandbox);
        let target = registry.image("slow");
        for delay in [0, 5, 20, 60, 150, 400, 700] {
            registry.fault(&layer, Fault::Slow { piece, pause: Duration::from_millis(500) });
            let pull = dhow.dhow(["pull", &target]).spawn();
            std::thread::sleep(Duration::from_millis(delay));
            pull.signal(Signal::SIGINT);
            let ran = pull.end();
            assert_eq!(ran.code, 130, "after {delay} ms: {}", ran.stderr);
            assert_eq!(dhow.ok("images -q"), "");
        }
        let mut terminal = Terminal::open(dhow.dhow(["pull", &target]), 24, 80);
        terminal.expect("ownload");
        terminal.send("\x03");
        assert_eq!(terminal.end(), 130);
        registry.heal();
        assert_eq!(dhow.ok(&format!("run --rm --net none {target} echo whole")), "whole");
        dhow.ok(&format!("rmi {target}"));
        dhow.ok("system prune -f");
        assert_eq!(content(&dhow), Vec::<String>::new());
    });
}
