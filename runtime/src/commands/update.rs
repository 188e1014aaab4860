//! `update`: flags, or a resources object, to the library's change of limits.

use dhow_runtime::config::resources_from_json;
use serde_json::{Map, Value, json};

use super::args::{Flag, Parsed};
use super::{Command, Context, Failure};

pub(crate) const COMMAND: Command = Command {
    name: "update",
    usage: "update [options] ID",
    about: "change a container's limits",
    flags: &[
        Flag::value("resources", "file with a resources object; - is stdin").short('r'),
        Flag::value("blkio-weight", "block IO weight, 10 to 1000"),
        Flag::value("cpu-period", "CPU period in microseconds"),
        Flag::value("cpu-quota", "CPU time per period in microseconds, -1 for no limit"),
        Flag::value("cpu-burst", "unused CPU time that may be saved up, in microseconds"),
        Flag::value("cpu-share", "relative CPU weight, 2 to 262144"),
        Flag::value("cpu-rt-period", "realtime CPU period in microseconds"),
        Flag::value("cpu-rt-runtime", "realtime CPU time per period in microseconds"),
        Flag::value("cpu-idle", "1: only when nothing else wants the CPU"),
        Flag::value("cpuset-cpus", "CPUs, such as 0-3,7"),
        Flag::value("cpuset-mems", "memory nodes"),
        Flag::value("kernel-memory", "obsolete, ignored"),
        Flag::value("kernel-memory-tcp", "obsolete, ignored"),
        Flag::value("memory", "memory in bytes, or with a suffix such as m; -1 for no limit").short('m'),
        Flag::value("memory-reservation", "soft memory limit"),
        Flag::value("memory-swap", "memory plus swap; -1 for no limit"),
        Flag::value("pids-limit", "number of processes, -1 for no limit"),
        Flag::value("l3-cache-schema", "Intel RDT/CAT schema"),
        Flag::value("mem-bw-schema", "Intel RDT/MBA schema"),
    ],
    literal_after: None,
    run,
};

fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let id = &parsed.exactly("update", 1)?[0];
    let document = match parsed.value("resources") {
        Some(path) => read(path)?,
        None => from_flags(parsed)?.to_string(),
    };
    context.runtime.update(id, &resources_from_json(document.as_bytes())?)?;
    let [cache, bandwidth] = ["l3-cache-schema", "mem-bw-schema"].map(|flag| parsed.value(flag).unwrap_or_default());
    if !cache.is_empty() || !bandwidth.is_empty() {
        context.runtime.update_shares(id, cache, bandwidth)?;
    }
    Ok(0)
}

fn read(path: &str) -> Result<String, Failure> {
    if path == "-" {
        return std::io::read_to_string(std::io::stdin()).map_err(|e| Failure::because("stdin", e));
    }
    std::fs::read_to_string(path).map_err(|e| Failure::because(path, e))
}

/// Where each number goes in the resources object.
const NUMBERS: [(&str, &str, &str); 7] = [
    ("cpu-period", "cpu", "period"),
    ("cpu-quota", "cpu", "quota"),
    ("cpu-burst", "cpu", "burst"),
    ("cpu-share", "cpu", "shares"),
    ("cpu-rt-period", "cpu", "realtimePeriod"),
    ("cpu-rt-runtime", "cpu", "realtimeRuntime"),
    ("cpu-idle", "cpu", "idle"),
];
const SIZES: [(&str, &str); 3] = [("memory", "limit"), ("memory-reservation", "reservation"), ("memory-swap", "swap")];

fn from_flags(parsed: &Parsed) -> Result<Value, Failure> {
    let mut document = Map::new();
    let mut put = |object: &str, key: &str, value: Value| {
        let entry = document.entry(object).or_insert_with(|| json!({}));
        if let Some(object) = entry.as_object_mut() {
            object.insert(key.into(), value);
        }
    };
    for (flag, object, key) in NUMBERS {
        if let Some(number) = parsed.number::<i64>(flag)? {
            put(object, key, number.into());
        }
    }
    for (flag, key) in SIZES {
        if let Some(text) = parsed.value(flag) {
            put("memory", key, bytes(flag, text)?.into());
        }
    }
    for (flag, key) in [("cpuset-cpus", "cpus"), ("cpuset-mems", "mems")] {
        if let Some(text) = parsed.value(flag) {
            put("cpu", key, text.into());
        }
    }
    if let Some(weight) = parsed.number::<u16>("blkio-weight")? {
        put("blockIO", "weight", weight.into());
    }
    if let Some(limit) = parsed.number::<i64>("pids-limit")? {
        put("pids", "limit", limit.into());
    }
    Ok(Value::Object(document))
}

/// A size: bytes, or with one of the suffixes b, k, m, g, t, in powers of 1024.
fn bytes(flag: &str, text: &str) -> Result<i64, Failure> {
    let wrong = || Failure::new(format!("invalid value for {flag}: invalid size: '{text}'"));
    if text == "-1" {
        return Ok(-1);
    }
    let lower = text.to_ascii_lowercase();
    let bare = lower.strip_suffix("ib").or_else(|| lower.strip_suffix('b')).unwrap_or(&lower);
    let (digits, shift) = match bare.char_indices().last() {
        Some((at, 'k')) => (&bare[..at], 10),
        Some((at, 'm')) => (&bare[..at], 20),
        Some((at, 'g')) => (&bare[..at], 30),
        Some((at, 't')) => (&bare[..at], 40),
        _ => (bare, 0),
    };
    let number: i64 = digits.parse().ok().filter(|number| *number >= 0).ok_or_else(wrong)?;
    number.checked_mul(1 << shift).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, size) in [("-1", -1), ("0", 0), ("1024", 1024), ("1k", 1024), ("2M", 2 << 20), ("1GiB", 1 << 30)] {
            assert_eq!(bytes("memory", text).unwrap(), size, "{text}");
        }
        for text in ["", "x", "-2", "1x", "99999999999t"] {
            assert!(bytes("memory", text).is_err(), "{text}");
        }
    }

    #[test]
    fn flags_become_a_resources_object() {
        let words = ["id", "--memory", "1m", "--cpu-share=512", "--pids-limit", "-1", "--cpuset-cpus", "0"];
        let parsed = Parsed::parse(words.iter().map(Into::into).collect(), COMMAND.flags, None).unwrap();
        assert_eq!(
            from_flags(&parsed).unwrap(),
            json!({"cpu": {"shares": 512, "cpus": "0"}, "memory": {"limit": 1 << 20}, "pids": {"limit": -1}})
        );
    }
}
