//! The life of a container as its callers see it: codes, texts, states, hooks.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::support::{Bench, everywhere, only_ours};

#[test]
fn run_ends_with_the_programs_code() {
    everywhere(|t| {
        assert_eq!(t.shell("echo out; test $$ = 1"), "out\n");
        t.args(&["sh", "-c", "exit 42"]);
        assert_eq!(t.fails(&["run", "x"]).0, 42);
        // Deleted: the name is free again.
        assert_eq!(t.fails(&["run", "x"]).0, 42);
        assert!(t.fails(&["state", "x"]).1.contains("does not exist"));
    });
}

#[test]
fn a_mebibyte_of_memory_is_enough_to_start() {
    only_ours(|t| {
        let v2 = std::fs::read_to_string("/sys/fs/cgroup/cgroup.controllers").unwrap_or_default();
        if std::path::Path::new("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists() || v2.contains("memory") {
            t.set("/linux/resources", json!({"memory": {"limit": 1 << 20}}));
        }
        t.args(&["true"]);
        assert_eq!(t.ok(&["run", "c"]), "");
    });
}

#[test]
fn a_life_step_by_step() {
    everywhere(|t| {
        t.args(&["sh", "-c", "echo started > /started; exec sleep 1000"]);
        t.ok(&["create", "c"]);
        let state = t.state("c");
        assert_eq!((&state["status"], &state["id"]), (&json!("created"), &json!("c")));
        assert!(state["pid"].as_i64().unwrap() > 0 && !t.rootfs("/started").exists());
        assert!(t.call(&["create", "c"]).status.code() != Some(0), "the name is taken");
        t.ok(&["start", "c"]);
        assert_eq!(t.state("c")["status"], "running");
        t.fails(&["start", "c"]);
        t.fails(&["delete", "c"]);
        let pid = t.pid("c");
        t.ok(&["kill", "c", "KILL"]);
        t.gone(pid);
        assert_eq!(t.state("c")["status"], "stopped");
        t.fails(&["kill", "c", "KILL"]);
        t.ok(&["delete", "c"]);
        t.fails(&["delete", "c"]);
        t.ok(&["delete", "--force", "c"]);
    });
}

#[test]
fn missing_programs_have_the_texts_that_engines_look_for() {
    everywhere(|t| {
        std::fs::write(t.rootfs("/bin/plain"), "x").unwrap();
        for (program, text) in
            [("nosuch", "executable file"), ("/nosuch", "o such file or directory"), ("/bin/plain", "ermission denied")]
        {
            t.args(&[program]);
            let (code, stderr) = t.fails(&["create", "e"]);
            assert_eq!(code, 1, "{stderr}");
            assert!(stderr.contains(text) && stderr.contains(program), "{stderr}");
            t.fails(&["state", "e"]);
        }
        t.sleeping("s");
        let (code, stderr) = t.fails(&["exec", "s", "nosuch"]);
        assert_eq!(code, 255, "{stderr}");
        assert!(stderr.contains("executable file"), "{stderr}");
    });
}

#[test]
fn hooks_run_in_order_with_the_state() {
    everywhere(|t| {
        let log = t.path("log");
        let hook = |name: &str, path: &str| {
            let script = format!("echo {name} $(readlink /proc/self/ns/mnt) $(cat) >> {path}");
            json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
        };
        let outside = log.display().to_string();
        for name in ["prestart", "createRuntime", "createContainer", "poststart", "poststop"] {
            t.config["hooks"][name] = hook(name, &outside);
        }
        t.config["hooks"]["startContainer"] = hook("startContainer", "/log");
        t.config["annotations"] = json!({"key": "value"});
        t.args(&["sh", "-c", "echo program >> /log"]);
        t.ok(&["run", "h"]);
        let text = std::fs::read_to_string(&log).unwrap();
        let order: Vec<_> = text.lines().map(|l| l.split(' ').next().unwrap()).collect();
        assert_eq!(order, ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]);
        let own = std::fs::read_link("/proc/self/ns/mnt").unwrap();
        for line in text.lines() {
            let mut parts = line.splitn(3, ' ');
            let (name, namespace) = (parts.next().unwrap(), parts.next().unwrap());
            assert_eq!(namespace == own.to_str().unwrap(), name != "createContainer", "{line}");
            let state: serde_json::Value = serde_json::from_str(parts.next().unwrap()).unwrap();
            assert_eq!((&state["id"], &state["annotations"]["key"]), (&json!("h"), &json!("value")));
            assert_eq!(state["bundle"].as_str().unwrap(), t.path("").to_str().unwrap().trim_end_matches('/'));
        }
        let inside = std::fs::read_to_string(t.rootfs("/log")).unwrap();
        assert!(inside.starts_with("startContainer") && inside.ends_with("program\n"), "{inside}");
    });
}

