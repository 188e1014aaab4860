//! Which devices a container may open and make.
//!
//! Rules apply in their order, over "none at all", and for each of read, write and mknod the last rule that concerns a device
//! decides. After the profile's rules come those for the devices that the runtime itself puts into /dev, as in runc.
//! v1 has a list that is written line by line ([`DeviceRules::lines`]), v2 a program ([`program`]), and systemd a list of what
//! is allowed ([`systemd`]).

pub(super) mod program;
pub(super) mod systemd;

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};

use super::dir::Dir;
use super::error::{CgroupError, Result};

/// The rules in their order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct DeviceRules(Vec<Rule>);

/// One rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rule {
    allow: bool,
    kind: Kind,
    /// Any when absent.
    major: Option<u32>,
    /// Any when absent.
    minor: Option<u32>,
    access: Access,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Any,
    Block,
    Char,
}

/// A set of accesses, in the kernel's bits (`BPF_DEVCG_ACC_*`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Access(u8);

impl Access {
    const MKNOD: Self = Self(1);
    const READ: Self = Self(2);
    const WRITE: Self = Self(4);
    const ALL: Self = Self(7);
}

impl DeviceRules {
    /// Reads `linux.resources.devices`.
    pub(super) fn new(devices: &[LinuxDeviceCgroup]) -> Result<Self> {
        let mut rules = vec![Rule::all(false)];
        for (index, device) in devices.iter().enumerate() {
            rules.push(Rule::new(index, device)?);
        }
        let character = |major, minor| Rule { kind: Kind::Char, major, minor, ..Rule::all(true) };
        rules.push(Rule { access: Access::MKNOD, ..character(None, None) });
        rules.push(Rule { kind: Kind::Block, access: Access::MKNOD, ..Rule::all(true) });
        // null, zero, full, random, urandom; tty, ptmx; the terminals of devpts.
        for (major, minor) in [(1, 3), (1, 5), (1, 7), (1, 8), (1, 9), (5, 0), (5, 2)] {
            rules.push(character(Some(major), Some(minor)));
        }
        rules.push(character(Some(136), None));
        // What comes before a rule about everything does not matter.
        let begin = rules.iter().rposition(|rule| rule.is_about_everything()).unwrap_or(0);
        Ok(Self(rules.split_off(begin)))
    }

    /// Whether nothing is refused, so that no filter is needed.
    pub(super) fn allow_everything(&self) -> bool {
        self.0.iter().all(|rule| rule.allow) && self.0.first().is_some_and(Rule::is_about_everything)
    }

    /// v1's lines: the file, and what to write to it.
    fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = Vec::with_capacity(self.0.len());
        for rule in &self.0 {
            let file = if rule.allow { "devices.allow" } else { "devices.deny" };
            if rule.is_about_everything() {
                lines.push((file, "a".to_owned()));
                continue;
            }
            // The kernel takes `a` for everything, whatever stands behind it.
            let kinds: &[char] = match rule.kind {
                Kind::Any => &['b', 'c'],
                Kind::Block => &['b'],
                Kind::Char => &['c'],
            };
            let number = |number: Option<u32>| number.map_or("*".to_owned(), |number| number.to_string());
            for kind in kinds {
                let numbers = format!("{}:{}", number(rule.major), number(rule.minor));
                lines.push((file, format!("{kind} {numbers} {}", rule.access.letters())));
            }
        }
        lines
    }

    /// Installs them in a cgroup of v1 that has no process yet.
    pub(super) fn install_v1(&self, dir: &Dir) -> Result<()> {
        let error = |source| CgroupError::Devices { step: "write", path: dir.path().to_owned(), source };
        let allow = dir.writer("devices.allow").map_err(error)?;
        let deny = dir.writer("devices.deny").map_err(error)?;
        for (file, line) in self.lines() {
            let writer = if file == "devices.allow" { &allow } else { &deny };
            writer.write(&line).map_err(error)?;
        }
        Ok(())
    }
}

impl Rule {
    fn all(allow: bool) -> Self {
        Self { allow, kind: Kind::Any, major: None, minor: None, access: Access::ALL }
    }

