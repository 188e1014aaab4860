//! The harness itself: a sandbox is one, fixtures serve, leftovers are seen.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

use std::path::Path;
use std::time::Duration;

use dhow_tests::{Census, Registry, fixtures, isolated, tool};

#[test]
fn a_sandbox_has_its_own_network_and_processes() {
    isolated(|sandbox| {
        assert!(sandbox.path().is_dir());
        let links = tool("ip", ["-o", "link"]).run().ok();
        assert!(links.stdout.contains("LOOPBACK,UP"), "lo is up: {}", links.stdout);
        assert!(Path::new("/proc/1/comm").exists());
        assert!(!Path::new("/run/dhow").exists());
    });
}

#[test]
fn the_fixtures_are_images_that_skopeo_reads() {
    isolated(|sandbox| {
        let registry = Registry::with_images(sandbox);
        for name in [fixtures::BUSYBOX, fixtures::DEBIAN, "rich:zstd", "multi", "list", "sparse"] {
            let image = format!("docker://{}", registry.image(name));
            tool("skopeo", ["inspect", "--tls-verify=false", &image]).run().ok();
        }
    });
}

#[test]
fn a_process_that_is_left_behind_fails_the_test() {
    isolated(|_| {
        let before = Census::take();
        tool("bash", ["-c", "setsid --fork sleep 600 >/dev/null 2>&1"]).run().ok();
        let seen = std::panic::catch_unwind(|| before.assert_nothing_new(Duration::from_secs(1))).unwrap_err();
        let said = seen.downcast_ref::<String>().unwrap();
        assert!(said.starts_with("left behind:\nprocess ") && said.contains("sleep 600"), "{said}");
        tool("pkill", ["--exact", "sleep"]).run().ok();
    });
}
