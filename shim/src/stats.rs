//! The container's use of resources, in containerd's messages: one for each version of cgroups.

use std::collections::BTreeMap;
use std::path::Path;

use containerd_shim_protos::cgroups::metrics as v1;
use containerd_shim_protos::cgroups_v2::metrics as v2;
use dhow_runtime::cgroup::Stats;
use dhow_runtime::cgroup::stats::{BlkioEntry, MemoryEntry, Pressure, PressureShare};
use protobuf::well_known_types::any::Any;

use crate::error::{Error, Result};
use crate::events::any;
use crate::oom;

/// What the container uses now.
pub(crate) fn of(runtime_root: &Path, id: &str) -> Result<Any> {
    let cgroup = oom::cgroup(runtime_root, id).filter(|cgroup| !cgroup.is_none());
    let cgroup = cgroup.ok_or_else(|| Error::NotFound { what: format!("cgroup of {id}") })?;
    let stats = cgroup.stats().map_err(dhow_runtime::Error::from)?;
    // The nameless hierarchy is that of version 2; a hybrid has it beside the others.
    let is_v2 = cgroup.paths().keys().all(String::is_empty);
    Ok(if is_v2 { any(&of_v2(&stats)) } else { any(&of_v1(&stats)) })
}

fn of_v1(stats: &Stats) -> v1::Metrics {
    let (cpu, throttling) = (&stats.cpu.usage, &stats.cpu.throttling);
    v1::Metrics {
        cpu: Some(v1::CPUStat {
            usage: Some(v1::CPUUsage {
                total: cpu.total,
                kernel: cpu.kernel,
                user: cpu.user,
                per_cpu: cpu.percpu.clone(),
                ..Default::default()
            })
            .into(),
            throttling: Some(v1::Throttle {
                periods: throttling.periods,
                throttled_periods: throttling.throttled_periods,
                throttled_time: throttling.throttled_time,
                ..Default::default()
            })
            .into(),
            ..Default::default()
        })
        .into(),
        memory: Some(memory_v1(stats)).into(),
        pids: Some(v1::PidsStat { current: stats.pids.current, limit: stats.pids.limit, ..Default::default() }).into(),
        blkio: Some(v1::BlkIOStat {
            io_service_bytes_recursive: stats.blkio.bytes.iter().map(blkio_v1).collect(),
            io_serviced_recursive: stats.blkio.operations.iter().map(blkio_v1).collect(),
            ..Default::default()
        })
        .into(),
        hugetlb: stats
            .hugetlb
            .iter()
            .map(|(size, pages)| v1::HugetlbStat {
                usage: pages.usage,
                max: pages.max,
                failcnt: pages.failcnt,
                pagesize: size.clone(),
                ..Default::default()
            })
            .collect(),
        ..Default::default()
    }
}

fn memory_v1(stats: &Stats) -> v1::MemoryStat {
    let raw = reader(&stats.memory.raw);
    v1::MemoryStat {
        cache: raw("cache"),
        rss: raw("rss"),
        rss_huge: raw("rss_huge"),
        mapped_file: raw("mapped_file"),
        dirty: raw("dirty"),
        writeback: raw("writeback"),
        pg_pg_in: raw("pgpgin"),
        pg_pg_out: raw("pgpgout"),
        pg_fault: raw("pgfault"),
        pg_maj_fault: raw("pgmajfault"),
        inactive_anon: raw("inactive_anon"),
        active_anon: raw("active_anon"),
        inactive_file: raw("inactive_file"),
        active_file: raw("active_file"),
        unevictable: raw("unevictable"),
        hierarchical_memory_limit: raw("hierarchical_memory_limit"),
        hierarchical_swap_limit: raw("hierarchical_memsw_limit"),
        total_cache: raw("total_cache"),
        total_rss: raw("total_rss"),
        total_rss_huge: raw("total_rss_huge"),
        total_mapped_file: raw("total_mapped_file"),
        total_dirty: raw("total_dirty"),
        total_writeback: raw("total_writeback"),
        total_pg_pg_in: raw("total_pgpgin"),
        total_pg_pg_out: raw("total_pgpgout"),
        total_pg_fault: raw("total_pgfault"),
        total_pg_maj_fault: raw("total_pgmajfault"),
        total_inactive_anon: raw("total_inactive_anon"),
        total_active_anon: raw("total_active_anon"),
        total_inactive_file: raw("total_inactive_file"),
        total_active_file: raw("total_active_file"),
        total_unevictable: raw("total_unevictable"),
        usage: Some(entry_v1(&stats.memory.usage)).into(),
        swap: Some(entry_v1(&stats.memory.swap)).into(),
        kernel: Some(entry_v1(&stats.memory.kernel)).into(),
        kernel_tcp: Some(entry_v1(&stats.memory.kernel_tcp)).into(),
        ..Default::default()
    }
}

