//! Saving containers and bringing them back. The real thing runs where `criu check` is content with the machine; what there
//! is to say without criu is tested everywhere.

use std::io::{BufRead, Write};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::{Bench, only_ours, until};

/// Whether containers can be saved here. Says on the test's own stderr, which nobody captures, when they can't.
fn criu_works(test: &str) -> bool {
    let checked = Command::new("criu").arg("check").stdin(Stdio::null()).output();
    let reason = match checked {
        Ok(output) if output.status.success() => return true,
        Ok(output) => {
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            said.lines().next().unwrap_or("criu check fails").to_owned()
        }
        Err(e) => format!("criu: {e}"),
    };
    std::io::stderr().write_all(format!("checkpoint::{test} is SKIPPED: {reason}\n").as_bytes()).unwrap();
    false
}

/// A number that a container writes into a file again and again.
const COUNTER: &str = "i=0; while :; do i=$((i + 1)); echo $i > /tmp/count; done";

fn count(t: &Bench) -> u64 {
    std::fs::read_to_string(t.rootfs("/tmp/count")).unwrap_or_default().trim().parse().unwrap_or(0)
}

fn counting(t: &mut Bench, id: &str) {
    t.args(&["sh", "-c", COUNTER]);
    detached(t, &["run", "--detach", id]);
    until("it counts", || count(t) > 0);
}

/// What a container holds open must not be files of the host's, if it is to be saved.
#[track_caller]
fn detached(t: &Bench, args: &[&str]) {
    let output = t.command(args).stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap();
    assert!(output.success(), "{args:?}");
}

#[test]
fn a_saved_container_goes_on() {
    if !criu_works("a_saved_container_goes_on") {
        return;
    }
    only_ours(|t| {
        for (name, text) in [("outside", "first"), ("directory/file", "second")] {
            std::fs::create_dir_all(t.path("directory")).unwrap();
            std::fs::write(t.path(name), text).unwrap();
        }
        let source = |name: &str| t.path(name).to_str().unwrap().to_owned();
        let (file, directory) = (source("outside"), source("directory"));
        t.push("/mounts", json!({"destination": "/mnt/file", "type": "bind", "source": file, "options": ["bind"]}));
        t.push(
            "/mounts",
            json!({"destination": "/mnt/d", "type": "bind", "source": directory, "options": ["rbind", "ro"]}),
        );
        t.push(
            "/mounts",
            json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}),
        );
        t.set("/linux/maskedPaths", json!(["/proc/kcore", "/proc/acpi", "/sys/firmware", "/proc/keys"]));
        t.set("/linux/readonlyPaths", json!(["/proc/sys", "/proc/bus"]));
        t.set("/linux/resources", json!({"pids": {"limit": 77}}));
        counting(t, "c");
        t.ok(&["checkpoint", "--work-path", "work", "--image-path", "image", "c"]);
        let (code, stderr) = t.fails(&["state", "c"]);
        assert!(code == 1 && stderr.contains("container does not exist"), "{stderr}");
        let saved = count(t);
        let descriptors = std::fs::read_to_string(t.path("image/descriptors.json")).unwrap();
        assert_eq!(descriptors, r#"["/dev/null","/dev/null","/dev/null"]"#);
        assert!(t.path("work/dump.log").exists());

        let restore = ["restore", "--detach", "--pid-file", "pid", "--work-path", "work", "--image-path", "image", "d"];
        detached(t, &restore);
        assert_eq!(t.state("d")["status"], "running");
        assert_eq!(std::fs::read_to_string(t.path("pid")).unwrap(), t.pid("d").to_string());
        until("it goes on where it was", || count(t) > saved);
        assert_eq!(t.ok(&["exec", "d", "cat", "/mnt/file", "/mnt/d/file"]), "firstsecond");
        assert_eq!(t.ok(&["exec", "d", "hostname"]), "conformance\n");
        let cgroup = std::fs::read_to_string(format!("/proc/{}/cgroup", t.pid("d"))).unwrap();
        assert!(cgroup.lines().any(|line| line.contains("pids:") && line.ends_with("/d")), "{cgroup}");
        assert_eq!(t.ok(&["exec", "d", "cat", "/sys/fs/cgroup/pids/pids.max"]), "77\n");
        // Nothing of the restore is left, neither on the host's mounts nor in the container's directory.
        assert!(!t.path("state/d/criu-root").exists());
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains("criu"), "{mounts}");

        // And once more, from what was restored.
        t.ok(&["checkpoint", "--leave-running", "--image-path", "left", "d"]);
        assert_eq!(t.state("d")["status"], "running");
        let left = count(t);
        until("it goes on", || count(t) > left);
        t.ok(&["checkpoint", "--image-path", "again", "d"]);
        let saved = count(t);
        detached(t, &["restore", "--detach", "--image-path", "again", "e"]);
        until("it goes on where it was", || count(t) > saved);
        let pid = t.pid("e");
        t.ok(&["kill", "e", "KILL"]);
        t.gone(pid);
        t.ok(&["delete", "e"]);
    });
}

