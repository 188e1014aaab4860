//! `dhow stats`

use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use crate::app::Run;
use crate::container::{Container, State};
use crate::context::{Context, stdout_is_terminal};
use crate::error::{Error, Result};
use crate::names;
use crate::output::human;
use crate::output::list::{self, Format, Row};

/// Show what running containers use, again every second
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// Those that don't run too
    #[arg(short = 'a', long)]
    all: bool,
    /// table, json, 'table TEMPLATE' or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show it once
    #[arg(long)]
    no_stream: bool,
    /// Don't cut ids short
    #[arg(long)]
    no_trunc: bool,
    /// The containers (default: all that run)
    #[arg(value_name = "CONTAINER")]
    containers: Vec<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    #[serde(rename = "BlockIO")]
    block_io: String,
    #[serde(rename = "CPUPerc")]
    cpu_perc: String,
    container: String,
    #[serde(rename = "ID")]
    id: String,
    mem_perc: String,
    mem_usage: String,
    name: String,
    #[serde(rename = "NetIO")]
    net_io: String,
    #[serde(rename = "PIDs")]
    pids: String,
}

impl Row for Line {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[
        ("CONTAINER ID", "ID"),
        ("NAME", "Name"),
        ("CPU %", "CPUPerc"),
        ("MEM USAGE / LIMIT", "MemUsage"),
        ("MEM %", "MemPerc"),
        ("NET I/O", "NetIO"),
        ("BLOCK I/O", "BlockIO"),
        ("PIDS", "PIDs"),
    ];
    const ID: &'static str = "ID";
}

/// What the cgroup and the network namespace of a container count.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Counters {
    cpu_nanos: u64,
    memory: u64,
    limit: u64,
    pids: u64,
    received: u64,
    sent: u64,
    read: u64,
    written: u64,
}

const PAUSE: Duration = Duration::from_secs(1);

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let format = Format::of(self.format.as_deref(), false);
        loop {
            let containers = self.chosen(ctx)?;
            let before: Vec<_> = containers.iter().map(|(c, s)| counters(ctx, c, s)).collect();
            let at = Instant::now();
            sleep(PAUSE);
            let lines: Vec<Line> = containers
                .iter()
                .zip(&before)
                .map(|((container, state), before)| {
                    self.line(container, before, &counters(ctx, container, state), at.elapsed())
                })
                .collect();
            ctx.print(|out| {
                if !self.no_stream && stdout_is_terminal() {
                    out.write_all(b"\x1b[2J\x1b[H").map_err(Error::output)?;
                }
                list::print(out, &lines, &format)
            })?;
            if self.no_stream {
                return Ok(0);
            }
        }
    }
}

impl Command {
    fn chosen(&self, ctx: &Context) -> Result<Vec<(Container, State)>> {
        let list = if self.containers.is_empty() {
            ctx.containers().list()?
        } else {
            self.containers.iter().map(|name| ctx.containers().find(name)).collect::<Result<_>>()?
        };
        let with_state = list.into_iter().map(|container| {
            let state = container.state();
            (container, state)
        });
        Ok(with_state.filter(|(_, state)| self.all || !self.containers.is_empty() || state.is_up()).collect())
    }

    fn line(&self, container: &Container, before: &Counters, now: &Counters, elapsed: Duration) -> Line {
        let record = &container.record;
        let used = now.cpu_nanos.saturating_sub(before.cpu_nanos) as f64;
        let cpu = used / elapsed.as_nanos().max(1) as f64 * 100.0;
        let memory = if now.limit == 0 { 0.0 } else { now.memory as f64 / now.limit as f64 * 100.0 };
        Line {
            block_io: format!("{} / {}", human::size(now.read), human::size(now.written)),
            cpu_perc: format!("{cpu:.2}%"),
            container: record.name.clone(),
            id: if self.no_trunc { record.id.clone() } else { names::short(&record.id).to_owned() },
            mem_perc: format!("{memory:.2}%"),
            mem_usage: format!("{} / {}", human::binary_size(now.memory), human::binary_size(now.limit)),
            name: record.name.clone(),
            net_io: format!("{} / {}", human::size(now.received), human::size(now.sent)),
            pids: now.pids.to_string(),
        }
    }
}