    fn new(index: usize, device: &LinuxDeviceCgroup) -> Result<Self> {
        let field = || format!("linux.resources.devices[{index}]");
        let kind = match device.typ() {
            None | Some(LinuxDeviceType::A) => Kind::Any,
            Some(LinuxDeviceType::B) => Kind::Block,
            Some(LinuxDeviceType::C | LinuxDeviceType::U) => Kind::Char,
            Some(LinuxDeviceType::P) => {
                return Err(CgroupError::invalid(field(), "a fifo is no device that could be allowed"));
            }
        };
        let number = |name: &str, number: Option<i64>| match number {
            None | Some(-1) => Ok(None),
            Some(number) => match u32::try_from(number) {
                Ok(number) => Ok(Some(number)),
                Err(_) => {
                    Err(CgroupError::invalid(format!("{}.{name}", field()), format!("{number} is no device number")))
                }
            },
        };
        let access = match device.access().as_deref() {
            None | Some("") => Access::ALL,
            Some(letters) => Access::parse(letters).ok_or_else(|| {
                CgroupError::invalid(format!("{}.access", field()), format!("{letters:?} is not made of r, w and m"))
            })?,
        };
        let (major, minor) = (number("major", device.major())?, number("minor", device.minor())?);
        Ok(Self { allow: device.allow(), kind, major, minor, access })
    }

    fn is_about_everything(&self) -> bool {
        Self { allow: self.allow, ..Self::all(true) } == *self
    }
}

impl Access {
    fn parse(letters: &str) -> Option<Self> {
        letters.chars().try_fold(Self(0), |set, letter| {
            let access = match letter {
                'r' => Self::READ,
                'w' => Self::WRITE,
                'm' => Self::MKNOD,
                // Seen in the wild, where it is taken for nothing.
                'a' => Self(0),
                _ => return None,
            };
            Some(Self(set.0 | access.0))
        })
    }

    fn letters(self) -> String {
        let letters = [(Self::READ, 'r'), (Self::WRITE, 'w'), (Self::MKNOD, 'm')];
        letters.iter().filter(|(access, _)| self.0 & access.0 != 0).map(|(_, letter)| letter).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    pub(super) fn rules(devices: serde_json::Value) -> Result<DeviceRules> {
        let devices: Vec<LinuxDeviceCgroup> = serde_json::from_value(devices).unwrap();
        DeviceRules::new(&devices)
    }

    #[test]
    fn lines_for_v1() {
        let rules = rules(json!([
            {"allow": true, "type": "c", "major": 9, "minor": 9},
            {"allow": false, "access": "rwm"},
            {"allow": true, "type": "b", "major": 8, "minor": -1, "access": "r"},
            {"allow": true, "type": "a", "major": 10, "minor": 200, "access": "rw"},
        ]));
        let lines: Vec<_> = rules.unwrap().lines().iter().map(|(file, line)| format!("{file} {line}")).collect();
        assert_eq!(
            lines[..6],
            [
                "devices.deny a",
                "devices.allow b 8:* r",
                "devices.allow b 10:200 rw",
                "devices.allow c 10:200 rw",
                "devices.allow c *:* m",
                "devices.allow b *:* m",
            ]
        );
        assert_eq!(lines.last().unwrap(), "devices.allow c 136:* rwm");
    }

    #[test]
    fn a_privileged_container_needs_no_filter() {
        assert!(rules(json!([{"allow": false}, {"allow": true, "access": "rwm"}])).unwrap().allow_everything());
        assert!(!rules(json!([])).unwrap().allow_everything());
        assert!(
            !rules(json!([{"allow": true}, {"allow": false, "type": "c", "major": 1}])).unwrap().allow_everything()
        );
    }

    #[test]
    fn nonsense_names_its_field() {
        for (rule, field) in [
            (json!({"allow": true, "access": "rx"}), "devices[0].access"),
            (json!({"allow": true, "major": -2}), "devices[0].major"),
            (json!({"allow": true, "minor": 1_i64 << 40}), "devices[0].minor"),
            (json!({"allow": true, "type": "p"}), "devices[0]"),
        ] {
            let error = rules(json!([rule])).unwrap_err().to_string();
            assert!(error.starts_with(&format!("linux.resources.{field}: ")), "{error}");
        }
    }
}
