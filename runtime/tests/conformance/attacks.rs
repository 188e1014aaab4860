//! Attacks on a container's host that have worked on some runtime once.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use serde_json::json;

use crate::support::{everywhere, only_ours, until};

#[test]
fn the_working_directory_stays_inside() {
    everywhere(|t| {
        // CVE-2024-21626: through a leaked descriptor the working directory was the host's.
        for fd in 3..12 {
            t.set("/process/cwd", json!(format!("/proc/self/fd/{fd}")));
            t.args(&["sh", "-c", "ls /proc/self/cwd/../../../../../../etc/shadow"]);
            let output = t.call(&["run", "w"]);
            assert!(!output.status.success(), "{fd}: {output:?}");
        }
    });
}

#[test]
fn proc_must_be_mounted_on_an_ordinary_directory() {
    everywhere(|t| {
        std::fs::remove_dir(t.rootfs("/proc")).unwrap();
        symlink("/tmp", t.rootfs("/proc")).unwrap();
        t.fails(&["run", "p"]);
        if t.is_ours() {
            let (_, text) = t.fails(&["run", "p"]);
            assert!(text.contains("must be mounted on ordinary directory"), "{text}");
        }
    });
}

#[test]
fn nothing_is_mounted_inside_proc() {
    only_ours(|t| {
        symlink("/proc/sys", t.rootfs("/innocent")).unwrap();
        for to in ["/proc/sys", "/innocent", "/proc/self"] {
            let mount = json!({"destination": to, "type": "tmpfs", "source": "tmpfs"});
            t.push("/mounts", mount);
            let (_, text) = t.fails(&["run", "p"]);
            assert!(text.contains("inside /proc"), "{to}: {text}");
            t.config["mounts"].as_array_mut().unwrap().pop();
        }
    });
}

#[test]
fn a_bad_null_device_is_refused_for_masks() {
    only_ours(|t| {
        // CVE-2025-31133: what masked paths are covered with has to be the null device.
        let evil = t.path("dev");
        std::fs::create_dir(&evil).unwrap();
        std::fs::write(evil.join("null"), "not null").unwrap();
        t.push("/mounts", json!({"destination": "/dev", "type": "bind", "source": evil, "options": ["bind"]}));
        std::fs::write(t.rootfs("/hidden"), "x").unwrap();
        t.set("/linux/maskedPaths", json!(["/hidden"]));
        let (_, text) = t.fails(&["run", "n"]);
        assert!(text.contains("/dev/null"), "{text}");
    });
}

#[test]
fn the_runtimes_own_file_can_not_be_written_to() {
    only_ours(|t| {
        // CVE-2019-5736: a program that is /proc/self/exe makes exec's process run the runtime's own file inside the
        // container, where everybody can hold it open, and write to it when it is no longer busy.
        t.copy_runtime();
        let original = std::fs::read(t.path("runtime")).unwrap();
        symlink("/proc/self/exe", t.rootfs("/evil")).unwrap();
        mkfifo(&t.rootfs("/block"), Mode::S_IRWXU).unwrap();
        // What it is linked with, where it is not static.
        for dir in ["/lib", "/lib64", "/usr/lib"].into_iter().filter(|dir| Path::new(dir).exists()) {
            t.push("/mounts", json!({"destination": dir, "type": "bind", "source": dir, "options": ["rbind", "ro"]}));
        }
        t.args(&[
            "sh",
            "-c",
            "echo ready; read pid; exec 3</proc/$pid/exe; echo held; read go; echo evil >/proc/self/fd/3",
        ]);
        let mut attacker = t.command(&["run", "x"]);
        let mut attacker =
            attacker.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut say = attacker.stdin.take().unwrap();
        let mut heard = BufReader::new(attacker.stdout.take().unwrap()).lines().map(Result::unwrap);
        assert_eq!(heard.next().as_deref(), Some("ready"));
        let file = t.path("pid");
        // Success means that it was executed. It waits for somebody to write to the fifo.
        t.ok(&["exec", "--detach", "--pid-file", file.to_str().unwrap(), "x", "/evil", "update", "-r", "/block", "x"]);
        let pid: i32 = std::fs::read_to_string(&file).unwrap().parse().unwrap();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let inside = status.lines().find(|l| l.starts_with("NSpid:")).unwrap().rsplit('\t').next().unwrap();
        writeln!(say, "{inside}").unwrap();
        assert_eq!(heard.next().as_deref(), Some("held"));
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        t.gone(pid);
        writeln!(say, "go").unwrap();
        let output = attacker.wait_with_output().unwrap();
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("Read-only file system"), "{output:?}");
        assert!(std::fs::read(t.path("runtime")).unwrap() == original);
    });
}

