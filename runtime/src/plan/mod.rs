//! What will be done, decided before anything is: config.json judged and turned into one immutable value.
//!
//! Pure: nothing here looks at the machine, so that every rule can be tested from a string. An unknown or impossible value
//! is an error that names the field.

mod devices;
mod idmap_option;
mod intel_rdt;
mod mounts;
mod namespaces;
mod net_devices;
mod process;
mod sysctl;

use std::fmt;
use std::path::{Path, PathBuf};

use dhow_sys::clone::Namespaces;
use dhow_sys::mountfd::{Propagation, attr};
use oci_spec::runtime::LinuxResources;

pub use devices::{Device, NodeKind};
pub use intel_rdt::IntelRdt;
pub use mounts::{IdMap, Mount, MountKind};
pub use namespaces::{Clock, Joined, NamespacePlan};
pub use net_devices::NetDevice;
pub use process::{Capabilities, Process, Rlimit};
pub use sysctl::Sysctl;

use crate::config::{Hooks, IdMapping, Spec};
use crate::seccomp::{self, Filter};
use crate::{Error, Result};

/// A container.
#[derive(Debug)]
pub struct Plan {
    /// New and joined namespaces.
    pub namespaces: NamespacePlan,
    /// The root file system.
    pub rootfs: Rootfs,
    /// In the order in which they are mounted.
    pub mounts: Vec<Mount>,
    /// Device nodes, with the default ones. Empty when /dev is the host's.
    pub devices: Vec<Device>,
    /// Whether /dev gets its symlinks: not when it is the host's.
    pub dev_links: bool,
    /// Made unreadable.
    pub masked_paths: Vec<PathBuf>,
    /// Made unwritable.
    pub readonly_paths: Vec<PathBuf>,
    /// SELinux label of the file systems made for it.
    pub mount_label: Option<String>,
    /// Network devices to move in.
    pub net_devices: Vec<NetDevice>,
    /// Shares of caches and of memory bandwidth.
    pub intel_rdt: Option<IntelRdt>,
    /// Kernel parameters of the container's namespaces.
    pub sysctl: Vec<Sysctl>,
    /// Host name.
    pub hostname: Option<String>,
    /// NIS domain name.
    pub domainname: Option<String>,
    /// The first process.
    pub process: Process,
    /// Programs run at certain moments; every path is absolute.
    pub hooks: Hooks,
    /// `linux.cgroupsPath`.
    pub cgroups_path: Option<PathBuf>,
    /// The user of the host's who gets the cgroup, so that the container can divide it (v2 only).
    pub cgroup_owner: Option<u32>,
    /// Limits.
    pub resources: Option<LinuxResources>,
    /// System call filter.
    pub seccomp: Option<Filter>,
    /// What was asked for, can't be done, and doesn't matter enough to fail.
    pub warnings: Vec<String>,
}

/// The root file system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    /// Absolute path on the host.
    pub path: PathBuf,
    /// Nothing in it can be changed.
    pub readonly: bool,
    /// Of the container's root, and while it is set up of everything else.
    pub propagation: (Propagation, bool),
    /// `linux.rootfsPropagation` was given: the container's root gets it at the end, too.
    pub propagation_given: bool,
}

impl Plan {
    /// Judges a configuration. `bundle` is the absolute path of the directory that relative paths are relative to.
    ///
    /// # Errors
    /// [`Error::Config`] with the field.
    pub fn new(spec: &Spec, bundle: &Path) -> Result<Self> {
        version(&spec.oci_version)?;
        let empty = crate::config::Linux::default();
        let linux = spec.linux.as_ref().unwrap_or(&empty);
        let root = spec.root.as_ref().ok_or_else(|| Error::config("root", "is missing"))?;
        if root.path.is_empty() {
            return Err(Error::config("root.path", "is empty"));
        }
        let namespaces = NamespacePlan::new(linux)?;
        let process = spec.process.as_ref().ok_or_else(|| Error::config("process", "is missing"))?;
        let mut warnings = Vec::new();
        let mut process = Process::new(process, "process", &mut warnings)?;
        process.set_machine(linux)?;
        process.set_annotated(&spec.annotations);
        let path = bundle.join(&root.path);
        let mounts = mounts::all(spec, bundle, &path, &namespaces)?;
        let host_dev = mounts.iter().any(|m| m.kind == MountKind::Bind && m.destination == Path::new("/dev"));
        let needs_uts = |field: &str, value: &str| {
            if value.is_empty() {
                Ok(None)
            } else if namespaces.has(Namespaces::UTS) {
                Ok(Some(value.to_owned()))
            } else {
                Err(Error::config(field, "can't be set without a uts namespace of the container's own"))
            }
        };
        Ok(Self {
            rootfs: Rootfs {
                path,
                readonly: root.readonly,
                propagation: propagation(&linux.rootfs_propagation)?,
                propagation_given: !linux.rootfs_propagation.is_empty(),
            },
            devices: if host_dev { Vec::new() } else { devices::all(linux)? },
            dev_links: !host_dev,
            masked_paths: absolute("linux.maskedPaths", &linux.masked_paths)?,
            readonly_paths: absolute("linux.readonlyPaths", &linux.readonly_paths)?,
            mount_label: (!linux.mount_label.is_empty()).then(|| linux.mount_label.clone()),
            net_devices: net_devices::all(linux, &namespaces)?,
            intel_rdt: linux.intel_rdt.as_ref().map(IntelRdt::new).transpose()?,
            sysctl: sysctl::all(linux, &namespaces)?,
            hostname: needs_uts("hostname", &spec.hostname)?,
            domainname: needs_uts("domainname", &spec.domainname)?,
            hooks: hooks(spec)?,
            cgroups_path: (!linux.cgroups_path.is_empty()).then(|| PathBuf::from(&linux.cgroups_path)),
            cgroup_owner: cgroup_owner(&mounts, &namespaces, process.uid),
            resources: linux.resources.clone(),
            seccomp: linux.seccomp.as_ref().map(seccomp::compile).transpose()?,
            process,
            mounts,
            namespaces,
            warnings,
        })
    }
}

