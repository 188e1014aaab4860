//! Checking and converting single values, the same for both versions.

use oci_spec::runtime::{LinuxBlockIo, LinuxCpu, LinuxMemory, LinuxPids, LinuxThrottleDevice};

use super::super::error::{CgroupError, Result};

/// The fields in dotted notation.
pub(super) mod field {
    pub(crate) const MEMORY_LIMIT: &str = "linux.resources.memory.limit";
    pub(crate) const MEMORY_RESERVATION: &str = "linux.resources.memory.reservation";
    pub(crate) const MEMORY_SWAP: &str = "linux.resources.memory.swap";
    pub(crate) const MEMORY_SWAPPINESS: &str = "linux.resources.memory.swappiness";
    pub(crate) const MEMORY_DISABLE_OOM: &str = "linux.resources.memory.disableOOMKiller";
    pub(crate) const CPU_SHARES: &str = "linux.resources.cpu.shares";
    pub(crate) const CPU_QUOTA: &str = "linux.resources.cpu.quota";
    pub(crate) const CPU_PERIOD: &str = "linux.resources.cpu.period";
    pub(crate) const CPU_BURST: &str = "linux.resources.cpu.burst";
    pub(crate) const CPU_IDLE: &str = "linux.resources.cpu.idle";
    pub(crate) const CPU_CPUS: &str = "linux.resources.cpu.cpus";
    pub(crate) const CPU_MEMS: &str = "linux.resources.cpu.mems";
    pub(crate) const CPU_RT_RUNTIME: &str = "linux.resources.cpu.realtimeRuntime";
    pub(crate) const CPU_RT_PERIOD: &str = "linux.resources.cpu.realtimePeriod";
    pub(crate) const PIDS_LIMIT: &str = "linux.resources.pids.limit";
    pub(crate) const BLKIO_WEIGHT: &str = "linux.resources.blockIO.weight";
    pub(crate) const NETWORK_CLASS: &str = "linux.resources.network.classID";
    pub(crate) const NETWORK_PRIORITIES: &str = "linux.resources.network.priorities";
}

/// A limit in bytes or tasks: a number, or none at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Limit {
    /// At most this.
    Of(u64),
    /// `-1`.
    Unlimited,
}

impl Limit {
    /// 0 and absence leave it alone, as in runc; -1 lifts it.
    pub(super) fn new(field: &'static str, value: Option<i64>) -> Result<Option<Self>> {
        match value {
            None | Some(0) => Ok(None),
            Some(-1) => Ok(Some(Self::Unlimited)),
            Some(value) => match u64::try_from(value) {
                Ok(value) => Ok(Some(Self::Of(value))),
                Err(_) => Err(CgroupError::invalid(field, format!("{value} is neither a limit nor -1 (unlimited)"))),
            },
        }
    }

    /// As v1 has it.
    pub(super) fn minus_one(self) -> String {
        match self {
            Self::Of(value) => value.to_string(),
            Self::Unlimited => "-1".to_owned(),
        }
    }

    /// As v2 has it.
    pub(super) fn max(self) -> String {
        match self {
            Self::Of(value) => value.to_string(),
            Self::Unlimited => "max".to_owned(),
        }
    }
}

/// Memory and memory with swap together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) limit: Option<Limit>,
    pub(super) with_swap: Option<Limit>,
    pub(super) reservation: Option<Limit>,
    pub(super) swappiness: Option<u64>,
}

impl Memory {
    pub(super) fn new(memory: &LinuxMemory) -> Result<Self> {
        let limit = Limit::new(field::MEMORY_LIMIT, memory.limit())?;
        let mut with_swap = Limit::new(field::MEMORY_SWAP, memory.swap())?;
        if let (Some(Limit::Of(limit)), Some(Limit::Of(swap))) = (limit, with_swap)
            && swap < limit
        {
            let problem = format!("{swap} (memory and swap together) is below the memory limit of {limit}");
            return Err(CgroupError::invalid(field::MEMORY_SWAP, problem));
        }
        if limit == Some(Limit::Unlimited) && with_swap.is_none() {
            // "Unlimited memory" means with swap.
            with_swap = Some(Limit::Unlimited);
        }
        let reservation = Limit::new(field::MEMORY_RESERVATION, memory.reservation())?;
        let swappiness = memory.swappiness();
        if let Some(value) = swappiness.filter(|value| *value > 100) {
            return Err(CgroupError::invalid(field::MEMORY_SWAPPINESS, format!("{value} is not between 0 and 100")));
        }
        Ok(Self { limit, with_swap, reservation, swappiness })
    }
}

/// The tasks limit. 0 is a limit since 1.3 of the specification; as systemd knows no such one, it is 1 everywhere.
pub(super) fn pids(pids: &LinuxPids) -> Result<Option<Limit>> {
    match pids.limit() {
        0 => Ok(Some(Limit::Of(1))),
        limit => Limit::new(field::PIDS_LIMIT, Some(limit)),
    }
}

/// The CPU fields that both versions have, checked. 0 means "not set" where runc has it so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cpu {
    pub(super) shares: Option<u64>,
    pub(super) quota: Option<Limit>,
    pub(super) period: Option<u64>,
    pub(super) burst: Option<u64>,
    pub(super) idle: Option<i64>,
}

impl Cpu {
    pub(super) fn new(cpu: &LinuxCpu) -> Result<Self> {
        let quota = Limit::new(field::CPU_QUOTA, cpu.quota())?;
        let idle = cpu.idle();
        if let Some(value) = idle.filter(|value| !(0..=1).contains(value)) {
            return Err(CgroupError::invalid(field::CPU_IDLE, format!("{value} is neither 0 nor 1")));
        }
        let set = |value: Option<u64>| value.filter(|value| *value != 0);
        Ok(Self { shares: set(cpu.shares()), quota, period: set(cpu.period()), burst: cpu.burst(), idle })
    }
}

