//! Limits: cgroup resources and rlimits.

use serde_json::{Map, Value, json};

use crate::container::record::{HostConfig, UlimitValue};

/// The length of a scheduling period in microseconds, where only a quota is known.
const PERIOD: i64 = 100_000;

pub(super) fn build(host: &HostConfig, devices: Vec<Value>) -> Value {
    let mut resources = Map::from_iter([("devices".to_owned(), Value::from(devices))]);
    let mut memory = Map::new();
    if host.memory > 0 {
        memory.insert("limit".into(), host.memory.into());
        // As docker: as much swap as memory, unless said otherwise.
        let swap = if host.memory_swap == 0 { host.memory.saturating_mul(2) } else { host.memory_swap };
        memory.insert("swap".into(), swap.into());
    }
    if host.memory_reservation > 0 {
        memory.insert("reservation".into(), host.memory_reservation.into());
    }
    if let Some(swappiness) = host.memory_swappiness {
        memory.insert("swappiness".into(), swappiness.into());
    }
    if let Some(disable) = host.oom_kill_disable {
        memory.insert("disableOOMKiller".into(), disable.into());
    }
    let mut cpu = Map::new();
    if host.nano_cpus > 0 {
        cpu.insert("period".into(), PERIOD.into());
        cpu.insert("quota".into(), (host.nano_cpus / 1000 * PERIOD / 1_000_000).into());
    }
    for (key, value) in [("shares", host.cpu_shares), ("period", host.cpu_period), ("quota", host.cpu_quota)] {
        if value != 0 {
            cpu.insert(key.into(), value.into());
        }
    }
    for (key, value) in [("cpus", &host.cpuset_cpus), ("mems", &host.cpuset_mems)] {
        if !value.is_empty() {
            cpu.insert(key.into(), value.as_str().into());
        }
    }
    for (key, map) in [("memory", memory), ("cpu", cpu)] {
        if !map.is_empty() {
            resources.insert(key.into(), map.into());
        }
    }
    if let Some(limit) = host.pids_limit.filter(|limit| *limit != 0) {
        resources.insert("pids".into(), json!({ "limit": limit }));
    }
    resources.into()
}

pub(super) fn rlimit(limit: &UlimitValue) -> Value {
    // -1 is unlimited: all bits set.
    json!({
        "type": format!("RLIMIT_{}", limit.name.to_ascii_uppercase()),
        "soft": limit.soft.cast_unsigned(),
        "hard": limit.hard.cast_unsigned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits() {
        assert_eq!(build(&HostConfig::default(), Vec::new()), json!({ "devices": [] }));
        let host = HostConfig {
            memory: 1 << 20,
            nano_cpus: 1_500_000_000,
            cpuset_cpus: "0-1".into(),
            pids_limit: Some(10),
            ..HostConfig::default()
        };
        assert_eq!(
            build(&host, Vec::new()),
            json!({
                "devices": [],
                "memory": { "limit": 1 << 20, "swap": 2 << 20 },
                "cpu": { "period": 100_000, "quota": 150_000, "cpus": "0-1" },
                "pids": { "limit": 10 },
            })
        );
        let limit = UlimitValue { name: "core".into(), soft: 0, hard: -1 };
        assert_eq!(rlimit(&limit), json!({ "type": "RLIMIT_CORE", "soft": 0, "hard": u64::MAX }));
    }
}
