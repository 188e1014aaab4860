//! `--filter key=value`: several values of one key are alternatives, different keys must all hold.

use std::collections::BTreeMap;

use super::Invalid;

/// All filters of one command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Filters(BTreeMap<String, Vec<String>>);

impl Filters {
    /// Parses all values; `known` lists the keys that the command understands.
    pub(crate) fn parse(values: &[String], known: &[&str]) -> Result<Self, Invalid> {
        let mut map: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for text in values {
            let refuse = |why: String| Invalid::new("--filter", text, why);
            let (key, value) = text.split_once('=').ok_or_else(|| refuse("KEY=VALUE is expected".into()))?;
            let key = key.trim().to_ascii_lowercase();
            if !known.contains(&key.as_str()) {
                return Err(refuse(format!("the key is none of {}", known.join(", "))));
            }
            map.entry(key).or_default().push(value.trim().to_owned());
        }
        Ok(Self(map))
    }

    /// Whether `key` is not asked for, or one of its values satisfies `test`.
    pub(crate) fn any(&self, key: &str, test: impl Fn(&str) -> bool) -> bool {
        self.0.get(key).is_none_or(|values| values.iter().any(|value| test(value)))
    }

    /// Whether every `label` filter (`NAME` or `NAME=VALUE`) is satisfied by `labels`.
    pub(crate) fn labels<'a>(&self, lookup: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.get("label").is_none_or(|wanted| {
            wanted.iter().all(|want| match want.split_once('=') {
                Some((name, value)) => lookup(name) == Some(value),
                None => lookup(want).is_some(),
            })
        })
    }

    /// The values given for `key`.
    pub(crate) fn values(&self, key: &str) -> &[String] {
        self.0.get(key).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters() {
        let values = ["status=exited", "status=created", "label=a=1", "label=b"].map(str::to_owned);
        let filters = Filters::parse(&values, &["status", "label"]).unwrap();
        assert!(filters.any("status", |v| v == "created"));
        assert!(!filters.any("status", |v| v == "running"));
        assert!(filters.any("name", |_| false));
        assert!(filters.labels(|name| match name {
            "a" => Some("1"),
            "b" => Some("x"),
            _ => None,
        }));
        assert!(!filters.labels(|name| (name == "a").then_some("1")));
        assert!(Filters::parse(&["x=1".to_owned()], &["status"]).is_err());
        assert!(Filters::parse(&["status".to_owned()], &["status"]).is_err());
    }
}
