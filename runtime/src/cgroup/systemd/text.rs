//! Annotations `org.systemd.property.NAME: VALUE`: any property of the scope, its value in GVariant's text format.

use std::collections::BTreeMap;

use super::super::error::{CgroupError, Result};
use super::super::limits::systemd::Property;
use crate::dbus::Value;

const PREFIX: &str = "org.systemd.property.";

/// All properties among the annotations.
pub(super) fn properties(annotations: &BTreeMap<String, String>) -> Result<Vec<Property>> {
    let named = annotations.iter().filter_map(|(key, value)| Some((key, key.strip_prefix(PREFIX)?, value)));
    let one = |(key, name, text): (&String, &str, &String)| {
        let invalid = |problem: &str| CgroupError::invalid(format!("annotations.{key}"), problem);
        if name.len() < 3 || !name.bytes().all(|byte| byte.is_ascii_alphabetic()) {
            return Err(invalid("is not the name of a property"));
        }
        let value = parse(text).ok_or_else(|| invalid(&format!("{text:?} is no value in GVariant's text format")))?;
        Ok(match name.strip_suffix("Sec").filter(|_| !name.ends_with("USec")) {
            // As in unit files; over D-Bus every time is in microseconds.
            Some(stem) => {
                let microseconds = microseconds(&value).ok_or_else(|| invalid("is not a number of seconds"))?;
                (format!("{stem}USec").into(), Value::Uint64(microseconds))
            }
            None => (name.to_owned().into(), value),
        })
    };
    named.map(one).collect()
}

fn microseconds(value: &Value) -> Option<u64> {
    let whole = |seconds: i128| u64::try_from(seconds.checked_mul(1_000_000)?).ok();
    match *value {
        Value::Byte(n) => whole(n.into()),
        Value::Int16(n) => whole(n.into()),
        Value::Uint16(n) => whole(n.into()),
        Value::Int32(n) => whole(n.into()),
        Value::Uint32(n) => whole(n.into()),
        Value::Int64(n) => whole(n.into()),
        Value::Uint64(n) => whole(n.into()),
        Value::Double(n) if (0.0..1e12).contains(&n) => Some((n * 1e6) as u64),
        _ => None,
    }
}

/// Reads one value: booleans, numbers, texts, and arrays of these.
fn parse(text: &str) -> Option<Value> {
    let mut parser = Parser { rest: text };
    let value = parser.value(None)?;
    parser.space();
    parser.rest.is_empty().then_some(value)
}

struct Parser<'a> {
    rest: &'a str,
}

impl<'a> Parser<'a> {
    fn space(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, prefix: &str) -> bool {
        self.space();
        let taken = self.rest.strip_prefix(prefix);
        self.rest = taken.unwrap_or(self.rest);
        taken.is_some()
    }

    fn word(&mut self) -> &'a str {
        self.space();
        let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && !"+-._".contains(c));
        let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        word
    }

    /// A value, of the type with this letter if it is known.
    fn value(&mut self, kind: Option<char>) -> Option<Value> {
        if self.take("[") {
            // An array in an array is more than any property of a scope has.
            return if kind.is_none() { self.items(None) } else { None };
        }
        if self.take("@a") {
            let kind = self.word().chars().next();
            return if self.take("[") { self.items(kind) } else { None };
        }
        if let Some(quote) = ['\'', '"'].into_iter().find(|quote| self.rest.starts_with(*quote)) {
            return textual(kind.unwrap_or('s'), self.quoted(quote)?);
        }
        let word = self.word();
        match KINDS.iter().find(|(name, _)| *name == word) {
            Some((_, named)) if kind.is_none() => self.value(Some(*named)),
            _ => literal(kind, word),
        }
    }

    fn items(&mut self, mut kind: Option<char>) -> Option<Value> {
        let mut items: Vec<Value> = Vec::new();
        while !self.take("]") {
            if !items.is_empty() && !self.take(",") {
                return None;
            }
            let item = self.value(kind)?;
            // The first one says of which type the others are.
            kind = item.signature().chars().next();
            items.push(item);
        }
        let signature = kind?.to_string();
        items.iter().all(|item| item.signature() == signature).then_some(Value::Array(signature, items))
    }

    fn quoted(&mut self, quote: char) -> Option<String> {
        let mut chars = self.rest.char_indices().skip(1);
        let mut text = String::new();
        while let Some((at, c)) = chars.next() {
            match c {
                '\\' => text.push(match chars.next()?.1 {
                    'n' => '\n',
                    't' => '\t',
                    plain @ ('\\' | '\'' | '"') => plain,
                    _ => return None,
                }),
                c if c == quote => {
                    self.rest = &self.rest[at + 1..];
                    return Some(text);
                }
                c => text.push(c),
            }
        }
        None
    }
}

