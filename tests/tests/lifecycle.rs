//! The life of a container in the background: ps, logs, exec, stop, start, restart, kill, wait, inspect, rm.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

use std::time::{Duration, Instant};

use dhow_tests::{BUSYBOX, Instance, isolated};

/// A shell that says when it is ready, ends with 7 on TERM, and with 8 on USR1.
const POLITE: [&str; 3] =
    ["sh", "-c", "trap 'exit 7' TERM; trap 'exit 8' USR1; echo ready; while :; do sleep 0.1; done"];

fn wait_for_log(dhow: &Instance, name: &str, text: &str) {
    dhow_tests::eventually(&format!("{name} logs {text:?}"), || {
        let logs = dhow.dhow(["logs", name]).run();
        (logs.stdout.contains(text) || logs.stderr.contains(text)).then_some(())
    });
}

#[test]
fn ps_tells_what_is_there() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let id = dhow.ok(&format!("run -d --name web {image} sleep 1000"));
        assert_eq!(id.len(), 64);
        let table = dhow.ok("ps");
        let lines: Vec<&str> = table.lines().collect();
        assert_eq!(
            lines[0].split_whitespace().collect::<Vec<_>>().join(" "),
            "CONTAINER ID IMAGE COMMAND CREATED STATUS PORTS NAMES"
        );
        assert!(
            lines[1].starts_with(&id[..12]) && lines[1].contains("\"sleep 1000\"") && lines[1].contains(" Up "),
            "{table}"
        );
        assert!(lines[1].ends_with("web"));
        dhow.ok(&format!("run --name done {image} sh -c true"));
        assert_eq!(dhow.ok("ps -q"), id[..12]);
        assert_eq!(dhow.ok("ps -aq").lines().count(), 2);
        assert!(dhow.ok("ps -a").contains("Exited (0)"), "{}", dhow.ok("ps -a"));
        assert_eq!(dhow.ok("ps -aq --no-trunc --filter name=web"), id);
        assert_eq!(dhow.ok("ps -a --filter status=exited --format {{.Names}}"), "done");
        let json: serde_json::Value = serde_json::from_str(&dhow.ok("ps --format json")).unwrap();
        assert_eq!((json["Names"].as_str(), json["State"].as_str()), (Some("web"), Some("running")));
        assert_eq!(dhow.field(&id[..6], "/Name"), "/web", "a unique prefix is enough");
        assert_eq!(dhow.ok("inspect -f {{.State.Status}} web"), "running");
        dhow.ok("rm -f web done");
    });
}

#[test]
fn names_are_given_when_none_is_asked_for() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        for _ in 0..3 {
            dhow.ok(&format!("create {image} true"));
        }
        let names = dhow.ok("ps -a --format {{.Names}}");
        let mut names: Vec<&str> = names.lines().collect();
        names.dedup();
        assert_eq!(names.len(), 3);
        assert!(names.iter().all(|name| name.contains('_')), "{names:?}");
        assert!(dhow.ok("ps -a").contains("Created"));
        dhow.dhow(["rm"]).args(names).run().ok();
        assert_eq!(dhow.ok("ps -aq"), "");
    });
}

#[test]
fn logs_keep_both_streams_and_follow() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        dhow.dhow(["run", "--name", "talk", &image, "sh", "-c", "echo one; echo two >&2; echo three"]).run().ok();
        let logs = dhow.run("logs talk").ok();
        assert_eq!((logs.stdout.as_str(), logs.stderr.as_str()), ("one\nthree\n", "two\n"));
        assert_eq!(dhow.run("logs --tail 3 talk").ok().stdout, "one\nthree\n");
        let stamped = dhow.run("logs -t talk").ok();
        let first = stamped.lines().next().unwrap();
        assert!(first.ends_with("Z one") && first.len() == "2024-01-01T00:00:00.000000000Z one".len(), "{first}");

        let script = "echo begin; while [ ! -e /go ]; do sleep 0.05; done; echo end; exit 4";
        dhow.dhow(["run", "-d", "--name", "slow", &image, "sh", "-c", script]).run().ok();
        let mut follow = dhow.dhow(["logs", "-f", "slow"]).spawn();
        follow.wait_for_output("begin\n");
        dhow.ok("exec slow touch /go");
        assert_eq!(follow.end().ok().stdout, "begin\nend\n");
        assert_eq!(dhow.ok("wait slow"), "4");
        dhow.ok("rm talk slow");
    });
}

