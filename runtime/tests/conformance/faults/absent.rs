//! A kernel or an outer sandbox without one of the newer system calls: what can be done without it works, and the rest is
//! refused in one line that leaves nothing behind.

use dhow_runtime::seccomp::{self, Filter};
use serde_json::json;

use super::footprint::Footprint;
use crate::support::{Bench, only_ours};

/// Calls that the runtime makes or could make, and that not every kernel has.
const NEWER: [&str; 35] = [
    "bpf",
    "cachestat",
    "clone3",
    "close_range",
    "copy_file_range",
    "epoll_pwait2",
    "execveat",
    "faccessat2",
    "fchmodat2",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "getrandom",
    "io_uring_setup",
    "keyctl",
    "landlock_create_ruleset",
    "listmount",
    "memfd_create",
    "mount_setattr",
    "move_mount",
    "name_to_handle_at",
    "open_tree",
    "openat2",
    "pidfd_getfd",
    "pidfd_open",
    "pidfd_send_signal",
    "preadv2",
    "process_madvise",
    "process_mrelease",
    "renameat2",
    "rseq",
    "seccomp",
    "statmount",
    "statx",
];

/// Without which no container is made: the oldest kernel supported has them.
const REQUIRED: [&str; 11] = [
    "close_range",
    "fsconfig",
    "fsmount",
    "fsopen",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "openat2",
    "pidfd_open",
    "pidfd_send_signal",
    "seccomp",
];

fn without(name: &str) -> Filter {
    let rule = json!({"names": [name], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOSYS});
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
    seccomp::compile(&serde_json::from_value(profile).unwrap()).unwrap()
}

/// What a thread starts is under its filter.
fn under<T: Send>(filter: &Filter, body: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            assert!(filter.install().unwrap().is_none());
            body()
        });
        thread.join().unwrap()
    })
}

/// One command without the call: whether it worked.
#[track_caller]
fn attempt(t: &Bench, name: &str, args: &[&str]) -> bool {
    let output = under(&without(name), || t.call(args));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    println!("{name}: {args:?}: {} {text}", output.status);
    if !output.status.success() {
        let errors: Vec<_> = text.lines().filter(|line| line.contains("level=error")).collect();
        assert!(errors.len() == 1 && errors[0].contains("function not implemented"), "{text}");
    }
    output.status.success()
}

#[test]
fn a_call_that_is_missing_is_done_without_or_named() {
    only_ours(|t| {
        t.sleeping("other");
        t.set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW"}));
        let clean = Footprint::of(t);
        let mut refused = Vec::new();
        for name in NEWER {
            let mut worked = true;
            for step in ["create", "start"] {
                if !attempt(t, name, &[step, "x"]) {
                    worked = false;
                    t.ok(&["delete", "--force", "x"]);
                    clean.is_back(t, name);
                    t.ok(&["run", "--detach", "x"]);
                    break;
                }
            }
            let running = Footprint::of(t);
            worked &= attempt(t, name, &["exec", "x", "true"]);
            running.is_back(t, name);
            assert!(attempt(t, name, &["list", "--quiet"]), "{name}");
            assert!(attempt(t, name, &["state", "x"]), "{name}");
            worked &= attempt(t, name, &["kill", "x", "WINCH"]);
            assert_eq!(t.state("x")["status"], "running");
            worked &= attempt(t, name, &["delete", "--force", "x"]);
            t.ok(&["delete", "--force", "x"]);
            clean.is_back(t, name);
            if !worked {
                refused.push(name);
            }
        }
        assert_eq!(refused, REQUIRED);
    });
}