fn entry_v1(entry: &MemoryEntry) -> v1::MemoryEntry {
    v1::MemoryEntry {
        limit: entry.limit,
        usage: entry.usage,
        max: entry.max,
        failcnt: entry.failcnt,
        ..Default::default()
    }
}

fn blkio_v1(entry: &BlkioEntry) -> v1::BlkIOEntry {
    v1::BlkIOEntry {
        op: entry.op.clone(),
        major: entry.major,
        minor: entry.minor,
        value: entry.value,
        ..Default::default()
    }
}

fn of_v2(stats: &Stats) -> v2::Metrics {
    let events = reader(&stats.memory.events);
    v2::Metrics {
        pids: Some(v2::PidsStat { current: stats.pids.current, limit: stats.pids.limit, ..Default::default() }).into(),
        cpu: Some(v2::CPUStat {
            usage_usec: stats.cpu.usage.total / 1000,
            user_usec: stats.cpu.usage.user / 1000,
            system_usec: stats.cpu.usage.kernel / 1000,
            nr_periods: stats.cpu.throttling.periods,
            nr_throttled: stats.cpu.throttling.throttled_periods,
            throttled_usec: stats.cpu.throttling.throttled_time / 1000,
            psi: stats.cpu.psi.as_ref().map(pressure).into(),
            ..Default::default()
        })
        .into(),
        memory: Some(memory_v2(stats)).into(),
        io: Some(v2::IOStat {
            usage: io_v2(stats),
            psi: stats.blkio.psi.as_ref().map(pressure).into(),
            ..Default::default()
        })
        .into(),
        hugetlb: stats
            .hugetlb
            .iter()
            .map(|(size, pages)| v2::HugeTlbStat {
                current: pages.usage,
                max: pages.max,
                pagesize: size.clone(),
                failcnt: pages.failcnt,
                ..Default::default()
            })
            .collect(),
        memory_events: Some(v2::MemoryEvents {
            low: events("low"),
            high: events("high"),
            max: events("max"),
            oom: events("oom"),
            oom_kill: events("oom_kill"),
            oom_group_kill: events("oom_group_kill"),
            ..Default::default()
        })
        .into(),
        ..Default::default()
    }
}

