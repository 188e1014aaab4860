//! What a process of a container is: ids, capabilities, descriptors, its terminal; and exec.

use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::process::Stdio;

use nix::poll::{PollFd, PollFlags, poll};
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

#[test]
fn scheduling_is_as_asked_for() {
    // Debian's runc does not know these.
    only_ours(|t| {
        t.set("/process/scheduler", json!({"policy": "SCHED_BATCH", "nice": 5}));
        t.set("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 6}));
        t.set("/process/execCPUAffinity", json!({"initial": "0", "final": "0"}));
        let seen = t.shell("ionice -p $$; cat /proc/self/stat");
        let (io, stat) = seen.split_once('\n').unwrap();
        assert_eq!(io, "best-effort: prio 6");
        let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
        // proc(5) counts from the pid, which is 1.
        assert_eq!((fields[19 - 3], fields[41 - 3]), ("5", "3"), "{stat}");
        t.sleeping("s");
        t.config["process"]["args"] = json!(["grep", "Cpus_allowed_list", "/proc/self/status"]);
        std::fs::write(t.path("process.json"), t.config["process"].to_string()).unwrap();
        assert_eq!(t.ok(&["exec", "--process", "process.json", "s"]), "Cpus_allowed_list:\t0\n");
        for (pointer, value, field) in [
            ("/process/scheduler", json!({"policy": "SCHED_MOON"}), "process.scheduler.policy"),
            ("/process/scheduler", json!({"policy": "SCHED_OTHER", "nice": 20}), "process.scheduler.nice"),
            ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 8}), "process.ioPriority.priority"),
            ("/process/execCPUAffinity", json!({"final": "3-1"}), "process.execCPUAffinity.final"),
        ] {
            let before = t.config.clone();
            t.set(pointer, value);
            assert!(t.fails(&["create", "x"]).1.contains(field), "{field}");
            t.config = before;
        }
    });
}

#[test]
fn memory_and_machine_are_as_asked_for() {
    only_ours(|t| {
        t.set("/linux/personality", json!({"domain": "LINUX32"}));
        assert_ne!(t.shell("uname -m"), "x86_64\n");
        t.set("/linux/personality", json!({"domain": "LINUX"}));
        t.set(
            "/linux/memoryPolicy",
            json!({"mode": "MPOL_INTERLEAVE", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]}),
        );
        t.args(&["cat", "/proc/self/numa_maps"]);
        if std::path::Path::new("/proc/self/numa_maps").exists() {
            let seen = t.ok(&["run", "x"]);
            assert!(seen.contains(" interleave=static:0 "), "{seen}");
        } else {
            assert!(t.fails(&["run", "x"]).1.contains("linux.memoryPolicy"));
        }
        for (policy, text) in [
            (json!({"mode": "MPOL_MOON"}), "linux.memoryPolicy.mode: invalid memory policy mode"),
            (json!({"nodes": "0"}), "linux.memoryPolicy.mode: invalid memory policy mode"),
            (json!({"mode": "MPOL_BIND", "flags": ["x"]}), "linux.memoryPolicy.flags: invalid memory policy flag"),
            (
                json!({"mode": "MPOL_BIND", "nodes": "0-9876543210"}),
                "linux.memoryPolicy.nodes: invalid memory policy node",
            ),
        ] {
            t.set("/linux/memoryPolicy", policy);
            assert!(t.fails(&["run", "x"]).1.contains(text), "{text}");
        }
        t.set("/linux/memoryPolicy", json!({}));
        t.args(&["true"]);
        t.ok(&["run", "x"]);
    });
}

#[test]
fn the_out_of_memory_score_is_set() {
    everywhere(|t| {
        t.set("/process/oomScoreAdj", json!(321));
        assert_eq!(t.shell("cat /proc/self/oom_score_adj"), "321\n");
    });
}

#[test]
fn labels_of_absent_security_modules_are_refused() {
    only_ours(|t| {
        let enabled = std::fs::read_to_string("/sys/module/apparmor/parameters/enabled").unwrap_or_default();
        let present = enabled.starts_with('Y') || std::path::Path::new("/sys/fs/selinux/enforce").exists();
        assert!(!present, "this is for kernels without them");
        for (pointer, field) in [
            ("/process/apparmorProfile", "process.apparmorProfile: AppArmor is not enabled"),
            ("/process/selinuxLabel", "process.selinuxLabel: selinux label is specified in config"),
            ("/linux/mountLabel", "linux.mountLabel: selinux label is specified in config"),
            ("/linux/intelRdt", "linux.intelRdt: no resctrl file system is mounted"),
        ] {
            let before = t.config.clone();
            t.set(pointer, if pointer.ends_with("Rdt") { json!({"closID": "gold"}) } else { json!("label") });
            let (_, text) = t.fails(&["create", "x"]);
            assert!(text.contains(field), "{text}");
            assert!(!t.path("state/x").exists());
            t.config = before;
        }
        t.sleeping("s");
        assert!(t.fails(&["exec", "--apparmor", "label", "s", "true"]).1.contains("process.apparmorProfile"));
        assert!(t.fails(&["exec", "--process-label", "label", "s", "true"]).1.contains("process.selinuxLabel"));
    });
}

