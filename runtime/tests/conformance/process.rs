//! What a process of a container is: ids, capabilities, descriptors, its terminal; and exec.

use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;

use serde_json::json;

use crate::support::{everywhere, only_ours};

#[test]
fn the_process_is_what_was_asked_for() {
    everywhere(|t| {
        t.set("/process/user", json!({"uid": 1000, "gid": 1001, "additionalGids": [5, 7], "umask": 0o077}));
        t.set("/process/cwd", json!("/tmp"));
        t.set("/process/rlimits", json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]));
        t.push("/process/env", json!("A=b c"));
        let seen = t.shell(
            "id -u; id -g; id -G; umask; pwd; ulimit -n; ulimit -Hn; echo $A; echo $HOME; \
             grep -E 'Cap|NoNewPrivs' /proc/self/status",
        );
        let expected = "1000\n1001\n1001 5 7\n0077\n/tmp\n100\n200\nb c\n/home/user\n";
        assert!(seen.starts_with(expected), "{seen}");
        let caps = |name: &str| {
            let line = seen.lines().find(|l| l.starts_with(name)).unwrap();
            line.split_whitespace().nth(1).unwrap().trim_start_matches('0').to_owned()
        };
        assert_eq!((caps("CapInh").as_str(), caps("CapBnd").as_str(), caps("CapAmb").as_str()), ("", "421", ""));
        assert_eq!(caps("NoNewPrivs"), "1");
    });
}

#[test]
fn capabilities_survive_the_change_of_user_when_ambient() {
    everywhere(|t| {
        t.set("/process/user", json!({"uid": 1000, "gid": 1000}));
        for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
            t.config["process"]["capabilities"][set] = json!(["CAP_NET_BIND_SERVICE"]);
        }
        let seen = t.shell("grep Cap /proc/self/status");
        assert_eq!(seen.matches("0000000000000400").count(), 5, "{seen}");
    });
}

#[test]
fn an_unknown_capability_is_a_warning() {
    only_ours(|t| {
        t.push("/process/capabilities/bounding", json!("CAP_MOON"));
        let output = t.call(&["run", "w"]);
        assert_eq!(output.status.code(), Some(0));
        assert!(String::from_utf8_lossy(&output.stderr).contains("CAP_MOON"));
    });
}

#[test]
fn exec_runs_in_the_container() {
    everywhere(|t| {
        t.sleeping("e");
        assert_eq!(t.ok(&["exec", "e", "hostname"]), "conformance\n");
        assert_eq!(t.fails(&["exec", "e", "sh", "-c", "exit 7"]).0, 7);
        assert_eq!(t.fails(&["exec", "e", "sh", "-c", "kill -9 $$"]).0, 137);
        let seen = t.ok(&[
            "exec",
            "--user",
            "1000:7",
            "--cwd",
            "/tmp",
            "--env",
            "X=1",
            "e",
            "sh",
            "-c",
            "id -u; id -g; pwd; echo $X",
        ]);
        assert_eq!(seen, "1000\n7\n/tmp\n1\n");
        let seen = t.ok(&["exec", "--cap", "CAP_SYS_ADMIN", "e", "grep", "CapInh", "/proc/self/status"]);
        assert_eq!(seen, "CapInh:\t0000000000000000\n");
        let document = json!({"args": ["sh", "-c", "pwd; cat /proc/self/oom_score_adj"], "cwd": "/etc", "env": ["PATH=/bin"],
            "user": {"uid": 0, "gid": 0}, "oomScoreAdj": 500});
        std::fs::write(t.path("process.json"), document.to_string()).unwrap();
        let seen = t.ok(&["exec", "--process", "process.json", "e"]);
        // Debian's runc forgets the score.
        assert!(seen == "/etc\n500\n" || (seen == "/etc\n0\n" && !t.is_ours()), "{seen}");
        let pid = t.pid("e");
        t.ok(&["kill", "e", "KILL"]);
        t.gone(pid);
        assert!(t.fails(&["exec", "e", "true"]).1.contains("cannot exec in a stopped container"));
    });
}

#[test]
fn a_created_container_holds_nothing_of_the_callers_and_can_be_entered() {
    only_ours(|t| {
        let held = std::fs::File::create(t.path("held")).unwrap();
        dhow_sys::fd::clear_cloexec(held.as_fd()).unwrap();
        t.ok(&["create", "c"]);
        let pid = t.pid("c");
        for entry in std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap() {
            let link = std::fs::read_link(entry.unwrap().path()).unwrap();
            assert_ne!(link, t.path("held"));
        }
        assert_eq!(t.ok(&["exec", "c", "hostname"]), "conformance\n");
        // As pid 1 it would be deaf to it.
        t.ok(&["kill", "c", "TERM"]);
        t.gone(pid);
        t.ok(&["delete", "c"]);
    });
}

#[test]
fn only_named_descriptors_are_passed_on() {
    everywhere(|t| {
        t.args(&["sh", "-c", "cat <&3; ls /proc/self/fd"]);
        let mut command = t.command(&["run", "--preserve-fds", "1", "p"]);
        // The shell numbers the descriptors: 3 is to be passed on, 7 is not.
        let script = "exec 3<config.json 7<config.json; exec \"$@\"";
        let mut shell = std::process::Command::new("/bin/sh");
        shell.args(["-c", script, "sh"]).arg(command.get_program()).args(command.get_args());
        shell.current_dir(command.get_current_dir().unwrap());
        let output = shell.output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let config = std::fs::read_to_string(t.path("config.json")).unwrap();
        let rest = text.strip_prefix(&config).unwrap_or_else(|| panic!("{text} {:?}", output.stderr));
        // 4 is ls's own.
        assert_eq!(rest, "0\n1\n2\n3\n4\n");
        command.env_clear();
    });
}

#[test]
fn a_terminal_goes_to_the_console_socket() {
    everywhere(|t| {
        let path = t.path("console.sock");
        let listener = UnixListener::bind(&path).unwrap();
        t.set("/process/terminal", json!(true)).set("/process/consoleSize", json!({"height": 33, "width": 77}));
        t.args(&["sh", "-c", "tty; stty size </dev/tty; test -c /dev/console && echo console"]);
        t.ok(&["run", "--detach", "--console-socket", path.to_str().unwrap(), "c"]);
        let (stream, _) = listener.accept().unwrap();
        let mut buffer = [0; 64];
        let (_, mut fds) = dhow_sys::fd::receive(stream.as_fd(), &mut buffer).unwrap();
        let console = fds.pop().unwrap();
        let mut text = Vec::new();
        let mut chunk = [0; 256];
        // EIO is how a terminal ends.
        while let Ok(n) = nix::unistd::read(&console, &mut chunk) {
            text.extend_from_slice(&chunk[..n]);
        }
        assert_eq!(String::from_utf8_lossy(&text), "/dev/pts/0\r\n33 77\r\nconsole\r\n");
    });
}
