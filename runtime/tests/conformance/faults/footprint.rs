//! What a bench has on the machine: processes, mounts, cgroups, files.

use std::collections::BTreeSet;
use std::path::Path;

use crate::support::{Bench, until};

/// All of it, as `kind: name`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Footprint(BTreeSet<String>);

/// Where the bench's own commands write to.
const OWN: [&str; 4] = ["config.json", "stdout", "stderr", "supervised"];

impl Footprint {
    pub(crate) fn of(t: &Bench) -> Self {
        let mut found = BTreeSet::new();
        processes(t, &mut found);
        let dir = t.path("");
        let dir = dir.to_str().unwrap();
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
        found.extend(mounts.lines().filter(|line| line.contains(dir)).map(|line| format!("mount: {line}")));
        directories(Path::new("/sys/fs/cgroup"), &t.cgroup(), false, &mut found);
        for (place, depth) in [("", 0), ("state", 9), ("rootfs", 1)] {
            files(&t.path(place), depth, &mut found);
        }
        Self(found)
    }

    /// Waits until there is as much as there was: processes that were killed take a moment to go.
    #[track_caller]
    pub(crate) fn is_back(&self, t: &Bench, why: &str) {
        let now = || Self::of(t).0;
        let same = || now() == self.0;
        if !same() {
            until(&format!("{why}: {:?} as before", now().symmetric_difference(&self.0)), same);
        }
    }
}

/// Processes of the bench: by their cgroup, or, before they are in it, by the runtime's command line.
fn processes(t: &Bench, found: &mut BTreeSet<String>) {
    let (dir, cgroup) = (t.path("state").display().to_string(), t.cgroup());
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let read =
            |name| std::fs::read(entry.path().join(name)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let (Ok(line), Ok(place)) = (read("cmdline"), read("cgroup")) else { continue };
        if line.contains(&dir) || (!line.is_empty() && place.contains(&cgroup)) {
            found.insert(format!("process: {} {line}", entry.file_name().display()));
        }
    }
}

/// Cgroups by this name in any hierarchy, and all below.
fn directories(folder: &Path, name: &str, inside: bool, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        let inside = inside || entry.file_name() == name;
        if inside {
            found.insert(format!("cgroup: {}", entry.path().display()));
        }
        directories(&entry.path(), name, inside, found);
    }
}

fn files(folder: &Path, depth: usize, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if OWN.iter().any(|own| entry.file_name() == *own) {
            continue;
        }
        found.insert(format!("file: {}", entry.path().display()));
        if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            files(&entry.path(), depth - 1, found);
        }
    }
}