#[test]
fn a_failing_hook_stops_the_creation() {
    everywhere(|t| {
        for name in ["prestart", "createRuntime", "createContainer"] {
            t.config["hooks"] = json!({name: [{"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}]});
            t.args(&["touch", "/ran"]);
            t.fails(&["run", "h"]);
            assert!(!t.rootfs("/ran").exists(), "{name}");
            t.fails(&["state", "h"]);
        }
    });
}

#[test]
fn a_container_whose_start_has_failed_is_stopped() {
    // runc starts it all the same, or has run the hook when it made the container.
    only_ours(|t| {
        for name in ["startContainer", "poststart"] {
            t.config["hooks"] = json!({name: [{"path": "/bin/sh", "args": ["sh", "-c", "exit 3"]}]});
            t.args(&["sleep", "1000"]);
            t.ok(&["create", "h"]);
            let (code, text) = t.fails(&["start", "h"]);
            assert!(code == 1 && text.contains(&format!("error running {name} hook #0")), "{text}");
            assert_eq!(t.state("h")["status"], "stopped", "{name}");
            t.ok(&["delete", "h"]);
        }
    });
}

#[test]
fn a_broken_state_breaks_no_listing() {
    only_ours(|t| {
        t.sleeping("good");
        std::fs::create_dir(t.path("state/half")).unwrap();
        std::fs::write(t.path("state/half/state.json"), "{\"id\":").unwrap();
        std::fs::create_dir(t.path("state/empty")).unwrap();
        let output = t.call(&["list", "--quiet"]);
        assert_eq!((output.status.code(), output.stdout), (Some(0), b"good\n".to_vec()));
        assert!(String::from_utf8_lossy(&output.stderr).contains("container half"));
        t.ok(&["delete", "--force", "half"]);
        t.ok(&["delete", "--force", "empty"]);
        assert!(!t.path("state/half").exists());
    });
}

#[test]
fn config_errors_name_the_field_and_leave_nothing() {
    only_ours(|t| {
        for (pointer, value, field) in [
            ("/process/user", json!({"uid": 4_294_967_296_u64, "gid": 0}), "process.user.uid"),
            ("/process/cwd", json!("relative"), "process.cwd"),
            ("/linux/rootfsPropagation", json!("sideways"), "linux.rootfsPropagation"),
            ("/process/rlimits", json!([{"type": "RLIMIT_MOON", "soft": 1, "hard": 1}]), "process.rlimits[0].type"),
        ] {
            let before = t.config.clone();
            t.set(pointer, value);
            let (code, text) = t.fails(&["create", "x"]);
            assert!(code == 1 && text.contains(field), "{text}");
            assert!(!t.path("state/x").exists());
            t.config = before;
        }
    });
}

#[test]
fn hooks_find_the_root_by_its_path_and_can_mount_in_it() {
    everywhere(|t| {
        // As the hooks of graphics drivers do: enter the container's mount namespace and mount at the root's path.
        std::fs::write(t.path("library"), "library").unwrap();
        let (from, to) = (t.path("library"), t.rootfs("/etc/library"));
        let mount = format!("touch {1} && mount --bind {0} {1}", from.display(), to.display());
        let enter =
            format!(r#"pid=$(sed 's/.*"pid": *\([0-9]*\).*/\1/'); exec nsenter -m -t "$pid" -- sh -c '{mount}'"#);
        let hook =
            |script: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin:/usr/bin"]}]);
        t.config["hooks"] = json!({
            "createRuntime": hook(&enter),
            "createContainer": hook("mount | grep -q ' on /proc ' && cat ./etc/library > ./etc/seen"),
        });
        assert_eq!(t.shell("cat /etc/library /etc/seen"), "librarylibrary");
        assert_eq!(std::fs::read(&to).unwrap(), b"", "it was mounted in the container alone");
    });
}

#[test]
fn the_last_hook_runs_as_the_container_would() {
    everywhere(|t| {
        t.set("/process/user", json!({"uid": 1000, "gid": 1000}));
        std::fs::set_permissions(t.rootfs("/tmp"), PermissionsExt::from_mode(0o777)).unwrap();
        let hook = |script: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"]}]);
        t.config["hooks"] =
            json!({"startContainer": hook("id -u > /tmp/who; grep CapEff /proc/self/status >> /tmp/who")});
        assert_eq!(t.shell("cat /tmp/who"), "1000\nCapEff:\t0000000000000000\n");
        t.set(
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}]}),
        );
        t.config["hooks"] = json!({"startContainer": hook("exec mkdir /tmp/made")});
        for no_new_privileges in [true, false] {
            t.set("/process/noNewPrivileges", json!(no_new_privileges));
            let (_, text) = t.fails(&["run", "h"]);
            assert!(text.contains("error running hook") && text.contains("bad system call"), "{text}");
            assert!(!t.rootfs("/tmp/made").exists());
        }
    });
}

#[test]
fn the_others_of_a_shared_pid_namespace_are_killed_without_the_first() {
    let others = |t: &mut Bench| {
        t.config["linux"]["namespaces"].as_array_mut().unwrap().retain(|n| n["type"] != "pid");
        t.sleeping("s");
        t.ok(&["exec", "--detach", "--pid-file", "second", "s", "sleep", "1000"]);
        let second = std::fs::read_to_string(t.path("second")).unwrap().trim().parse().unwrap();
        let first = t.pid("s");
        (first, second)
    };
    only_ours(|t| {
        let (first, second) = others(t);
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::SIGKILL).unwrap();
        t.gone(first);
        t.ok(&["kill", "s", "KILL"]);
        t.gone(second);
    });
    let mut v2 = Bench::ours_on_v2();
    let (first, second) = others(&mut v2);
    v2.ok(&["kill", "s", "KILL"]);
    v2.gone(first);
    v2.gone(second);
    assert!(v2.fails(&["kill", "s", "KILL"]).1.contains("container not running"));
}

