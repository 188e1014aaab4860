//! kill -9 of any part at any time: what runs keeps running, `ps` tells the truth, `rm -f` always works.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

use std::time::Duration;

use dhow_api::clients::Snapshots;
use dhow_api::snapshots::ListSnapshotsRequest;
use dhow_tests::{BUSYBOX, DEBIAN, Instance, Registry, isolated, tool};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const SHIM: &str = "containerd-shim-dhow-v2";
const TICK: &str = "n=0; while :; do echo tick $n; n=$((n+1)); sleep 0.02; done";

#[test]
fn the_services_die() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        dhow.ok(&format!("run -d --name web -p 8080:80 {image} httpd -f -p 80 -h /var/www"));
        let get = || tool("timeout", ["20", "busybox", "wget", "-q", "-O", "-", "http://127.0.0.1:8080/"]).run();
        dhow_tests::eventually("it answers", || (get().code == 0).then_some(()));
        for round in 0..3 {
            let _killed =
                dhow.kill_all("dhow-snapshotter", Signal::SIGKILL) + dhow.kill_all("dhow-netplug", Signal::SIGKILL);
            assert_eq!(get().ok().stdout, "hello from a container\n", "it runs on");
            assert_eq!(dhow.status("web"), "running");
            assert_eq!(dhow.ok(&format!("run --rm {image} echo round {round}")), format!("round {round}"));
        }
        let _killed =
            dhow.kill_all("dhow-snapshotter", Signal::SIGKILL) + dhow.kill_all("dhow-netplug", Signal::SIGKILL);
        dhow.ok("rm -f web");
        get().code(1);
    });
}

#[test]
fn a_shim_dies_and_its_container_runs_on() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        dhow.dhow(["run", "-d", "--name", "tick", &image, "sh", "-c", TICK]).run().ok();
        let pid = dhow.pid("tick");
        assert_eq!(dhow.kill_all(SHIM, Signal::SIGKILL), 1);
        assert!(kill(Pid::from_raw(pid), None).is_ok(), "the container runs");
        assert_eq!(dhow.status("tick"), "running");
        assert_eq!(dhow.pid("tick"), pid);
        assert_eq!(dhow.ok("exec tick echo adopted"), "adopted");
        let tick =
            |dhow: &Instance| dhow.ok("logs --tail 1 tick").trim_start_matches("tick ").parse::<u64>().unwrap_or(0);
        let before = tick(&dhow);
        dhow_tests::eventually("it is logged again", || (tick(&dhow) > before + 10).then_some(()));
        assert_eq!(dhow.kill_all(SHIM, Signal::SIGKILL), 1);
        dhow.ok("stop -t 1 tick");
        assert_eq!(dhow.status("tick"), "exited");
        dhow.ok("start tick");
        assert_eq!(dhow.kill_all(SHIM, Signal::SIGKILL), 1);
        dhow.ok("rm -f tick");
        assert_eq!(dhow.ok("ps -aq"), "");
    });
}

#[test]
fn a_container_ends_while_nobody_watches() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        dhow.dhow([
            "run",
            "-d",
            "--name",
            "short",
            &image,
            "sh",
            "-c",
            "while [ ! -e /go ]; do sleep 0.02; done; exit 5",
        ])
        .run()
        .ok();
        let pid = dhow.pid("short");
        assert_eq!(dhow.kill_all(SHIM, Signal::SIGKILL), 1);
        std::fs::write(format!("/proc/{pid}/root/go"), "").unwrap();
        dhow_tests::eventually("it ends", || kill(Pid::from_raw(pid), None).is_err().then_some(()));
        assert_eq!(dhow.status("short"), "exited", "ps tells the truth");
        assert!(dhow.ok("ps -q").is_empty());
        dhow.ok("rm short");
        assert_eq!(dhow.runroot().join("runtime").read_dir().map_or(0, Iterator::count), 0);
    });
}

#[test]
fn everything_dies_at_once() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        for name in ["aa", "bb", "cc"] {
            dhow.dhow(["run", "-d", "--name", name, &image, "sleep", "1000"]).run().ok();
        }
        for program in [SHIM, "dhow-snapshotter", "dhow-netplug"] {
            let _killed = dhow.kill_all(program, Signal::SIGKILL);
        }
        assert_eq!(dhow.ok("ps -q").lines().count(), 3);
        kill(Pid::from_raw(dhow.pid("bb")), Signal::SIGKILL).unwrap();
        dhow_tests::eventually("ps tells the truth", || (dhow.ok("ps -q").lines().count() == 2).then_some(()));
        dhow.ok("rm -f aa bb cc");
        assert_eq!(dhow.ok("ps -aq"), "");
        assert_eq!(dhow.ok(&format!("run --rm {image} echo on")), "on");
    });
}

#[test]
fn the_command_line_is_killed_at_any_moment_of_a_run() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        for delay in [1, 3, 5, 8, 12, 16, 20, 25, 30, 40, 55, 80, 120] {
            let run = dhow.dhow(["run", "-d", "--name", "cut", &image, "sleep", "1000"]).spawn();
            std::thread::sleep(Duration::from_millis(delay));
            kill(Pid::from_raw(run.pid()), Signal::SIGKILL).ok();
            drop(run);
            // Whatever was there of it: `ps` works, `rm -f` takes it away, the name is free again.
            dhow.ok("ps -a");
            dhow.run("rm -f cut");
            assert_eq!(dhow.ok("ps -aq"), "", "after {delay} ms");
            assert_eq!(dhow.ok(&format!("run --rm --name cut {image} echo next")), "next", "after {delay} ms");
        }
    });
}

