//! Removing: after rmi and prune the disk is empty again.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

use dhow_tests::{BUSYBOX, DEBIAN, Instance, Registry, isolated};

/// What may stay of an instance that holds nothing: names and sizes of small documents, no content.
fn content(dhow: &Instance) -> Vec<String> {
    let size = |line: &str| line.rsplit(' ').next().and_then(|size| size.parse::<u64>().ok()).unwrap_or(0);
    let documents = ["image/oci-layout", "image/index.json"];
    let keep = |line: &String| !documents.iter().any(|name| line.starts_with(name)) && !line.starts_with("networks/");
    dhow.files().into_iter().filter(|line| size(line) > 0 && keep(line)).collect()
}

#[test]
fn removing_everything_empties_the_disk() {
    isolated(|sandbox| {
        let registry = Registry::with_images(sandbox);
        let dhow = Instance::new(sandbox);
        for name in [BUSYBOX, DEBIAN, "rich:mixed", "layered", "sparse", "multi"] {
            dhow.ok(&format!("pull -q {}", registry.image(name)));
        }
        let image = registry.image(BUSYBOX);
        dhow.ok(&format!("run --name one {image} sh -c true"));
        dhow.ok(&format!("commit one {}", registry.image("committed")));
        dhow.ok(&format!("run --rm {} true", registry.image("committed")));
        dhow.run(&format!("rmi {image}")).one_line(1, &[&image, "must be forced"]);
        dhow.ok("rm one");
        assert!(!content(&dhow).is_empty());
        let ids = dhow.ok("images -q");
        let mut ids: Vec<&str> = ids.lines().collect();
        ids.sort_unstable();
        ids.dedup();
        dhow.dhow(["rmi", "-f"]).args(ids).run().ok();
        assert_eq!(dhow.ok("images -q"), "");
        dhow.ok("system prune -f");
        assert_eq!(content(&dhow), Vec::<String>::new());
        let directories = std::fs::read_dir(dhow.root().join("snapshots")).into_iter().flatten().flatten();
        let left: Vec<_> =
            directories.map(|entry| entry.file_name()).filter(|name| name.to_string_lossy().len() > 20).collect();
        assert!(left.is_empty(), "{left:?}");
        dhow.ok(&format!("run --rm {image} true"));
    });
}

#[test]
fn prune_takes_what_nobody_uses() {
    isolated(|sandbox| {
        let registry = Registry::with_images(sandbox);
        let dhow = Instance::new(sandbox);
        let (image, other) = (registry.image(BUSYBOX), registry.image("multi"));
        dhow.ok(&format!("pull -q {image}"));
        dhow.ok(&format!("pull -q {other}"));
        dhow.ok(&format!("run -d --name runs {image} sleep 1000"));
        dhow.ok(&format!("run --name ended {image} true"));
        let said = dhow.ok("system prune -af");
        assert!(said.contains("Total reclaimed space"), "{said}");
        assert_eq!(dhow.ok("ps -a --format {{.Names}}"), "runs");
        assert_eq!(dhow.ok("images --format {{.Repository}}"), image, "an image in use stays");
        assert_eq!(dhow.ok("exec runs echo alive"), "alive");
        dhow.ok("rm -f runs");
        dhow.ok("system prune -af");
        assert_eq!(content(&dhow), Vec::<String>::new());
    });
}

#[test]
fn layers_that_images_share_stay_until_the_last_is_gone() {
    isolated(|sandbox| {
        let registry = Registry::with_images(sandbox);
        let dhow = Instance::new(sandbox);
        let (image, copy) = (registry.image(BUSYBOX), registry.image("derived"));
        dhow.ok(&format!("pull -q {image}"));
        dhow.ok(&format!("run --name one {image} touch /made"));
        dhow.ok(&format!("commit one {copy}"));
        dhow.ok("rm one");
        dhow.ok(&format!("rmi {image}"));
        assert_eq!(dhow.ok(&format!("run --rm {copy} ls /made")), "/made");
        dhow.ok(&format!("rmi {copy}"));
        dhow.ok("system prune -f");
        assert_eq!(content(&dhow), Vec::<String>::new());
    });
}

#[test]
fn a_broken_document_does_not_break_a_listing() {
    isolated(|sandbox| {
        let registry = Registry::with_images(sandbox);
        let dhow = Instance::new(sandbox);
        let image = registry.image(BUSYBOX);
        dhow.ok(&format!("run --name good {image} true"));
        let bad = dhow.root().join("containers").join("0".repeat(64));
        std::fs::create_dir_all(&bad).unwrap();
        std::fs::write(bad.join("container.json"), "{ half").unwrap();
        let ran = dhow.run("ps -a --format {{.Names}}").ok();
        assert_eq!(ran.out(), "good");
        assert!(!ran.stderr.is_empty(), "it is reported");
        dhow.ok("rm good");
        std::fs::remove_dir_all(bad).unwrap();
    });
}
