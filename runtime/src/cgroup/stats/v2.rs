//! Statistics of cgroup v2.
//!
//! Read by us: cgroups-rs fills the fields of v1 with what it finds (the low limit as a soft one, swap in use as swappiness).

use super::super::error::Result;
use super::{Blkio, BlkioEntry, Cgroup, Cpu, CpuUsage, Dir, HugeTlb, Memory, Pids, Pressure, PressureShare, Stats};
use super::{Throttling, flat, huge_page_sizes, memory_entry};

pub(super) fn stats(cgroup: &Cgroup) -> Result<Stats> {
    let Some(dir) = cgroup.unified_dir() else { return Ok(Stats::default()) };
    let mut stats = Stats {
        cpu: cpu(&dir.read_file("cpu.stat")?, pressure(dir, "cpu.pressure")),
        memory: memory(dir),
        pids: Pids { current: dir.number("pids.current").unwrap_or(0), limit: dir.number("pids.max").unwrap_or(0) },
        blkio: Blkio { psi: pressure(dir, "io.pressure"), ..blkio(&dir.read("io.stat").unwrap_or_default()) },
        ..Stats::default()
    };
    for size in huge_page_sizes() {
        if let Some(usage) = dir.number(&format!("hugetlb.{size}.current")) {
            let events = flat(&dir.read(&format!("hugetlb.{size}.events")).unwrap_or_default());
            let failcnt = events.get("max").copied().unwrap_or(0);
            stats.hugetlb.insert(size, HugeTlb { usage, max: 0, failcnt });
        }
    }
    Ok(stats)
}

fn cpu(stat: &str, psi: Option<Pressure>) -> Cpu {
    let stat = flat(stat);
    let number = |name| stat.get(name).copied().unwrap_or(0);
    // The kernel counts microseconds here and nanoseconds on v1.
    let usage = CpuUsage {
        total: number("usage_usec") * 1000,
        kernel: number("system_usec") * 1000,
        user: number("user_usec") * 1000,
        ..CpuUsage::default()
    };
    let throttling = Throttling {
        periods: number("nr_periods"),
        throttled_periods: number("nr_throttled"),
        throttled_time: number("throttled_usec") * 1000,
    };
    Cpu { usage, throttling, psi }
}

fn memory(dir: &Dir) -> Memory {
    let raw = flat(&dir.read("memory.stat").unwrap_or_default());
    if raw.is_empty() {
        return Memory::default();
    }
    let events = flat(&dir.read("memory.events").unwrap_or_default());
    let mut usage = memory_entry(dir, "memory.max", "memory.current", "memory.peak", "");
    usage.failcnt = events.get("max").copied().unwrap_or(0);
    // As v1 counts it, and as every reader of runc's events expects: memory and swap together.
    let mut swap = memory_entry(dir, "memory.swap.max", "memory.swap.current", "", "");
    swap.usage += usage.usage;
    swap.limit = swap.limit.saturating_add(usage.limit);
    Memory {
        cache: raw.get("file").copied().unwrap_or(0),
        usage,
        swap,
        psi: pressure(dir, "memory.pressure"),
        raw,
        events,
        ..Memory::default()
    }
}

/// `8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6`
fn blkio(text: &str) -> Blkio {
    let mut blkio = Blkio::default();
    for line in text.lines() {
        let mut fields = line.split_whitespace();
        let Some((Ok(major), Ok(minor))) = fields
            .next()
            .and_then(|device| device.split_once(':'))
            .map(|(major, minor)| (major.parse(), minor.parse()))
        else {
            continue;
        };
        for (key, value) in fields.filter_map(|field| field.split_once('=')) {
            let (list, op) = match key {
                "rbytes" => (&mut blkio.bytes, "Read"),
                "wbytes" => (&mut blkio.bytes, "Write"),
                "dbytes" => (&mut blkio.bytes, "Discard"),
                "rios" => (&mut blkio.operations, "Read"),
                "wios" => (&mut blkio.operations, "Write"),
                "dios" => (&mut blkio.operations, "Discard"),
                _ => continue,
            };
            list.push(BlkioEntry { major, minor, op: op.to_owned(), value: value.parse().unwrap_or(0) });
        }
    }
    blkio
}

/// `None` where the kernel does not count it (it can be switched off).
fn pressure(dir: &Dir, file: &str) -> Option<Pressure> {
    parse_pressure(&dir.read(file).ok()?)
}

fn parse_pressure(text: &str) -> Option<Pressure> {
    let share = |kind: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(kind))?;
        let field = |name: &str| line.split_whitespace().find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
        Some(PressureShare {
            avg10: field("avg10")?.parse().ok()?,
            avg60: field("avg60")?.parse().ok()?,
            avg300: field("avg300")?.parse().ok()?,
            total: field("total")?.parse().ok()?,
        })
    };
    Some(Pressure { some: share("some ")?, full: share("full ").unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processor_time_in_nanoseconds() {
        let cpu =
            cpu("usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 3\nnr_throttled 1\nthrottled_usec 7\n", None);
        let json = serde_json::to_value(&cpu).unwrap();
        assert_eq!(
            json,
            serde_json::json!({
                "usage": {"total": 30000, "kernel": 10000, "user": 20000},
                "throttling": {"periods": 3, "throttledPeriods": 1, "throttledTime": 7000},
            })
        );
    }

    #[test]
    fn block_devices() {
        let blkio = blkio("8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n(unknown) x=1\n");
        assert_eq!(blkio.bytes.len(), 3);
        let write = BlkioEntry { major: 8, minor: 0, op: "Write".into(), value: 4 };
        assert_eq!(blkio.operations[1], write);
    }

    #[test]
    fn pressure_lines() {
        let text =
            "some avg10=1.50 avg60=0.25 avg300=0.00 total=1234\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n";
        let pressure = parse_pressure(text).unwrap();
        assert_eq!((pressure.some.avg10, pressure.some.total, pressure.full.total), (1.5, 1234, 5));
        assert_eq!(parse_pressure(""), None);
    }
}