#[test]
fn logs_are_rotated() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let options = ["run", "--name", "chatty", "--log-opt", "max-size=100k", "--log-opt", "max-file=3"];
        dhow.dhow(options).args([&image, "sh", "-c", "seq 1 40000"]).run().ok();
        let id = dhow.ok("ps -aq --no-trunc");
        let folder = dhow.root().join("containers").join(id);
        let sizes: Vec<u64> = ["log", "log.1", "log.2"].map(|name| folder.join(name).metadata().unwrap().len()).into();
        assert!(sizes.iter().all(|size| *size < 120_000), "{sizes:?}");
        assert!(!folder.join("log.3").exists());
        let logs = dhow.run("logs chatty").ok().stdout;
        let lines: Vec<&str> = logs.lines().collect();
        assert_eq!(lines.last(), Some(&"40000"));
        let first: usize = lines[0].parse().unwrap();
        assert_eq!(lines.len(), 40_001 - first, "what is kept is without gaps");
        dhow.ok("rm chatty");
    });
}

#[test]
fn exec_runs_beside_the_first_process() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        dhow.ok(&format!("run -d --name web -e FROM=run {image} sleep 1000"));
        let exec = |args: &[&str]| dhow.dhow(["exec"]).args(args);
        assert_eq!(exec(&["web", "sh", "-c", "echo $FROM; pwd"]).run().ok().stdout, "run\n/\n");
        assert_eq!(exec(&["-i", "web", "cat"]).stdin("in\n").run().ok().stdout, "in\n");
        assert_eq!(
            exec(&["-e", "B=c", "-w", "/etc", "-u", "1000", "web", "sh", "-c", "echo $B $(pwd) $(id -u)"])
                .run()
                .ok()
                .out(),
            "c /etc 1000"
        );
        exec(&["web", "sh", "-c", "exit 33"]).run().code(33);
        exec(&["web", "no-such-program"]).run().one_line(127, &["no-such-program"]);
        exec(&["web", "/etc/passwd"]).run().one_line(126, &["/etc/passwd"]);
        exec(&["nobody", "true"]).run().one_line(125, &["nobody"]);
        let status = exec(&["web", "grep", "-E", "^(CapEff|Seccomp):", "/proc/self/status"]).run().ok();
        assert_eq!(status.stdout, "CapEff:\t00000000a80425fb\nSeccomp:\t2\n");
        exec(&["-d", "web", "sh", "-c", "echo made >/made"]).run().ok();
        dhow_tests::eventually("a detached exec runs", || {
            (exec(&["web", "cat", "/made"]).run().stdout == "made\n").then_some(())
        });
        let both = exec(&["web", "sh", "-c", "echo out; echo err >&2"]).run().ok();
        assert_eq!((both.stdout.as_str(), both.stderr.as_str()), ("out\n", "err\n"));
        let runs: Vec<_> = (0..8).map(|n| exec(&["web", "echo", &n.to_string()]).spawn()).collect();
        for (n, run) in runs.into_iter().enumerate() {
            assert_eq!(run.end().ok().out(), n.to_string());
        }
        dhow.ok("rm -f web");
        exec(&["web", "true"]).run().code(125);
    });
}

#[test]
fn stop_sends_its_signal_and_then_kills() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        dhow.dhow(["run", "-d", "--name", "polite", &image]).args(POLITE).run().ok();
        wait_for_log(&dhow, "polite", "ready");
        // Whether it heard the signal its exit code tells.
        dhow.ok("stop -t 60 polite");
        assert_eq!(dhow.field("polite", "/State/ExitCode"), 7);

        dhow.dhow(["run", "-d", "--name", "other", "--stop-signal", "USR1", &image]).args(POLITE).run().ok();
        wait_for_log(&dhow, "other", "ready");
        dhow.ok("stop -t 60 other");
        assert_eq!(dhow.field("other", "/State/ExitCode"), 8);

        dhow.dhow([
            "run",
            "-d",
            "--name",
            "deaf",
            &image,
            "sh",
            "-c",
            "trap '' TERM; echo ready; while :; do sleep 0.1; done",
        ])
        .run()
        .ok();
        wait_for_log(&dhow, "deaf", "ready");
        let start = Instant::now();
        dhow.ok("stop -t 2 deaf");
        let took = start.elapsed();
        assert!(took >= Duration::from_secs(2), "{took:?}");
        assert_eq!(dhow.field("deaf", "/State/ExitCode"), 137);
        dhow.ok("rm polite other deaf");
    });
}

#[test]
fn the_default_time_to_stop_is_ten_seconds() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        // The first process of a container has no default actions: sleep does not hear SIGTERM.
        dhow.ok(&format!("run -d --name sleep {image} sleep 1000"));
        let start = Instant::now();
        dhow.ok("stop sleep");
        let took = start.elapsed();
        assert!(took >= Duration::from_secs(10), "{took:?}");
        dhow.ok("rm sleep");
    });
}

