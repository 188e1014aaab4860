//! The resources as properties of a unit (systemd.resource-control(5)), as far as systemd has words for them.
//!
//! They are not the whole of the limits: those are written to the files as well. But systemd has to know them, or it puts
//! its own in their place whenever it looks at the unit again (`daemon-reload`).

use std::borrow::Cow;

use oci_spec::runtime::{LinuxCpu, LinuxMemory, LinuxResources};

use super::super::Cgroup;
use super::super::error::{CgroupError, Result};
use super::values::{self, Cpu, Limit, Memory, field};
use crate::dbus::Value;

/// A property of a unit.
pub(in super::super) type Property = (Cow<'static, str>, Value);

/// What decides which properties there are.
#[derive(Debug, Clone, Copy)]
pub(in super::super) struct Machine {
    /// It has cgroup v2 alone.
    pub(in super::super) unified: bool,
    /// systemd's.
    pub(in super::super) version: u32,
}

/// What is in force: a quota and its period are one property, of which an update may name only one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in super::super) struct Current {
    quota: Option<u64>,
    period: Option<u64>,
}

impl Current {
    /// Of a cgroup.
    pub(in super::super) fn of(cgroup: &Cgroup) -> Self {
        let Some(dir) = cgroup.dir("cpu") else { return Self::default() };
        let number = |text: Option<&str>| text.and_then(|text| text.trim().parse().ok());
        if cgroup.is_v2() {
            let text = dir.read("cpu.max").unwrap_or_default();
            let mut words = text.split_whitespace();
            return Self { quota: number(words.next()), period: number(words.next()) };
        }
        let read = |file| number(dir.read(file).ok().as_deref());
        Self { quota: read("cpu.cfs_quota_us"), period: read("cpu.cfs_period_us") }
    }
}

/// No limit.
const INFINITY: u64 = u64::MAX;
/// Of the kernel, in microseconds.
const DEFAULT_PERIOD: u64 = 100_000;

impl Limit {
    fn property(self) -> Value {
        Value::Uint64(match self {
            Self::Of(value) => value,
            Self::Unlimited => INFINITY,
        })
    }
}

/// All that systemd has a word for.
///
/// # Errors
/// A value that makes no sense, by its field.
pub(in super::super) fn properties(
    resources: &LinuxResources,
    machine: &Machine,
    current: Current,
) -> Result<Vec<Property>> {
    let mut list = Vec::new();
    if let Some(memory) = resources.memory() {
        add_memory(&mut list, memory, machine)?;
    }
    if let Some(cpu) = resources.cpu() {
        add_cpu(&mut list, cpu, machine, current)?;
    }
    if let Some(limit) = resources.pids().map(|pids| values::pids(&pids)).transpose()?.flatten() {
        list.push(("TasksMax".into(), limit.property()));
    }
    if let Some(block) = resources.block_io()
        && let Some(weight) = values::weight(field::BLKIO_WEIGHT, block.weight())?
    {
        list.push(match machine.unified {
            true => ("IOWeight".into(), Value::Uint64(values::block_weight(weight))),
            false => ("BlockIOWeight".into(), Value::Uint64(weight.into())),
        });
    }
    if machine.unified {
        add_unified(&mut list, resources, machine)?;
    }
    Ok(list)
}

fn add_memory(list: &mut Vec<Property>, memory: &LinuxMemory, machine: &Machine) -> Result<()> {
    let Memory { limit, with_swap, reservation, .. } = Memory::new(memory)?;
    if let Some(limit) = limit {
        list.push((if machine.unified { "MemoryMax" } else { "MemoryLimit" }.into(), limit.property()));
    }
    if !machine.unified {
        return Ok(());
    }
    match (limit, with_swap) {
        (Some(Limit::Of(limit)), Some(Limit::Of(both))) => {
            list.push(("MemorySwapMax".into(), Value::Uint64(both.saturating_sub(limit))));
        }
        (_, Some(Limit::Unlimited)) => list.push(("MemorySwapMax".into(), Value::Uint64(INFINITY))),
        _ => {}
    }
    if let Some(reservation) = reservation {
        list.push(("MemoryLow".into(), reservation.property()));
    }
    Ok(())
}

