//! The resources as cgroup v2 has them.

use std::borrow::Cow;

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxResources};

use super::super::error::{CgroupError, Result};
use super::values::{self, Cpu, Limit, Memory, field};
use super::{Missing, Settings, Value};

/// Everything but the devices.
pub(in super::super) fn settings(resources: &LinuxResources) -> Result<Settings> {
    let mut settings = Settings::default();
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
        let limit = if huge.limit() < 0 { "max".to_owned() } else { huge.limit().to_string() };
        settings.add(field.clone(), format!("hugetlb.{size}.max"), &limit);
        // What is reserved counts as used, so that a page fault can't fail.
        settings.add_optional(field, format!("hugetlb.{size}.rsvd.max"), limit);
    }
    if let Some(network) = resources.network() {
        if network.class_id().is_some_and(|class| class != 0) {
            return Err(CgroupError::invalid(field::NETWORK_CLASS, "cgroup v2 has no such thing"));
        }
        if network.priorities().as_ref().is_some_and(|priorities| !priorities.is_empty()) {
            return Err(CgroupError::invalid(field::NETWORK_PRIORITIES, "cgroup v2 has no such thing"));
        }
    }
    add_rdma(&mut settings, resources)?;
    add_unified(&mut settings, resources)?;
    Ok(settings)
}

fn add_memory(settings: &mut Settings, memory: &LinuxMemory) -> Result<()> {
    let Memory { limit, with_swap, reservation, .. } = Memory::new(memory)?;
    // Docker and Kubernetes send `false` on v2 as well. swappiness has no counterpart, and as a hint may be left out.
    if memory.disable_oom_killer() == Some(true) {
        return Err(CgroupError::invalid(field::MEMORY_DISABLE_OOM, "cgroup v2 can't do that"));
    }
    let swap = match (limit, with_swap) {
        (_, None) => None,
        (_, Some(Limit::Unlimited)) => Some(Limit::Unlimited),
        // v2 counts swap alone. That it is not below the memory limit has been checked.
        (Some(Limit::Of(limit)), Some(Limit::Of(both))) => Some(Limit::Of(both - limit)),
        (_, Some(Limit::Of(_))) => {
            return Err(CgroupError::invalid(field::MEMORY_SWAP, "needs a memory limit beside it on cgroup v2"));
        }
    };
    if let Some(swap) = swap {
        // A kernel without swap has nothing to limit or to lift.
        let add = if matches!(swap, Limit::Of(1..)) { Settings::add } else { Settings::add_optional };
        add(settings, field::MEMORY_SWAP, "memory.swap.max", swap.max());
    }
    if let Some(limit) = limit {
        settings.add(field::MEMORY_LIMIT, "memory.max", limit.max());
        if let (Limit::Of(limit), Some(true)) = (limit, memory.check_before_update()) {
            settings.usage_below = Some(limit);
        }
    }
    if let Some(limit) = reservation {
        settings.add(field::MEMORY_RESERVATION, "memory.low", limit.max());
    }
    Ok(())
}