#[test]
fn a_shim_is_killed_at_any_moment_of_its_container_s_end() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        for delay in [0, 2, 4, 6, 9, 13, 20, 40] {
            dhow.dhow(["run", "-d", "--name", "cut", &image, "sleep", "1000"]).run().ok();
            let pid = dhow.pid("cut");
            kill(Pid::from_raw(pid), Signal::SIGTERM).ok();
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
            std::thread::sleep(Duration::from_millis(delay));
            let _killed = dhow.kill_all(SHIM, Signal::SIGKILL);
            dhow.wait_for_status("cut", "exited");
            dhow.ok("rm -f cut");
        }
        assert_eq!(dhow.ok("ps -aq"), "");
        dhow_tests::eventually("no namespace is kept", || {
            (dhow.runroot().join("netns").read_dir().map_or(0, Iterator::count) == 0).then_some(())
        });
    });
}

#[test]
fn the_snapshotter_is_killed_at_any_moment_of_a_pull() {
    isolated(|sandbox| {
        let registry = Registry::with_images(sandbox);
        let image = registry.image("rich:gzip");
        let dhow = Instance::new(sandbox);
        for delay in [10, 30, 60, 100, 160, 250] {
            let pull = dhow.dhow(["pull", "-q", &image]).spawn();
            std::thread::sleep(Duration::from_millis(delay));
            let _killed = dhow.kill_all("dhow-snapshotter", Signal::SIGKILL);
            let ran = pull.end();
            assert!(ran.code <= 1, "{}", ran.stderr);
            assert_eq!(dhow.ok(&format!("run --rm {image} cat tmp/x")), "/tmp is only implied and keeps its 1777");
            dhow.ok(&format!("rmi {image}"));
            dhow.ok("system prune -f");
        }
    });
}

#[test]
fn the_next_pull_clears_what_a_killed_one_left() {
    isolated(|sandbox| {
        let registry = Registry::with_images(sandbox);
        let dhow = Instance::new(sandbox);
        let snapshots = Snapshots::new(dhow.root(), dhow.runroot());
        let extracts = || {
            let list = snapshots.list(&ListSnapshotsRequest::default()).unwrap().info;
            list.into_iter().filter(|info| info.name.starts_with("extract-")).count()
        };
        let left_behind = |image: &str| {
            let pull = dhow.dhow(["pull", "-q", image]).spawn();
            dhow_tests::eventually("a layer is being unpacked", || (extracts() > 0).then_some(()));
            kill(Pid::from_raw(pull.pid()), Signal::SIGKILL).unwrap();
            drop(pull);
            extracts() > 0
        };
        let (big, small) = (registry.image(DEBIAN), registry.image(BUSYBOX));
        assert!(left_behind(&big), "there is something to clear");
        dhow.ok(&format!("pull -q {small}"));
        assert_eq!(extracts(), 0, "by another pull");
        assert!(left_behind(&big), "there is something to clear");
        dhow.ok(&format!("rmi {small}"));
        assert_eq!(extracts(), 0, "by a removal");
        assert!(left_behind(&big), "there is something to clear");
        dhow.ok("system prune -f");
        assert!(snapshots.list(&ListSnapshotsRequest::default()).unwrap().info.is_empty(), "by a prune");
        let trash = dhow.root().join("snapshots/trash");
        assert_eq!(trash.read_dir().unwrap().count(), 0, "which waits for the disk");
    });
}

#[test]
fn a_pull_is_killed_at_any_moment() {
    isolated(|sandbox| {
        let registry = Registry::with_images(sandbox);
        let image = registry.image("layered");
        let dhow = Instance::new(sandbox);
        for delay in [5, 20, 50, 100, 200, 400, 800] {
            let pull = dhow.dhow(["pull", "-q", &image]).spawn();
            std::thread::sleep(Duration::from_millis(delay));
            kill(Pid::from_raw(pull.pid()), Signal::SIGKILL).ok();
            drop(pull);
        }
        assert_eq!(dhow.ok(&format!("run --rm {image} sh -c pwd")), "/");
        dhow.ok(&format!("rmi {image}"));
        dhow.ok("system prune -f");
        let big: Vec<String> = dhow
            .files()
            .into_iter()
            .filter(|line| line.rsplit(' ').next().is_some_and(|size| size.len() > 4))
            .collect();
        assert_eq!(big, Vec::<String>::new(), "nothing half-made is left");
    });
}

#[test]
fn a_killed_run_leaves_no_anonymous_volume() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let volumes = || dhow.root().join("volumes").read_dir().map_or(0, Iterator::count);
        for _round in 0..5 {
            let run = dhow.dhow(["run", "-d", "--name", "cut", "-v", "/data", &image, "sleep", "1000"]).spawn();
            // Either the volume is there and the container is not, or it is too late to cut.
            dhow_tests::eventually("a volume", || (volumes() > 0).then_some(()));
            kill(Pid::from_raw(run.pid()), Signal::SIGKILL).ok();
            drop(run);
            dhow.run("rm -f -v cut");
            dhow.ok("container prune -f");
            assert_eq!((volumes(), dhow.ok("ps -aq").as_str()), (0, ""));
        }
    });
}
