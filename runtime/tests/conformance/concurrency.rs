//! Calls that change the same container at the same time.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Output, Stdio};

use crate::support::{Bench, only_ours, until};

/// Starts a call whose output is kept for later.
fn begin(t: &Bench, args: &[&str]) -> Child {
    t.command(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Holds a container's lock as a call would, until the calls that are begun meanwhile all wait for it.
fn contended(t: &Bench, id: &str, calls: &[&[&str]]) -> Vec<Output> {
    let lock = File::open(t.path("state").join(id)).unwrap();
    lock.lock().unwrap();
    let children: Vec<Child> = calls.iter().map(|args| begin(t, args)).collect();
    for child in &children {
        until("it waits for the lock", || waits(child.id()));
    }
    lock.unlock().unwrap();
    children.into_iter().map(|child| child.wait_with_output().unwrap()).collect()
}

/// Whether a process is in the kernel's list of those that wait for a lock.
fn waits(pid: u32) -> bool {
    let locks = std::fs::read_to_string(Path::new("/proc/locks")).unwrap();
    locks.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        words.next() == Some("->") && words.nth(3) == Some(&pid.to_string())
    })
}

fn codes(outputs: &[Output]) -> Vec<i32> {
    let mut codes: Vec<_> = outputs.iter().map(|o| o.status.code().unwrap()).collect();
    codes.sort_unstable();
    codes
}

#[test]
fn one_of_two_deletions_finds_nothing_left() {
    only_ours(|t| {
        t.args(&["sleep", "1000"]);
        t.ok(&["create", "d"]);
        let outputs = contended(t, "d", &[&["delete", "d"], &["delete", "d"]]);
        assert_eq!(codes(&outputs), [0, 1], "{outputs:?}");
        let loser = outputs.iter().find(|o| o.status.code() == Some(1)).unwrap();
        assert!(String::from_utf8_lossy(&loser.stderr).contains("container does not exist"), "{loser:?}");
        t.ok(&["create", "d"]);
        let forced = contended(t, "d", &[&["delete", "--force", "d"], &["delete", "--force", "d"]]);
        assert_eq!(codes(&forced), [0, 0], "{forced:?}");
        assert!(!t.path("state/d").exists());
    });
}

#[test]
fn a_start_and_a_deletion_come_one_after_the_other() {
    only_ours(|t| {
        t.args(&["sleep", "1000"]);
        t.ok(&["create", "d"]);
        let outputs = contended(t, "d", &[&["start", "d"], &["delete", "d"]]);
        assert_eq!(codes(&outputs), [0, 1], "{outputs:?}");
        // Whoever came first decides whether there still is a container.
        let started = outputs[0].status.success();
        assert_eq!(t.call(&["state", "d"]).status.success(), started);
        if started {
            assert_eq!(t.state("d")["status"], "running");
        }
    });
}

#[test]
fn only_one_of_two_starts_starts_it() {
    only_ours(|t| {
        t.args(&["sleep", "1000"]);
        t.ok(&["create", "d"]);
        let outputs = contended(t, "d", &[&["start", "d"], &["start", "d"]]);
        assert_eq!(codes(&outputs), [0, 1], "{outputs:?}");
        assert_eq!(t.state("d")["status"], "running");
    });
}
