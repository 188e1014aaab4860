//! A file system or a limit that is full: the error names what, and nothing is left.

use std::path::{Path, PathBuf};

use super::footprint::Footprint;
use crate::support::{Bench, only_ours};

/// One line that names both.
#[track_caller]
fn refused(t: &Bench, args: &[&str], what: &str, why: &str) {
    let (_, text) = t.fails(args);
    assert!(text.lines().count() == 1 && text.contains(what) && text.contains(why), "{text}");
}

/// From now on the state root is a file system with this option, of the command's own; when the container was made it is deleted.
/// What is left in it then goes to stdout.
fn small_state(t: &mut Bench, option: &str) {
    let state = t.path("state").display().to_string();
    let script = format!(
        r#"mkdir -p {state} && mount -t tmpfs -o {option} none {state} || exit 99
        "$@"; code=$?
        [ $code = 0 ] && "$1" --root {state} delete --force x
        ls -A {state}; exit $code"#
    );
    t.inside(&["unshare", "--mount", "sh", "-c", &script, "sh"]);
}

#[test]
fn a_full_run_directory_is_named_and_nothing_is_left() {
    only_ours(|t| {
        // The cgroup that the bench's lie in stays.
        t.shell("true");
        // The state is longer than a page.
        t.config["annotations"] = serde_json::json!({"long": "x".repeat(10_000)});
        let clean = Footprint::of(t);
        let pid_file = t.path("state/pid").display().to_string();
        for option in ["nr_inodes", "nr_blocks"] {
            // Each time it gets a step further, until there is room enough.
            let enough = (1..20).find(|count| {
                small_state(t, &format!("{option}={count}"));
                let output = t.call(&["create", "--pid-file", &pid_file, "x"]);
                let (left, text) =
                    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned()).into();
                println!("{option}={count}: {left}{text}");
                clean.is_back(t, option);
                if output.status.success() {
                    return true;
                }
                assert!(left.is_empty() && text.lines().count() == 1, "{left}{text}");
                let named = text.contains("/state") || text.contains("start.sock");
                assert!(named && text.contains("no space left on device"), "{text}");
                false
            });
            assert!(enough.is_some_and(|count| count > 4), "{option}: {enough:?}");
        }
    });
}

/// Where the cgroup of a controller is, as this process sees it; v1's own hierarchy or v2's.
fn hierarchy(controller: &str) -> Option<PathBuf> {
    let v1 = Path::new("/sys/fs/cgroup").join(controller);
    let v2 = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(PathBuf::from);
    let has = |dir: &PathBuf| {
        let controllers = std::fs::read_to_string(dir.join("cgroup.controllers"));
        controllers.is_ok_and(|all| controller.is_empty() || all.split_whitespace().any(|c| c == controller))
    };
    if !controller.is_empty() && v1.exists() { Some(v1) } else { v2.into_iter().find(has) }
}

#[test]
fn a_cgroup_that_may_have_no_more_below_is_named() {
    only_ours(|t| {
        // v1 has no such limit, but the v2 hierarchy that lies beside it has.
        let Some(root) = hierarchy("") else { return };
        // The cgroup that the bench's lie in stays.
        t.shell("true");
        let parent = root.join(t.cgroup());
        std::fs::write(parent.join("cgroup.max.descendants"), "0").unwrap();
        let clean = Footprint::of(t);
        refused(t, &["create", "x"], &format!("{}/x", t.cgroup()), "resource temporarily unavailable");
        clean.is_back(t, "v1");
        t.on_v2();
        refused(t, &["create", "x"], &format!("{}/x", t.cgroup()), "resource temporarily unavailable");
        clean.is_back(t, "v2");
    });
}

#[test]
fn a_limit_of_processes_is_named() {
    only_ours(|t| {
        t.sleeping("x");
        let parent = hierarchy("pids").unwrap().join(t.cgroup()).join("few");
        std::fs::create_dir(&parent).unwrap();
        std::fs::write(parent.join("pids.max"), "1").unwrap();
        let clean = Footprint::of(t);
        let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", parent.display());
        t.inside(&["sh", "-c", &enter, "sh"]);
        for args in [&["create", "y"][..], &["exec", "x", "true"], &["exec", "--detach", "x", "true"]] {
            refused(t, args, "clone the container's process", "resource temporarily unavailable");
            clean.is_back(t, "the process");
        }
        assert_eq!(t.state("x")["status"], "running");
        t.inside(&[]);
        std::fs::remove_dir(&parent).unwrap();
    });
}