fn memory_v2(stats: &Stats) -> v2::MemoryStat {
    let raw = reader(&stats.memory.raw);
    // The runtime counts swap as v1 does, together with memory.
    let (usage, swap) = (&stats.memory.usage, &stats.memory.swap);
    let swap_limit = if swap.limit == u64::MAX { u64::MAX } else { swap.limit.saturating_sub(usage.limit) };
    v2::MemoryStat {
        anon: raw("anon"),
        file: raw("file"),
        kernel_stack: raw("kernel_stack"),
        slab: raw("slab"),
        sock: raw("sock"),
        shmem: raw("shmem"),
        file_mapped: raw("file_mapped"),
        file_dirty: raw("file_dirty"),
        file_writeback: raw("file_writeback"),
        anon_thp: raw("anon_thp"),
        inactive_anon: raw("inactive_anon"),
        active_anon: raw("active_anon"),
        inactive_file: raw("inactive_file"),
        active_file: raw("active_file"),
        unevictable: raw("unevictable"),
        slab_reclaimable: raw("slab_reclaimable"),
        slab_unreclaimable: raw("slab_unreclaimable"),
        pgfault: raw("pgfault"),
        pgmajfault: raw("pgmajfault"),
        workingset_refault: raw("workingset_refault_file"),
        workingset_activate: raw("workingset_activate_file"),
        workingset_nodereclaim: raw("workingset_nodereclaim"),
        pgrefill: raw("pgrefill"),
        pgscan: raw("pgscan"),
        pgsteal: raw("pgsteal"),
        pgactivate: raw("pgactivate"),
        pgdeactivate: raw("pgdeactivate"),
        pglazyfree: raw("pglazyfree"),
        pglazyfreed: raw("pglazyfreed"),
        thp_fault_alloc: raw("thp_fault_alloc"),
        thp_collapse_alloc: raw("thp_collapse_alloc"),
        usage: usage.usage,
        usage_limit: usage.limit,
        max_usage: usage.max,
        swap_usage: swap.usage.saturating_sub(usage.usage),
        swap_limit,
        psi: stats.memory.psi.as_ref().map(pressure).into(),
        ..Default::default()
    }
}

/// io.stat has one line per device; the runtime's list has one entry per device and kind of operation.
fn io_v2(stats: &Stats) -> Vec<v2::IOEntry> {
    let mut devices: BTreeMap<(u64, u64), v2::IOEntry> = BTreeMap::new();
    let mut add = |entry: &BlkioEntry, bytes: bool| {
        let device = devices.entry((entry.major, entry.minor)).or_default();
        (device.major, device.minor) = (entry.major, entry.minor);
        match (entry.op.to_ascii_lowercase().as_str(), bytes) {
            ("read", true) => device.rbytes = entry.value,
            ("write", true) => device.wbytes = entry.value,
            ("read", false) => device.rios = entry.value,
            ("write", false) => device.wios = entry.value,
            _ => {}
        }
    };
    stats.blkio.bytes.iter().for_each(|entry| add(entry, true));
    stats.blkio.operations.iter().for_each(|entry| add(entry, false));
    devices.into_values().collect()
}

fn pressure(pressure: &Pressure) -> v2::PSIStats {
    let share = |share: &PressureShare| v2::PSIData {
        avg10: share.avg10,
        avg60: share.avg60,
        avg300: share.avg300,
        total: share.total,
        ..Default::default()
    };
    v2::PSIStats {
        some: Some(share(&pressure.some)).into(),
        full: Some(share(&pressure.full)).into(),
        ..Default::default()
    }
}

/// What a file of `name value` lines says; 0 for what it does not.
fn reader(values: &BTreeMap<String, u64>) -> impl Fn(&str) -> u64 + '_ {
    |name| values.get(name).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_joined_from_their_operations() {
        let entry = |op: &str, value| BlkioEntry { major: 8, minor: 1, op: op.into(), value };
        let mut stats = Stats::default();
        stats.blkio.bytes = vec![entry("Read", 10), entry("Write", 20), entry("Discard", 5)];
        stats.blkio.operations = vec![entry("Read", 1), entry("Write", 2)];
        let expected =
            v2::IOEntry { major: 8, minor: 1, rbytes: 10, wbytes: 20, rios: 1, wios: 2, ..Default::default() };
        assert_eq!(io_v2(&stats), [expected]);
    }

    #[test]
    fn swap_is_told_apart_from_memory_again() {
        let mut stats = Stats::default();
        stats.memory.usage = MemoryEntry { limit: 100, usage: 60, ..MemoryEntry::default() };
        stats.memory.swap = MemoryEntry { limit: 150, usage: 70, ..MemoryEntry::default() };
        let memory = memory_v2(&stats);
        assert_eq!((memory.swap_usage, memory.swap_limit, memory.usage_limit), (10, 50, 100));
        stats.memory.swap.limit = u64::MAX;
        assert_eq!(memory_v2(&stats).swap_limit, u64::MAX);
    }
}