/// Any 1.x is understood; older drafts are not.
fn version(version: &str) -> Result<()> {
    match version.split('.').next() {
        Some("1") => Ok(()),
        _ if version.is_empty() => Err(Error::config("ociVersion", "is missing")),
        _ => Err(Error::config("ociVersion", format!("{version} is not supported, only 1.x"))),
    }
}

fn propagation(name: &str) -> Result<(Propagation, bool)> {
    Ok(match name {
        "" | "rslave" => (Propagation::Slave, true),
        "slave" => (Propagation::Slave, false),
        "private" => (Propagation::Private, false),
        "rprivate" => (Propagation::Private, true),
        "shared" => (Propagation::Shared, false),
        "rshared" => (Propagation::Shared, true),
        "unbindable" => (Propagation::Unbindable, false),
        "runbindable" => (Propagation::Unbindable, true),
        other => return Err(Error::config("linux.rootfsPropagation", format!("{other:?} is unknown"))),
    })
}

fn absolute(field: &str, paths: &[String]) -> Result<Vec<PathBuf>> {
    let one = |(i, path): (usize, &String)| {
        if path.starts_with('/') && !path.contains('\0') {
            Ok(PathBuf::from(path))
        } else {
            Err(Error::config(format!("{field}[{i}]"), format!("{path:?} is not an absolute path")))
        }
    };
    paths.iter().enumerate().map(one).collect()
}

fn hooks(spec: &Spec) -> Result<Hooks> {
    let Some(hooks) = &spec.hooks else { return Ok(Hooks::default()) };
    for (kind, list) in crate::hooks::kinds(hooks) {
        for (i, hook) in list.iter().enumerate() {
            if !hook.path.starts_with('/') {
                let field = format!("hooks.{kind}[{i}].path");
                return Err(Error::config(field, format!("{:?} is not an absolute path", hook.path)));
            }
            if hook.timeout.is_some_and(|t| t <= 0) {
                return Err(Error::config(format!("hooks.{kind}[{i}].timeout"), "must be positive"));
            }
        }
    }
    Ok(hooks.clone())
}

/// Whoever can write to the mount of a cgroup that is the container's own by its namespace: its first process.
fn cgroup_owner(mounts: &[Mount], namespaces: &NamespacePlan, uid: u32) -> Option<u32> {
    let writable = |mount: &Mount| {
        let readonly = (mount.options.attributes.set | mount.options.recursive.set) & attr::RDONLY != 0;
        mount.kind == MountKind::Cgroup && !readonly
    };
    if !namespaces.new.contains(Namespaces::CGROUP) || !mounts.iter().any(writable) {
        return None;
    }
    if !namespaces.new.contains(Namespaces::USER) {
        // Root has it already.
        return (uid != 0).then_some(uid);
    }
    let host = |map: &IdMapping| Some(map.host_id + uid.checked_sub(map.container_id).filter(|n| *n < map.size)?);
    namespaces.uid_mappings.iter().find_map(host)
}

