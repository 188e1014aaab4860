//! Statistics of cgroup v1.
//!
//! Memory and processor time are read with cgroups-rs. Block devices and the kernel's memory are not: for the former it opens
//! some seventy files, most of them twice, takes device numbers for 16 bits and does not know BFQ's names; for the latter it also
//! reads `memory.kmem.slabinfo`, which is as long as the machine has caches.

use cgroups_rs::fs::cpuacct::CpuAcctController;
use cgroups_rs::fs::memory::MemController;

use super::{BlkioEntry, Cgroup, Cpu, CpuSet, CpuUsage, Dir, HugeTlb, Memory, MemoryEntry, Pids, Stats, Throttling};
use super::{flat, huge_page_sizes, memory_entry};

pub(super) fn stats(cgroup: &Cgroup) -> Stats {
    let mut stats = Stats::default();
    if let Some(dir) = cgroup.dir("cpuacct") {
        stats.cpu.usage = cpu_usage(dir);
    }
    if let Some(dir) = cgroup.dir("cpu") {
        stats.cpu = Cpu { throttling: throttling(dir), ..stats.cpu };
    }
    if let Some(dir) = cgroup.dir("cpuset") {
        stats.cpuset = CpuSet::read(dir);
    }
    if let Some(dir) = cgroup.dir("memory") {
        stats.memory = memory(dir);
    }
    if let Some(dir) = cgroup.dir("pids") {
        stats.pids =
            Pids { current: dir.number("pids.current").unwrap_or(0), limit: dir.number("pids.max").unwrap_or(0) };
    }
    if let Some(dir) = cgroup.dir("blkio") {
        stats.blkio.bytes =
            blkio(dir, ["blkio.bfq.io_service_bytes_recursive", "blkio.throttle.io_service_bytes_recursive"]);
        stats.blkio.operations =
            blkio(dir, ["blkio.bfq.io_serviced_recursive", "blkio.throttle.io_serviced_recursive"]);
    }
    if let Some(dir) = cgroup.dir("hugetlb") {
        for size in huge_page_sizes() {
            let number = |name| dir.number(&format!("hugetlb.{size}.{name}"));
            if let Some(usage) = number("usage_in_bytes") {
                let huge = HugeTlb {
                    usage,
                    max: number("max_usage_in_bytes").unwrap_or(0),
                    failcnt: number("failcnt").unwrap_or(0),
                };
                stats.hugetlb.insert(size, huge);
            }
        }
    }
    stats
}

fn cpu_usage(dir: &Dir) -> CpuUsage {
    let path = dir.path().to_owned();
    let account = CpuAcctController::new(path.clone(), path).cpuacct();
    let list = |text: &str| text.split_whitespace().filter_map(|number| number.parse().ok()).collect();
    CpuUsage {
        total: account.usage,
        percpu: list(&account.usage_percpu),
        percpu_kernel: list(&account.usage_percpu_sys),
        percpu_user: list(&account.usage_percpu_user),
        kernel: account.usage_sys,
        user: account.usage_user,
    }
}

fn throttling(dir: &Dir) -> Throttling {
    let stat = flat(&dir.read("cpu.stat").unwrap_or_default());
    let number = |name| stat.get(name).copied().unwrap_or(0);
    Throttling {
        periods: number("nr_periods"),
        throttled_periods: number("nr_throttled"),
        throttled_time: number("throttled_time"),
    }
}

fn memory(dir: &Dir) -> Memory {
    let path = dir.path().to_owned();
    let controller = MemController::new(path.clone(), path, false);
    let memory = controller.memory_stat();
    let (swap, tcp) = (controller.memswap(), controller.kmem_tcp_stat());
    let entry = |limit: i64, usage, max, failcnt| MemoryEntry { limit: limit.cast_unsigned(), usage, max, failcnt };
    Memory {
        cache: memory.stat.cache,
        usage: entry(memory.limit_in_bytes, memory.usage_in_bytes, memory.max_usage_in_bytes, memory.fail_cnt),
        swap: entry(swap.limit_in_bytes, swap.usage_in_bytes, swap.max_usage_in_bytes, swap.fail_cnt),
        kernel: memory_entry(
            dir,
            "memory.kmem.limit_in_bytes",
            "memory.kmem.usage_in_bytes",
            "memory.kmem.max_usage_in_bytes",
            "memory.kmem.failcnt",
        ),
        kernel_tcp: entry(tcp.limit_in_bytes, tcp.usage_in_bytes, tcp.max_usage_in_bytes, tcp.fail_cnt),
        raw: memory.stat.raw.into_iter().collect(),
        psi: None,
        events: [("oom_kill".to_owned(), memory.oom_control.oom_kill)].into(),
    }
}

/// Lines of `MAJOR:MINOR OPERATION VALUE`, from the first file that has any.
fn blkio(dir: &Dir, files: [&str; 2]) -> Vec<BlkioEntry> {
    let mut entries = files.iter().map(|file| parse_blkio(&dir.read(file).unwrap_or_default()));
    entries.find(|entries| !entries.is_empty()).unwrap_or_default()
}

fn parse_blkio(text: &str) -> Vec<BlkioEntry> {
    let entry = |line: &str| {
        let mut fields = line.split_whitespace();
        let (major, minor) = fields.next()?.split_once(':')?;
        Some(BlkioEntry {
            major: major.parse().ok()?,
            minor: minor.parse().ok()?,
            op: fields.next()?.to_owned(),
            value: fields.next()?.parse().ok()?,
        })
    };
    text.lines().filter_map(entry).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mutation::{damaged, damages, rounds};

    proptest! {
        #![proptest_config(rounds(300))]

        #[test]
        fn damaged_statistics_are_read_as_far_as_they_go(damages in damages()) {
            let text = damaged(b"259:65536 Read 10\n259:65536 Write 20\nTotal 30\nnr_periods 7\n0-3,9\n", &damages);
            let text = String::from_utf8_lossy(&text);
            prop_assert!(parse_blkio(&text).len() <= text.lines().count());
            prop_assert!(flat(&text).len() <= text.lines().count());
        }
    }

    #[test]
    fn block_devices_with_large_numbers() {
        let entries = parse_blkio("259:65536 Read 10\n259:65536 Write 20\nTotal 30\n");
        assert_eq!(entries.len(), 2);
        assert_eq!(entries[1], BlkioEntry { major: 259, minor: 65536, op: "Write".into(), value: 20 });
    }
}
