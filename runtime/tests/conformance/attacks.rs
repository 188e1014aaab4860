//! Attacks on a container's host that have worked on some runtime once.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use serde_json::json;

use crate::support::{everywhere, only_ours};

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