fn add_cpu(list: &mut Vec<Property>, cpu: &LinuxCpu, machine: &Machine, current: Current) -> Result<()> {
    let Cpu { shares, quota, period, idle, .. } = Cpu::new(cpu)?;
    match (machine.unified, idle, shares) {
        (true, Some(1), _) => add_idle(list, machine),
        (true, _, Some(shares)) => {
            list.push(("CPUWeight".into(), Value::Uint64(values::shares_to_weight(shares))));
        }
        (false, idle, Some(shares)) if idle != Some(1) => list.push(("CPUShares".into(), Value::Uint64(shares))),
        _ => {}
    }
    add_quota(list, quota, period, machine, current);
    for (name, field, value) in
        [("AllowedCPUs", field::CPU_CPUS, cpu.cpus()), ("AllowedMemoryNodes", field::CPU_MEMS, cpu.mems())]
    {
        if let Some(value) = values::list(field, value.as_deref())? {
            add_set(list, name, field, value, machine)?;
        }
    }
    Ok(())
}

/// systemd 252 takes a weight of nothing for it.
fn add_idle(list: &mut Vec<Property>, machine: &Machine) {
    if machine.version >= 252 {
        list.push(("CPUWeight".into(), Value::Uint64(0)));
    }
}

/// Time per second, in whole percents, which systemd counts in. Rounded up: a container that divides its own time must be
/// able to give all of it to one part.
fn add_quota(list: &mut Vec<Property>, quota: Option<Limit>, period: Option<u64>, machine: &Machine, current: Current) {
    const PERCENT: u128 = 10_000;
    if quota.is_none() && period.is_none() {
        return;
    }
    if let Some(period) = period.filter(|_| machine.version >= 242) {
        list.push(("CPUQuotaPeriodUSec".into(), Value::Uint64(period)));
    }
    let quota = match quota {
        Some(Limit::Unlimited) => None,
        Some(Limit::Of(quota)) => Some(quota),
        None => current.quota,
    };
    let period = period.or(current.period).filter(|period| *period != 0).unwrap_or(DEFAULT_PERIOD);
    let per_second = quota.map_or(INFINITY, |quota| {
        let exact = u128::from(quota) * 1_000_000 / u128::from(period);
        u64::try_from(exact.next_multiple_of(PERCENT)).unwrap_or(INFINITY)
    });
    list.push(("CPUQuotaPerSecUSec".into(), Value::Uint64(per_second)));
}

/// Processors or memory nodes, one bit each; since systemd 244.
fn add_set(list: &mut Vec<Property>, name: &'static str, field: &str, value: &str, machine: &Machine) -> Result<()> {
    /// More than any kernel is built for.
    const MOST: usize = 1 << 16;
    let mut bits = Vec::new();
    for part in value.split(',').map(str::trim) {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (Ok(from), Ok(to)) = (from.parse::<usize>(), to.parse::<usize>()) else { continue };
        if to >= MOST {
            return Err(CgroupError::invalid(field, format!("there is no number {to}")));
        }
        if bits.len() <= to / 8 {
            bits.resize(to / 8 + 1, 0);
        }
        (from..=to).for_each(|bit| bits[bit / 8] |= 1_u8 << (bit % 8));
    }
    if machine.version >= 244 {
        list.push((name.into(), Value::bytes(&bits)));
    }
    Ok(())
}

