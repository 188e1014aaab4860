//! Many lives, one after the other and in turns: nothing grows.

use std::collections::BTreeMap;

use super::footprint::Footprint;
use crate::support::{Bench, only_ours, until};

/// What the machine has of things that a container takes.
fn figures() -> BTreeMap<&'static str, usize> {
    let count = |path: &str| std::fs::read_dir(path).map_or(0, Iterator::count);
    let lines = |path: &str| std::fs::read_to_string(path).map_or(0, |text| text.lines().count());
    let keys = std::fs::read_to_string("/proc/key-users").unwrap_or_default();
    let keys = keys.lines().find(|line| line.trim_start().starts_with("0:"));
    let keys = keys.and_then(|line| line.split_whitespace().nth(2)?.split('/').next()?.parse().ok());
    BTreeMap::from([
        ("descriptors of this process", count("/proc/self/fd")),
        ("mounts", lines("/proc/self/mountinfo")),
        ("keys of root", keys.unwrap_or(0)),
        ("temporary files", count("/tmp")),
        ("sockets", lines("/proc/net/unix")),
        ("processes", count("/proc")),
    ])
}

fn lives(t: &Bench, rounds: usize) {
    for round in 0..rounds {
        if round % 10 > 0 {
            t.ok(&["run", "x"]);
            continue;
        }
        t.ok(&["create", "x"]);
        t.ok(&["exec", "x", "true"]);
        t.ok(&["start", "x"]);
        t.ok(&["delete", "--force", "x"]);
    }
}

/// `DHOW_SOAK=10000` for as many rounds.
#[test]
fn nothing_grows_over_many_runs() {
    only_ours(|t| {
        let rounds = std::env::var("DHOW_SOAK").map_or(200, |rounds| rounds.parse().unwrap());
        t.args(&["true"]);
        lives(t, 20);
        let (clean, before) = (Footprint::of(t), figures());
        let start = std::time::Instant::now();
        lives(t, rounds);
        println!("{rounds} rounds in {:?}", start.elapsed());
        clean.is_back(t, "after all of them");
        // Other tests run at the same time; something that a run left would be there as often as there were runs. The kernel
        // takes some things away in its own time.
        until("there is as much as there was", || {
            let grown = figures().into_iter().filter(|(what, count)| *count >= before[what] + rounds / 2);
            let grown: Vec<_> = grown.collect();
            if !grown.is_empty() {
                println!("{grown:?} and before {before:?}");
            }
            grown.is_empty()
        });
    });
}
