//! The resources as cgroup v1 has them.

use std::borrow::Cow;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::super::error::{CgroupError, Result};
use super::values::{self, Cpu, Memory, field};
use super::{Missing, Settings, Value};

/// Everything but the devices.
pub(in super::super) fn settings(resources: &LinuxResources) -> Result<Settings> {
    let mut settings = Settings::default();
    if resources.unified().as_ref().is_some_and(|unified| !unified.is_empty()) {
        return Err(CgroupError::invalid(
            "linux.resources.unified",
            "invalid configuration: this machine has cgroup v1",
        ));
    }
    if let Some(memory) = resources.memory() {
        add_memory(&mut settings, memory)?;
    }
    if let Some(cpu) = resources.cpu() {
        add_cpu(&mut settings, cpu)?;
    }
    if let Some(limit) = resources.pids().map(|pids| values::pids(&pids)).transpose()?.flatten() {
        settings.add(field::PIDS_LIMIT, "pids.max", limit.max());
    }
    if let Some(block) = resources.block_io() {
        add_block(&mut settings, block)?;
    }
    for (index, huge) in resources.hugepage_limits().iter().flatten().enumerate() {
        let field = format!("linux.resources.hugepageLimits[{index}]");
        let size = values::page_size(&field, huge.page_size())?;
        settings.add(field.clone(), format!("hugetlb.{size}.limit_in_bytes"), huge.limit());
        // Linux 5.7: what is reserved counts as used, so that a page fault can't fail.
        settings.add_optional(field, format!("hugetlb.{size}.rsvd.limit_in_bytes"), huge.limit());
    }
    if let Some(network) = resources.network() {
        if let Some(class) = network.class_id().filter(|class| *class != 0) {
            settings.add(field::NETWORK_CLASS, "net_cls.classid", class);
        }
        for priority in network.priorities().iter().flatten() {
            let name = values::word(field::NETWORK_PRIORITIES, priority.name())?;
            settings.add(field::NETWORK_PRIORITIES, "net_prio.ifpriomap", format!("{name} {}", priority.priority()));
        }
    }
    super::v2::add_rdma(&mut settings, resources)?;
    Ok(settings)
}

fn add_memory(settings: &mut Settings, memory: &LinuxMemory) -> Result<()> {
    let Memory { limit, with_swap, reservation, swappiness } = Memory::new(memory)?;
    if let Some(limit) = limit {
        settings.add(field::MEMORY_LIMIT, "memory.limit_in_bytes", limit.minus_one());
    }
    if let Some(limit) = with_swap {
        // Only given as a limit does its absence matter: a kernel without swap accounting has none to lift.
        let asked = memory.swap().is_some_and(|swap| swap > 0);
        let add = if asked { Settings::add } else { Settings::add_optional };
        add(settings, field::MEMORY_SWAP, "memory.memsw.limit_in_bytes", limit.minus_one());
    }
    if let Some(limit) = reservation {
        settings.add(field::MEMORY_RESERVATION, "memory.soft_limit_in_bytes", limit.minus_one());
    }
    if let Some(swappiness) = swappiness {
        settings.add(field::MEMORY_SWAPPINESS, "memory.swappiness", swappiness);
    }
    if memory.disable_oom_killer() == Some(true) {
        settings.add(field::MEMORY_DISABLE_OOM, "memory.oom_control", 1);
    }
    Ok(())
}

fn add_cpu(settings: &mut Settings, cpu: &LinuxCpu) -> Result<()> {
    let Cpu { shares, quota, period, burst, idle } = Cpu::new(cpu)?;
    if let Some(shares) = shares.filter(|_| idle != Some(1)) {
        settings.add(field::CPU_SHARES, "cpu.shares", shares);
    }
    if let Some(idle) = idle {
        settings.add(field::CPU_IDLE, "cpu.idle", idle);
    }
    if let Some(period) = period {
        settings.add(field::CPU_PERIOD, "cpu.cfs_period_us", period);
    }
    if let Some(quota) = quota {
        settings.add(field::CPU_QUOTA, "cpu.cfs_quota_us", quota.minus_one());
    }
    if let Some(burst) = burst {
        settings.add(field::CPU_BURST, "cpu.cfs_burst_us", burst);
    }
    if let Some(period) = cpu.realtime_period().filter(|period| *period != 0) {
        settings.add(field::CPU_RT_PERIOD, "cpu.rt_period_us", period);
    }
    if let Some(runtime) = cpu.realtime_runtime().filter(|runtime| *runtime != 0) {
        settings.add(field::CPU_RT_RUNTIME, "cpu.rt_runtime_us", runtime);
    }
    if let Some(cpus) = values::list(field::CPU_CPUS, cpu.cpus().as_deref())? {
        settings.add(field::CPU_CPUS, "cpuset.cpus", cpus);
    }
    if let Some(mems) = values::list(field::CPU_MEMS, cpu.mems().as_deref())? {
        settings.add(field::CPU_MEMS, "cpuset.mems", mems);
    }
    Ok(())
}

