//! What a container uses.
//!
//! [`Stats`] serialises to the `data` of runc's `events --stats`; containerd's metrics are made from the same fields.

mod cpuset;
mod v1;
mod v2;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Cgroup;
use super::dir::Dir;
use super::error::Result;

pub use cpuset::CpuSet;

/// What a container uses and has used.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Stats {
    /// Processor time.
    pub cpu: Cpu,
    /// Where it may run.
    pub cpuset: CpuSet,
    /// Memory.
    pub memory: Memory,
    /// Tasks.
    pub pids: Pids,
    /// Block devices.
    pub blkio: Blkio,
    /// Huge pages by size (`2MB`).
    pub hugetlb: BTreeMap<String, HugeTlb>,
}

/// Processor time.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Cpu {
    /// How much was used.
    pub usage: CpuUsage,
    /// How often the quota was exhausted.
    pub throttling: Throttling,
    /// How long tasks waited for a processor (v2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// Processor time in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CpuUsage {
    /// All of it.
    #[serde(skip_serializing_if = "is_zero")]
    pub total: u64,
    /// On each processor (v1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu: Vec<u64>,
    /// On each processor, in the kernel (v1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_kernel: Vec<u64>,
    /// On each processor, in programs (v1).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub percpu_user: Vec<u64>,
    /// In the kernel.
    pub kernel: u64,
    /// In programs.
    pub user: u64,
}

/// What the quota did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Throttling {
    /// Periods in which something ran.
    #[serde(skip_serializing_if = "is_zero")]
    pub periods: u64,
    /// Of them those in which the quota was exhausted.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_periods: u64,
    /// Nanoseconds that tasks stood still for it.
    #[serde(skip_serializing_if = "is_zero")]
    pub throttled_time: u64,
}

/// Memory in bytes.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Memory {
    /// Of files.
    #[serde(skip_serializing_if = "is_zero")]
    pub cache: u64,
    /// All of it.
    pub usage: MemoryEntry,
    /// Memory and swap together.
    pub swap: MemoryEntry,
    /// The kernel's on behalf of the container (v1).
    pub kernel: MemoryEntry,
    /// Socket buffers (v1).
    #[serde(rename = "kernelTCP")]
    pub kernel_tcp: MemoryEntry,
    /// memory.stat as it is.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub raw: BTreeMap<String, u64>,
    /// How long tasks waited for memory (v2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
    /// memory.events as it is (v2), or the count of out-of-memory kills (v1). Not in runc's document, and not in ours: readers
    /// look for the word `oom` in the stream of events.
    #[serde(skip_serializing)]
    pub events: BTreeMap<String, u64>,
}

/// One account of memory in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryEntry {
    /// The most that is allowed; `u64::MAX` without a limit.
    pub limit: u64,
    /// Now.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// The most there ever was.
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
}

/// Tasks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pids {
    /// Now.
    #[serde(skip_serializing_if = "is_zero")]
    pub current: u64,
    /// The most that are allowed; 0 without a limit.
    #[serde(skip_serializing_if = "is_zero")]
    pub limit: u64,
}

/// Block devices.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Blkio {
    /// Bytes.
    #[serde(rename = "ioServiceBytesRecursive", skip_serializing_if = "Vec::is_empty")]
    pub bytes: Vec<BlkioEntry>,
    /// Operations.
    #[serde(rename = "ioServicedRecursive", skip_serializing_if = "Vec::is_empty")]
    pub operations: Vec<BlkioEntry>,
    /// How long tasks waited for devices (v2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub psi: Option<Pressure>,
}

/// A count of one device and kind of operation.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BlkioEntry {
    /// Of the device.
    #[serde(skip_serializing_if = "is_zero")]
    pub major: u64,
    /// Of the device.
    #[serde(skip_serializing_if = "is_zero")]
    pub minor: u64,
    /// `Read`, `Write`, `Discard`, …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub op: String,
    /// The count.
    #[serde(skip_serializing_if = "is_zero")]
    pub value: u64,
}

/// Huge pages of one size, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HugeTlb {
    /// Now.
    #[serde(skip_serializing_if = "is_zero")]
    pub usage: u64,
    /// The most there ever was (v1).
    #[serde(skip_serializing_if = "is_zero")]
    pub max: u64,
    /// How often the limit was hit.
    pub failcnt: u64,
}

/// Pressure stall information: how long some, or all, tasks waited.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Pressure {
    /// At least one task.
    pub some: PressureShare,
    /// All of them.
    pub full: PressureShare,
}

/// Shares of time in percent, and microseconds in total.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PressureShare {
    /// Over 10 seconds.
    pub avg10: f64,
    /// Over a minute.
    pub avg60: f64,
    /// Over five minutes.
    pub avg300: f64,
    /// Microseconds since the cgroup was made.
    pub total: u64,
}

impl Cgroup {
    /// What the container uses. What the kernel does not count (a controller that is missing) is zero.
    ///
    /// # Errors
    /// The cgroup is gone.
    pub fn stats(&self) -> Result<Stats> {
        if self.is_v2() { v2::stats(self) } else { Ok(v1::stats(self)) }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "what serde calls")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

/// Lines of `name value`.
fn flat(text: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        let (name, value) = line.split_once(' ')?;
        Some((name.to_owned(), value.trim().parse().ok()?))
    };
    text.lines().filter_map(pair).collect()
}

/// The sizes of huge pages that this machine has, as the kernel names files after them (`2MB`).
fn huge_page_sizes() -> Vec<String> {
    let entries = std::fs::read_dir("/sys/kernel/mm/hugepages").into_iter().flatten().flatten();
    let size = |entry: std::fs::DirEntry| {
        let name = entry.file_name();
        let kilobytes: u64 = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        Some(match kilobytes {
            1_048_576.. => format!("{}GB", kilobytes >> 20),
            1024.. => format!("{}MB", kilobytes >> 10),
            _ => format!("{kilobytes}KB"),
        })
    };
    let mut sizes: Vec<_> = entries.filter_map(size).collect();
    sizes.sort();
    sizes
}

/// One account of memory; a limit that is no number is none.
fn memory_entry(dir: &Dir, limit: &str, usage: &str, max: &str, failures: &str) -> MemoryEntry {
    let number = |file: &str| if file.is_empty() { None } else { dir.number(file) };
    MemoryEntry {
        limit: number(limit).unwrap_or(u64::MAX),
        usage: number(usage).unwrap_or(0),
        max: number(max).unwrap_or(0),
        failcnt: number(failures).unwrap_or(0),
    }
}
