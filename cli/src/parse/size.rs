//! Sizes in bytes as docker takes them: `512m`, `1.5g`, `64KiB`, `100`. All units are powers of 1,024.

use super::Invalid;

/// Parses a size into bytes.
pub(crate) fn parse(text: &str) -> Result<i64, Invalid> {
    let refuse = |why: &str| Invalid::new("size", text, why);
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(refuse("a number with an optional unit (b, k, m, g, t) is expected"));
    }
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        "p" | "pb" | "pib" => 50,
        _ => return Err(refuse("the unit is none of b, k, m, g, t, p")),
    };
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(1 << shift).ok_or_else(|| refuse("it is too large"));
    }
    let value: f64 = number.parse().map_err(|_bad| refuse("it is not a number"))?;
    let bytes = value * (1_u64 << shift) as f64;
    // 2^63 as a float: everything at or above does not fit.
    if bytes >= 9_223_372_036_854_775_808.0 {
        return Err(refuse("it is too large"));
    }
    Ok(bytes as i64)
}

/// As [`parse`], with `-1` for "no limit", as `--memory-swap` takes it.
pub(crate) fn parse_or_unlimited(text: &str) -> Result<i64, Invalid> {
    if text == "-1" { Ok(-1) } else { parse(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("100", 100),
            ("7b", 7),
            ("1k", 1024),
            ("64KiB", 65536),
            ("512m", 512 << 20),
            ("1.5g", 3 << 29),
            ("2TB", 2 << 40),
            ("1 g", 1 << 30),
        ] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for bad in ["", "m", "-1", "1x", "1.2.3m", "99999999999p", "9223372036854775808"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert_eq!(parse_or_unlimited("-1"), Ok(-1));
    }
}
