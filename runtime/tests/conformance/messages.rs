//! What goes to the log and to whoever listens: errors, debug lines, events, readiness, descriptors.

use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::process::Stdio;
use std::time::Duration;

use dhow_sys::pidfd;
use serde_json::{Value, json};

use crate::support::{Bench, everywhere, only_ours, until};

#[test]
fn a_refusal_says_why_in_the_words_that_callers_know() {
    everywhere(|t| {
        for command in ["state", "start", "kill", "pause", "resume", "ps", "events", "delete"] {
            let (code, stderr) = t.fails(&[command, "nobody"]);
            assert!(code == 1 && stderr.contains("msg=\"container does not exist\""), "{command}: {stderr}");
        }
        t.sleeping("c");
        let pid = t.pid("c");
        let refused = |args: &[&str], code: i32, text: &str| {
            let (got, stderr) = t.fails(args);
            assert!(got == code && stderr.contains(text), "{args:?}: {got} {stderr}");
        };
        refused(&["start", "c"], 1, "cannot start an already running container");
        refused(&["resume", "c"], 1, "container not paused");
        refused(&["delete", "c"], 1, "cannot delete container c that is not stopped: running");
        refused(&["kill", "c", "NOPE"], 1, "unknown signal");
        refused(&["run", "c"], 1, "runc run failed: container with given ID already exists");
        refused(&["create", "c"], 1, "runc create failed: container with given ID already exists");
        refused(&["exec", "--cgroup", "..", "c", "true"], 255, " .. is not a sub cgroup path");
        refused(&["exec", "--cgroup", "nowhere", "c", "true"], 255, "/nowhere/cgroup.procs: no such file or directory");
        // The newest runc has only "is a directory", from which podman makes no 126.
        refused(&["exec", "c", "/bin"], 255, "permission denied");
        t.ok(&["pause", "c"]);
        refused(&["exec", "c", "true"], 255, "exec failed: cannot exec in a paused container");
        t.ok(&["resume", "c"]);
        t.ok(&["kill", "c", "KILL"]);
        t.gone(pid);
        refused(&["kill", "c", "KILL"], 1, "container not running");
        refused(&["exec", "c", "true"], 255, "cannot exec in a stopped container");
        refused(&["start", "c"], 1, "cannot start a container that has stopped");
        refused(&["events", "--stats", "c"], 1, "container with id c is not running");
        refused(&["run", "--bundle", "nowhere", "d"], 1, "nowhere: no such file or directory");
        refused(&["run", "--bundle", "rootfs", "d"], 1, "JSON specification file config.json not found");
        assert_eq!(t.ok(&["list", "-q"]), "c\n", "nothing is left of those that failed");
    });
}

#[test]
fn the_log_gets_the_error_and_stderr_its_text() {
    everywhere(|t| {
        t.args(&["/nowhere"]);
        let (code, stderr) = t.fails(&["--log", "log", "--log-format", "json", "run", "c"]);
        let log = std::fs::read_to_string(t.path("log")).unwrap();
        let line: Value = serde_json::from_str(log.lines().last().unwrap()).unwrap();
        assert_eq!((code, &line["level"]), (1, &json!("error")));
        assert_eq!(line["msg"].as_str().unwrap(), stderr.trim_end());
        assert!(stderr.contains("no such file or directory"), "{stderr}");
        assert!(line["time"].as_str().unwrap().contains('T'), "{log}");
    });
}

#[test]
fn debug_lines_go_where_errors_go() {
    everywhere(|t| {
        t.args(&["true"]);
        let steps =
            ["nsexec container setup", "child process in init()", "init: closing the pipe to signal completion"];
        let output = t.call(&["--debug", "run", "c"]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && stderr.contains("level=debug"), "{stderr}");
        for step in steps {
            assert!(stderr.contains(step), "{step}: {stderr}");
        }
        t.ok(&["--debug", "--log", "log", "--log-format", "json", "run", "c"]);
        let log = std::fs::read_to_string(t.path("log")).unwrap();
        assert!(log.contains("\"level\":\"debug\"") && log.contains(steps[2]), "{log}");
        t.sleeping("c");
        t.ok(&["--debug", "--log", "log2", "exec", "c", "true"]);
        let log = std::fs::read_to_string(t.path("log2")).unwrap();
        assert!(log.contains("setns_init: about to exec"), "{log}");
    });
}