#[test]
fn start_restart_kill_wait() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        dhow.dhow(["create", "--name", "web", &image]).args(POLITE).run().ok();
        assert_eq!(dhow.status("web"), "created");
        assert_eq!(dhow.ok("start web"), "web");
        wait_for_log(&dhow, "web", "ready");
        let first = dhow.pid("web");
        dhow.ok("restart -t 60 web");
        assert_ne!(dhow.pid("web"), first);
        // It hears signals only when it says so.
        let times = || dhow.ok("logs web").matches("ready").count();
        dhow_tests::eventually("it is ready again", || (times() == 2).then_some(()));
        let wait = dhow.dhow(["wait", "web"]).spawn();
        dhow.ok("kill -s USR1 web");
        assert_eq!(wait.end().ok().out(), "8");
        dhow.ok("start web");
        dhow.ok("kill web");
        assert_eq!(dhow.ok("wait web"), "137");
        dhow.run("kill web").one_line(1, &["web"]);
        dhow.dhow(["exec", "web", "sh", "-c", "echo kept >/f"]).run().one_line(125, &["web"]);
        dhow.ok("start web");
        dhow.dhow(["exec", "web", "sh", "-c", "echo kept >/f"]).run().ok();
        dhow.ok("restart -t 0 web");
        assert_eq!(dhow.ok("exec web cat /f"), "kept", "its files outlive it");
        dhow.run("rm web").one_line(1, &["web", "running"]);
        dhow.ok("rm -f web");
        dhow.run("inspect web").code(1);
        assert_eq!(dhow.ok("ps -aq"), "");
    });
}

#[test]
fn start_attached_gives_output_and_exit_code() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        dhow.dhow(["create", "-i", "--name", "once", &image, "sh", "-c", "cat; exit 6"]).run().ok();
        let ran = dhow.dhow(["start", "-ai", "once"]).stdin("typed\n").run().code(6);
        assert_eq!(ran.stdout, "typed\n");
        dhow.ok("rm once");
    });
}

#[test]
fn pause_stops_time() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        dhow.dhow(["run", "-d", "--name", "tick", &image, "sh", "-c", "while :; do echo tick; sleep 0.05; done"])
            .run()
            .ok();
        wait_for_log(&dhow, "tick", "tick");
        dhow.ok("pause tick");
        assert_eq!(dhow.status("tick"), "paused");
        // How often it has slept: what it wrote may still be on its way to the log.
        let status = format!("/proc/{}/status", dhow.pid("tick"));
        let turns = || {
            let text = dhow_tests::command::text(&status);
            text.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap().to_owned()
        };
        let before = turns();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(turns(), before);
        dhow.ok("unpause tick");
        dhow_tests::eventually("it ticks again", || (turns() != before).then_some(()));
        dhow.ok("rm -f tick");
    });
}

#[test]
fn restart_policies() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        dhow.dhow([
            "run",
            "-d",
            "--name",
            "tries",
            "--restart",
            "on-failure:2",
            &image,
            "sh",
            "-c",
            "echo try; exit 1",
        ])
        .run()
        .ok();
        dhow_tests::eventually("it gives up", || {
            (dhow.ok("logs tries").lines().count() == 3 && dhow.status("tries") == "exited").then_some(())
        });
        assert_eq!(dhow.field("tries", "/RestartCount"), 2);
        dhow.ok("rm tries");
    });
}

#[test]
fn inspect_has_docker_s_shape() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        dhow.ok(&format!("run -d --name web -p 8080:80 -e A=b -l team=red {image} sleep 1000"));
        assert_eq!(dhow.field("web", "/Config/Image"), image.as_str());
        assert_eq!(dhow.field("web", "/Config/Cmd"), serde_json::json!(["sleep", "1000"]));
        assert_eq!(dhow.field("web", "/Config/Labels/team"), "red");
        assert_eq!(dhow.field("web", "/State/Running"), true);
        assert_eq!(dhow.field("web", "/NetworkSettings/Ports/80~1tcp/0/HostPort"), "8080");
        assert!(dhow.field("web", "/NetworkSettings/IPAddress").as_str().is_some_and(|ip| ip.contains('.')));
        let created = dhow.field("web", "/Created").as_str().unwrap().to_owned();
        assert!(created.ends_with('Z') && created.contains('T'), "{created}");
        dhow.ok("rm -f web");
        assert_eq!(dhow.run("inspect web").code(1).stdout.trim(), "[]");
    });
}