#[test]
fn without_pivot_root_the_hosts_proc_is_out_of_reach() {
    everywhere(|t| {
        for set in ["bounding", "effective", "permitted"] {
            t.push(&format!("/process/capabilities/{set}"), json!("CAP_SETFCAP"));
        }
        t.set("/linux/maskedPaths", json!(["/proc/meminfo"]));
        t.args(&["sh", "-c", "ls / && test ! -s /proc/meminfo"]);
        assert!(t.ok(&["run", "--no-pivot", "n"]).contains("bin\n"));
        // The kernel lets a user namespace mount proc as long as it sees one that has nothing covered.
        t.args(&["unshare", "-mrpf", "sh", "-c", "mount -t proc none /proc"]);
        let (code, text) = t.fails(&["run", "--no-pivot", "n"]);
        assert!(code == 1 && text.contains("ermission denied"), "{code}: {text}");
        t.args(&["sleep", "1000"]);
        t.ok(&["run", "--no-pivot", "--detach", "n"]);
        assert!(t.ok(&["exec", "n", "ls", "/"]).contains("bin\n"));
    });
}

#[test]
fn links_of_the_image_lead_nowhere_outside() {
    // Debian's runc makes links in the directory on the host.
    only_ours(|t| {
        // CVE-2026-41579: what is made in /dev was made at the end of a link of the image's.
        let canary = t.path("canary");
        std::fs::create_dir(&canary).unwrap();
        std::fs::write(canary.join("ptmx"), "x").unwrap();
        for target in [canary.clone(), Path::new("../canary").to_owned()] {
            for name in ["/dev", "/tmp"] {
                std::fs::remove_dir(t.rootfs(name)).unwrap();
                symlink(&target, t.rootfs(name)).unwrap();
            }
            t.push("/mounts", json!({"destination": "/tmp/made/inside", "type": "tmpfs", "source": "t"}));
            t.set("/process/cwd", json!("/tmp/made/cwd"));
            // Whether it runs is a question of taste.
            t.args(&["true"]);
            t.call(&["run", "l"]);
            // Nor without a mount at /dev.
            let with = t.config["mounts"].clone();
            t.config["mounts"]
                .as_array_mut()
                .unwrap()
                .retain(|m| !m["destination"].as_str().unwrap().starts_with("/dev"));
            t.call(&["run", "l"]);
            t.set("/mounts", with);
            let left: Vec<_> = std::fs::read_dir(&canary).unwrap().map(|e| e.unwrap().file_name()).collect();
            assert_eq!(left, ["ptmx"]);
            assert_eq!(std::fs::read(canary.join("ptmx")).unwrap(), b"x");
            for name in ["/dev", "/tmp"] {
                std::fs::remove_file(t.rootfs(name)).unwrap();
                std::fs::create_dir(t.rootfs(name)).unwrap();
            }
        }
    });
}

#[test]
fn sysfs_must_be_mounted_on_an_ordinary_directory() {
    everywhere(|t| {
        std::fs::remove_dir(t.rootfs("/sys")).unwrap();
        symlink("/tmp", t.rootfs("/sys")).unwrap();
        let (_, text) = t.fails(&["run", "s"]);
        assert!(text.contains("must be mounted on ordinary directory"), "{text}");
    });
}

#[test]
fn the_console_is_bound_over_nothing_outside() {
    only_ours(|t| {
        // CVE-2025-52565: what /dev/console is bound over, and from, was found by path.
        let canary = t.path("canary");
        std::fs::write(&canary, "x").unwrap();
        t.config["mounts"]
            .as_array_mut()
            .unwrap()
            .retain(|m| !["/dev", "/dev/shm"].contains(&m["destination"].as_str().unwrap()));
        symlink(&canary, t.rootfs("/dev/console")).unwrap();
        let path = t.path("console.sock");
        let listener = UnixListener::bind(&path).unwrap();
        t.set("/process/terminal", json!(true));
        t.args(&["sh", "-c", "stat -c %F /dev/pts/0"]);
        t.ok(&["run", "--detach", "--console-socket", path.to_str().unwrap(), "c"]);
        drop(listener);
        assert_eq!(std::fs::read(&canary).unwrap(), b"x");
        assert!(!std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(canary.to_str().unwrap()));
    });
}

#[test]
fn what_is_written_to_proc_arrives_there() {
    only_ours(|t| {
        // CVE-2025-52881: the image has files where proc has its own, and nothing is mounted over them.
        t.config["mounts"].as_array_mut().unwrap().remove(0);
        let decoys = ["sys/kernel/msgmax", "self/attr/exec", "self/oom_score_adj", "1/oom_score_adj"];
        for decoy in decoys.map(|name| t.rootfs("/proc").join(name)) {
            std::fs::create_dir_all(decoy.parent().unwrap()).unwrap();
            std::fs::write(decoy, "x").unwrap();
        }
        t.set("/linux/sysctl", json!({"kernel.msgmax": "4711"}));
        t.set("/process/oomScoreAdj", json!(99));
        t.sleeping("p");
        let pid = t.pid("p");
        assert_eq!(std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap(), "99\n");
        let inside =
            Command::new("nsenter").args(["-t", &pid.to_string(), "-i", "cat", "/proc/sys/kernel/msgmax"]).output();
        assert_eq!(inside.unwrap().stdout, b"4711\n");
        for decoy in decoys {
            assert_eq!(std::fs::read(t.rootfs("/proc").join(decoy)).unwrap(), b"x", "{decoy}");
        }
    });
}

