//! save, load, export and import: what goes into a file comes out of it, also in other people's tools.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

use std::path::PathBuf;

use dhow_tests::tree::{self, Leave};
use dhow_tests::{BUSYBOX, Instance, Sandbox, Terminal, isolated, tool};

fn file(sandbox: &Sandbox, name: &str) -> (PathBuf, String) {
    let path = sandbox.path().join(name);
    let text = path.display().to_string();
    (path, text)
}

#[test]
fn what_is_saved_is_loaded_here_and_elsewhere() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, "rich:mixed");
        dhow.ok(&format!("tag {image} app:1"));
        dhow.ok(&format!("tag {image} app:2"));
        let id = dhow.ok("inspect --format {{.Id}} app:1");
        let (path, text) = file(sandbox, "saved.tar");
        // A repository means all its tags.
        dhow.ok(&format!("save -o {text} app"));
        let other = Instance::named(sandbox, "other");
        assert_eq!(other.ok(&format!("load -i {text}")), "Loaded image: app:1\nLoaded image: app:2");
        assert_eq!(other.ok("inspect --format {{.Id}} app:2"), id);
        let (here, there) = (dhow.mount_image(sandbox, &image), other.mount_image(sandbox, "app:1"));
        tree::assert_equal(here.path(), there.path(), Leave::default());
        drop((here, there));

        let skopeo = |from: &str, to: &str| tool("skopeo", ["copy", "-q", from, to]).run().ok();
        for kind in ["docker-archive", "oci-archive"] {
            // What skopeo reads of ours, and what we read of skopeo's.
            let (_, written) = file(sandbox, &format!("{kind}.tar"));
            skopeo(
                &format!("{kind}:{text}:docker.io/library/app:1"),
                &format!("{kind}:{written}:docker.io/team/{kind}:3"),
            );
            let third = Instance::named(sandbox, kind);
            assert_eq!(third.ok(&format!("load -q -i {written}")), format!("Loaded image: team/{kind}:3"));
            assert_eq!(
                third.ok(&format!("run --rm --net none team/{kind}:3 cat tmp/x")),
                "/tmp is only implied and keeps its 1777"
            );
        }
        let bytes = std::fs::read(&path).unwrap();
        let piped = Instance::named(sandbox, "piped");
        piped.dhow(["load"]).stdin(bytes).run().ok();
        assert_eq!(piped.ok("images -q --no-trunc app:1"), id);
    });
}

#[test]
fn an_exported_container_is_an_image_again() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let change =
            "echo new >/new; chmod 4755 /new; ln /new /hard; rm /etc/group; mkdir -p /d; touch -d 2001-02-03 /d";
        dhow.dhow(["run", "-d", "--name", "web", "-v", "/data", &image, "sh", "-c"])
            .arg(format!("{change}; echo in a volume >/data/x; touch /ready; sleep 1000"))
            .run()
            .ok();
        dhow_tests::eventually("the change", || (dhow.run("exec web test -e /ready").code == 0).then_some(()));
        let (path, text) = file(sandbox, "export.tar");
        // Of a container that runs, and of the same one when it has ended: the same.
        dhow.ok(&format!("export -o {text} web"));
        let running = std::fs::read(&path).unwrap();
        dhow.ok("stop -t 0 web");
        let stopped = dhow.dhow(["export", "web"]).into_command().output().unwrap();
        assert!(stopped.status.success());
        assert!(stopped.stdout == running, "the same bytes");
        let list = tool("tar", ["-tf", &text]).run().ok();
        assert!(list.lines().any(|name| name == "new") && !list.stdout.contains("data/x"), "{}", list.stdout);

        let import =
            ["import", "-c", "CMD [\"cat\", \"/new\", \"/hard\"]", "-c", "ENV A=b", "-m", "hello", &text, "again:1"];
        let id = dhow.dhow(import).run().ok();
        assert!(id.out().starts_with("sha256:"), "{}", id.out());
        assert_eq!(dhow.ok("run --rm --net none again:1"), "new\nnew");
        assert_eq!(dhow.ok("run --rm --net none again:1 stat -c %a%h /new"), "47552");
        dhow.run("run --rm --net none again:1 ls /etc/group").code(1);
        assert_eq!(dhow.field("again:1", "/Comment"), "hello");
        assert_eq!(dhow.field("again:1", "/RootFS/Layers").as_array().map(Vec::len), Some(1));
        let piped = dhow.dhow(["import", "-"]).stdin(running).run().ok();
        assert!(piped.out().starts_with("sha256:"));
    });
}

#[test]
fn bad_archives_are_refused_in_one_line() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let before = dhow.files();
        for bytes in [Vec::new(), b"no\ntar at all".repeat(100), vec![0; 4096]] {
            dhow.dhow(["load"]).stdin(bytes.clone()).run().one_line(1, &["the archive"]);
        }
        dhow.dhow(["import", "-"]).stdin(b"no tar".to_vec()).run().one_line(1, &["it is no tar"]);
        dhow.run("import https://example.org/root.tar").one_line(1, &["importing from a URL is not supported"]);
        dhow.run("load -i /nowhere.tar").one_line(1, &["/nowhere.tar"]);
        dhow.run("save -o /nowhere/x.tar nope").one_line(1, &["no such image: nope"]);
        dhow.run(&format!("save -o /nowhere/x.tar {image}")).one_line(1, &["/nowhere/x.tar"]);
        dhow.run("export -o /nowhere/x.tar nope").one_line(1, &["no such container: nope"]);
        assert_eq!(dhow.files(), before, "nothing half-made is left");
        // Nobody wants an archive on a terminal.
        let mut terminal = Terminal::open(dhow.dhow(["save", &image]), 24, 80);
        terminal.expect("cowardly refusing to save to a terminal");
        assert_eq!(terminal.end(), 1);
    });
}