fn add_cpu(settings: &mut Settings, cpu: &LinuxCpu) -> Result<()> {
    let Cpu { shares, quota, period, burst, idle } = Cpu::new(cpu)?;
    if let Some(idle) = idle {
        settings.add(field::CPU_IDLE, "cpu.idle", idle);
    }
    // An idle cgroup has the least weight there is, and the kernel refuses any other.
    if let Some(shares) = shares.filter(|_| idle != Some(1)) {
        settings.add(field::CPU_SHARES, "cpu.weight", values::shares_to_weight(shares));
    }
    match (quota, period) {
        (None, None) => {}
        (Some(quota), None) => settings.add(field::CPU_QUOTA, "cpu.max", quota.max()),
        (Some(quota), Some(period)) => settings.add(field::CPU_QUOTA, "cpu.max", format!("{} {period}", quota.max())),
        (None, Some(period)) => {
            let value = vec![(Cow::from("cpu.max"), Value::PeriodBesideQuota(period))];
            settings.push(field::CPU_PERIOD, value, Missing::Error);
        }
    }
    if let Some(burst) = burst {
        // Linux 5.14; only more than nothing is worth an error.
        let add = if burst > 0 { Settings::add } else { Settings::add_optional };
        add(settings, field::CPU_BURST, "cpu.max.burst", burst);
    }
    for (name, set) in [
        (field::CPU_RT_RUNTIME, cpu.realtime_runtime().is_some_and(|runtime| runtime != 0)),
        (field::CPU_RT_PERIOD, cpu.realtime_period().is_some_and(|period| period != 0)),
    ] {
        if set {
            return Err(CgroupError::invalid(name, "cgroup v2 has no such thing"));
        }
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
    /// BFQ's weight has v1's range; the one of io.cost has its own.
    fn either(device: &str, weight: u16) -> Vec<(Cow<'static, str>, Value)> {
        let line = |weight: u64| {
            Value::Text(if device.is_empty() { weight.to_string() } else { format!("{device} {weight}") })
        };
        vec![("io.bfq.weight".into(), line(weight.into())), ("io.weight".into(), line(values::block_weight(weight)))]
    }
    if let Some(weight) = values::weight(field::BLKIO_WEIGHT, block.weight())? {
        settings.push(field::BLKIO_WEIGHT, either("", weight), Missing::Error);
    }
    for (index, weighted) in block.weight_device().iter().flatten().enumerate() {
        let field = format!("linux.resources.blockIO.weightDevice[{index}]");
        let device = values::device(&field, weighted.major(), weighted.minor())?;
        if let Some(weight) = values::weight(&field, weighted.weight())? {
            settings.push(field, either(&device, weight), Missing::Error);
        }
    }
    for (list, _, key, devices) in values::throttles(block) {
        for (index, throttle) in devices.iter().enumerate() {
            let field = format!("{list}[{index}]");
            let device = values::device(&field, throttle.major(), throttle.minor())?;
            // On v1 a rate of 0 lifts the limit.
            let rate = if throttle.rate() == 0 { "max".to_owned() } else { throttle.rate().to_string() };
            settings.add(field, "io.max", format!("{device} {key}={rate}"));
        }
    }
    Ok(())
}

/// The same on both versions.
pub(super) fn add_rdma(settings: &mut Settings, resources: &LinuxResources) -> Result<()> {
    let mut devices: Vec<_> = resources.rdma().iter().flatten().collect();
    devices.sort_by_key(|(device, _)| *device);
    for (device, limits) in devices {
        let field = format!("linux.resources.rdma.{device}");
        let mut line = values::word(&field, device)?.to_owned();
        for (key, value) in [("hca_handle", limits.hca_handles()), ("hca_object", limits.hca_objects())] {
            if let Some(value) = value {
                line.push_str(&format!(" {key}={value}"));
            }
        }
        settings.add(field, "rdma.max", line);
    }
    Ok(())
}

/// Files written as they are named, after everything else so that they win.
fn add_unified(settings: &mut Settings, resources: &LinuxResources) -> Result<()> {
    let mut files: Vec<_> = resources.unified().iter().flatten().collect();
    files.sort();
    for (file, value) in files {
        let field = format!("linux.resources.unified.{file}");
        if file.contains('/') || !file.contains('.') {
            let text = format!("the specified key has not the form CONTROLLER.VALUE `{file}`");
            return Err(CgroupError::invalid(field, text));
        }
        if file.starts_with("cgroup.")
            && !["cgroup.max.depth", "cgroup.max.descendants", "cgroup.pressure"].contains(&file.as_str())
        {
            return Err(CgroupError::invalid(field, "would move, freeze or kill the container"));
        }
        // The kernel takes one line per write.
        for line in value.lines() {
            settings.add(field.clone(), file.clone(), line);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn parse(resources: serde_json::Value) -> Result<Settings> {
        settings(&serde_json::from_value(resources).unwrap())
    }

    #[test]
    fn every_limit_has_its_file() {
        let resources = json!({
            "memory": {"limit": 1000, "swap": 1500, "reservation": 500, "swappiness": 60, "disableOOMKiller": false,
                "checkBeforeUpdate": true},
            "cpu": {"shares": 1024, "quota": 50000, "period": 100_000, "burst": 1000, "cpus": "0-1", "mems": "0"},
            "pids": {"limit": 100},
            "blockIO": {"weight": 500, "weightDevice": [{"major": 8, "minor": 0, "weight": 10}],
                "throttleReadBpsDevice": [{"major": 8, "minor": 1, "rate": 1000}],
                "throttleWriteIOPSDevice": [{"major": 8, "minor": 2, "rate": 0}]},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}],
            "rdma": {"mlx5_0": {"hcaHandles": 3, "hcaObjects": 4}},
            "unified": {"memory.high": "900", "io.latency": "8:0 target=1\n8:16 target=2"},
        });
        let settings = parse(resources).unwrap();
        assert_eq!(settings.usage_below, Some(1000));
        assert_eq!(
            settings.lines(),
            [
                "memory.swap.max=500",
                "memory.max=1000",
                "memory.low=500",
                "cpu.weight=100",
                "cpu.max=50000 100000",
                "cpu.max.burst=1000",
                "cpuset.cpus=0-1",
                "cpuset.mems=0",
                "pids.max=100",
                "io.bfq.weight=500|io.weight=4950",
                "io.bfq.weight=8:0 10|io.weight=8:0 1",
                "io.max=8:1 rbps=1000",
                "io.max=8:2 wiops=max",
                "hugetlb.2MB.max=4194304",
                "hugetlb.2MB.rsvd.max=4194304",
                "rdma.max=mlx5_0 hca_handle=3 hca_object=4",
                "io.latency=8:0 target=1",
                "io.latency=8:16 target=2",
                "memory.high=900",
            ]
        );
    }

    #[test]
    fn memory_and_swap() {
        for (memory, expected) in [
            (json!({"limit": 1000}), &["memory.max=1000"][..]),
            (json!({"limit": 1000, "swap": 1000}), &["memory.swap.max=0", "memory.max=1000"]),
            (json!({"limit": 1000, "swap": -1}), &["memory.swap.max=max", "memory.max=1000"]),
            (json!({"limit": -1}), &["memory.swap.max=max", "memory.max=max"]),
            (json!({"swap": -1}), &["memory.swap.max=max"]),
            (json!({"reservation": 10}), &["memory.low=10"]),
            (json!({"limit": 0, "swap": 0}), &[]),
        ] {
            assert_eq!(parse(json!({"memory": memory})).unwrap().lines(), expected, "{memory}");
        }
    }

    #[test]
    fn cpu_without_shares() {
        for (cpu, expected) in [
            (json!({"quota": -1}), &["cpu.max=max"][..]),
            (json!({"period": 1000}), &["cpu.max=? 1000"]),
            (json!({"idle": 1, "shares": 100}), &["cpu.idle=1"]),
            (json!({"shares": 0, "quota": 0, "period": 0, "realtimeRuntime": 0}), &[]),
        ] {
            assert_eq!(parse(json!({"cpu": cpu})).unwrap().lines(), expected, "{cpu}");
        }
    }

    #[test]
    fn nonsense_names_its_field() {
        for (resources, field) in [
            (json!({"memory": {"limit": -2}}), "memory.limit"),
            (json!({"memory": {"limit": 10, "swap": 5}}), "memory.swap"),
            (json!({"memory": {"swap": 5}}), "memory.swap"),
            (json!({"memory": {"swappiness": 101}}), "memory.swappiness"),
            (json!({"memory": {"disableOOMKiller": true}}), "memory.disableOOMKiller"),
            (json!({"cpu": {"quota": -2}}), "cpu.quota"),
            (json!({"cpu": {"idle": 2}}), "cpu.idle"),
            (json!({"cpu": {"cpus": "x"}}), "cpu.cpus"),
            (json!({"cpu": {"realtimePeriod": 5}}), "cpu.realtimePeriod"),
            (json!({"pids": {"limit": -5}}), "pids.limit"),
            (json!({"blockIO": {"weight": 5}}), "blockIO.weight"),
            (
                json!({"blockIO": {"weightDevice": [{"major": -1, "minor": 0, "weight": 10}]}}),
                "blockIO.weightDevice[0]",
            ),
            (json!({"hugepageLimits": [{"pageSize": "../x", "limit": 1}]}), "hugepageLimits[0]"),
            (json!({"network": {"classID": 1}}), "network.classID"),
            (json!({"rdma": {"a b": {"hcaHandles": 1}}}), "rdma.a b"),
            (json!({"unified": {"../memory.max": "1"}}), "unified.../memory.max"),
            (json!({"unified": {"cgroup.kill": "1"}}), "unified.cgroup.kill"),
        ] {
            let error = parse(resources).unwrap_err();
            assert!(error.to_string().starts_with(&format!("linux.resources.{field}: ")), "{error}");
            assert!(error.is_invalid());
        }
    }
}
