//! Signals by name or number, as `--stop-signal` and `kill --signal` take them.

use nix::sys::signal::Signal;

use super::Invalid;

/// The first real-time signal a container may use (glibc keeps 32 and 33 for itself).
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// Parses `TERM`, `SIGTERM`, `sigterm`, `15` or `RTMIN+3` into its number, 1 to 64.
pub(crate) fn parse(text: &str) -> Result<i32, Invalid> {
    let refuse = || Invalid::new("signal", text, "it is neither a signal's name nor a number from 1 to 64");
    if let Ok(number) = text.parse::<i32>() {
        return if (1..=RTMAX).contains(&number) { Ok(number) } else { Err(refuse()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let offset = |tail: &str| if tail.is_empty() { Some(0) } else { tail[1..].parse::<i32>().ok() };
    let realtime = if let Some(tail) = name.strip_prefix("RTMIN").filter(|t| t.is_empty() || t.starts_with('+')) {
        offset(tail).map(|n| RTMIN + n)
    } else if let Some(tail) = name.strip_prefix("RTMAX").filter(|t| t.is_empty() || t.starts_with('-')) {
        offset(tail).map(|n| RTMAX - n)
    } else {
        None
    };
    if let Some(number) = realtime {
        return if (RTMIN..=RTMAX).contains(&number) { Ok(number) } else { Err(refuse()) };
    }
    let name = match name {
        "CLD" => "CHLD",
        "POLL" => "IO",
        "IOT" => "ABRT",
        other => other,
    };
    Signal::iterator().find(|s| s.as_str().strip_prefix("SIG") == Some(name)).map(|s| s as i32).ok_or_else(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals() {
        for (text, number) in
            [("TERM", 15), ("sigkill", 9), ("15", 15), ("SIGRTMIN+3", 37), ("RTMAX", 64), ("rtmax-1", 63), ("CLD", 17)]
        {
            assert_eq!(parse(text), Ok(number), "{text}");
        }
        for bad in ["", "0", "65", "FOO", "RTMIN+99", "SIG", "RTMIN-1", "-9"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
