//! Commit, tag, push: what was changed is there on another root, and in other people's tools.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

use dhow_tests::tree::{self, Leave};
use dhow_tests::{BUSYBOX, DEBIAN, Instance, Registry, instance, isolated, tool};
use serde_json::Value;

/// Everything that a layer can hold, done by a shell in a container.
const CHANGE: &str = "set -e
mkdir -p /new/deep; echo new >/new/file; echo deep >/new/deep/file; chmod 4755 /new/file; chown 12:34 /new/deep
ln /new/file /new/hard; ln -s file /new/soft; mkfifo /new/fifo; mknod /new/null c 1 3
rm /etc/group; rm -r /var/www; mkdir /var/www; echo replaced >/var/www/index.html
rm -r /root; echo a file now >/root
echo changed >>/etc/passwd; chmod 751 /bin
touch -d 2001-02-03 /new/deep/file; truncate -s 1M /new/holes
touch \"/new/$(printf '%0200d' 7)\"; mkdir /tmp/$(printf '%0150d' 1); touch /tmp/$(printf '%0150d' 1)/$(printf '%0150d' 2)";

/// Runs the change, commits it as `HOST/anna/changed:1`, and pushes it.
fn change(registry: &Registry, dhow: &Instance, image: &str) -> String {
    let target = registry.image("anna/changed:1");
    dhow.dhow(["run", "--name", "change", image, "sh", "-c", CHANGE]).run().ok();
    let commit = [
        "commit",
        "-m",
        "a change",
        "-a",
        "anna <anna@example.org>",
        "-c",
        "CMD [\"cat\", \"/new/file\"]",
        "change",
        &target,
    ];
    let id = dhow.dhow(commit).run().ok();
    assert!(id.out().starts_with("sha256:") && id.out().len() == 71, "{}", id.out());
    dhow.ok(&format!("push {target}"));
    // A commit is unpacked when it is first needed.
    assert_eq!(dhow.ok(&format!("run --rm --net none {target}")), "new");
    target
}

