//! What a run of ours could leave on the machine, counted before and after.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::shell::{command, output};

/// Everything of interest that is there now, as `kind: name`.
#[derive(Debug)]
pub(crate) struct Census(BTreeSet<String>);

/// Programs that only we start here.
const OURS: [&str; 7] = [
    "dhow",
    "dhow-runtime",
    "containerd-shim-dhow-v2",
    "dhow-snapshotter",
    "dhow-netplug",
    "docker-registry",
    "dhow-bench",
];

/// Cgroups that dhow, our tests' shims, podman and containerd make containers' cgroups in and keep for the next container.
const CGROUP_PARENTS: [&str; 5] = ["dhow", "dhow-shim-test", "libpod_parent", "libpod_parent/conmon", "default"];

/// How long what is ending may take: a process exits, and the kernel frees a namespace or a cgroup, in its own time.
const PATIENCE: Duration = Duration::from_secs(60);

/// How much was counted, and what of it was not there `before`, once it has had time to go: empty is how it should be.
pub(crate) fn since(before: &Census) -> (usize, Vec<String>) {
    let end = Instant::now() + PATIENCE;
    loop {
        remove_cgroup_parents(before);
        let now = Census::take();
        let left: Vec<String> = now.0.difference(&before.0).cloned().collect();
        if left.is_empty() || Instant::now() > end {
            return (now.0.len(), left);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

/// Removes the empty ones of [`CGROUP_PARENTS`] that were not there `before`. One in which somebody's cgroup was left is not
/// empty, and stays to be counted.
fn remove_cgroup_parents(before: &Census) {
    let Ok(hierarchies) = fs::read_dir("/sys/fs/cgroup") else { return };
    let hierarchies = hierarchies.flatten().map(|entry| entry.path()).chain(["/sys/fs/cgroup".into()]);
    for hierarchy in hierarchies {
        for parent in CGROUP_PARENTS.iter().rev().map(|name| hierarchy.join(name)) {
            if !before.0.contains(&format!("cgroup: {}", parent.display())) {
                fs::remove_dir(parent).ok();
            }
        }
    }
}

impl Census {
    /// Looks at the machine.
    pub(crate) fn take() -> Self {
        let mut found = BTreeSet::new();
        mounts(&mut found);
        directories(Path::new("/sys/fs/cgroup"), "cgroup", 6, &mut found);
        for (folder, kind) in [("/sys/class/net", "network interface"), ("/run/netns", "network namespace")] {
            names(folder, &mut found, |name| Some(format!("{kind}: {name}")));
        }
        for folder in ["/tmp", "/var/tmp"] {
            names(folder, &mut found, |name| {
                (name.starts_with("dhow") || name.starts_with(".dhow")).then(|| format!("file: {folder}/{name}"))
            });
        }
        for path in ["/run/dhow", "/var/lib/dhow"] {
            if Path::new(path).exists() {
                found.insert(format!("file: {path}"));
            }
        }
        for line in output(&mut command("nft", ["list", "tables"])).unwrap_or_default().lines() {
            found.insert(format!("nft: {line}"));
        }
        processes(&mut found);
        sockets(&mut found);
        Self(found)
    }
}

fn mounts(found: &mut BTreeSet<String>) {
    for line in fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines() {
        let mut fields = line.split(' ');
        let place = fields.nth(4).unwrap_or_default();
        let kind = line.split(" - ").nth(1).unwrap_or_default();
        found.insert(format!("mount: {place} ({kind})"));
    }
}

fn directories(folder: &Path, kind: &str, depth: usize, found: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        found.insert(format!("{kind}: {}", entry.path().display()));
        if depth > 0 {
            directories(&entry.path(), kind, depth - 1, found);
        }
    }
}

fn names(folder: &str, found: &mut BTreeSet<String>, keep: impl Fn(&str) -> Option<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    found.extend(entries.flatten().filter_map(|entry| keep(&entry.file_name().to_string_lossy())));
}

fn processes(found: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir("/proc") else { return };
    for entry in entries.flatten() {
        let pid = entry.file_name().to_string_lossy().into_owned();
        let Ok(line) = fs::read(entry.path().join("cmdline")) else { continue };
        let first = String::from_utf8_lossy(line.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
        let program = first.rsplit('/').next().unwrap_or_default();
        if OURS.contains(&program) {
            found.insert(format!("process: {pid} {program}"));
        }
    }
}

fn sockets(found: &mut BTreeSet<String>) {
    for line in fs::read_to_string("/proc/net/unix").unwrap_or_default().lines().skip(1) {
        if let Some(path) = line.split_ascii_whitespace().nth(7).filter(|path| path.contains("dhow")) {
            found.insert(format!("socket: {path}"));
        }
    }
}
