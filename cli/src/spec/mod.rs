//! From a container's record to its runtime specification (`config.json`).
//!
//! The document is made anew at every start: namespaces of other containers, the network namespace and the user's
//! number may have changed since the last. Everything here is computed; the only files read are the devices that the
//! user named and a seccomp profile of his own.

mod devices;
mod mounts;
mod resources;
mod seccomp;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::PathBuf;

use dhow_api::{defaults, paths::Bundle};
use oci_spec::runtime::Capability;
use serde_json::{Map, Value, json};

use crate::container::record::{HostConfig, Record};
use crate::error::{Error, Result};
use crate::parse::security;
use crate::rootfs::users::User;

/// The cgroup that containers' cgroups lie in unless `--cgroup-parent` says another.
pub(crate) const CGROUP_PARENT: &str = "dhow";

/// What a start knows beyond the record.
#[derive(Debug, Default)]
pub(crate) struct Environment {
    /// The resolved user.
    pub user: User,
    /// The network namespace to join; `None`: the host's.
    pub netns: Option<PathBuf>,
    /// `/proc/PID/ns/pid` of another container, for `--pid container:`.
    pub pidns: Option<PathBuf>,
    /// As `pidns`, for `--ipc container:`.
    pub ipcns: Option<PathBuf>,
    /// The directory of a /dev/shm that containers share.
    pub shm: Option<PathBuf>,
    /// The program that is process 1 with `--init`.
    pub init: Option<PathBuf>,
    /// Where hostname, hosts and resolv.conf lie: this container's directory or another's.
    pub files: Option<PathBuf>,
    /// Rows and columns of the user's terminal.
    pub console: Option<(u16, u16)>,
}

/// The document.
pub(crate) fn build(record: &Record, bundle: &Bundle, environment: &Environment) -> Result<Value> {
    let host = &record.host;
    let security = security::parse(host.security_opt.as_deref().unwrap_or_default())?;
    let capabilities = capabilities(record)?;
    let devices = devices::collect(host)?;
    let mounts = mounts::build(record, environment);
    let unconfined = host.privileged || security.system_paths_unconfined;
    let mut linux = json!({
        "namespaces": namespaces(record, environment),
        "devices": devices.nodes,
        "resources": resources::build(host, devices.rules),
        "cgroupsPath": cgroups_path(&record.id, &host.cgroup_parent),
        "maskedPaths": if unconfined { Vec::new() } else { defaults::masked_paths() },
        "readonlyPaths": if unconfined { Vec::new() } else { defaults::readonly_paths() },
    });
    if let Some(profile) = seccomp::profile(&security.seccomp, host.privileged, &capabilities)? {
        linux["seccomp"] = profile;
    }
    if let Some(propagation) = mounts.propagation {
        linux["rootfsPropagation"] = propagation.into();
    }
    if let Some(label) = &security.selinux {
        linux["mountLabel"] = label.as_str().into();
    }
    let sysctl = sysctls(record);
    if !sysctl.is_empty() {
        linux["sysctl"] = json!(sysctl);
    }
    let mut process = process(record, environment, &capabilities)?;
    process["noNewPrivileges"] = security.no_new_privileges.into();
    if let Some(profile) = &security.apparmor {
        process["apparmorProfile"] = profile.as_str().into();
    }
    if let Some(label) = &security.selinux {
        process["selinuxLabel"] = label.as_str().into();
    }
    let mut spec = json!({
        "ociVersion": "1.2.0",
        "process": process,
        "root": { "path": bundle.rootfs(), "readonly": host.readonly_rootfs },
        "mounts": mounts.list,
        "linux": linux,
        "annotations": host.annotations,
    });
    if host.uts_mode != "host" {
        spec["hostname"] = record.config.hostname.as_str().into();
        if !record.config.domainname.is_empty() {
            spec["domainname"] = record.config.domainname.as_str().into();
        }
    }
    Ok(spec)
}

/// The command, behind the init where there is one.
fn arguments(record: &Record, environment: &Environment) -> Vec<String> {
    let init = environment.init.iter().flat_map(|_| [INIT.to_owned(), "--".to_owned()]);
    init.chain(record.command.iter().cloned()).collect()
}

/// Where the init stands in the container, by docker's name; by it the program knows what it is.
const INIT: &str = "/sbin/docker-init";

/// The limits alone, for a container that runs. Devices are not changed.
pub(crate) fn limits(host: &HostConfig) -> Value {
    let mut resources = resources::build(host, Vec::new());
    if let Some(map) = resources.as_object_mut() {
        map.remove("devices");
    }
    resources
}