#[test]
fn a_change_travels_to_another_root() {
    isolated(|sandbox| {
        let (registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let target = change(&registry, &dhow, &image);
        let other = Instance::named(sandbox, "other");
        other.ok(&format!("pull -q {target}"));
        assert_eq!(other.ok(&format!("run --rm {target}")), "new");
        let (here, there) = (dhow.mount_image(sandbox, &target), other.mount_image(sandbox, &target));
        tree::assert_equal(here.path(), there.path(), Leave::default());
        for gone in ["etc/group", "root/x"] {
            assert!(!there.path().join(gone).exists(), "{gone}");
        }
        assert_eq!(std::fs::read_dir(there.path().join("var/www")).unwrap().count(), 1);
        assert!(there.path().join("root").is_file());
        assert_eq!(other.field(&target, "/Author"), "anna <anna@example.org>");
        assert!(other.ok(&format!("history {target}")).contains("a change"));
        assert_eq!(other.field(&target, "/RootFS/Layers").as_array().map(Vec::len), Some(2));
    });
}

#[test]
fn what_is_pushed_others_accept() {
    isolated(|sandbox| {
        let (registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let target = change(&registry, &dhow, &image);
        let remote = format!("docker://{target}");
        let inspected = tool("skopeo", ["inspect", "--tls-verify=false", &remote]).run().ok();
        let document: Value = serde_json::from_str(&inspected.stdout).unwrap();
        assert_eq!(document["Layers"].as_array().map(Vec::len), Some(2));
        let layout = sandbox.path().join("layout");
        let local = format!("oci:{}:changed", layout.display());
        tool("skopeo", ["copy", "--quiet", "--src-tls-verify=false", &remote, &local]).run().ok();
        let bundle = sandbox.path().join("umoci");
        tool("umoci", ["unpack", "--image"]).arg(format!("{}:changed", layout.display())).arg(&bundle).run().ok();
        let here = dhow.mount_image(sandbox, &target);
        tree::assert_equal(&bundle.join("rootfs"), here.path(), Leave { directory_times: true, root: true });
    });
}

#[test]
fn podman_pulls_and_runs_what_is_pushed() {
    isolated(|sandbox| {
        let (registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let target = change(&registry, &dhow, &image);
        let (root, run) = (sandbox.dir("podman-root"), sandbox.dir("podman-run"));
        let podman = |args: &[&str]| {
            tool("podman", ["--root"])
                .arg(&root)
                .arg("--runroot")
                .arg(&run)
                .args([
                    "--storage-driver",
                    "vfs",
                    "--cgroup-manager",
                    "cgroupfs",
                    "--events-backend",
                    "none",
                    "--runtime",
                ])
                .arg(instance::binary("dhow-runtime"))
                .args(args)
                .env("TMPDIR", sandbox.path())
        };
        podman(&["pull", "-q", "--tls-verify=false", &target]).run().ok();
        // The caller's limits: podman's own are above what a machine without CAP_SYS_RESOURCE allows.
        let ran = podman(&["run", "--rm", "--network", "none", "--ulimit", "host", &target]).run().ok();
        assert_eq!(ran.out(), "new");
    });
}

#[test]
fn a_commit_is_the_same_every_time() {
    isolated(|sandbox| {
        let (registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        dhow.dhow(["run", "--name", "change", &image, "sh", "-c", CHANGE]).run().ok();
        let layers: Vec<Value> = ["one", "two"]
            .iter()
            .map(|tag| {
                let target = registry.image(&format!("same:{tag}"));
                dhow.ok(&format!("commit change {target}"));
                dhow.field(&target, "/RootFS/Layers")
            })
            .collect();
        assert_eq!(layers[0], layers[1]);
    });
}

#[test]
fn a_running_container_is_committed_too() {
    isolated(|sandbox| {
        let (registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        dhow.ok(&format!("run -d --name web {image} sleep 1000"));
        dhow.dhow(["exec", "web", "sh", "-c", "echo live >/live"]).run().ok();
        let target = registry.image("live");
        dhow.ok(&format!("commit web {target}"));
        assert_eq!(dhow.ok(&format!("run --rm {target} cat /live")), "live");
        assert_eq!(dhow.ok("exec web cat /live"), "live", "it goes on");
        dhow.ok("rm -f web");
    });
}

#[test]
fn installing_a_program_in_a_terminal_and_keeping_it() {
    isolated(|sandbox| {
        let (registry, dhow, image) = Instance::with_image(sandbox, DEBIAN);
        let mut terminal =
            dhow_tests::Terminal::open(dhow.dhow(["run", "-it", "--name", "work", &image, "bash", "--norc"]), 24, 80);
        terminal.expect("# ");
        terminal
            .send("printf '#!/bin/sh\\necho installed\\n' >/usr/local/bin/tool; chmod +x /usr/local/bin/tool; tool\n");
        terminal.expect("\rinstalled");
        terminal.expect("# ");
        terminal.send("exit\n");
        assert_eq!(terminal.end(), 0);
        let target = registry.image("worked/on:1");
        dhow.ok(&format!("commit work {target}"));
        dhow.ok(&format!("push {target}"));
        let other = Instance::named(sandbox, "other");
        assert_eq!(other.ok(&format!("run --rm {target} tool")), "installed");
    });
}

#[test]
fn pushing_again_sends_nothing_and_another_repository_borrows() {
    isolated(|sandbox| {
        let (registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let target = registry.image("copy/of:1");
        dhow.ok(&format!("tag {image} {target}"));
        let first = dhow.ok(&format!("push {target}"));
        assert!(first.contains("Mounted from busybox") || first.contains("lready exists"), "{first}");
        let again = dhow.ok(&format!("push {target}"));
        assert!(again.contains("lready exists"), "{again}");
        assert!(again.contains("digest: sha256:"), "{again}");
    });
}

#[test]
fn tags_name_the_same_image() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        dhow.ok(&format!("tag {image} mine"));
        dhow.ok(&format!("tag {image} mine:two"));
        assert_eq!(dhow.field("mine", "/Id"), dhow.field(&image, "/Id"));
        assert_eq!(dhow.ok("run --rm --net none mine:two echo tagged"), "tagged");
        let removed = dhow.ok("rmi mine");
        assert!(removed.contains("Untagged: mine:latest") && !removed.contains("Deleted"), "{removed}");
        dhow.run("tag nothing:here other").one_line(1, &["nothing:here"]);
        dhow.run(&format!("tag {image} Not/Valid")).one_line(1, &["Not/Valid"]);
    });
}