#[test]
fn a_volume_that_changes_meanwhile_leads_nowhere_outside() {
    only_ours(|t| {
        // CVE-2021-30465 and CVE-2024-45310: a neighbour exchanges a directory of a shared volume for a link while mount
        // points are made in it.
        let (volume, canary) = (t.path("volume"), t.path("canary"));
        std::fs::create_dir_all(volume.join("a")).unwrap();
        std::fs::create_dir(&canary).unwrap();
        symlink(&canary, volume.join("b")).unwrap();
        t.push("/mounts", json!({"destination": "/v", "type": "bind", "source": volume, "options": ["bind"]}));
        for to in ["/v/a/tmpfs", "/v/a/made/tmpfs"] {
            t.push("/mounts", json!({"destination": to, "type": "tmpfs", "source": "t"}));
        }
        t.push(
            "/mounts",
            json!({"destination": "/v/a/file", "type": "bind", "source": t.rootfs("/etc/passwd"), "options": ["bind"]}),
        );
        t.args(&["true"]);
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let (a, b) = (volume.join("a"), volume.join("b"));
                while !stop.load(Ordering::Relaxed) {
                    renameat2(AT_FDCWD, &a, AT_FDCWD, &b, RenameFlags::RENAME_EXCHANGE).unwrap();
                }
            });
            // Some lose the race and say so; none may win it.
            let results: Vec<bool> = (0..60).map(|_| t.call(&["run", "r"]).status.success()).collect();
            stop.store(true, Ordering::Relaxed);
            assert!(results.contains(&true), "none ever ran");
        });
        assert_eq!(std::fs::read_dir(&canary).unwrap().count(), 0);
        assert!(!std::fs::read_to_string("/proc/self/mountinfo").unwrap().contains(canary.to_str().unwrap()));
    });
}

#[test]
fn ids_beyond_thirty_two_bits_are_nobodys() {
    only_ours(|t| {
        // CVE-2024-40635: they wrapped around to root.
        for id in [4_294_967_295_i64, 4_294_967_296, -1, i64::MIN, i64::MAX] {
            for (user, field) in [
                (json!({"uid": id, "gid": 0}), "process.user.uid"),
                (json!({"uid": 0, "gid": id}), "process.user.gid"),
                (json!({"uid": 0, "gid": 0, "additionalGids": [1, id]}), "process.user.additionalGids[1]"),
            ] {
                t.set("/process/user", user);
                let (_, text) = t.fails(&["run", "u"]);
                assert!(text.contains(field) && !t.path("state/u").exists(), "{text}");
            }
        }
        t.set("/process/user", json!({"uid": 0, "gid": 0}));
        t.sleeping("u");
        // CVE-2026-30892: a user without a group was taken for root.
        assert_eq!(t.ok(&["exec", "--user", "1", "u", "id", "-u"]), "1\n");
        for user in ["4294967296", "4294967295", "-1", "0:4294967296"] {
            t.fails(&["exec", "--user", user, "u", "true"]);
        }
    });
}

#[test]
fn a_process_that_names_itself_with_foreign_bytes_is_still_there() {
    everywhere(|t| {
        t.args(&[
            "sh",
            "-c",
            "printf 'x) Z 1\\377\\n' > /proc/$$/comm; echo > /tmp/done; while :; do sleep 1000; done",
        ]);
        t.ok(&["run", "--detach", "c"]);
        until("it has its name", || t.rootfs("/tmp/done").exists());
        assert_eq!(t.state("c")["status"], "running");
        assert_eq!(t.ok(&["exec", "c", "echo", "there"]), "there\n");
        assert!(t.fails(&["delete", "c"]).1.contains("not stopped"));
        t.ok(&["delete", "--force", "c"]);
    });
}

#[test]
fn cgroups_with_foreign_names_at_any_depth_are_removed() {
    only_ours(|t| {
        t.on_v2();
        t.push("/linux/namespaces", json!({"type": "cgroup"}));
        t.push(
            "/mounts",
            json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": []}),
        );
        // Its name is no UTF-8, and the path of the lowest one longer than any path may be.
        let script = "cd /sys/fs/cgroup; name=$(printf '\\377%0200d' 1); for n in $(busybox seq 30); do mkdir $name; cd -P $name; done; \
            echo 0 > cgroup.procs; echo > /tmp/done; while :; do sleep 1000; done";
        t.args(&["sh", "-c", script]);
        t.ok(&["run", "--detach", "c"]);
        until("it has moved", || t.rootfs("/tmp/done").exists());
        assert_eq!(t.state("c")["status"], "running");
        t.ok(&["pause", "c"]);
        t.ok(&["resume", "c"]);
        let pid = t.pid("c");
        assert_eq!(t.ok(&["ps", "--format", "json", "c"]).trim().split(',').next(), Some(&*format!("[{pid}")));
        t.ok(&["delete", "--force", "c"]);
        assert_eq!(t.ok(&["list", "-q"]), "");
    });
}