/// The first process.
fn process(record: &Record, environment: &Environment, capabilities: &BTreeSet<String>) -> Result<Value> {
    let config = &record.config;
    let mut process = json!({
        "terminal": config.tty,
        "user": user(&environment.user),
        "args": arguments(record, environment),
        "env": environment_of(&config.env, &environment.user.home),
        "cwd": if config.working_dir.is_empty() { "/" } else { &config.working_dir },
        "capabilities": capability_sets(capabilities),
        "oomScoreAdj": record.host.oom_score_adj,
    });
    let limits: Vec<Value> = record.host.ulimits.iter().flatten().map(resources::rlimit).collect();
    if !limits.is_empty() {
        process["rlimits"] = limits.into();
    }
    if let Some((rows, columns)) = environment.console.filter(|_| config.tty) {
        process["consoleSize"] = json!({ "height": rows, "width": columns });
    }
    if record.command.is_empty() {
        return Err(Error::Usage("no command specified".into()));
    }
    Ok(process)
}

/// A further process of a running container (`exec`).
#[derive(Debug)]
pub(crate) struct Exec<'a> {
    /// Program and arguments.
    pub command: &'a [String],
    /// The complete environment.
    pub env: Vec<String>,
    /// Working directory; none: the container's.
    pub cwd: Option<&'a str>,
    /// Whom it runs as.
    pub user: User,
    /// Whether it gets a terminal, and that terminal's rows and columns.
    pub terminal: Option<Option<(u16, u16)>>,
    /// With all capabilities and no filter.
    pub privileged: bool,
}

/// The `process` document of an exec.
pub(crate) fn exec_process(record: &Record, exec: &Exec<'_>) -> Result<Value> {
    let security = security::parse(record.host.security_opt.as_deref().unwrap_or_default())?;
    let capabilities = if exec.privileged { dhow_sys::caps::names().collect() } else { capabilities(record)? };
    let workdir = if record.config.working_dir.is_empty() { "/" } else { &record.config.working_dir };
    let mut process = json!({
        "terminal": exec.terminal.is_some(),
        "user": user(&exec.user),
        "args": exec.command,
        "env": environment_of(&exec.env, &exec.user.home),
        "cwd": exec.cwd.unwrap_or(workdir),
        "capabilities": capability_sets(&capabilities),
        "noNewPrivileges": security.no_new_privileges && !exec.privileged,
        "oomScoreAdj": record.host.oom_score_adj,
    });
    if let Some(Some((rows, columns))) = exec.terminal {
        process["consoleSize"] = json!({ "height": rows, "width": columns });
    }
    if let Some(profile) = &security.apparmor {
        process["apparmorProfile"] = profile.as_str().into();
    }
    if let Some(label) = &security.selinux {
        process["selinuxLabel"] = label.as_str().into();
    }
    Ok(process)
}

fn user(user: &User) -> Value {
    json!({ "uid": user.uid, "gid": user.gid, "additionalGids": user.groups })
}

/// HOME comes from the user's entry in passwd unless something sets it.
fn environment_of(env: &[String], home: &str) -> Vec<String> {
    let mut env = env.to_vec();
    if !env.iter().any(|e| e.starts_with("HOME=")) {
        env.push(format!("HOME={home}"));
    }
    env
}

fn capability_sets(capabilities: &BTreeSet<String>) -> Value {
    json!({ "bounding": capabilities, "effective": capabilities, "permitted": capabilities })
}

/// docker's defaults, with `--cap-drop` taken away and `--cap-add` added; `ALL` on either side is all there are.
fn capabilities(record: &Record) -> Result<BTreeSet<String>> {
    let all: BTreeSet<String> = dhow_sys::caps::names().collect();
    if record.host.privileged {
        return Ok(all);
    }
    let named = |list: &Option<Vec<String>>| -> Result<BTreeSet<String>> {
        let names = list.iter().flatten().map(|name| security::capability(name));
        let names = names.collect::<std::result::Result<BTreeSet<_>, _>>()?;
        if let Some(unknown) = names.iter().find(|name| *name != "ALL" && !all.contains(*name)) {
            return Err(crate::parse::Invalid::new("capability", unknown, "this kernel has none of that name").into());
        }
        Ok(names)
    };
    let (added, dropped) = (named(&record.host.cap_add)?, named(&record.host.cap_drop)?);
    let mut set: BTreeSet<String> = if dropped.contains("ALL") {
        BTreeSet::new()
    } else if added.contains("ALL") {
        all.clone()
    } else {
        defaults::capabilities().iter().map(ToString::to_string).map(with_prefix).collect()
    };
    if added.contains("ALL") {
        set.extend(all);
    }
    set.extend(added.into_iter().filter(|name| name != "ALL"));
    set.retain(|name| !dropped.contains(name));
    Ok(set)
}

/// oci-spec prints capabilities with or without the prefix, depending on its version.
fn with_prefix(name: String) -> String {
    if name.starts_with("CAP_") { name } else { format!("CAP_{name}") }
}

