//! Names of scopes and slices: `cgroupsPath` as `SLICE:PREFIX:NAME`.

use std::path::{Path, PathBuf};

use super::super::error::{CgroupError, Result};
use super::super::limits::systemd::Property;
use crate::dbus::Value;

/// A transient scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Unit {
    slice: String,
    name: String,
    /// Of the slice, from the manager's cgroup.
    below: PathBuf,
}

/// Of what systemd takes for a unit's name.
const LONGEST: usize = 255;

impl Unit {
    /// Reads `cgroupsPath`. Without one the scope has the container's name, in the slice for its kind.
    ///
    /// # Errors
    /// Not of that form; a name that no unit can have.
    pub(in super::super) fn new(cgroups_path: &str, id: &str, rootless: bool) -> Result<Self> {
        let problem = |problem| CgroupError::Path { path: cgroups_path.to_owned(), problem };
        let mut parts = cgroups_path.split(':');
        let (slice, prefix, name) = match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(""), None, ..) => ("", "dhow", id),
            (Some(slice), Some(prefix), Some(name), None) => (slice, prefix, name),
            _ => {
                return Err(problem("is not of the form \"slice:prefix:name\", which systemd cgroups have"));
            }
        };
        let slice = match slice {
            "" if rootless => "user.slice",
            "" => "system.slice",
            slice => slice,
        };
        if name.is_empty() {
            return Err(problem("has no name after the second colon"));
        }
        let name = if prefix.is_empty() { format!("{name}.scope") } else { format!("{prefix}-{name}.scope") };
        if name.len() > LONGEST || !name.bytes().all(is_plain) {
            return Err(problem("makes a name that no unit can have"));
        }
        let below = expand(slice).ok_or_else(|| problem("names no slice"))?;
        Ok(Self { slice: slice.to_owned(), name, below })
    }

    /// `PREFIX-NAME.scope`.
    pub(in super::super) fn name(&self) -> &str {
        &self.name
    }

    /// Its cgroup, from the manager's.
    pub(super) fn place(&self) -> PathBuf {
        self.below.join(&self.name)
    }

    /// What makes it a container's: all of its cgroup is the container's own, and it is counted whatever it uses.
    pub(super) fn properties(&self, pid: i32, unified: bool) -> Vec<Property> {
        let on = |name: &'static str| (name.into(), Value::Bool(true));
        let description = format!("container {}", self.name.trim_end_matches(".scope"));
        vec![
            ("Description".into(), Value::Text(description)),
            ("Slice".into(), Value::Text(self.slice.clone())),
            ("PIDs".into(), Value::Array("u".into(), vec![Value::Uint32(pid.cast_unsigned())])),
            on("Delegate"),
            on("CPUAccounting"),
            on("MemoryAccounting"),
            on(if unified { "IOAccounting" } else { "BlockIOAccounting" }),
            on("TasksAccounting"),
            // Else it would be stopped before whoever keeps the container, at shutdown.
            ("DefaultDependencies".into(), Value::Bool(false)),
        ]
    }
}

/// What systemd allows in a unit's name.
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b":-_.\\@".contains(&byte)
}

/// The cgroup of a slice: `a-b.slice` lies in `a.slice`, and `-.slice` is the root of all.
fn expand(slice: &str) -> Option<PathBuf> {
    let stem = slice.strip_suffix(".slice")?;
    if stem == "-" {
        return Some(PathBuf::new());
    }
    if stem.is_empty() || slice.len() > LONGEST || !stem.bytes().all(is_plain) {
        return None;
    }
    let mut path = PathBuf::new();
    let mut end = 0;
    for part in stem.split('-') {
        if part.is_empty() {
            return None;
        }
        end += part.len();
        path.push(Path::new(&format!("{}.slice", &stem[..end])));
        end += 1;
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_lie_in_each_other() {
        let expanded = |slice| expand(slice).map(|path| path.display().to_string());
        assert_eq!(expanded("a.slice").as_deref(), Some("a.slice"));
        assert_eq!(expanded("a-b-c.slice").as_deref(), Some("a.slice/a-b.slice/a-b-c.slice"));
        assert_eq!(expanded("-.slice").as_deref(), Some(""));
        for bad in ["a", ".slice", "a--b.slice", "-a.slice", "a-.slice", "a/b.slice", "../a.slice", "a b.slice"] {
            assert_eq!(expanded(bad), None, "{bad}");
        }
    }

    #[test]
    fn paths_become_units() {
        let unit = |path, rootless| Unit::new(path, "box", rootless).map(|unit| unit.place().display().to_string());
        for (path, rootless, expected) in [
            ("", false, "system.slice/dhow-box.scope"),
            ("", true, "user.slice/dhow-box.scope"),
            ("machine.slice:libpod:abc", false, "machine.slice/libpod-abc.scope"),
            (":libpod:abc", false, "system.slice/libpod-abc.scope"),
            ("machine-x.slice::abc", false, "machine.slice/machine-x.slice/abc.scope"),
            ("-.slice:a:b", false, "a-b.scope"),
        ] {
            assert_eq!(unit(path, rootless).unwrap(), expected, "{path}");
        }
        for bad in ["/a/b", "a.slice:b", "a.slice:b:c:d", "a.slice:b:", "a:b:c", "a.slice:b/..:c", "a.slice:b:c+"] {
            let error = unit(bad, false).unwrap_err().to_string();
            assert!(error.starts_with("linux.cgroupsPath: "), "{error}");
        }
        assert!(unit(&format!("a.slice:b:{}", "c".repeat(250)), false).is_err());
    }
}