fn counters(ctx: &Context, container: &Container, state: &State) -> Counters {
    if !state.is_up() {
        return Counters::default();
    }
    let mut counters = Counters::default();
    for path in crate::container::state::cgroups(&ctx.runroot.runtime().join(container.id())) {
        add_cgroup(Path::new(&path), &mut counters);
    }
    let host = memory_total();
    if counters.limit == 0 || counters.limit > host {
        counters.limit = host;
    }
    let devices = fs::read_to_string(format!("/proc/{}/net/dev", state.pid)).unwrap_or_default();
    (counters.received, counters.sent) = traffic(&devices);
    counters
}

/// Adds what one cgroup directory counts: v2's files, or those of one v1 controller.
fn add_cgroup(path: &Path, counters: &mut Counters) {
    let text = |name: &str| fs::read_to_string(path.join(name)).ok();
    let number = |name: &str| text(name).and_then(|text| text.trim().parse::<u64>().ok());
    let field = |text: &str, key: &str| {
        text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    if let Some(stat) = text("cpu.stat").filter(|stat| stat.contains("usage_usec")) {
        counters.cpu_nanos = field(&stat, "usage_usec ") * 1000;
    } else if let Some(nanos) = number("cpuacct.usage") {
        counters.cpu_nanos = nanos;
    }
    if let Some(memory) = number("memory.current").or_else(|| number("memory.usage_in_bytes")) {
        // As docker: what the kernel would give up at once is not counted.
        let cache = text("memory.stat").map_or(0, |stat| {
            let v1 = field(&stat, "total_inactive_file ");
            if v1 > 0 { v1 } else { field(&stat, "inactive_file ") }
        });
        counters.memory = memory.saturating_sub(cache);
        counters.limit = number("memory.max").or_else(|| number("memory.limit_in_bytes")).unwrap_or(0);
    }
    if let Some(pids) = number("pids.current") {
        counters.pids = pids;
    }
    if let Some(stat) = text("io.stat") {
        let sum = |key: &str| {
            stat.split_whitespace().filter_map(|word| word.strip_prefix(key)?.parse::<u64>().ok()).sum::<u64>()
        };
        (counters.read, counters.written) = (sum("rbytes="), sum("wbytes="));
    } else if let Some(stat) = text("blkio.throttle.io_service_bytes") {
        let sum = |verb: &str| {
            let numbers = stat.lines().filter_map(|line| {
                let mut words = line.split_whitespace().skip(1);
                (words.next()? == verb).then(|| words.next()?.parse::<u64>().ok()).flatten()
            });
            numbers.sum::<u64>()
        };
        (counters.read, counters.written) = (sum("Read"), sum("Write"));
    }
}

/// Bytes received and sent over all interfaces but loopback (proc(5), net/dev).
fn traffic(devices: &str) -> (u64, u64) {
    let (mut received, mut sent) = (0, 0);
    for line in devices.lines().skip(2) {
        let Some((name, numbers)) = line.split_once(':') else { continue };
        let numbers: Vec<u64> = numbers.split_whitespace().filter_map(|n| n.parse().ok()).collect();
        if name.trim() != "lo" && numbers.len() > 8 {
            received += numbers[0];
            sent += numbers[8];
        }
    }
    (received, sent)
}

fn memory_total() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counting() {
        let devices = "a\nb\n    lo: 9 1 0 0 0 0 0 0 9 1 0 0 0 0 0 0\n  eth0: 100 1 0 0 0 0 0 0 50 1 0 0 0 0 0 0\n";
        assert_eq!(traffic(devices), (100, 50));
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("cpu.stat"), "usage_usec 5\nuser_usec 1\n").unwrap();
        fs::write(dir.path().join("memory.current"), "1000\n").unwrap();
        fs::write(dir.path().join("memory.stat"), "anon 1\ninactive_file 400\n").unwrap();
        fs::write(dir.path().join("memory.max"), "max\n").unwrap();
        fs::write(dir.path().join("io.stat"), "8:0 rbytes=10 wbytes=20\n8:1 rbytes=1 wbytes=2\n").unwrap();
        let mut counters = Counters::default();
        add_cgroup(dir.path(), &mut counters);
        let want = Counters { cpu_nanos: 5000, memory: 600, read: 11, written: 22, ..Counters::default() };
        assert_eq!(counters, want);
    }
}