const KINDS: [(&str, char); 12] = [
    ("boolean", 'b'),
    ("byte", 'y'),
    ("int16", 'n'),
    ("uint16", 'q'),
    ("int32", 'i'),
    ("uint32", 'u'),
    ("int64", 'x'),
    ("uint64", 't'),
    ("double", 'd'),
    ("string", 's'),
    ("objectpath", 'o'),
    ("signature", 'g'),
];

fn textual(kind: char, text: String) -> Option<Value> {
    match kind {
        's' => Some(Value::Text(text)),
        'o' => Some(Value::ObjectPath(text)),
        'g' if text.len() < 256 => Some(Value::Signature(text)),
        _ => None,
    }
}

/// A boolean or a number; one without a type is an `int32`, or with a point a `double`.
fn literal(kind: Option<char>, word: &str) -> Option<Value> {
    let integer = || -> Option<i128> {
        let (sign, digits) = word.strip_prefix('-').map_or((1, word), |digits| (-1, digits));
        let magnitude = match digits.strip_prefix("0x") {
            Some(hex) => i128::from_str_radix(hex, 16),
            None => digits.parse(),
        };
        magnitude.ok().filter(|n| *n >= 0 && *n <= u64::MAX.into()).map(|n| sign * n)
    };
    let kind = kind.unwrap_or(match word {
        "true" | "false" => 'b',
        _ if integer().is_some() => 'i',
        _ => 'd',
    });
    Some(match kind {
        'b' => Value::Bool(word.parse().ok()?),
        'y' => Value::Byte(integer()?.try_into().ok()?),
        'n' => Value::Int16(integer()?.try_into().ok()?),
        'q' => Value::Uint16(integer()?.try_into().ok()?),
        'i' => Value::Int32(integer()?.try_into().ok()?),
        'u' => Value::Uint32(integer()?.try_into().ok()?),
        'x' => Value::Int64(integer()?.try_into().ok()?),
        't' => Value::Uint64(integer()?.try_into().ok()?),
        'd' => Value::Double(word.parse().ok().filter(|number: &f64| number.is_finite())?),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values() {
        let texts = |list: &[&str]| Value::Array("s".into(), list.iter().map(|text| (*text).into()).collect());
        for (text, expected) in [
            ("true", Value::Bool(true)),
            ("7", Value::Int32(7)),
            ("-7", Value::Int32(-7)),
            ("uint64 123000000", Value::Uint64(123_000_000)),
            ("0x10", Value::Int32(16)),
            ("byte 0xff", Value::Byte(255)),
            ("1.5", Value::Double(1.5)),
            ("'a b'", "a b".into()),
            (r#" "it\'s" "#, "it's".into()),
            ("objectpath '/a'", Value::ObjectPath("/a".into())),
            ("['a.service', 'b.service']", texts(&["a.service", "b.service"])),
            ("@as []", texts(&[])),
            ("[uint32 1, 2]", Value::Array("u".into(), vec![Value::Uint32(1), Value::Uint32(2)])),
        ] {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
        for bad in
            ["", "a", "'a", "[]", "['a' 'b']", "['a', 1]", "uint64 -1", "1 2", "byte 256", "[[1]]", "(1, 2)", "inf"]
        {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn annotations() {
        let read = |key: &str, value: &str| properties(&BTreeMap::from([(key.to_owned(), value.to_owned())]));
        let property = |name: &'static str, value| vec![(name.into(), value)];
        assert_eq!(
            read("org.systemd.property.TimeoutStopSec", "30").unwrap(),
            property("TimeoutStopUSec", Value::Uint64(30_000_000))
        );
        assert_eq!(
            read("org.systemd.property.TimeoutStopUSec", "uint64 5").unwrap(),
            property("TimeoutStopUSec", Value::Uint64(5))
        );
        assert_eq!(
            read("org.systemd.property.CollectMode", "'inactive'").unwrap(),
            property("CollectMode", "inactive".into())
        );
        assert!(read("org.example", "x").unwrap().is_empty());
        for (key, value) in [
            ("org.systemd.property.", "1"),
            ("org.systemd.property.A-b", "1"),
            ("org.systemd.property.Slice", "a.slice"),
            ("org.systemd.property.TimeoutStopSec", "'x'"),
        ] {
            let error = read(key, value).unwrap_err().to_string();
            assert!(error.starts_with(&format!("annotations.{key}: ")), "{error}");
        }
    }
}
