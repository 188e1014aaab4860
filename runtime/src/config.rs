//! config.json as the runtime specification 1.3 has it, for Linux: the document, without judgement.
//!
//! Reading is lenient where engines are (a `null` is an absent field, unknown fields are ignored); what the values mean
//! and whether they are possible is [`crate::plan`]'s. The resources and the seccomp profile are oci-spec's types, which
//! the cgroup and seccomp modules take as they are.

use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxResources, LinuxSeccomp};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::Error;

/// The whole document.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Spec {
    /// Version of the specification it follows.
    #[serde(deserialize_with = "nullable")]
    pub oci_version: String,
    /// The first process.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub process: Option<Process>,
    /// The root file system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    /// Host name.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// NIS domain name.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub domainname: String,
    /// In the order in which they are mounted.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// Programs run at certain moments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hooks: Option<Hooks>,
    /// Free text.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What only Linux has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub linux: Option<Linux>,
}

impl Spec {
    /// Reads config.json.
    ///
    /// # Errors
    /// [`Error::Config`] with the field and what is wrong with it.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Error> {
        // runc does not mind the case of a key, and this one has come to be written so.
        let mut spec: Self = match std::str::from_utf8(bytes) {
            Ok(text) if text.contains(PAGE_SIZE.0) => parse(text.replace(PAGE_SIZE.0, PAGE_SIZE.1).as_bytes())?,
            _ => parse(bytes)?,
        };
        if let Some(resources) = spec.linux.as_mut().and_then(|linux| linux.resources.as_mut()) {
            without_absent_pids(resources, "/linux/resources", || serde_json::from_slice(bytes).unwrap_or_default());
        }
        Ok(spec)
    }
}

/// Reads the argument of `update`.
///
/// # Errors
/// [`Error::Config`] with the field and what is wrong with it.
pub fn resources_from_json(bytes: &[u8]) -> Result<LinuxResources, Error> {
    let mut resources = parse(bytes)?;
    without_absent_pids(&mut resources, "", || serde_json::from_slice(bytes).unwrap_or_default());
    Ok(resources)
}

/// Of the tasks `limit`, 0 and absence are not the same, but are in oci-spec's type: only then the document itself is asked.
fn without_absent_pids(resources: &mut LinuxResources, at: &str, document: impl FnOnce() -> Value) {
    if resources.pids().is_some_and(|pids| pids.limit() == 0)
        && document().pointer(&format!("{at}/pids/limit")).is_none()
    {
        resources.set_pids(None);
    }
}

/// A key of `linux.resources.hugepageLimits` as some write it, and as it should be.
const PAGE_SIZE: (&str, &str) = ("\"pagesize\"", "\"pageSize\"");

/// A process, the first one or one for exec.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Process {
    /// Gets a terminal.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_false")]
    pub terminal: bool,
    /// The terminal's size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub console_size: Option<ConsoleSize>,
    /// Who it runs as.
    #[serde(deserialize_with = "nullable")]
    pub user: User,
    /// Program and arguments.
    #[serde(deserialize_with = "nullable")]
    pub args: Vec<String>,
    /// `KEY=value`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Working directory.
    #[serde(deserialize_with = "nullable")]
    pub cwd: String,
    /// The five sets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// Resource limits.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub rlimits: Vec<Rlimit>,
    /// No gain of privileges by exec.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_false")]
    pub no_new_privileges: bool,
    /// AppArmor profile.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub apparmor_profile: String,
    /// SELinux label.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub selinux_label: String,
    /// -1000 to 1000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_score_adj: Option<i32>,
    /// CPU scheduling.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scheduler: Option<Scheduler>,
    /// Disk scheduling.
    #[serde(rename = "ioPriority", skip_serializing_if = "Option::is_none")]
    pub io_priority: Option<IoPriority>,
    /// CPUs of an exec'ed process.
    #[serde(rename = "execCPUAffinity", skip_serializing_if = "Option::is_none")]
    pub exec_cpu_affinity: Option<ExecCpuAffinity>,
}

impl Process {
    /// Reads a `process` object by itself, as exec gets it.
    ///
    /// # Errors
    /// [`Error::Config`] with the field and what is wrong with it.
    pub fn from_json(bytes: &[u8]) -> Result<Self, Error> {
        parse(bytes)
    }
}

/// Size of a terminal in characters.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct ConsoleSize {
    /// Rows.
    pub height: u64,
    /// Columns.
    pub width: u64,
}

/// Ids.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct User {
    /// User id in the container.
    pub uid: i64,
    /// Group id in the container.
    pub gid: i64,
    /// Mask of the modes of new files.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub umask: Option<u32>,
    /// Further groups.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub additional_gids: Vec<i64>,
    /// Windows only.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub username: String,
}

