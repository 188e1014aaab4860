//! `container.json`: what was asked for, in docker's words, so that `inspect` shows it nearly as it stands.
//!
//! Written once when the container is made, and again (whole, by renaming) when it is renamed or started. What changes
//! while it runs is not in here: see [`super::state`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use dhow_api::documents::RestartPolicy as Policy;

use crate::parse::mount::Mount;

/// A container's record.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Record {
    /// 64 hexadecimal digits.
    pub id: String,
    /// Without a slash in front.
    pub name: String,
    /// RFC 3339 with nanoseconds.
    pub created: String,
    /// When the command line last began to start it; none: never, or the start failed.
    pub started: Option<String>,
    /// The image's id.
    pub image: String,
    /// The chain id of the image's top layer: the parent of the writable snapshot.
    pub chain: Option<String>,
    /// The platform's operating system and architecture.
    pub platform: String,
    /// The program and its arguments, entry point and command joined.
    pub command: Vec<String>,
    /// What the image and the flags make together.
    pub config: Config,
    /// How the host treats it.
    pub host: HostConfig,
    /// Mounts that the user or the image asked for, with volumes named.
    pub mounts: Vec<MountPoint>,
    /// What netplug was asked for.
    pub network: NetworkRequest,
    /// What netplug gave at the last start.
    pub attached: Attached,
}

/// docker's `Config`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Config {
    /// The host name inside.
    pub hostname: String,
    /// The NIS domain name.
    pub domainname: String,
    /// As asked for: `user[:group]`.
    pub user: String,
    /// Whether the creator attached standard input.
    pub attach_stdin: bool,
    /// Whether the creator attached standard output.
    pub attach_stdout: bool,
    /// Whether the creator attached standard error.
    pub attach_stderr: bool,
    /// `port/protocol` → `{}`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub exposed_ports: BTreeMap<String, Value>,
    /// Whether it has a terminal.
    pub tty: bool,
    /// Whether standard input is open.
    pub open_stdin: bool,
    /// Whether standard input ends with the first client.
    pub stdin_once: bool,
    /// `NAME=value`.
    pub env: Vec<String>,
    /// The command, without the entry point.
    pub cmd: Option<Vec<String>>,
    /// The image as asked for.
    pub image: String,
    /// Anonymous volumes: path → `{}`.
    pub volumes: Option<BTreeMap<String, Value>>,
    /// The working directory.
    pub working_dir: String,
    /// The entry point.
    pub entrypoint: Option<Vec<String>>,
    /// Labels of image and flags.
    pub labels: BTreeMap<String, String>,
    /// The signal that asks it to end.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// Seconds from that signal to SIGKILL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
}

/// docker's `HostConfig`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct HostConfig {
    /// `--volume` values with a source.
    pub binds: Option<Vec<String>>,
    /// `--cidfile`.
    #[serde(rename = "ContainerIDFile")]
    pub container_id_file: String,
    /// Where the log goes.
    pub log_config: LogConfig,
    /// `--network`.
    pub network_mode: String,
    /// `port/protocol` → bindings as asked for.
    pub port_bindings: BTreeMap<String, Vec<PortBinding>>,
    /// When it is started again.
    pub restart_policy: RestartPolicy,
    /// `--rm`.
    pub auto_remove: bool,
    /// `--volumes-from`.
    pub volumes_from: Option<Vec<String>>,
    /// `--cap-add`.
    pub cap_add: Option<Vec<String>>,
    /// `--cap-drop`.
    pub cap_drop: Option<Vec<String>>,
    /// `--cgroupns`.
    pub cgroupns_mode: String,
    /// `--dns`.
    pub dns: Vec<String>,
    /// `--dns-option`.
    pub dns_options: Vec<String>,
    /// `--dns-search`.
    pub dns_search: Vec<String>,
    /// `--add-host`.
    pub extra_hosts: Option<Vec<String>>,
    /// `--group-add`.
    pub group_add: Option<Vec<String>>,
    /// `--ipc`.
    pub ipc_mode: String,
    /// `--oom-score-adj`.
    pub oom_score_adj: i64,
    /// `--pid`.
    pub pid_mode: String,
    /// `--privileged`.
    pub privileged: bool,
    /// `--publish-all`.
    pub publish_all_ports: bool,
    /// `--read-only`.
    pub readonly_rootfs: bool,
    /// `--security-opt`.
    pub security_opt: Option<Vec<String>>,
    /// `--tmpfs`: path → options.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tmpfs: BTreeMap<String, String>,
    /// `--uts`.
    #[serde(rename = "UTSMode")]
    pub uts_mode: String,
    /// `--userns`.
    pub userns_mode: String,
    /// `--shm-size` in bytes.
    pub shm_size: i64,
    /// `--sysctl`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub sysctls: BTreeMap<String, String>,
    /// Always `dhow`.
    pub runtime: String,
    /// `--cpu-shares`.
    pub cpu_shares: i64,
    /// `--memory` in bytes.
    pub memory: i64,
    /// `--cpus` in billionths of a processor.
    pub nano_cpus: i64,
    /// `--cgroup-parent`.
    pub cgroup_parent: String,
    /// `--cpu-period` in microseconds.
    pub cpu_period: i64,
    /// `--cpu-quota` in microseconds.
    pub cpu_quota: i64,
    /// `--cpuset-cpus`.
    pub cpuset_cpus: String,
    /// `--cpuset-mems`.
    pub cpuset_mems: String,
    /// `--device`.
    pub devices: Vec<DeviceMapping>,
    /// `--memory-reservation` in bytes.
    pub memory_reservation: i64,
    /// `--memory-swap` in bytes; -1 is unlimited.
    pub memory_swap: i64,
    /// `--init`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub init: Option<bool>,
    /// `--memory-swappiness`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_swappiness: Option<i64>,
    /// `--oom-kill-disable`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oom_kill_disable: Option<bool>,
    /// `--pids-limit`.
    pub pids_limit: Option<i64>,
    /// `--ulimit`.
    pub ulimits: Option<Vec<UlimitValue>>,
    /// `--mount`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
    /// `--annotation`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// Paths that are hidden inside.
    pub masked_paths: Option<Vec<String>>,
    /// Paths that are read-only inside.
    pub readonly_paths: Option<Vec<String>>,
}

