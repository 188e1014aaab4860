//! The list of mounts: docker's defaults, the files that netplug writes, and what the user asked for.

use std::collections::BTreeSet;
use std::path::Path;

use dhow_api::defaults;
use serde_json::{Value, json};

use super::Environment;
use crate::container::record::{MountPoint, Record};

/// All mounts, in the order of mounting.
pub(super) struct Mounts {
    pub(super) list: Vec<Value>,
    /// What the root itself must be for a mount's propagation to work.
    pub(super) propagation: Option<&'static str>,
}

/// What netplug writes and where it goes.
const FILES: [(&str, &str); 3] =
    [("resolv.conf", "/etc/resolv.conf"), ("hostname", "/etc/hostname"), ("hosts", "/etc/hosts")];

pub(super) fn build(record: &Record, environment: &Environment) -> Mounts {
    let taken: BTreeSet<&str> = record.mounts.iter().map(|m| m.destination.as_str()).collect();
    let mut list = default_mounts(record, environment, &taken);
    if let Some(files) = &environment.files {
        for (name, target) in FILES {
            let source = files.join(name);
            if !taken.contains(target) && source.exists() {
                list.push(json!({
                    "destination": target, "type": "bind", "source": source, "options": ["rbind", "rprivate"],
                }));
            }
        }
    }
    if let Some(init) = environment.init.as_ref().filter(|_| !taken.contains(super::INIT)) {
        list.push(json!({
            "destination": super::INIT, "type": "bind", "source": init, "options": ["bind", "rprivate", "ro", "nosuid", "nodev"],
        }));
    }
    let mut asked: Vec<&MountPoint> = record.mounts.iter().collect();
    // A mount on a directory of another mount has to come after it.
    asked.sort_by_key(|m| m.destination.split('/').count());
    list.extend(asked.iter().map(|m| mount(m)));
    let any = |kinds: [&str; 2]| asked.iter().any(|m| kinds.contains(&m.propagation.as_str()));
    let propagation = if any(["shared", "rshared"]) {
        Some("rshared")
    } else if any(["slave", "rslave"]) {
        Some("rslave")
    } else {
        None
    };
    Mounts { list, propagation }
}

fn default_mounts(record: &Record, environment: &Environment, taken: &BTreeSet<&str>) -> Vec<Value> {
    let host = &record.host;
    let shm = u64::try_from(host.shm_size).unwrap_or(0);
    let mut list = Vec::new();
    for mount in defaults::mounts(shm) {
        let Ok(mut mount) = serde_json::to_value(&mount) else { continue };
        let target = mount["destination"].as_str().unwrap_or_default().to_owned();
        if taken.contains(target.as_str()) {
            continue;
        }
        match target.as_str() {
            "/dev/shm" if host.ipc_mode == "none" => continue,
            // What the host lacks cannot be shared with it.
            "/dev/mqueue" if host.ipc_mode == "host" && !Path::new("/dev/mqueue").exists() => continue,
            "/dev/shm" if environment.shm.is_some() => {
                mount = json!({
                    "destination": target, "type": "bind", "source": environment.shm,
                    "options": ["bind", "rprivate", "nosuid", "noexec", "nodev"],
                });
            }
            "/dev/shm" | "/dev/mqueue" if host.ipc_mode == "host" => {
                mount = json!({
                    "destination": target, "type": "bind", "source": target, "options": ["rbind", "nosuid", "noexec", "nodev"],
                });
            }
            "/sys" | "/sys/fs/cgroup" if host.privileged => {
                if let Some(options) = mount["options"].as_array_mut() {
                    options.retain(|o| o != "ro");
                    options.push("rw".into());
                }
            }
            _ => {}
        }
        list.push(mount);
    }
    list
}

fn mount(mount: &MountPoint) -> Value {
    let access = if mount.rw { "rw" } else { "ro" };
    if mount.kind == "tmpfs" {
        let mut options = vec!["nosuid".to_owned(), "nodev".to_owned()];
        options.extend(mount.options.iter().filter(|o| *o != "rw" && *o != "ro").cloned());
        if !mount.options.iter().any(|o| o.starts_with("mode=")) {
            options.push("mode=1777".to_owned());
        }
        if !mount.options.iter().any(|o| o == "exec" || o == "noexec") {
            options.push("noexec".to_owned());
        }
        let read_only = mount.options.iter().any(|o| o == "ro") || !mount.rw;
        options.push(if read_only { "ro" } else { "rw" }.to_owned());
        return json!({ "destination": mount.destination, "type": "tmpfs", "source": "tmpfs", "options": options });
    }
    let bind = if mount.options.iter().any(|o| o == "bind") { "bind" } else { "rbind" };
    let propagation = if mount.propagation.is_empty() { "rprivate" } else { &mount.propagation };
    json!({
        "destination": mount.destination,
        "type": "bind",
        "source": Path::new(&mount.source),
        "options": [bind, propagation, access],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(kind: &str, destination: &str, rw: bool) -> MountPoint {
        MountPoint {
            kind: kind.into(),
            source: "/s".into(),
            destination: destination.into(),
            rw,
            ..MountPoint::default()
        }
    }

    #[test]
    fn order_and_overrides() {
        let mounts = vec![point("bind", "/a/b", false), point("volume", "/a", true), point("tmpfs", "/dev/shm", true)];
        let record = Record { mounts, ..Record::default() };
        let mounts = build(&record, &Environment::default());
        let targets: Vec<_> = mounts.list.iter().map(|m| m["destination"].as_str().unwrap()).collect();
        assert_eq!(targets.iter().filter(|t| **t == "/dev/shm").count(), 1);
        let at = |target: &str| targets.iter().position(|t| *t == target).unwrap();
        assert!(at("/a") < at("/a/b"));
        assert_eq!(mounts.list[at("/a/b")]["options"], json!(["rbind", "rprivate", "ro"]));
        let shm = &mounts.list[at("/dev/shm")]["options"];
        assert_eq!(*shm, json!(["nosuid", "nodev", "mode=1777", "noexec", "rw"]));
    }
}
