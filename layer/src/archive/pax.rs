//! PAX extended headers: `length key=value\n` records about the next entry.

use super::Time;
use super::sparse::Segment;

/// The records that matter to a layer.
#[derive(Debug, Default)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) linkpath: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<Time>,
    pub(super) atime: Option<Time>,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    pub(super) sparse: Option<Sparse>,
}

/// GNU's sparse records, in their three dialects: 0.0 (pairs), 0.1 (a list), 1.0 (the map lies before the data).
#[derive(Debug, Default)]
pub(super) struct Sparse {
    pub(super) name: Option<Vec<u8>>,
    pub(super) real_size: Option<u64>,
    pub(super) map: Option<Vec<Segment>>,
    pub(super) map_in_data: bool,
    half_pair: Option<u64>,
}

impl Pax {
    pub(super) fn parse(mut text: &[u8]) -> Result<Self, String> {
        let mut pax = Self::default();
        while !text.is_empty() {
            let (key, value, rest) = record(text).ok_or("a PAX record that is malformed")?;
            pax.apply(key, value)?;
            text = rest;
        }
        if pax.sparse.as_ref().is_some_and(|sparse| sparse.half_pair.is_some()) {
            return Err("a sparse map that breaks off".to_owned());
        }
        Ok(pax)
    }

    /// Whether a global header with these records would change the entries behind it.
    pub(super) fn changes_entries(&self) -> bool {
        let Self { path, linkpath, size, uid, gid, mtime, atime, xattrs, sparse } = self;
        path.is_some()
            || linkpath.is_some()
            || size.is_some()
            || uid.is_some()
            || gid.is_some()
            || mtime.is_some()
            || atime.is_some()
            || !xattrs.is_empty()
            || sparse.is_some()
    }

    fn apply(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
            if name.is_empty() {
                return Err("an extended attribute without a name".to_owned());
            }
            self.xattrs.retain(|(other, _)| other != name);
            self.xattrs.push((name.to_vec(), value.to_vec()));
            return Ok(());
        }
        if let Some(name) = key.strip_prefix(b"GNU.sparse.") {
            return self.sparse.get_or_insert_default().apply(name, value);
        }
        // An empty value takes back what a global header said, and those say nothing here.
        if value.is_empty() {
            return Ok(());
        }
        match key {
            b"path" => once(&mut self.path, name(value)?, "path"),
            b"linkpath" => once(&mut self.linkpath, name(value)?, "link path"),
            b"size" => once(&mut self.size, decimal(value)?, "size"),
            b"uid" => once(&mut self.uid, decimal(value)?, "owner"),
            b"gid" => once(&mut self.gid, decimal(value)?, "group"),
            b"mtime" => once(&mut self.mtime, time(value)?, "time"),
            b"atime" => once(&mut self.atime, time(value)?, "access time"),
            _ => Ok(()),
        }
    }
}

impl Sparse {
    fn apply(&mut self, key: &[u8], value: &[u8]) -> Result<(), String> {
        match key {
            b"name" => once(&mut self.name, name(value)?, "sparse name"),
            b"size" | b"realsize" => once(&mut self.real_size, decimal(value)?, "sparse size"),
            b"major" if value == b"1" => {
                self.map_in_data = true;
                Ok(())
            }
            b"major" | b"minor" if value == b"0" => Ok(()),
            b"minor" if value == b"1" => Ok(()),
            b"major" | b"minor" => Err("a sparse format of an unknown version".to_owned()),
            // How many segments; the map itself tells.
            b"numblocks" => decimal(value).map(drop),
            b"offset" => {
                self.map.get_or_insert_default();
                once(&mut self.half_pair, decimal(value)?, "sparse offset")
            }
            b"numbytes" => {
                let Some(offset) = self.half_pair.take() else {
                    return Err("a sparse length without an offset".to_owned());
                };
                self.map.get_or_insert_default().push(Segment { offset, len: decimal(value)? });
                Ok(())
            }
            b"map" => once(&mut self.map, map(value)?, "sparse map"),
            _ => Err("an unknown sparse record".to_owned()),
        }
    }
}