/// Checks a list of id mappings.
fn mappings(field: fmt::Arguments<'_>, list: &[IdMapping]) -> Result<Vec<IdMapping>> {
    for (i, map) in list.iter().enumerate() {
        let fits = |first: u32| first.checked_add(map.size).is_some();
        if map.size == 0 || !fits(map.container_id) || !fits(map.host_id) {
            return Err(Error::config(format!("{field}[{i}].size"), format!("{} is impossible", map.size)));
        }
    }
    Ok(list.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(json: &str) -> Result<Plan> {
        Plan::new(&Spec::from_json(json.as_bytes()).unwrap(), Path::new("/bundle"))
    }

    fn with(fields: &str) -> String {
        format!(
            r#"{{"ociVersion":"1.2.0","root":{{"path":"rootfs"}},"process":{{"cwd":"/","args":["x"],"user":{{"uid":0,"gid":0}}}}{fields}}}"#
        )
    }

    const MOUNT_NS: &str = r#","linux":{"namespaces":[{"type":"mount"},{"type":"uts"}]}"#;

    #[test]
    fn a_small_one() {
        let plan = plan(&with(MOUNT_NS)).unwrap();
        assert_eq!(plan.rootfs.path, Path::new("/bundle/rootfs"));
        assert_eq!(plan.rootfs.propagation, (Propagation::Slave, true));
        assert_eq!(plan.devices.len(), 6);
        assert!(plan.warnings.is_empty());
    }

    #[test]
    fn a_writable_cgroup_has_an_owner() {
        let with = |namespaces: &str, option: &str, uid: u32| {
            let json = format!(
                r#"{{"ociVersion":"1.2.0","root":{{"path":"r"}},"process":{{"cwd":"/","args":["x"],"user":{{"uid":{uid},"gid":0}}}},
                "mounts":[{{"destination":"/sys/fs/cgroup","type":"cgroup","source":"cgroup","options":["{option}"]}}],
                "linux":{{"namespaces":[{{"type":"mount"}}{namespaces}],
                "uidMappings":[{{"containerID":0,"hostID":100,"size":1}},{{"containerID":5,"hostID":200,"size":10}}],
                "gidMappings":[{{"containerID":0,"hostID":100,"size":1}}]}}}}"#
            );
            let json = if namespaces.contains("user") { json } else { json.replace("Mappings", "Others") };
            plan(&json).unwrap().cgroup_owner
        };
        let (cgroup, both) = (r#",{"type":"cgroup"}"#, r#",{"type":"cgroup"},{"type":"user"}"#);
        assert_eq!(with(both, "rw", 0), Some(100));
        assert_eq!(with(both, "rw", 7), Some(202));
        assert_eq!(with(both, "rw", 3), None, "nobody on the host");
        assert_eq!(with(both, "ro", 0), None);
        assert_eq!(with(cgroup, "rw", 7), Some(7));
        assert_eq!(with(cgroup, "rw", 0), None);
        assert_eq!(with("", "rw", 7), None);
    }

    #[test]
    fn errors_name_the_field() {
        let cases = [
            (with(r#","linux":{"maskedPaths":["/proc/kcore"]}"#), "linux.maskedPaths: "),
            (with(r#","hostname":"x","linux":{"namespaces":[{"type":"mount"}]}"#), "hostname: "),
            (
                with(r#","linux":{"namespaces":[{"type":"mount"},{"type":"pid"},{"type":"pid"}]}"#),
                "linux.namespaces[2]",
            ),
            (with(r#","linux":{"namespaces":[{"type":"moon"}]}"#), "linux.namespaces[0].type: "),
            (with(r#","linux":{"namespaces":[{"type":"mount"}],"maskedPaths":["proc"]}"#), "linux.maskedPaths[0]: "),
            (
                with(r#","linux":{"namespaces":[{"type":"mount"}],"rootfsPropagation":"up"}"#),
                "linux.rootfsPropagation: ",
            ),
            (with(r#","linux":{"namespaces":[{"type":"mount"}],"sysctl":{"net.core.somaxconn":"1"}}"#), "linux.sysctl"),
            (
                with(r#","hooks":{"poststop":[{"path":"x"}]},"linux":{"namespaces":[{"type":"mount"}]}"#),
                "hooks.poststop[0].path: ",
            ),
            (
                with(r#","mounts":[{"destination":""}],"linux":{"namespaces":[{"type":"mount"}]}"#),
                "mounts[0].destination: ",
            ),
            (
                with(r#","linux":{"namespaces":[{"type":"mount"}],"devices":[{"type":"x","path":"/dev/x"}]}"#),
                "linux.devices[0].type: ",
            ),
            (with(r#","linux":{"namespaces":[{"type":"mount"}],"netDevices":{"eth0":{}}}"#), "linux.netDevices.eth0: "),
            (
                with(r#","linux":{"namespaces":[{"type":"mount"}],"intelRdt":{"closID":"../x"}}"#),
                "linux.intelRdt.closID: ",
            ),
            (with(MOUNT_NS).replace("1.2.0", "0.1"), "ociVersion: "),
            (with(MOUNT_NS).replace(r#"["x"]"#, "[]"), "process.args: "),
            (with(MOUNT_NS).replace(r#""cwd":"/""#, r#""cwd":"a""#), "process.cwd: "),
            (with(MOUNT_NS).replace(r#""uid":0"#, r#""uid":4294967296"#), "process.user.uid: "),
        ];
        for (json, expected) in cases {
            let error = plan(&json).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error:?} for {json}");
        }
    }
}
