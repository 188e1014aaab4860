//! `spec`: a config.json to start from.

use std::io::Write;
use std::path::Path;

use dhow_runtime::config::Spec;
use serde_json::{Value, json};

use super::args::{Flag, Parsed};
use super::help::SPEC_VERSION;
use super::{Command, Context, Failure};

pub(crate) const COMMAND: Command = Command {
    name: "spec",
    usage: "spec [options]",
    about: "write a config.json to start from",
    flags: &[
        Flag::value("bundle", "directory to write it to (default: the current one)").short('b'),
        Flag::value("file", "its name (default: config.json)").short('f'),
        Flag::switch("rootless", "one that needs no privileges"),
    ],
    literal_after: None,
    run,
};

fn run(_: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    parsed.exactly("spec", 0)?;
    let given = |flag| parsed.value(flag).filter(|value| !value.is_empty());
    let name = given("file").unwrap_or("config.json");
    let path = Path::new(given("bundle").unwrap_or(".")).join(name);
    let mut document = default();
    if dhow_runtime::cgroup::is_unified() {
        hide_cgroups(&mut document);
    }
    if parsed.on("rootless") {
        make_rootless(&mut document);
    }
    // Through the type: its fields have the order that people know.
    let spec = Spec::from_json(document.to_string().as_bytes())?;
    let mut text = Vec::new();
    let style = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    serde::Serialize::serialize(&spec, &mut serde_json::Serializer::with_formatter(&mut text, style))
        .map_err(|e| Failure::because("spec", e))?;
    let mut file = std::fs::File::create_new(&path).map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::new(format!("File {name} exists. Remove it first")),
        _ => Failure::because(path.display(), e),
    })?;
    file.write_all(&text).map_err(|e| Failure::because(path.display(), e))?;
    Ok(0)
}

/// A shell on a read-only root, in namespaces of its own but for the user's.
fn default() -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": SPEC_VERSION,
        "process": {
            "terminal": true,
            "user": {"uid": 0, "gid": 0},
            "args": ["sh"],
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": capabilities, "effective": capabilities, "permitted": capabilities},
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "runc",
        "mounts": [
            mount("/proc", "proc", "proc", &[]),
            mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
            mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
            mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
            mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
            mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
            mount("/sys/fs/cgroup", "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime", "ro"])
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}
            ],
            "maskedPaths": [
                "/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list",
                "/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"
            ],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
        }
    })
}

fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    let mut mount = json!({"destination": destination, "type": kind, "source": source});
    if !options.is_empty() {
        mount["options"] = json!(options);
    }
    mount
}

/// On v2 the container's cgroup can be its root; on v1 programs look for the paths that /proc/self/cgroup has.
fn hide_cgroups(document: &mut Value) {
    if let Some(namespaces) = document["linux"]["namespaces"].as_array_mut() {
        namespaces.push(json!({"type": "cgroup"}));
    }
}

/// Maps the caller to root, leaves the host's network, and mounts only what an unprivileged user can.
fn make_rootless(document: &mut Value) {
    let map = |id: u32| json!([{"containerID": 0, "hostID": id, "size": 1}]);
    let linux = &mut document["linux"];
    linux["uidMappings"] = map(nix::unistd::geteuid().as_raw());
    linux["gidMappings"] = map(nix::unistd::getegid().as_raw());
    if let Some(linux) = linux.as_object_mut() {
        linux.remove("resources");
    }
    if let Some(namespaces) = linux["namespaces"].as_array_mut() {
        namespaces.retain(|namespace| namespace["type"] != "network");
        namespaces.push(json!({"type": "user"}));
    }
    let Some(mounts) = document["mounts"].as_array_mut() else { return };
    for entry in mounts {
        match entry["destination"].as_str() {
            // A group that is not mapped can't own anything.
            Some("/dev/pts") => {
                if let Some(options) = entry["options"].as_array_mut() {
                    options.retain(|option| option != "gid=5");
                }
            }
            Some("/sys") => *entry = mount("/sys", "none", "/sys", &["rbind", "nosuid", "noexec", "nodev", "ro"]),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_a_config() {
        for rootless in [false, true] {
            let mut document = default();
            if rootless {
                make_rootless(&mut document);
            }
            let spec = Spec::from_json(document.to_string().as_bytes()).unwrap();
            assert_eq!(spec.mounts.len(), 7);
            assert_eq!(spec.linux.unwrap().uid_mappings.len(), usize::from(rootless));
        }
    }
}
