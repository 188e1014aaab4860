//! Durations in Go's notation: `90s`, `1h30m`, `1.5h`, `250ms`.

use std::time::Duration;

use super::Invalid;

/// Parses a duration of at least one number and unit; a sign is not accepted.
pub(crate) fn parse(text: &str) -> Result<Duration, Invalid> {
    let refuse = |why: &str| Invalid::new("duration", text, why);
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(refuse("it is empty"));
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let seconds = match unit {
            "ns" => 1e-9,
            "us" | "µs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(refuse("a unit is missing: ns, us, ms, s, m or h")),
        };
        let value: f64 = number.parse().map_err(|_bad| refuse("it is not a number with a unit"))?;
        let part = Duration::try_from_secs_f64(value * seconds).map_err(|_bad| refuse("it is too large"))?;
        total = total.checked_add(part).ok_or_else(|| refuse("it is too large"))?;
        rest = tail;
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        for (text, millis) in [("0", 0), ("10s", 10_000), ("1h30m", 5_400_000), ("1.5h", 5_400_000), ("250ms", 250)] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for bad in ["", "5", "s", "1x", "-1s", "1..2s", "1e400h"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