#[test]
fn a_restore_in_the_foreground_has_its_own_pipes_and_the_exit_code() {
    if !criu_works("a_restore_in_the_foreground_has_its_own_pipes_and_the_exit_code") {
        return;
    }
    only_ours(|t| {
        // Its stdout is a pipe of the caller's, and another one afterwards.
        let script = "echo before; while ! test -e /tmp/go; do :; done; echo after; exit 7";
        t.args(&["sh", "-c", script]);
        let run = t.command(&["run", "c"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        until("it runs", || Path::new(&t.path("state/c/state.json")).exists() && t.state("c")["status"] == "running");
        let saved = t.call(&["checkpoint", "--image-path", "image", "c"]);
        let output = run.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&saved.stderr);
        assert!(saved.status.success(), "{stderr}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "before\n");
        std::fs::write(t.rootfs("/tmp/go"), "").unwrap();
        let output = t.command(&["restore", "--image-path", "image", "c"]).output().unwrap();
        let said = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!((output.status.code(), &*said.0, &*said.1), (Some(7), "after\n", ""));
        assert_eq!(t.ok(&["list", "--quiet"]), "");
    });
}

#[test]
fn a_fifo_of_the_hosts_for_stdout_is_another_one_afterwards() {
    if !criu_works("a_fifo_of_the_hosts_for_stdout_is_another_one_afterwards") {
        return;
    }
    only_ours(|t| {
        t.args(&["sh", "-c", "echo before; while ! test -e /tmp/go; do :; done; echo after; exec sleep 1000"]);
        // Open for writing as well, so that nobody waits for somebody else to open it.
        let fifo = |name: &str| {
            nix::unistd::mkfifo(&t.path(name), nix::sys::stat::Mode::S_IRWXU).unwrap();
            std::fs::File::options().read(true).write(true).open(t.path(name)).unwrap()
        };
        let with = |args: &[&str], stdout: &std::fs::File| {
            let status = t.command(args).stdout(stdout.try_clone().unwrap()).stderr(Stdio::null()).status().unwrap();
            assert!(status.success(), "{args:?}");
        };
        let line = |fifo: std::fs::File| std::io::BufReader::new(fifo).lines().next().unwrap().unwrap();
        let (first, second) = (fifo("first"), fifo("second"));
        with(&["run", "--detach", "c"], &first);
        assert_eq!(line(first), "before");
        t.ok(&["checkpoint", "--image-path", "image", "c"]);
        with(&["restore", "--detach", "--image-path", "image", "c"], &second);
        std::fs::write(t.rootfs("/tmp/go"), "").unwrap();
        assert_eq!(line(second), "after");
    });
}

#[test]
fn namespaces_that_were_given_are_given_again() {
    if !criu_works("namespaces_that_were_given_are_given_again") {
        return;
    }
    only_ours(|t| {
        t.sleeping("host");
        let given = format!("/proc/{}/ns/net", t.pid("host"));
        let namespaces = json!([{"type": "pid"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"},
                                {"type": "network", "path": given}]);
        t.set("/linux/namespaces", namespaces);
        counting(t, "c");
        t.ok(&["checkpoint", "--image-path", "image", "c"]);
        detached(t, &["restore", "--detach", "--image-path", "image", "c"]);
        let own = std::fs::read_link(format!("/proc/{}/ns/net", t.pid("c"))).unwrap();
        assert_eq!(own, std::fs::read_link(given).unwrap());
    });
}

#[test]
fn what_is_executed_in_a_restored_container_is_saved_with_it() {
    if !criu_works("what_is_executed_in_a_restored_container_is_saved_with_it") {
        return;
    }
    only_ours(|t| {
        counting(t, "c");
        let mut left = Vec::new();
        for image in ["first", "second"] {
            t.ok(&["checkpoint", "--image-path", image, "c"]);
            detached(t, &["restore", "--detach", "--image-path", image, "c"]);
            // criu makes a time namespace, which config.json does not name.
            let own = t.ok(&["exec", "c", "readlink", "/proc/self/ns/time"]);
            assert_eq!(own, t.ok(&["exec", "c", "readlink", "/proc/1/ns/time"]));
            // criu saves the first process's descendants: one that is left behind becomes its child. It must have let go of
            // the files that exec was given, and must not sleep only once: that is over when it comes back.
            let script = "{ touch /tmp/up; while :; do sleep 1; done; } < /dev/null > /dev/null 2>&1 & \
                          until test -e /tmp/up; do :; done; rm /tmp/up; echo -n $!";
            left.push(t.ok(&["exec", "c", "sh", "-c", script]));
        }
        for pid in left {
            assert_eq!(t.ok(&["exec", "c", "cat", &format!("/proc/{pid}/comm")]), "sh\n");
        }
    });
}

#[test]
fn the_ways_to_treat_cgroups_and_networks() {
    if !criu_works("the_ways_to_treat_cgroups_and_networks") {
        return;
    }
    only_ours(|t| {
        t.set("/linux/resources", json!({"pids": {"limit": 77}}));
        counting(t, "c");
        let ways = [
            &["--manage-cgroups-mode", "ignore"][..],
            &["--manage-cgroups-mode", "soft"],
            &["--empty-ns", "network"],
            &["--auto-dedup"],
            &["--file-locks", "--tcp-established", "--ext-unix-sk", "--shell-job"],
        ];
        for (n, way) in ways.into_iter().enumerate() {
            let image = format!("image{n}");
            t.ok(&[&["checkpoint"], way, &["--image-path", &image, "c"]].concat());
            let saved = count(t);
            detached(t, &[&["restore", "--detach"], way, &["--image-path", &image, "c"]].concat());
            until("it goes on where it was", || count(t) > saved);
            let cgroup = std::fs::read_to_string(format!("/proc/{}/cgroup", t.pid("c"))).unwrap();
            assert!(cgroup.lines().any(|line| line.contains("pids:") && line.ends_with("/c")), "{way:?}: {cgroup}");
        }
        // criu finds cgroups that are there already, as they are always here.
        t.ok(&["checkpoint", "--manage-cgroups-mode", "strict", "--image-path", "strict", "c"]);
        let strict = ["restore", "-d", "--manage-cgroups-mode", "strict", "--image-path", "strict", "c"];
        let (code, stderr) = t.fails(&strict);
        assert!(code == 1 && stderr.contains("criu failed: type RESTORE"), "{stderr}");
        assert_eq!(t.ok(&["list", "--quiet"]), "", "nothing is left");
    });
}

#[test]
fn hooks_see_a_restored_container() {
    if !criu_works("hooks_see_a_restored_container") {
        return;
    }
    only_ours(|t| {
        counting(t, "c");
        t.ok(&["checkpoint", "--image-path", "image", "c"]);
        let log = t.path("hooks");
        let hook = |name: &str, code: u8| {
            let script = format!("cat > {}.{name}; exit {code}", log.display());
            json!([{"path": "/bin/sh", "args": ["sh", "-c", script]}])
        };
        t.set("/hooks/createRuntime", hook("createRuntime", 3));
        let (code, stderr) = t.fails(&["restore", "--detach", "--image-path", "image", "c"]);
        assert!(code == 1 && stderr.contains("error running createRuntime hook #0"), "{stderr}");
        assert_eq!(t.ok(&["list", "--quiet"]), "", "nothing is left");
        t.set("/hooks/createRuntime", hook("createRuntime", 0));
        detached(t, &["restore", "--detach", "--image-path", "image", "c"]);
        let state: serde_json::Value =
            serde_json::from_slice(&std::fs::read(t.path("hooks.createRuntime")).unwrap()).unwrap();
        assert_eq!((&state["status"], &state["pid"]), (&json!("creating"), &json!(t.pid("c"))));
    });
}

#[test]
fn without_criu_the_error_names_it() {
    only_ours(|t| {
        t.sleeping("c");
        for command in
            [&["checkpoint", "--image-path", "image", "c"][..], &["restore", "-d", "--image-path", "image", "d"]]
        {
            std::fs::create_dir_all(t.path("image")).unwrap();
            std::fs::write(t.path("image/descriptors.json"), "[]").unwrap();
            let output = t.command(command).env("PATH", "/nonexistent").output().unwrap();
            let stderr = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1));
            assert!(stderr.contains(r#"exec: \"criu\": executable file not found in $PATH"#), "{stderr}");
        }
        assert_eq!(t.state("c")["status"], "running");
        assert_eq!(t.ok(&["list", "--quiet"]), "c\n", "nothing is left of a failed restore");
    });
}

#[test]
fn a_criu_that_fails_is_an_error() {
    only_ours(|t| {
        let bin = t.path("fake");
        std::fs::create_dir(&bin).unwrap();
        std::fs::write(bin.join("criu"), "#!/bin/sh\ntest \"$*\" = 'swrk 3' && test -S /proc/self/fd/3\n").unwrap();
        std::fs::set_permissions(bin.join("criu"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        t.sleeping("c");
        let mut command = t.command(&["checkpoint", "--image-path", "image", "c"]);
        let output = command.env("PATH", format!("{}:/usr/bin:/bin", bin.display())).output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("criu failed: type VERSION it ended without an answer"), "{stderr}");
        assert_eq!(t.state("c")["status"], "running");
    });
}

#[test]
fn what_can_not_be_saved_is_refused_before() {
    only_ours(|t| {
        t.args(&["true"]);
        t.ok(&["create", "created"]);
        let (code, stderr) = t.fails(&["checkpoint", "created"]);
        assert!(code == 1 && stderr.contains("cannot be checkpointed in created state"), "{stderr}");
        let (code, stderr) = t.fails(&["checkpoint", "nobody"]);
        assert!(code == 1 && stderr.contains("container does not exist"), "{stderr}");
        t.sleeping("c");
        for (flags, expected) in [
            (&["--manage-cgroups-mode", "hard"][..], "invalid manage-cgroups-mode value"),
            (&["--page-server", "nowhere"], "Use --page-server ADDRESS:PORT to specify page server"),
            (&["--page-server", "here:http"], "Invalid port number"),
            (&["--empty-ns", "user"], "is not supported"),
            (&["--parent-path", "/tmp"], "--parent-path: must be relative"),
            (&["--parent-path", "absent"], "--parent-path: is no directory"),
            (&["--status-fd", "99"], "invalid --status-fd argument 99: bad file descriptor"),
        ] {
            let line = [&["checkpoint"], flags, &["c"]].concat();
            let (code, stderr) = t.fails(&line);
            assert!(code == 1 && stderr.contains(expected), "{line:?}: {stderr}");
        }
        let (code, stderr) = t.fails(&["restore", "--detach", "--image-path", "absent", "d"]);
        assert!(code == 1 && stderr.contains("absent"), "{stderr}");
        let (code, stderr) = t.fails(&["restore", "--detach", "--image-path", "absent", "c"]);
        assert!(code == 1 && stderr.contains("already exists"), "{stderr}");
    });
}