/// Names of capabilities.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Capabilities {
    /// Bounding set.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub bounding: Vec<String>,
    /// Effective set.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub effective: Vec<String>,
    /// Inheritable set.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub inheritable: Vec<String>,
    /// Permitted set.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub permitted: Vec<String>,
    /// Ambient set.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub ambient: Vec<String>,
}

/// A limit of setrlimit(2).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Rlimit {
    /// `RLIMIT_…`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Up to which `soft` may be raised.
    pub hard: u64,
    /// What counts.
    pub soft: u64,
}

/// sched_setattr(2).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Scheduler {
    /// `SCHED_…`.
    pub policy: String,
    /// For the normal policies.
    pub nice: i32,
    /// For the real-time policies.
    pub priority: i32,
    /// `SCHED_FLAG_…`.
    #[serde(deserialize_with = "nullable")]
    pub flags: Vec<String>,
    /// Nanoseconds.
    pub runtime: u64,
    /// Nanoseconds.
    pub deadline: u64,
    /// Nanoseconds.
    pub period: u64,
}

/// ioprio_set(2).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct IoPriority {
    /// `IOPRIO_CLASS_…`.
    pub class: String,
    /// 0 to 7.
    pub priority: i32,
}

/// CPU lists for exec.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ExecCpuAffinity {
    /// While the process is prepared.
    #[serde(deserialize_with = "nullable")]
    pub initial: String,
    /// When it runs.
    #[serde(rename = "final", deserialize_with = "nullable")]
    pub last: String,
}

/// The root file system.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Root {
    /// Absolute, or relative to the bundle.
    pub path: String,
    /// Nothing in it can be changed.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_false")]
    pub readonly: bool,
}

/// A mount.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Mount {
    /// In the container.
    pub destination: String,
    /// File system type; `bind` or nothing with a bind option.
    #[serde(rename = "type", deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub kind: String,
    /// On the host, or what the file system takes.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub source: String,
    /// As in fstab.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// For `idmap` and `ridmap`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub uid_mappings: Vec<IdMapping>,
    /// For `idmap` and `ridmap`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub gid_mappings: Vec<IdMapping>,
}

/// A range of ids.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdMapping {
    /// First id in the container.
    #[serde(rename = "containerID")]
    pub container_id: u32,
    /// First id on the host.
    #[serde(rename = "hostID")]
    pub host_id: u32,
    /// How many.
    pub size: u32,
}

/// Programs run at certain moments, by kind.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Hooks {
    /// Deprecated: as `create_runtime`, before it.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub prestart: Vec<Hook>,
    /// In the runtime's namespaces, before pivot_root.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub create_runtime: Vec<Hook>,
    /// In the container's namespaces, before pivot_root.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub create_container: Vec<Hook>,
    /// In the container, right before its program.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub start_container: Vec<Hook>,
    /// In the runtime's namespaces, after the program has begun.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub poststart: Vec<Hook>,
    /// In the runtime's namespaces, after deletion.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub poststop: Vec<Hook>,
}

/// One program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Hook {
    /// Absolute.
    pub path: String,
    /// With the program's name as the first.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub args: Vec<String>,
    /// All of its environment; none: what it inherits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env: Option<Vec<String>>,
    /// Seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
}

/// What only Linux has.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Linux {
    /// Of users into a new user namespace.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub uid_mappings: Vec<IdMapping>,
    /// Of groups into a new user namespace.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub gid_mappings: Vec<IdMapping>,
    /// Kernel parameters.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctl: BTreeMap<String, String>,
    /// Limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resources: Option<LinuxResources>,
    /// Where in the cgroup tree.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub cgroups_path: String,
    /// New ones and joined ones.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub namespaces: Vec<Namespace>,
    /// Device nodes to make.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub devices: Vec<Device>,
    /// Network devices to move in.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub net_devices: BTreeMap<String, NetDevice>,
    /// System call filter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seccomp: Option<LinuxSeccomp>,
    /// `shared`, `slave`, `private`, `unbindable`, or with `r`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub rootfs_propagation: String,
    /// Made unreadable.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub masked_paths: Vec<String>,
    /// Made unwritable.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub readonly_paths: Vec<String>,
    /// SELinux label of mounts.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub mount_label: String,
    /// Cache and memory bandwidth.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<IntelRdt>,
    /// set_mempolicy(2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<MemoryPolicy>,
    /// personality(2).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub personality: Option<Personality>,
    /// Clocks of a new time namespace.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "BTreeMap::is_empty")]
    pub time_offsets: BTreeMap<String, TimeOffset>,
}

/// A namespace.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Namespace {
    /// `pid`, `network`, `mount`, `ipc`, `uts`, `user`, `cgroup` or `time`.
    #[serde(rename = "type")]
    pub kind: String,
    /// One to join; a new one when empty.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub path: String,
}

