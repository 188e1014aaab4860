//! What a test left behind in its sandbox: processes, mounts, network interfaces. ([`crate::Instance`] looks after cgroups.)

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

/// What is there at one moment.
#[derive(Debug)]
pub struct Census(BTreeSet<String>);

impl Census {
    /// Looks around in the sandbox.
    #[must_use]
    pub fn take() -> Self {
        let mut found = BTreeSet::new();
        processes(&mut found);
        mounts(&mut found);
        interfaces(&mut found);
        Self(found)
    }

    /// Panics when something is there that was not there then. What is just ending gets `patience` to do so.
    ///
    /// # Panics
    /// When something of it is still there after that.
    #[track_caller]
    pub fn assert_nothing_new(&self, patience: Duration) {
        let end = Instant::now() + patience;
        loop {
            let left: Vec<String> = Self::take().0.difference(&self.0).cloned().collect();
            if left.is_empty() {
                return;
            }
            assert!(Instant::now() < end, "left behind:\n{}", left.join("\n"));
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

fn processes(found: &mut BTreeSet<String>) {
    let Ok(entries) = fs::read_dir("/proc") else { return };
    let me = std::process::id();
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else { continue };
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).unwrap_or('?');
        if pid == 1 || pid == me || state == 'Z' {
            continue;
        }
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        found.insert(format!("process {pid}: {}", String::from_utf8_lossy(&line).replace('\0', " ")));
    }
}

fn mounts(found: &mut BTreeSet<String>) {
    for line in fs::read_to_string("/proc/self/mountinfo").unwrap_or_default().lines() {
        let place = line.split(' ').nth(4).unwrap_or_default();
        found.insert(format!("mount {place} {}", line.split(" - ").nth(1).unwrap_or_default()));
    }
}

/// A network's bridge lives as long as its instance; what a container had must be gone.
fn interfaces(found: &mut BTreeSet<String>) {
    let said = std::process::Command::new("ip").args(["-o", "link", "show", "type", "veth"]).output();
    for line in String::from_utf8_lossy(&said.map(|out| out.stdout).unwrap_or_default()).lines() {
        found.insert(format!("interface {}", line.split(' ').nth(1).unwrap_or_default()));
    }
}
