//! Which processors and memory nodes a container may use (v1; v2 is not asked, as with runc).

use serde::{Deserialize, Serialize};

use super::Dir;

/// The files of the cpuset controller by their names, without the prefix.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuSet {
    /// Numbers of processors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub cpus: Vec<u16>,
    /// No other cgroup beside this one may use them.
    pub cpu_exclusive: u64,
    /// Numbers of memory nodes.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mems: Vec<u16>,
    /// The kernel's own memory for it comes from these nodes, too.
    pub mem_hardwall: u64,
    /// No other cgroup beside this one may use the nodes.
    pub mem_exclusive: u64,
    /// Memory moves along when the nodes change.
    pub memory_migrate: u64,
    /// Cached files are spread over the nodes.
    pub memory_spread_page: u64,
    /// The kernel's caches are spread over the nodes.
    pub memory_spread_slab: u64,
    /// How hard it is to find memory.
    pub memory_pressure: u64,
    /// Tasks are moved between the processors to even out their load.
    pub sched_load_balance: u64,
    /// How far the search for an idle processor goes; -1: as the system has it.
    pub sched_relax_domain_level: i64,
}

impl CpuSet {
    /// Reads the files of a v1 cgroup. What is missing is zero.
    pub(super) fn read(dir: &Dir) -> Self {
        let text = |name: &str| dir.read(&format!("cpuset.{name}")).unwrap_or_default();
        let number = |name: &str| text(name).trim().parse().unwrap_or(0);
        Self {
            cpus: list(&text("cpus")),
            cpu_exclusive: number("cpu_exclusive"),
            mems: list(&text("mems")),
            mem_hardwall: number("mem_hardwall"),
            mem_exclusive: number("mem_exclusive"),
            memory_migrate: number("memory_migrate"),
            memory_spread_page: number("memory_spread_page"),
            memory_spread_slab: number("memory_spread_slab"),
            memory_pressure: number("memory_pressure"),
            sched_load_balance: number("sched_load_balance"),
            sched_relax_domain_level: text("sched_relax_domain_level").trim().parse().unwrap_or(0),
        }
    }
}

/// `0-2,5` → 0, 1, 2, 5.
fn list(text: &str) -> Vec<u16> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse::<u16>().ok()?..=last.parse::<u16>().ok()?)
    };
    text.trim().split(',').filter_map(range).flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_have_ranges() {
        assert_eq!(list("0-2,5\n"), [0, 1, 2, 5]);
        assert_eq!(list("7"), [7]);
        assert!(list("\n").is_empty());
    }
}