#[test]
fn system_calls_are_notified_of() {
    everywhere(|t| {
        let path = t.path("agent.sock");
        let agent = UnixListener::bind(&path).unwrap();
        t.config["annotations"] = json!({"key": "value"});
        t.set(
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "about it",
                "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY"}]}),
        );
        t.args(&["sh", "-c", "mkdir /x 2>&1"]);
        let child = t.command(&["run", "n"]).stdout(Stdio::piped()).spawn().unwrap();
        let (stream, _) = agent.accept().unwrap();
        let mut buffer = [0; 4096];
        let (length, mut fds) = dhow_sys::fd::receive(stream.as_fd(), &mut buffer).unwrap();
        let message: serde_json::Value = serde_json::from_slice(&buffer[..length]).unwrap();
        assert_eq!(message["fds"], json!(["seccompFd"]));
        assert_eq!(message["metadata"], "about it");
        let (state, pid) = (&message["state"], message["pid"].as_i64().unwrap());
        assert!(pid > 1 && state["pid"] == pid, "{message}");
        assert_eq!((&state["id"], &state["annotations"]["key"]), (&json!("n"), &json!("value")));
        assert_eq!(state["bundle"].as_str().unwrap(), t.path("").to_str().unwrap().trim_end_matches('/'));
        let notifications = fds.pop().unwrap();
        let mut ready = [PollFd::new(notifications.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut ready, 30_000_u16).unwrap(), 1, "the call is never told of");
        // Nobody is left to decide: then there is no such call.
        drop(notifications);
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(text.contains("Function not implemented"), "{output:?}");
    });
}

#[test]
fn a_confined_runtime_confines_no_container() {
    only_ours(|t| {
        let all = std::fs::read_to_string("/sys/fs/cgroup/cpuset/cpuset.cpus")
            .or_else(|_| std::fs::read_to_string("/sys/fs/cgroup/cpuset.cpus.effective"))
            .unwrap();
        t.inside(&["taskset", "-c", "0"]);
        let expected = format!("Cpus_allowed_list:\t{all}");
        assert_eq!(t.shell("grep Cpus_allowed_list /proc/self/status"), expected);
        t.sleeping("s");
        assert_eq!(t.ok(&["exec", "s", "grep", "Cpus_allowed_list", "/proc/self/status"]), expected);
    });
}

#[test]
fn a_missing_interpreter_is_one_line() {
    everywhere(|t| {
        std::fs::write(t.rootfs("/run.sh"), "#!/nosuch\n").unwrap();
        std::fs::set_permissions(t.rootfs("/run.sh"), PermissionsExt::from_mode(0o755)).unwrap();
        t.args(&["/run.sh"]);
        let (_, text) = t.fails(&["run", "x"]);
        assert!(text.contains("exec /run.sh: no such file or directory"), "{text}");
        assert!(!t.is_ours() || text.trim().lines().count() == 1, "{text}");
    });
}

#[test]
fn a_terminal_in_the_foreground_adds_no_carriage_returns() {
    // Debian's runc insists on a terminal of its own.
    only_ours(|t| {
        t.set("/process/terminal", json!(true));
        assert_eq!(t.shell("tty; echo x"), "/dev/pts/0\nx\n");
        t.set("/process/terminal", json!(false)).sleeping("e");
        assert_eq!(t.ok(&["exec", "--tty", "e", "echo", "x"]), "x\n");
    });
}

#[test]
fn an_empty_home_is_none() {
    // Debian's runc leaves it empty.
    only_ours(|t| {
        t.push("/process/env", json!("HOME=/x")).push("/process/env", json!("HOME="));
        assert_eq!(t.shell("echo $HOME; env | grep -c HOME"), "/root\n1\n");
    });
}

#[test]
fn an_added_capability_is_ambient_where_it_is_inheritable() {
    only_ours(|t| {
        t.config["process"]["capabilities"] = json!({
            "bounding": ["CAP_KILL", "CAP_CHOWN", "CAP_SYSLOG"], "permitted": ["CAP_KILL"], "effective": ["CAP_KILL"],
            "inheritable": ["CAP_SYSLOG", "CAP_KILL"], "ambient": ["CAP_KILL"]
        });
        t.sleeping("e");
        let seen = t.ok(&["exec", "--cap", "CAP_SYSLOG", "e", "grep", "Cap", "/proc/self/status"]);
        let sets: Vec<u64> = seen
            .lines()
            .map(|line| u64::from_str_radix(line.split_whitespace().nth(1).unwrap(), 16).unwrap())
            .collect();
        let (kill, syslog, chown) = (1 << 5, 1 << 34, 1);
        assert_eq!(sets, [kill | syslog, kill | syslog, kill | syslog, kill | syslog | chown, kill | syslog]);
        let output = t.call(&["exec", "--cap", "CAP_CHOWN", "e", "true"]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && stderr.contains("can't raise ambient capability CAP_CHOWN: "), "{stderr}");
    });
}

#[test]
fn who_may_override_permissions_may_execute_what_belongs_to_others() {
    only_ours(|t| {
        let program = t.rootfs("/bin/busybox2");
        std::fs::copy("/bin/busybox", &program).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        t.set("/process/user", json!({"uid": 1000, "gid": 1000})).args(&["busybox2", "true"]);
        assert!(t.fails(&["run", "x"]).1.contains("permission denied"));
        for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
            t.config["process"]["capabilities"][set] = json!(["CAP_DAC_OVERRIDE"]);
        }
        t.args(&["/bin/busybox2", "true"]);
        t.ok(&["run", "x"]);
    });
}

#[test]
fn the_callers_groups_stay_if_an_annotation_says_so() {
    only_ours(|t| {
        t.inside(&["setpriv", "--groups", "5,7", "--"]);
        t.set("/process/user", json!({"uid": 0, "gid": 0, "additionalGids": [6]}));
        assert_eq!(t.shell("grep Groups /proc/self/status"), "Groups:\t6 \n");
        t.config["annotations"] = json!({"run.oci.keep_original_groups": "1"});
        assert_eq!(t.shell("grep Groups /proc/self/status"), "Groups:\t5 7 \n");
    });
}
