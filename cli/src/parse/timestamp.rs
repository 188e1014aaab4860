//! Points in time as `--since` and `--until` take them: RFC 3339, a date with or without a time (local), Unix seconds,
//! or a duration before now.

use jiff::civil;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::{Invalid, duration};

/// Parses a point in time; `now` is what durations count back from.
pub(crate) fn parse(text: &str, now: Timestamp) -> Result<Timestamp, Invalid> {
    let refuse =
        || Invalid::new("time", text, "a date, an RFC 3339 time, Unix seconds or a duration such as 10m is expected");
    if text.bytes().all(|b| b.is_ascii_digit() || b == b'.') && !text.is_empty() {
        return unix(text).ok_or_else(refuse);
    }
    if let Ok(back) = duration::parse(text) {
        let back = SignedDuration::try_from(back).map_err(|_large| refuse())?;
        return now.checked_sub(back).map_err(|_large| refuse());
    }
    if let Ok(exact) = text.parse::<Timestamp>() {
        return Ok(exact);
    }
    let local = text
        .parse::<civil::DateTime>()
        .or_else(|_| text.parse::<civil::Date>().map(|date| date.at(0, 0, 0, 0)))
        .map_err(|_bad| refuse())?;
    let zoned = local.to_zoned(TimeZone::system()).map_err(|_bad| refuse())?;
    Ok(zoned.timestamp())
}

/// `1700000000` or `1700000000.123456789`.
fn unix(text: &str) -> Option<Timestamp> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 || fraction.contains('.') {
        return None;
    }
    let nanos: i32 = format!("{fraction:0<9}").parse().ok()?;
    Timestamp::new(seconds.parse().ok()?, nanos).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        for (text, want) in [
            ("1700000000", "2023-11-14T22:13:20Z"),
            ("1700000000.5", "2023-11-14T22:13:20.5Z"),
            ("5s", "2026-01-02T03:04:00Z"),
            ("1h", "2026-01-02T02:04:05Z"),
            ("2025-06-07T08:09:10+02:00", "2025-06-07T06:09:10Z"),
            ("2025-06-07T08:09:10.123456789Z", "2025-06-07T08:09:10.123456789Z"),
        ] {
            assert_eq!(parse(text, now).unwrap().to_string(), want, "{text}");
        }
        assert!(parse("2025-06-07", now).is_ok());
        assert!(parse("2025-06-07T08:09:10", now).is_ok());
        for bad in ["", "yesterday", "1.2.3", "2025-13-01"] {
            assert!(parse(bad, now).is_err(), "{bad}");
        }
    }
}