fn add_block(settings: &mut Settings, block: &LinuxBlockIo) -> Result<()> {
    /// BFQ's file on newer kernels, CFQ's on older ones.
    fn either(bfq: &'static str, cfq: &'static str, value: &str) -> Vec<(Cow<'static, str>, Value)> {
        [bfq, cfq].map(|file| (file.into(), Value::Text(value.to_owned()))).into()
    }
    if let Some(weight) = values::weight(field::BLKIO_WEIGHT, block.weight())? {
        let files = either("blkio.bfq.weight", "blkio.weight", &weight.to_string());
        settings.push(field::BLKIO_WEIGHT, files, Missing::Error);
    }
    if let Some(weight) = values::weight("linux.resources.blockIO.leafWeight", block.leaf_weight())? {
        // Went with CFQ in Linux 5.0.
        settings.add_optional("linux.resources.blockIO.leafWeight", "blkio.leaf_weight", weight);
    }
    for (index, weighted) in block.weight_device().iter().flatten().enumerate() {
        let field = format!("linux.resources.blockIO.weightDevice[{index}]");
        let device = values::device(&field, weighted.major(), weighted.minor())?;
        if let Some(weight) = values::weight(&field, weighted.weight())? {
            let files = either("blkio.bfq.weight_device", "blkio.weight_device", &format!("{device} {weight}"));
            settings.push(field.clone(), files, Missing::Error);
        }
        if let Some(weight) = values::weight(&field, weighted.leaf_weight())? {
            settings.add_optional(field, "blkio.leaf_weight_device", format!("{device} {weight}"));
        }
    }
    for (list, file, _, devices) in values::throttles(block) {
        for (index, throttle) in devices.iter().enumerate() {
            let field = format!("{list}[{index}]");
            let device = values::device(&field, throttle.major(), throttle.minor())?;
            settings.add(field, file, format!("{device} {}", throttle.rate()));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines(resources: serde_json::Value) -> Vec<String> {
        settings(&serde_json::from_value(resources).unwrap()).unwrap().lines()
    }

    #[test]
    fn every_limit_has_its_file() {
        let resources = json!({
            "memory": {"limit": 1 << 20, "swap": 1 << 21, "reservation": 1 << 19, "swappiness": 60, "disableOOMKiller": true},
            "cpu": {"shares": 512, "quota": 50000, "period": 100_000, "burst": 1000, "idle": 0, "cpus": "0-1", "mems": "0",
                "realtimeRuntime": 950, "realtimePeriod": 1000},
            "pids": {"limit": 100},
            "blockIO": {"weight": 500, "weightDevice": [{"major": 8, "minor": 0, "weight": 20}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 1, "rate": 1000}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 2, "rate": 0}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}],
            "network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 5}]},
            "rdma": {"mlx5_0": {"hcaHandles": 3}},
        });
        assert_eq!(
            lines(resources),
            [
                "memory.limit_in_bytes=1048576",
                "memory.memsw.limit_in_bytes=2097152",
                "memory.soft_limit_in_bytes=524288",
                "memory.swappiness=60",
                "memory.oom_control=1",
                "cpu.shares=512",
                "cpu.idle=0",
                "cpu.cfs_period_us=100000",
                "cpu.cfs_quota_us=50000",
                "cpu.cfs_burst_us=1000",
                "cpu.rt_period_us=1000",
                "cpu.rt_runtime_us=950",
                "cpuset.cpus=0-1",
                "cpuset.mems=0",
                "pids.max=100",
                "blkio.bfq.weight=500|blkio.weight=500",
                "blkio.bfq.weight_device=8:0 20|blkio.weight_device=8:0 20",
                "blkio.throttle.read_bps_device=8:1 1000",
                "blkio.throttle.write_iops_device=8:2 0",
                "hugetlb.2MB.limit_in_bytes=4194304",
                "hugetlb.2MB.rsvd.limit_in_bytes=4194304",
                "net_cls.classid=1048577",
                "net_prio.ifpriomap=eth0 5",
                "rdma.max=mlx5_0 hca_handle=3",
            ]
        );
    }

    #[test]
    fn zero_leaves_alone_and_minus_one_lifts() {
        let resources = json!({
            "memory": {"limit": -1}, "cpu": {"shares": 0, "quota": -1, "period": 0}, "pids": {"limit": -1}, "blockIO": {"weight": 0},
        });
        let expected =
            ["memory.limit_in_bytes=-1", "memory.memsw.limit_in_bytes=-1", "cpu.cfs_quota_us=-1", "pids.max=max"];
        assert_eq!(lines(resources), expected);
        assert!(lines(json!({"memory": {"limit": 0, "swap": 0}})).is_empty());
        assert_eq!(lines(json!({"pids": {"limit": 0}})), ["pids.max=1"], "which has a meaning of its own");
    }
}
