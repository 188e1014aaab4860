//! Sizes and ages in words, with docker's rounding and wording.

/// A size with units of 1,000, three significant digits: `77.8MB`.
pub(crate) fn size(bytes: u64) -> String {
    scaled(bytes as f64, 1000.0, &["B", "kB", "MB", "GB", "TB", "PB", "EB"], 3)
}

/// A size with units of 1,024, four significant digits: `1.944GiB`.
pub(crate) fn binary_size(bytes: u64) -> String {
    scaled(bytes as f64, 1024.0, &["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"], 4)
}

fn scaled(mut value: f64, base: f64, units: &[&str], digits: i32) -> String {
    let mut unit = 0;
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    format!("{}{}", significant(value, digits), units[unit])
}

/// `value` with so many significant digits and no trailing zeros, as C's `%.Ng` prints numbers of this range.
fn significant(value: f64, digits: i32) -> String {
    let whole = if value < 1.0 { 1 } else { value.log10().floor() as i32 + 1 };
    let places = usize::try_from(digits - whole).unwrap_or(0);
    let text = format!("{value:.places$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// A span of time in words: `3 minutes`, `About an hour`, `2 weeks`.
pub(crate) fn span(seconds: u64) -> String {
    let minutes = seconds / 60;
    let hours = (seconds + 1800) / 3600;
    match seconds {
        0 => "Less than a second".to_owned(),
        1 => "1 second".to_owned(),
        2..60 => format!("{seconds} seconds"),
        _ => match (minutes, hours) {
            (1, _) => "About a minute".to_owned(),
            (2..60, _) => format!("{minutes} minutes"),
            (_, 1) => "About an hour".to_owned(),
            (_, 2..48) => format!("{hours} hours"),
            (_, 48..336) => format!("{} days", hours / 24),
            (_, 336..1440) => format!("{} weeks", hours / 24 / 7),
            (_, 1440..17520) => format!("{} months", hours / 24 / 30),
            _ => format!("{} years", hours / 24 / 365),
        },
    }
}

/// How long ago `then` was at `now`, in words; the future counts as now.
pub(crate) fn ago(then: jiff::Timestamp, now: jiff::Timestamp) -> String {
    format!("{} ago", span(between(then, now)))
}

/// Whole seconds from `then` to `now`, 0 when `then` lies ahead.
pub(crate) fn between(then: jiff::Timestamp, now: jiff::Timestamp) -> u64 {
    u64::try_from(now.duration_since(then).as_secs()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1000, "1kB"),
            (4_260_000, "4.26MB"),
            (77_800_000, "77.8MB"),
            (117_000_000, "117MB"),
            (1_234_567_890, "1.23GB"),
        ] {
            assert_eq!(size(bytes), text);
        }
        assert_eq!(binary_size(1536), "1.5KiB");
        assert_eq!(binary_size(2_087_354_368), "1.944GiB");
    }

    #[test]
    fn spans() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (185, "3 minutes"),
            (3600, "About an hour"),
            (7300, "2 hours"),
            (47 * 3600, "47 hours"),
            (3 * 86400, "3 days"),
            (15 * 86400, "2 weeks"),
            (70 * 86400, "2 months"),
            (800 * 86400, "2 years"),
        ] {
            assert_eq!(span(seconds), text);
        }
    }
}