/// Key, value and what follows.
fn record(text: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = text.iter().take(MAX_LENGTH_DIGITS + 1).position(|byte| *byte == b' ')?;
    let len = usize::try_from(decimal(&text[..space]).ok()?).ok()?;
    let body = text.get(space + 1..len)?.strip_suffix(b"\n")?;
    let equals = body.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&body[..equals], &body[equals + 1..]);
    if key.is_empty() || key.contains(&0) {
        return None;
    }
    Some((key, value, &text[len..]))
}

fn once<T>(slot: &mut Option<T>, value: T, what: &str) -> Result<(), String> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(format!("two PAX records for one {what}")),
    }
}

fn name(value: &[u8]) -> Result<Vec<u8>, String> {
    if value.contains(&0) { Err("NUL in a name".to_owned()) } else { Ok(value.to_vec()) }
}

fn map(value: &[u8]) -> Result<Vec<Segment>, String> {
    if value.is_empty() {
        return Ok(Vec::new());
    }
    let numbers = value.split(|byte| *byte == b',').map(decimal).collect::<Result<Vec<_>, _>>()?;
    let (pairs, rest) = numbers.as_chunks::<2>();
    if !rest.is_empty() {
        return Err("a sparse map that breaks off".to_owned());
    }
    Ok(pairs.iter().map(|[offset, len]| Segment { offset: *offset, len: *len }).collect())
}

/// Digits alone, without sign or space.
pub(super) fn decimal(text: &[u8]) -> Result<u64, String> {
    let digits =
        std::str::from_utf8(text).ok().filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
    digits.and_then(|text| text.parse().ok()).ok_or_else(|| "a PAX number that is none".to_owned())
}

/// `-?digits(.digits)?`; digits beyond nanoseconds are cut off.
fn time(text: &[u8]) -> Result<Time, String> {
    let bad = || "a PAX time that is none".to_owned();
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let (whole, fraction) = match digits.iter().position(|byte| *byte == b'.') {
        Some(dot) => (&digits[..dot], &digits[dot + 1..]),
        None => (digits, &b""[..]),
    };
    let seconds = i64::try_from(decimal(whole)?).map_err(|_overflow| bad())?;
    if !fraction.iter().all(u8::is_ascii_digit) {
        return Err(bad());
    }
    let nanoseconds =
        (0..9).fold(0u32, |sum, at| sum * 10 + fraction.get(at).map_or(0, |digit| u32::from(digit - b'0')));
    Ok(match (negative, nanoseconds) {
        (false, _) => Time { seconds, nanoseconds },
        (true, 0) => Time { seconds: -seconds, nanoseconds },
        (true, _) => Time { seconds: -seconds - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

const MAX_LENGTH_DIGITS: usize = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_must_be_exact() {
        let pax = Pax::parse(b"12 path=a/b\n27 SCHILY.xattr.user.a=\0\n\xff\n").unwrap();
        assert_eq!(pax.path.as_deref(), Some(&b"a/b"[..]));
        assert_eq!(pax.xattrs, [(b"user.a".to_vec(), b"\0\n\xff".to_vec())]);
        for bad in [
            &b"13 path=a/b\n"[..],
            b"11 path=a/b\n",
            b"12 path=a/b",
            b" 12 path=a/b\n",
            b"+12 path=a/b\n",
            b"7 =abc\n",
            b"12 path=a\0b\n",
            b"9 path=a\n9 path=b\n",
            b"0 \n",
            b"99999999999999999999 a=b\n",
            b"10 size=-1\n",
        ] {
            assert!(Pax::parse(bad).is_err(), "{:?}", String::from_utf8_lossy(bad));
        }
    }

    #[test]
    fn times() {
        let t = |seconds, nanoseconds| Some(Time { seconds, nanoseconds });
        for (text, want) in [
            ("0", t(0, 0)),
            ("12.5", t(12, 500_000_000)),
            ("12.0000000019", t(12, 1)),
            ("-1.5", t(-2, 500_000_000)),
            ("-1", t(-1, 0)),
            ("1.", t(1, 0)),
            ("1.x", None),
            ("", None),
            ("--1", None),
        ] {
            assert_eq!(time(text.as_bytes()).ok(), want, "{text}");
        }
    }
}