/// A list of processors or memory nodes: `0-3,7`. Empty means "not set".
pub(super) fn list<'a>(field: &'static str, value: Option<&'a str>) -> Result<Option<&'a str>> {
    let Some(value) = value.map(str::trim).filter(|value| !value.is_empty()) else { return Ok(None) };
    let number = |text: &str| text.parse::<u32>().ok();
    let range = |part: &str| match part.split_once('-') {
        None => number(part).is_some(),
        Some((from, to)) => matches!((number(from), number(to)), (Some(from), Some(to)) if from <= to),
    };
    if value.split(',').all(|part| range(part.trim())) {
        Ok(Some(value))
    } else {
        Err(CgroupError::invalid(field, format!("{value:?} is not a list of numbers and ranges")))
    }
}

/// A weight for block devices, 10 to 1000; 0 means "not set".
pub(super) fn weight(field: &str, weight: Option<u16>) -> Result<Option<u16>> {
    match weight {
        None | Some(0) => Ok(None),
        Some(10..=1000) => Ok(weight),
        Some(value) => Err(CgroupError::invalid(field, format!("{value} is not between 10 and 1000"))),
    }
}

/// `MAJOR:MINOR`.
pub(super) fn device(field: &str, major: i64, minor: i64) -> Result<String> {
    match (u32::try_from(major), u32::try_from(minor)) {
        (Ok(major), Ok(minor)) => Ok(format!("{major}:{minor}")),
        _ => Err(CgroupError::invalid(field, format!("{major}:{minor} is no device number"))),
    }
}

/// The four lists of throttled devices: field, v1's file, v2's key, and the list.
pub(super) fn throttles(
    block: &LinuxBlockIo,
) -> [(&'static str, &'static str, &'static str, &[LinuxThrottleDevice]); 4] {
    let list = |list: &'static str, file, key, devices| (list, file, key, devices);
    [
        list(
            "linux.resources.blockIO.throttleReadBpsDevice",
            "blkio.throttle.read_bps_device",
            "rbps",
            block.throttle_read_bps_device().as_deref().unwrap_or_default(),
        ),
        list(
            "linux.resources.blockIO.throttleWriteBpsDevice",
            "blkio.throttle.write_bps_device",
            "wbps",
            block.throttle_write_bps_device().as_deref().unwrap_or_default(),
        ),
        list(
            "linux.resources.blockIO.throttleReadIOPSDevice",
            "blkio.throttle.read_iops_device",
            "riops",
            block.throttle_read_iops_device().as_deref().unwrap_or_default(),
        ),
        list(
            "linux.resources.blockIO.throttleWriteIOPSDevice",
            "blkio.throttle.write_iops_device",
            "wiops",
            block.throttle_write_iops_device().as_deref().unwrap_or_default(),
        ),
    ]
}

/// `64KB`, `2MB`, `1GB`: part of a file's name, so nothing else will do.
pub(super) fn page_size<'a>(field: &str, size: &'a str) -> Result<&'a str> {
    let digits = size.strip_suffix("KB").or(size.strip_suffix("MB")).or(size.strip_suffix("GB")).unwrap_or_default();
    if digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.is_empty() && !digits.starts_with('0') {
        Ok(size)
    } else {
        Err(CgroupError::invalid(field, format!("{size:?} is not a page size such as 2MB")))
    }
}

/// A name that goes into a line of a control file.
pub(super) fn word<'a>(field: &str, word: &'a str) -> Result<&'a str> {
    if word.is_empty() || word.contains(char::is_whitespace) {
        Err(CgroupError::invalid(field, format!("{word:?} is not a name")))
    } else {
        Ok(word)
    }
}

/// v1's shares (2 to 262144) as v2's weight (1 to 10000).
///
/// A curve through the ends on which the defaults meet (1024 is 100), which runc and crun have since 2025: on the straight
/// line that they had before, 1024 was 39, less than that of a process outside any container.
pub(super) fn shares_to_weight(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            10_f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0).ceil() as u64
        }
    }
}

/// v1's weight of block devices (10 to 1000) as v2's (1 to 10000), on a straight line.
pub(super) fn block_weight(weight: u16) -> u64 {
    1 + (u64::from(weight) - 10) * 9999 / 990
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_the_curve() {
        for (shares, weight) in [(2, 1), (3, 2), (102, 17), (512, 59), (1024, 100), (2048, 174), (262_144, 10_000)] {
            assert_eq!(shares_to_weight(shares), weight, "{shares}");
        }
        assert_eq!(shares_to_weight(u64::MAX), 10_000);
    }

    #[test]
    fn block_weights_meet_at_the_ends() {
        assert_eq!([10, 500, 1000].map(block_weight), [1, 4950, 10_000]);
    }

    #[test]
    fn lists_of_processors() {
        for good in ["0", "0-3", "0-3,7, 9", " 1 "] {
            assert!(list("f", Some(good)).unwrap().is_some(), "{good:?}");
        }
        assert_eq!(list("f", Some("")).unwrap(), None);
        for bad in ["a", "3-1", "1,", "-1", "0\n1", "0-"] {
            assert!(list("f", Some(bad)).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn page_sizes_are_no_paths() {
        assert!(["2MB", "64KB", "1GB"].iter().all(|size| page_size("f", size).is_ok()));
        assert!(["", "MB", "../2MB", "02MB", "2mb", "2"].iter().all(|size| page_size("f", size).is_err()));
    }
}
