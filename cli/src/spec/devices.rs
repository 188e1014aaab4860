//! Devices: the nodes that are made and the rules that allow them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dhow_api::defaults;
use nix::sys::stat::{FileStat, SFlag, major, minor, stat};
use serde_json::{Value, json};

use crate::container::record::{DeviceMapping, HostConfig};
use crate::error::{Error, Result};
use crate::parse::Invalid;
use crate::rootfs::view::kind;

/// What goes into the specification.
pub(super) struct Devices {
    pub(super) nodes: Vec<Value>,
    pub(super) rules: Vec<Value>,
}

/// What every container gets anyway, or has mounted over, directly below /dev.
const OWN: [&str; 14] = [
    "null", "zero", "full", "random", "urandom", "tty", "console", "ptmx", "pts", "shm", "mqueue", "fd", "stdin",
    "core",
];

/// Directories of /dev deeper than this hold no devices of interest.
const DEEPEST: usize = 4;

pub(super) fn collect(host: &HostConfig) -> Result<Devices> {
    let mut rules: Vec<Value> =
        defaults::device_rules().iter().filter_map(|rule| serde_json::to_value(rule).ok()).collect();
    let mut nodes = BTreeMap::new();
    if host.privileged {
        rules = vec![json!({ "allow": true, "access": "rwm" })];
        all_of(Path::new("/dev"), 0, &mut nodes);
    }
    for device in &host.devices {
        add(device, &mut nodes, &mut rules)?;
    }
    Ok(Devices { nodes: nodes.into_values().collect(), rules })
}

/// Adds a device, or all devices of a directory.
fn add(device: &DeviceMapping, nodes: &mut BTreeMap<PathBuf, Value>, rules: &mut Vec<Value>) -> Result<()> {
    let path = Path::new(&device.path_on_host);
    let found = stat(path).map_err(|errno| Error::file("open device", path)(errno.into()))?;
    let mut list = Vec::new();
    match kind(&found) {
        SFlag::S_IFCHR | SFlag::S_IFBLK => list.push((PathBuf::from(&device.path_in_container), found)),
        SFlag::S_IFDIR => {
            let entries = std::fs::read_dir(path).map_err(Error::file("list", path))?;
            for entry in entries.flatten() {
                if let Ok(found) = stat(&entry.path())
                    && is_device(&found)
                {
                    list.push((Path::new(&device.path_in_container).join(entry.file_name()), found));
                }
            }
        }
        _ => return Err(Invalid::new("--device", &device.path_on_host, "it is not a device").into()),
    }
    for (target, found) in list {
        rules.push(json!({
            "allow": true,
            "type": letter(&found),
            "major": major(found.st_rdev),
            "minor": minor(found.st_rdev),
            "access": device.cgroup_permissions,
        }));
        nodes.insert(target.clone(), node(&target, &found));
    }
    Ok(())
}

/// All devices of the host, for `--privileged`. What vanishes while we look is left out.
fn all_of(directory: &Path, depth: usize, nodes: &mut BTreeMap<PathBuf, Value>) {
    let Ok(entries) = std::fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let own = depth == 0 && entry.file_name().to_str().is_some_and(|name| OWN.contains(&name));
        let Ok(found) = nix::sys::stat::lstat(&entry.path()) else { continue };
        if own {
            continue;
        }
        if is_device(&found) {
            nodes.insert(entry.path(), node(&entry.path(), &found));
        } else if kind(&found) == SFlag::S_IFDIR && depth < DEEPEST {
            all_of(&entry.path(), depth + 1, nodes);
        }
    }
}

fn is_device(stat: &FileStat) -> bool {
    // A character device 0:0 is an overlay whiteout.
    matches!(kind(stat), SFlag::S_IFCHR | SFlag::S_IFBLK) && stat.st_rdev != 0
}

fn letter(stat: &FileStat) -> &'static str {
    if kind(stat) == SFlag::S_IFBLK { "b" } else { "c" }
}

fn node(target: &Path, stat: &FileStat) -> Value {
    json!({
        "path": target,
        "type": letter(stat),
        "major": major(stat.st_rdev),
        "minor": minor(stat.st_rdev),
        "fileMode": stat.st_mode & 0o7777,
        "uid": stat.st_uid,
        "gid": stat.st_gid,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(path: &str) -> HostConfig {
        let device = DeviceMapping {
            path_on_host: path.into(),
            path_in_container: "/dev/x".into(),
            cgroup_permissions: "rw".into(),
        };
        HostConfig { devices: vec![device], ..HostConfig::default() }
    }

    #[test]
    fn named_devices() {
        let devices = collect(&host("/dev/null")).unwrap();
        assert_eq!((devices.nodes[0]["path"].as_str(), devices.nodes[0]["minor"].as_u64()), (Some("/dev/x"), Some(3)));
        let rule = devices.rules.last().unwrap();
        assert_eq!(*rule, json!({ "allow": true, "type": "c", "major": 1, "minor": 3, "access": "rw" }));
        assert!(collect(&host("/etc/passwd")).is_err());
        assert!(collect(&host("/nonexistent")).is_err());
    }
}