#[test]
fn statistics_come_until_the_container_has_ended() {
    everywhere(|t| {
        t.sleeping("c");
        let once = t.ok(&["events", "--stats", "c"]);
        assert!(once.starts_with(r#"{"type":"stats","id":"c","data":{"#) && once.lines().count() == 1, "{once}");
        let data: Value = serde_json::from_str(&once).unwrap();
        let data = data["data"].as_object().unwrap();
        for field in ["cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces"] {
            assert!(data.contains_key(field), "{field}: {once}");
        }
        assert!(once.ends_with("\"network_interfaces\":null}}\n") && data["cpu"]["usage"].is_object(), "{once}");
        assert!(t.fails(&["events", "--interval", "0s", "c"]).1.contains("greater than 0"));
        let mut events = t.command(&["events", "--interval", "50ms", "c"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(events.stdout.take().unwrap()).lines();
        for _ in 0..2 {
            let line = lines.next().unwrap().unwrap();
            assert!(line.starts_with(r#"{"type":"stats","id":"c","#), "{line}");
        }
        t.ok(&["delete", "--force", "c"]);
        assert!(lines.all(|line| line.is_ok()), "the stream ends with the container");
        events.wait().unwrap();
    });
}

#[test]
fn a_process_that_is_killed_for_its_memory_is_an_event() {
    everywhere(|t| {
        let limit = 32 << 20;
        t.set("/linux/resources", json!({"memory": {"limit": limit, "swap": limit}}));
        t.sleeping("c");
        let mut events = t.command(&["events", "--interval", "100ms", "c"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(events.stdout.take().unwrap()).lines();
        assert!(lines.next().unwrap().unwrap().contains("stats"));
        let hog = "x=$(cat /dev/zero | busybox tr '\\0' y)";
        t.fails(&["exec", "c", "sh", "-c", hog]);
        assert!(lines.by_ref().take(200).any(|line| line.unwrap() == r#"{"type":"oom","id":"c"}"#), "nothing was said");
        t.ok(&["delete", "--force", "c"]);
        lines.for_each(drop);
        events.wait().unwrap();
    });
}

/// Starts a created container below a supervisor, and tells it of the program's readiness.
fn becomes_ready(t: &mut Bench) {
    let supervisor = UnixDatagram::bind(t.path("supervisor")).unwrap();
    supervisor.set_read_timeout(Some(Duration::from_secs(300))).unwrap();
    let with_supervisor = |args: &[&str]| {
        let mut command = t.command(args);
        command.env("NOTIFY_SOCKET", t.path("supervisor")).stdout(Stdio::null()).stderr(Stdio::null());
        command
    };
    assert!(with_supervisor(&["create", "c"]).status().unwrap().success());
    let mut start = with_supervisor(&["start", "c"]).spawn().unwrap();
    let socket = t.path("state/c/notify/notify.sock");
    until("start listens", || socket.metadata().is_ok_and(|meta| meta.file_type().is_socket()));
    until("it runs", || t.state("c")["status"] == "running");
    assert_eq!(t.ok(&["exec", "c", "sh", "-c", "test -S /run/notify/notify.sock; echo $?"]), "0\n");
    let program = UnixDatagram::unbound().unwrap();
    program.send_to(b"READY=1\nSTATUS=busy\nMAINPID=1\n", &socket).unwrap();
    let mut buffer = [0; 256];
    let mut message = || {
        let length = supervisor.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    };
    assert_eq!(message(), "READY=1\n");
    assert_eq!(message(), format!("MAINPID={}\n", t.pid("c")));
    // With it goes what waits in it, so that nobody waits for an answer.
    drop(supervisor);
    assert!(start.wait().unwrap().success());
}

#[test]
fn readiness_is_passed_on_to_the_supervisor() {
    everywhere(|t| {
        t.args(&["sh", "-c", "echo $NOTIFY_SOCKET >/tmp/variable; exec sleep 1000"]);
        becomes_ready(t);
        assert_eq!(std::fs::read_to_string(t.rootfs("/tmp/variable")).unwrap(), "/run/notify/notify.sock\n");
    });
}

#[test]
fn a_program_that_ends_before_it_is_ready_keeps_nobody_waiting() {
    // runc waits for the process to be reaped, by nobody.
    only_ours(|t| {
        let supervisor = UnixDatagram::bind(t.path("supervisor")).unwrap();
        t.args(&["true"]);
        let status = t.command(&["run", "--detach", "c"]).env("NOTIFY_SOCKET", t.path("supervisor")).status().unwrap();
        assert!(status.success());
        supervisor.set_nonblocking(true).unwrap();
        assert!(supervisor.recv(&mut [0; 16]).is_err(), "it was never ready");
    });
}

#[test]
fn descriptors_are_passed_on_exactly_as_named() {
    only_ours(|t| {
        t.args(&["ls", "/proc/self/fd"]);
        let run = |script: &str| {
            let run = t.command(&["run", "c"]);
            let mut shell = std::process::Command::new("sh");
            shell.arg("-c").arg(script).arg("sh").arg(run.get_program()).args(run.get_args());
            shell.current_dir(t.path("")).stdin(Stdio::null());
            let output = shell.output().unwrap();
            (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        // The last one is ls's own.
        let three = "exec 3</dev/null 4</dev/null 5</dev/null 7</dev/null; ";
        let same = "program=$1; shift; exec \"$program\" ";
        assert_eq!(run(&format!("{three}{same}\"$@\"")).0, "0\n1\n2\n3\n");
        let listen = "export LISTEN_PID=$$ LISTEN_FDS=2; ";
        assert_eq!(run(&format!("{three}{listen}{same}\"$@\"")).0, "0\n1\n2\n3\n4\n5\n");
        let foreign = "export LISTEN_PID=1 LISTEN_FDS=2; ";
        assert_eq!(run(&format!("{three}{foreign}{same}\"$@\"")).0, "0\n1\n2\n3\n", "meant for another process");
        let preserve = "--log log \"$1\" \"$2\" run --preserve-fds";
        assert_eq!(run(&format!("{three}{same}{preserve} 2 c")).0, "0\n1\n2\n3\n4\n5\n");
        // The log takes number 6: it must not pass for a descriptor of the caller's.
        let (_, stderr) = run(&format!("{three}{same}{preserve} 4 c"));
        assert!(stderr.contains("unable to stat preserved-fd 6 (of 4)"), "{stderr}");
        assert_eq!(t.ok(&["list", "-q"]), "");
    });
}

#[test]
fn a_pidfd_goes_to_who_asks_for_it() {
    only_ours(|t| {
        let listener = UnixListener::bind(t.path("pidfd")).unwrap();
        t.args(&["sleep", "1000"]);
        t.ok(&["run", "--detach", "--pidfd-socket", "pidfd", "c"]);
        let pid_of = |listener: &UnixListener| {
            let (stream, _) = listener.accept().unwrap();
            let (_, fds) = dhow_sys::fd::receive(stream.as_fd(), &mut [0; 64]).unwrap();
            pidfd::info(fds[0].as_fd()).unwrap().pid
        };
        assert_eq!(pid_of(&listener), t.pid("c"));
        t.ok(&["exec", "--detach", "--pidfd-socket", "pidfd", "--pid-file", "pid", "c", "sleep", "1000"]);
        assert_eq!(pid_of(&listener).to_string(), std::fs::read_to_string(t.path("pid")).unwrap());
        let (code, stderr) = t.fails(&["exec", "--pidfd-socket", "nowhere", "c", "touch", "/ran"]);
        assert!(code == 255 && stderr.contains("no such file or directory"), "{stderr}");
        assert!(!t.rootfs("/ran").exists(), "nothing is started that nobody takes");
    });
}
