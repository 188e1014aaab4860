//! The device rules as properties of a unit.
//!
//! systemd's list can only allow. Where the rules begin by allowing everything its filter is left open; where they begin by
//! refusing it gets all that any rule allows. Either way it refuses nothing that the rules allow, and what they refuse is
//! refused by the filter of our own, which is in force beside systemd's.

use std::collections::BTreeMap;

use oci_spec::runtime::LinuxResources;

use super::super::error::Result;
use super::super::limits::systemd::Property;
use super::{Access, DeviceRules, Kind, Rule};
use crate::dbus::Value;

/// `DevicePolicy` and `DeviceAllow`.
pub(in super::super) fn properties(resources: &LinuxResources) -> Result<Vec<Property>> {
    let rules = DeviceRules::new(resources.devices().as_deref().unwrap_or_default())?;
    Ok(rules.properties())
}

impl DeviceRules {
    fn properties(&self) -> Vec<Property> {
        let open = self.0.iter().any(|rule| rule.allow && is_too_wide(rule));
        let mut allowed: BTreeMap<String, u8> = BTreeMap::new();
        for rule in self.0.iter().filter(|rule| !open && rule.allow) {
            for name in names(rule) {
                *allowed.entry(name).or_default() |= rule.access.0;
            }
        }
        let entry = |(name, access): (String, u8)| {
            Value::Struct(vec![Value::Text(name), Value::Text(Access(access).letters())])
        };
        let policy = if open { "auto" } else { "strict" };
        let allowed = allowed.into_iter().map(entry).collect();
        vec![("DevicePolicy".into(), policy.into()), ("DeviceAllow".into(), Value::Array("(ss)".into(), allowed))]
    }
}

/// Whether systemd has no pattern for it but all devices: everything, or one minor number of every major.
fn is_too_wide(rule: &Rule) -> bool {
    rule.is_about_everything() || (rule.major.is_none() && rule.minor.is_some())
}

/// A rule's devices as `DeviceAllow` names them. Nodes are named by their numbers: they need not exist (systemd 240).
fn names(rule: &Rule) -> Vec<String> {
    let kinds: &[&str] = match rule.kind {
        Kind::Any => &["block", "char"],
        Kind::Block => &["block"],
        Kind::Char => &["char"],
    };
    let name = |kind: &&str| match (rule.major, rule.minor) {
        (Some(major), Some(minor)) => format!("/dev/{kind}/{major}:{minor}"),
        (Some(major), None) => format!("{kind}-{major}"),
        (None, _) => format!("{kind}-*"),
    };
    kinds.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn lines(devices: &serde_json::Value) -> Vec<String> {
        let resources = serde_json::from_value(json!({"devices": devices})).unwrap();
        let list = properties(&resources).unwrap();
        let [(policy, Value::Text(word)), (allow, Value::Array(_, entries))] = list.as_slice() else {
            panic!("{list:?}")
        };
        assert_eq!((policy.as_ref(), allow.as_ref()), ("DevicePolicy", "DeviceAllow"));
        let entry = |entry: &Value| match entry {
            Value::Struct(fields) => match fields.as_slice() {
                [Value::Text(name), Value::Text(letters)] => format!("{name} {letters}"),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        std::iter::once(word.clone()).chain(entries.iter().map(entry)).collect()
    }

    #[test]
    fn what_is_allowed_is_listed() {
        let list = lines(&json!([
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "r"},
            {"allow": true, "type": "c", "major": 10, "minor": 229, "access": "w"},
            {"allow": true, "major": 8, "access": "r"},
        ]));
        assert_eq!(
            list[..5],
            ["strict", "/dev/char/10:229 rw", "/dev/char/1:3 rwm", "/dev/char/1:5 rwm", "/dev/char/1:7 rwm"]
        );
        assert!(
            ["block-* m", "char-* m", "block-8 r", "char-8 r", "char-136 rwm"]
                .iter()
                .all(|line| list.iter().any(|l| l == line)),
            "{list:?}"
        );
    }

    #[test]
    fn what_it_can_not_say_is_left_to_our_own_filter() {
        assert_eq!(lines(&json!([{"allow": true}])), ["auto"]);
        assert_eq!(lines(&json!([{"allow": true}, {"allow": false, "type": "c", "major": 1, "minor": 3}])), ["auto"]);
        assert_eq!(lines(&json!([{"allow": true, "type": "c", "minor": 3}])), ["auto"]);
    }
}