/// Files of v2 that are properties. The others are only written.
fn add_unified(list: &mut Vec<Property>, resources: &LinuxResources, machine: &Machine) -> Result<()> {
    const AMOUNTS: [(&str, &str); 6] = [
        ("memory.high", "MemoryHigh"),
        ("memory.low", "MemoryLow"),
        ("memory.min", "MemoryMin"),
        ("memory.max", "MemoryMax"),
        ("memory.swap.max", "MemorySwapMax"),
        ("pids.max", "TasksMax"),
    ];
    let mut files: Vec<_> = resources.unified().iter().flatten().collect();
    files.sort();
    for (file, value) in files {
        let field = format!("linux.resources.unified.{file}");
        let wrong = || CgroupError::invalid(field.clone(), format!("{value:?} is not what this file takes"));
        let number = |text: &str| text.parse::<u64>().map_err(|_unspecific| wrong());
        let value = value.trim();
        if let Some((_, name)) = AMOUNTS.iter().find(|(amount, _)| amount == file) {
            let amount = if value == "max" { INFINITY } else { number(value)? };
            list.push(((*name).into(), Value::Uint64(amount)));
            continue;
        }
        match file.as_str() {
            "cpu.weight" => list.push(("CPUWeight".into(), Value::Uint64(number(value)?))),
            "cpu.idle" if value == "1" => add_idle(list, machine),
            "cpu.max" => {
                let mut words = value.split_whitespace();
                let quota = match words.next() {
                    Some("max") => Limit::Unlimited,
                    other => Limit::Of(number(other.unwrap_or_default())?),
                };
                let period = words.next().map(number).transpose()?;
                add_quota(list, Some(quota), period, machine, Current::default());
            }
            "cpuset.cpus" => add_set(list, "AllowedCPUs", &field, value, machine)?,
            "cpuset.mems" => add_set(list, "AllowedMemoryNodes", &field, value, machine)?,
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const V2: Machine = Machine { unified: true, version: 252 };

    fn lines(resources: serde_json::Value, machine: &Machine, current: Current) -> Vec<String> {
        let resources = serde_json::from_value(resources).unwrap();
        let line = |(name, value): Property| match value {
            Value::Uint64(INFINITY) => format!("{name}=infinity"),
            Value::Uint64(number) => format!("{name}={number}"),
            Value::Array(_, items) => format!("{name}={items:?}").replace("Byte", ""),
            other => format!("{name}={other:?}"),
        };
        properties(&resources, machine, current).unwrap().into_iter().map(line).collect()
    }

    #[test]
    fn every_limit_has_its_property() {
        let resources = json!({
            "memory": {"limit": 4096, "swap": 12288, "reservation": 2048},
            "cpu": {"shares": 1024, "quota": 25500, "period": 50_000, "cpus": "0,9-10", "mems": "0"},
            "pids": {"limit": 7},
            "blockIO": {"weight": 1000},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 0}],
        });
        assert_eq!(
            lines(resources.clone(), &V2, Current::default()),
            [
                "MemoryMax=4096",
                "MemorySwapMax=8192",
                "MemoryLow=2048",
                "CPUWeight=100",
                "CPUQuotaPeriodUSec=50000",
                "CPUQuotaPerSecUSec=510000",
                "AllowedCPUs=[(1), (6)]",
                "AllowedMemoryNodes=[(1)]",
                "TasksMax=7",
                "IOWeight=10000",
            ]
        );
        assert_eq!(
            lines(resources, &Machine { unified: false, version: 240 }, Current::default()),
            ["MemoryLimit=4096", "CPUShares=1024", "CPUQuotaPerSecUSec=510000", "TasksMax=7", "BlockIOWeight=1000"]
        );
    }

    #[test]
    fn limits_are_lifted() {
        let resources =
            json!({"memory": {"limit": -1}, "cpu": {"quota": -1, "idle": 1, "shares": 5}, "pids": {"limit": -1}});
        assert_eq!(
            lines(resources, &V2, Current::default()),
            [
                "MemoryMax=infinity",
                "MemorySwapMax=infinity",
                "CPUWeight=0",
                "CPUQuotaPerSecUSec=infinity",
                "TasksMax=infinity"
            ]
        );
        assert!(lines(json!({"cpu": {"idle": 1}}), &Machine { version: 251, ..V2 }, Current::default()).is_empty());
    }

    #[test]
    fn a_quota_keeps_the_period_that_is_there() {
        let current = Current { quota: Some(10_000), period: Some(20_000) };
        assert_eq!(lines(json!({"cpu": {"quota": 5000}}), &V2, current), ["CPUQuotaPerSecUSec=250000"]);
        assert_eq!(
            lines(json!({"cpu": {"period": 40_000}}), &V2, current),
            ["CPUQuotaPeriodUSec=40000", "CPUQuotaPerSecUSec=250000"]
        );
        // One percent is the least.
        assert_eq!(
            lines(json!({"cpu": {"quota": 1001, "period": 1_000_000}}), &V2, current)[1],
            "CPUQuotaPerSecUSec=10000"
        );
    }

    #[test]
    fn files_that_are_properties() {
        let unified = json!({"unified": {"memory.high": "4096", "pids.max": "max", "cpu.max": "5000 10000", "cpu.weight": "7",
            "cpu.idle": "0", "memory.oom.group": "1", "cpuset.cpus": "1"}});
        assert_eq!(
            lines(unified, &V2, Current::default()),
            [
                "CPUQuotaPeriodUSec=10000",
                "CPUQuotaPerSecUSec=500000",
                "CPUWeight=7",
                "AllowedCPUs=[(2)]",
                "MemoryHigh=4096",
                "TasksMax=infinity",
            ]
        );
        for (file, value) in [("memory.max", "x"), ("cpu.max", ""), ("cpu.weight", "max"), ("cpuset.cpus", "999999")] {
            let resources = serde_json::from_value(json!({"unified": {file: value}})).unwrap();
            let error = properties(&resources, &V2, Current::default()).unwrap_err().to_string();
            assert!(error.starts_with(&format!("linux.resources.unified.{file}: ")), "{error}");
        }
    }
}