/// The set as oci-spec's type; what it does not know is left out.
fn typed(capabilities: &BTreeSet<String>) -> HashSet<Capability> {
    capabilities.iter().filter_map(|name| serde_json::from_value(Value::from(name.as_str())).ok()).collect()
}

fn namespaces(record: &Record, environment: &Environment) -> Vec<Value> {
    let host = &record.host;
    let mut list = vec![json!({ "type": "mount" })];
    let mut add = |kind: &str, path: Option<&PathBuf>| {
        let mut entry = Map::from_iter([("type".to_owned(), Value::from(kind))]);
        if let Some(path) = path {
            entry.insert("path".to_owned(), json!(path));
        }
        list.push(entry.into());
    };
    if host.pid_mode != "host" {
        add("pid", environment.pidns.as_ref());
    }
    if host.ipc_mode != "host" {
        add("ipc", environment.ipcns.as_ref());
    }
    if host.uts_mode != "host" {
        add("uts", None);
    }
    if host.cgroupns_mode != "host" {
        add("cgroup", None);
    }
    if environment.netns.is_some() {
        add("network", environment.netns.as_ref());
    }
    list
}

/// docker's own settings for a container with a network of its own, then `--sysctl`.
fn sysctls(record: &Record) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    if record.network.mode != "host" && !record.network.mode.starts_with("container:") {
        // So that ordinary users may bind port 80 and ping.
        map.insert("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned());
        map.insert("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned());
    }
    map.extend(record.host.sysctls.clone());
    map
}

fn cgroups_path(id: &str, parent: &str) -> String {
    let parent = parent.trim_matches('/');
    if parent.is_empty() { format!("/{CGROUP_PARENT}/{id}") } else { format!("/{parent}/{id}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let mut record = Record { id: "abc".into(), command: vec!["sh".into()], ..Record::default() };
        record.config.hostname = "abc".into();
        record.config.env = vec!["PATH=/bin".into()];
        record.host.shm_size = 64 << 20;
        record.network.mode = "bridge".into();
        record
    }

    fn built(record: &Record) -> Value {
        build(record, &Bundle::new("/b"), &Environment { netns: Some("/n".into()), ..Environment::default() }).unwrap()
    }

    fn kinds(spec: &Value) -> Vec<&str> {
        spec["linux"]["namespaces"].as_array().unwrap().iter().map(|n| n["type"].as_str().unwrap()).collect()
    }

    #[test]
    fn the_plain_container() {
        let spec = built(&record());
        assert_eq!(kinds(&spec), ["mount", "pid", "ipc", "uts", "cgroup", "network"]);
        assert_eq!(spec["process"]["env"], json!(["PATH=/bin", "HOME="]));
        assert_eq!(spec["process"]["cwd"], "/");
        assert_eq!(spec["linux"]["cgroupsPath"], "/dhow/abc");
        assert_eq!(spec["linux"]["namespaces"][5]["path"], "/n");
        assert!(spec["linux"]["seccomp"].is_object());
        // It reads as a specification.
        serde_json::from_value::<oci_spec::runtime::Spec>(spec).unwrap();
    }

    #[test]
    fn privileges() {
        let mut record = record();
        record.host.privileged = true;
        let spec = built(&record);
        assert!(spec["linux"].get("seccomp").is_none());
        assert_eq!(spec["linux"]["maskedPaths"], json!([]));
        let all = dhow_sys::caps::names().count();
        assert_eq!(spec["process"]["capabilities"]["bounding"].as_array().unwrap().len(), all);
    }

    #[test]
    fn capability_flags() {
        let mut record = record();
        let plain = capabilities(&record).unwrap();
        assert!(plain.contains("CAP_CHOWN") && !plain.contains("CAP_SYS_ADMIN"));
        record.host.cap_drop = Some(vec!["all".into()]);
        record.host.cap_add = Some(vec!["net_admin".into()]);
        assert_eq!(capabilities(&record).unwrap().into_iter().collect::<Vec<_>>(), ["CAP_NET_ADMIN"]);
        record.host.cap_drop = Some(vec!["chown".into()]);
        record.host.cap_add = Some(vec!["ALL".into()]);
        let set = capabilities(&record).unwrap();
        assert!(set.contains("CAP_SYS_ADMIN") && !set.contains("CAP_CHOWN"));
        record.host.cap_add = Some(vec!["frobnicate".into()]);
        assert!(capabilities(&record).is_err());
    }

    #[test]
    fn shared_namespaces() {
        let mut record = record();
        record.host.pid_mode = "host".into();
        record.host.ipc_mode = "host".into();
        record.host.uts_mode = "host".into();
        record.host.cgroupns_mode = "host".into();
        record.network.mode = "host".into();
        let spec = build(&record, &Bundle::new("/b"), &Environment::default()).unwrap();
        assert_eq!(kinds(&spec), ["mount"]);
        assert!(spec.get("hostname").is_none());
        assert!(spec["linux"].get("sysctl").is_none());
    }
}