/// docker's `LogConfig`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct LogConfig {
    /// `json-file` or `none`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// `max-size`, `max-file`.
    pub config: BTreeMap<String, String>,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { kind: "json-file".to_owned(), config: BTreeMap::new() }
    }
}

/// docker's `RestartPolicy`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RestartPolicy {
    /// `no`, `always`, `unless-stopped`, `on-failure`.
    pub name: String,
    /// For `on-failure`.
    pub maximum_retry_count: u32,
}

impl From<Policy> for RestartPolicy {
    fn from(policy: Policy) -> Self {
        let maximum_retry_count = if let Policy::OnFailure { max } = policy { max.unwrap_or(0) } else { 0 };
        let text = policy.to_string();
        Self { name: text.split(':').next().unwrap_or_default().to_owned(), maximum_retry_count }
    }
}

/// One host side of a published port.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct PortBinding {
    /// Empty: all addresses.
    pub host_ip: String,
    /// Empty: a free one.
    pub host_port: String,
}

/// docker's `DeviceMapping`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct DeviceMapping {
    /// Path on the host.
    pub path_on_host: String,
    /// Path inside.
    pub path_in_container: String,
    /// Some of `rwm`.
    pub cgroup_permissions: String,
}

/// docker's `Ulimit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct UlimitValue {
    /// `nofile`
    pub name: String,
    /// -1 is unlimited.
    pub hard: i64,
    /// -1 is unlimited.
    pub soft: i64,
}

/// docker's `MountPoint`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct MountPoint {
    /// `bind`, `volume` or `tmpfs`.
    #[serde(rename = "Type")]
    pub kind: String,
    /// A volume's name.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Path on the host; empty for tmpfs.
    pub source: String,
    /// Path inside.
    pub destination: String,
    /// `local` for volumes.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub driver: String,
    /// Options as given.
    pub mode: String,
    /// Whether it may be written.
    #[serde(rename = "RW")]
    pub rw: bool,
    /// Mount propagation.
    pub propagation: String,
    /// Whether the volume was made for this container and has no name of a user's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub anonymous: bool,
    /// Options for the kernel (tmpfs).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// What netplug is asked for at each start.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct NetworkRequest {
    /// `bridge`, `host`, `none`, `container:ID` or a network's name.
    pub mode: String,
    /// `--network-alias`.
    pub aliases: Vec<String>,
    /// `--ip`.
    pub ip: String,
    /// `--mac-address`.
    pub mac: String,
    /// Published ports; host port 0 is any.
    pub ports: Vec<Port>,
}

/// A published port.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Port {
    /// `tcp`, `udp`, `sctp`.
    pub protocol: String,
    /// Empty: all.
    pub host_ip: String,
    /// 0: any.
    pub host_port: u16,
    /// The last of several, of which the first free one is taken; 0: there is no choice.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub host_last: u16,
    /// In the container.
    pub container_port: u16,
}

fn is_zero(port: &u16) -> bool {
    *port == 0
}

/// What netplug gave.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Attached {
    /// Path of the network namespace.
    pub netns: String,
    /// Network interfaces.
    pub interfaces: Vec<Interface>,
    /// Ports with the picked host ports.
    pub ports: Vec<Port>,
}

/// A network interface of the container.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Interface {
    /// The network's name.
    pub network: String,
    /// `eth0`
    pub name: String,
    /// Hardware address.
    pub mac: String,
    /// CIDR.
    pub addresses: Vec<String>,
    /// Addresses of gateways.
    pub gateways: Vec<String>,
}

impl Record {
    /// The restart policy as the shim takes it.
    pub(crate) fn restart(&self) -> Policy {
        match self.host.restart_policy.name.as_str() {
            "always" => Policy::Always,
            "unless-stopped" => Policy::UnlessStopped,
            "on-failure" => {
                let max = self.host.restart_policy.maximum_retry_count;
                Policy::OnFailure { max: (max > 0).then_some(max) }
            }
            _ => Policy::No,
        }
    }

    /// The names of its volumes.
    pub(crate) fn volumes(&self) -> impl Iterator<Item = &str> {
        self.mounts.iter().filter(|m| m.kind == "volume").map(|m| m.name.as_str())
    }
}