#[test]
fn a_hook_without_an_environment_has_the_runtimes_and_in_the_container_the_programs() {
    only_ours(|t| {
        let hook = |script: &str| json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}]);
        t.push("/process/env", json!("ONE=two"));
        let path = std::env::var("PATH").unwrap();
        t.set("/hooks/prestart", hook(&format!("test \"$PATH\" = '{path}' && test -z \"$ONE\"")));
        t.set("/hooks/startContainer", hook("test $ONE = two && test $PATH = /bin && test $HOME = /root"));
        t.ok(&["run", "h"]);
        let mut given = hook("test -z \"$ONE\" && test $X = y");
        given[0]["env"] = json!(["X=y"]);
        t.set("/hooks/startContainer", given);
        t.ok(&["run", "h"]);
    });
}

#[test]
fn a_missing_interpreter_is_told_as_the_containers_own_end() {
    // Debian's runc takes it for its own failure.
    only_ours(|t| {
        std::fs::write(t.rootfs("/run.sh"), "#!/nowhere\n").unwrap();
        std::fs::set_permissions(t.rootfs("/run.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
        t.args(&["/run.sh"]);
        assert_eq!(t.fails(&["run", "x"]), (255, "exec /run.sh: no such file or directory\n".to_owned()));
        t.fails(&["state", "x"]);
        // Engines have to hear of it.
        t.ok(&["create", "x"]);
        assert!(t.fails(&["start", "x"]).1.contains(": exec /run.sh: no such file or directory"));
    });
}

#[test]
fn a_container_is_kept_if_that_is_wanted() {
    // Debian's runc does not know it.
    only_ours(|t| {
        t.args(&["sh", "-c", "exit 3"]);
        assert_eq!(t.fails(&["run", "--keep", "c"]).0, 3);
        assert_eq!(t.state("c")["status"], "stopped");
        t.ok(&["delete", "c"]);
        assert_eq!(t.fails(&["run", "c"]).0, 3);
        assert_eq!(t.ok(&["list", "-q"]), "");
    });
}

/// `first` runs, and nobody else gets its cgroup.
fn not_in_the_cgroup_of_another(t: &mut Bench) {
    t.sleeping("first");
    let mut config = t.config.clone();
    config["linux"]["cgroupsPath"] = json!(format!("/{}/first", t.cgroup()));
    std::fs::create_dir_all(t.path("other/rootfs")).unwrap();
    std::fs::write(t.path("other/config.json"), config.to_string()).unwrap();
    let (code, stderr) = t.fails(&["run", "--bundle", "other", "second"]);
    assert!(code == 1 && stderr.contains("container's cgroup is not empty: 1 process(es) found"), "{stderr}");
    assert_eq!(t.state("first")["status"], "running");
    assert_eq!(t.ok(&["list", "-q"]), "first\n");
}

#[test]
fn a_cgroup_that_is_in_use_is_nobody_elses() {
    // Debian's runc only warns of it.
    only_ours(not_in_the_cgroup_of_another);
    not_in_the_cgroup_of_another(&mut Bench::ours_on_v2());
}