/// A device node.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Device {
    /// `c`, `u`, `b` or `p`.
    #[serde(rename = "type")]
    pub kind: String,
    /// In the container.
    pub path: String,
    /// Of the driver.
    pub major: i64,
    /// Of the device.
    pub minor: i64,
    /// 0666 when absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file_mode: Option<u32>,
    /// Owner in the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// Group in the container.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
}

/// A network device to move in.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct NetDevice {
    /// Its name in the container; the same when empty.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub name: String,
}

/// resctrl: shares of caches and of memory bandwidth.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IntelRdt {
    /// The class of service; one of the container's own when empty.
    #[serde(rename = "closID", deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub clos_id: String,
    /// Lines for the file `schemata`.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "Vec::is_empty")]
    pub schemata: Vec<String>,
    /// Its line for the L3 cache.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub l3_cache_schema: String,
    /// Its line for the memory bandwidth.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "String::is_empty")]
    pub mem_bw_schema: String,
    /// With a monitoring group of the container's own.
    #[serde(deserialize_with = "nullable", skip_serializing_if = "is_false")]
    pub enable_monitoring: bool,
}

/// set_mempolicy(2).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct MemoryPolicy {
    /// `MPOL_…`.
    pub mode: String,
    /// A list like `0-3,7`.
    #[serde(deserialize_with = "nullable")]
    pub nodes: String,
    /// `MPOL_F_…`.
    #[serde(deserialize_with = "nullable")]
    pub flags: Vec<String>,
}

/// personality(2).
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Personality {
    /// `LINUX` or `LINUX32`.
    pub domain: String,
    /// None is defined.
    #[serde(deserialize_with = "nullable")]
    pub flags: Vec<String>,
}

/// An offset of a clock.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TimeOffset {
    /// Seconds.
    pub secs: i64,
    /// Nanoseconds.
    pub nanosecs: u32,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

/// A JSON `null` is the default value: Go writes one for an empty list.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(deserializer: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

fn parse<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|fast| {
        // Only now, for the message: which field it was.
        let mut deserializer = serde_json::Deserializer::from_slice(bytes);
        let slow: Result<T, _> = serde_path_to_error::deserialize(&mut deserializer);
        let path = slow.err().map(|e| e.path().to_string()).unwrap_or_default();
        // Where the text itself is broken the last part is not known.
        let known = path.trim_end_matches(['?', '.']);
        let field = if known.is_empty() { "config.json" } else { known }.to_owned();
        Error::Config { field, problem: fast.to_string() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nulls_are_absent() {
        let spec = Spec::from_json(
            br#"{"ociVersion":"1.0.2","process":{"args":null,"cwd":"/","user":{"uid":0,"gid":0}},"mounts":null,"linux":{"devices":null}}"#,
        )
        .unwrap();
        assert!(spec.mounts.is_empty() && spec.process.unwrap().args.is_empty());
    }

    #[test]
    fn a_page_size_may_be_written_in_lower_case() {
        let spec = br#"{"linux":{"resources":{"hugepageLimits":[{"pagesize":"2MB","limit":1}]}}}"#;
        let resources = Spec::from_json(spec).unwrap().linux.unwrap().resources.unwrap();
        assert_eq!(resources.hugepage_limits().as_ref().unwrap()[0].page_size(), "2MB");
    }

    #[test]
    fn no_limit_of_tasks_is_not_a_limit_of_none() {
        for (pids, expected) in [("{}", None), (r#"{"limit":0}"#, Some(0)), (r#"{"limit":-1}"#, Some(-1))] {
            let limit = |resources: &LinuxResources| resources.pids().map(|pids| pids.limit());
            let resources = format!(r#"{{"pids":{pids}}}"#);
            assert_eq!(limit(&resources_from_json(resources.as_bytes()).unwrap()), expected);
            let spec = Spec::from_json(format!(r#"{{"linux":{{"resources":{resources}}}}}"#).as_bytes()).unwrap();
            assert_eq!(limit(&spec.linux.unwrap().resources.unwrap()), expected);
        }
    }

    #[test]
    fn errors_name_the_field() {
        let error = Spec::from_json(br#"{"process":{"user":{"uid":"root"}}}"#).unwrap_err().to_string();
        assert!(error.starts_with("process.user.uid: invalid type"), "{error}");
        let error =
            Spec::from_json(br#"{"linux":{"namespaces":[{"type":"pid"},{"type":7}]}}"#).unwrap_err().to_string();
        assert!(error.starts_with("linux.namespaces[1].type: "), "{error}");
        let cut = |text: &[u8]| Spec::from_json(text).unwrap_err().to_string();
        assert!(cut(b"{").starts_with("config.json: EOF"), "{}", cut(b"{"));
        assert!(cut(br#"{"process":{"#).starts_with("process: EOF"), "{}", cut(br#"{"process":{"#));
    }
}
