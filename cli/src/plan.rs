//! From the flags and the image's configuration to a container's record. Pure: nothing is made yet, so every mistake
//! in the flags is found before anything has to be undone.

use std::collections::{BTreeMap, BTreeSet};

use dhow_api::documents::RestartPolicy as Policy;
use dhow_image::{Image, ImageConfig};
use serde_json::{Value, json};

use crate::container::record::{
    Config, DeviceMapping, HostConfig, LogConfig, MountPoint, NetworkRequest, Port, PortBinding, Record, UlimitValue,
};
use crate::error::{Error, Result};
use crate::flags::CreateFlags;
use crate::names;
use crate::parse::mount::{self, Mount, Source};
use crate::parse::{Invalid, device, env, key_value, port, security, signal, size, ulimit};

/// What is needed besides the flags.
#[derive(Clone)]
pub(crate) struct Inputs<'a> {
    /// The container's id.
    pub id: &'a str,
    /// The image as the user called it.
    pub image_name: &'a str,
    /// The image.
    pub image: &'a Image,
    /// Its top chain id.
    pub chain: Option<String>,
    /// What follows the image's name.
    pub command: &'a [String],
    /// The directory relative paths start from.
    pub cwd: &'a str,
    /// Now, RFC 3339.
    pub now: String,
    /// Looks up a variable of the caller's environment.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Finds what `container:NAME` and `--volumes-from` mean.
    pub container: &'a dyn Fn(&str) -> Result<Record>,
}

const SHM_SIZE: i64 = 64 << 20;
const LOG_MAX_SIZE: &str = "10m";
const LOG_MAX_FILE: &str = "3";

/// The record, still without a name, with anonymous volumes unnamed.
pub(crate) fn plan(flags: &CreateFlags, inputs: &Inputs<'_>) -> Result<Record> {
    refuse_unsupported(flags)?;
    let image = &inputs.image.config;
    let host = host_config(flags, inputs)?;
    let (config, command) = config(flags, inputs)?;
    let mounts = mounts(flags, inputs, &config)?;
    let network = network(flags, inputs, &config, &host)?;
    let platform = image.platform();
    Ok(Record {
        id: inputs.id.to_owned(),
        created: inputs.now.clone(),
        image: inputs.image.id.to_string(),
        chain: inputs.chain.clone(),
        platform: platform.os,
        command,
        config,
        host,
        mounts,
        network,
        ..Record::default()
    })
}

fn refuse_unsupported(flags: &CreateFlags) -> Result<()> {
    let later = |flag: &str| Err(Error::Unsupported { flag: flag.to_owned(), why: "it is still to come" });
    if let Some((flag, why)) = flags.unsupported.given() {
        return Err(Error::Unsupported { flag: flag.to_owned(), why });
    }
    if flags.userns.as_deref().is_some_and(|mode| !mode.is_empty() && mode != "host") {
        return later("--userns other than host");
    }
    if flags.rm && flags.restart.as_deref().is_some_and(|policy| policy != "no" && !policy.is_empty()) {
        return Err(Error::Usage("conflicting options: --restart and --rm".into()));
    }
    Ok(())
}

/// docker's `Config` and the joined command line.
fn config(flags: &CreateFlags, inputs: &Inputs<'_>) -> Result<(Config, Vec<String>)> {
    let image = &inputs.image.config.config;
    let entrypoint = match flags.entrypoint.as_deref() {
        // A given entry point also drops the image's command.
        Some("") => None,
        Some(program) => Some(vec![program.to_owned()]),
        None => image.entrypoint.clone(),
    };
    let cmd = if !inputs.command.is_empty() {
        Some(inputs.command.to_vec())
    } else if flags.entrypoint.is_some() {
        None
    } else {
        image.cmd.clone()
    };
    let command: Vec<String> = entrypoint.iter().flatten().chain(cmd.iter().flatten()).cloned().collect();
    if command.is_empty() || command[0].is_empty() {
        return Err(Error::Usage(format!("no command specified, and the image {} has none", inputs.image_name)));
    }
    let hostname = hostname(flags, inputs)?;
    let mut exposed = image.exposed_ports.clone();
    for text in &flags.expose {
        exposed.extend(port::parse_exposed(text)?.into_iter().map(|port| (port.to_string(), json!({}))));
    }
    for text in &flags.publish {
        exposed.extend(port::parse(text)?.into_iter().map(|m| (m.container.to_string(), json!({}))));
    }
    let mut labels = image.labels.clone();
    for file in &flags.label_file {
        let bytes = crate::files::read(file.as_ref()).map_err(Error::file("read", file))?;
        let text = String::from_utf8_lossy(&bytes);
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        labels.extend(lines.map(key_value));
    }
    labels.extend(flags.label.iter().map(|text| key_value(text)));
    let stop_signal = flags.stop_signal.clone().unwrap_or_else(|| image.stop_signal.clone());
    if !stop_signal.is_empty() {
        signal::parse(&stop_signal)?;
    }
    let working_dir = flags.workdir.as_deref().unwrap_or(&image.working_dir);
    if !working_dir.is_empty() && !working_dir.starts_with('/') {
        return Err(Invalid::new("--workdir", working_dir, "it is not an absolute path").into());
    }
    let config = Config {
        env: environment(flags, inputs, &hostname)?,
        hostname,
        domainname: flags.domainname.clone().unwrap_or_default(),
        user: flags.user.clone().unwrap_or_else(|| image.user.clone()),
        exposed_ports: exposed,
        tty: flags.tty,
        open_stdin: flags.interactive,
        cmd,
        image: inputs.image_name.to_owned(),
        volumes: (!image.volumes.is_empty()).then(|| image.volumes.clone()),
        working_dir: if working_dir.is_empty() { String::new() } else { mount::normalise(working_dir) },
        entrypoint,
        labels,
        stop_signal,
        stop_timeout: flags.stop_timeout,
        ..Config::default()
    };
    Ok((config, command))
}

fn hostname(flags: &CreateFlags, inputs: &Inputs<'_>) -> Result<String> {
    if let Some(name) = flags.hostname.as_deref().filter(|name| !name.is_empty()) {
        // The kernel's bound (__NEW_UTS_LEN).
        let valid = name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
        if !valid {
            return Err(
                Invalid::new("--hostname", name, "letters, digits, '-' and '.' are expected, 64 at most").into()
            );
        }
        return Ok(name.to_owned());
    }
    if flags.network.as_deref() == Some("host") || flags.uts.as_deref() == Some("host") {
        let host = nix::unistd::gethostname().map_err(Error::system("read the host name"))?;
        return Ok(host.to_string_lossy().into_owned());
    }
    if let Some(name) = flags.network.as_deref().and_then(|mode| mode.strip_prefix("container:")) {
        return Ok((inputs.container)(name)?.config.hostname);
    }
    Ok(names::short(inputs.id).to_owned())
}

/// docker's basic variables, the image's, files', then flags': later ones win.
fn environment(flags: &CreateFlags, inputs: &Inputs<'_>, hostname: &str) -> Result<Vec<String>> {
    let basic = dhow_api::defaults::environment(hostname, flags.tty);
    let image = inputs.image.config.config.env.iter().filter(|e| e.contains('=')).cloned().map(env::Entry::Set);
    let mut changes: Vec<env::Entry> = image.collect();
    for file in &flags.env_file {
        let bytes = crate::files::read(file.as_ref()).map_err(Error::file("read", file))?;
        changes.extend(env::parse_file(&String::from_utf8_lossy(&bytes), inputs.variable)?);
    }
    for text in &flags.env {
        changes.push(env::parse(text, inputs.variable)?);
    }
    Ok(env::merge(&basic, &changes))
}

fn mounts(flags: &CreateFlags, inputs: &Inputs<'_>, config: &Config) -> Result<Vec<MountPoint>> {
    let mut map: BTreeMap<String, MountPoint> = BTreeMap::new();
    for path in config.volumes.iter().flatten().map(|(path, _)| path) {
        let target = mount::normalise(path);
        if target != "/" {
            map.insert(target.clone(), point(&volume(&target)));
        }
    }
    for text in &flags.volumes_from {
        let (name, mode) = text.split_once(':').unwrap_or((text, "rw"));
        let donor = (inputs.container)(name)?;
        if donor.host.auto_remove && donor.mounts.iter().any(|m| m.anonymous) {
            let why = "its anonymous volumes go when it ends";
            return Err(Error::Unsupported { flag: format!("--volumes-from {name}, which has --rm,"), why });
        }
        for mut mount in donor.mounts {
            mount.rw = mount.rw && mode != "ro";
            mount.anonymous = false;
            map.insert(mount.destination.clone(), mount);
        }
    }
    let mut asked = Vec::new();
    for text in &flags.volume {
        asked.push(mount::parse_volume(text, inputs.cwd)?);
    }
    for text in &flags.mount {
        asked.push(mount::parse_mount(text, inputs.cwd)?);
    }
    for text in &flags.tmpfs {
        asked.push(mount::parse_tmpfs(text)?);
    }
    let mut seen = BTreeSet::new();
    for mount in asked {
        if !seen.insert(mount.target.clone()) {
            return Err(Invalid::new("mount", mount.target, "two mounts have this target").into());
        }
        map.insert(mount.target.clone(), point(&mount));
    }
    Ok(map.into_values().collect())
}

fn volume(target: &str) -> Mount {
    Mount { source: Source::Volume { name: None, no_copy: false }, target: target.to_owned(), read_only: false }
}

/// The mount as it is recorded; a volume gets its name and source when it is made.
fn point(mount: &Mount) -> MountPoint {
    let mut point = MountPoint {
        destination: mount.target.clone(),
        rw: !mount.read_only,
        mode: if mount.read_only { "ro".into() } else { String::new() },
        ..MountPoint::default()
    };
    match &mount.source {
        Source::Bind { path, create, non_recursive, propagation } => {
            point.kind = "bind".into();
            point.source.clone_from(path);
            point.propagation = if propagation.is_empty() { "rprivate".into() } else { propagation.clone() };
            if *create {
                point.options.push("create".into());
            }
            if *non_recursive {
                point.options.push("bind".into());
            }
        }
        Source::Volume { name, no_copy } => {
            point.kind = "volume".into();
            point.driver = "local".into();
            point.name = name.clone().unwrap_or_default();
            point.anonymous = name.is_none();
            if *no_copy {
                point.options.push("nocopy".into());
            }
        }
        Source::Tmpfs { options } => {
            point.kind = "tmpfs".into();
            point.options.clone_from(options);
        }
    }
    point
}

fn network(flags: &CreateFlags, inputs: &Inputs<'_>, config: &Config, host: &HostConfig) -> Result<NetworkRequest> {
    let mut ports = Vec::new();
    for text in &flags.publish {
        for mapping in port::parse(text)? {
            ports.push(Port {
                protocol: mapping.container.protocol.to_string(),
                host_ip: mapping.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
                host_port: mapping.host_port.unwrap_or(0),
                host_last: mapping.host_last.unwrap_or(0),
                container_port: mapping.container.port,
            });
        }
    }
    if flags.publish_all {
        for exposed in config.exposed_ports.keys() {
            for port in port::parse_exposed(exposed)? {
                let known = |p: &Port| p.container_port == port.port && p.protocol == port.protocol.to_string();
                if !ports.iter().any(known) {
                    ports.push(Port {
                        protocol: port.protocol.to_string(),
                        container_port: port.port,
                        ..Port::default()
                    });
                }
            }
        }
    }
    ports.sort();
    ports.dedup();
    let mode = match host.network_mode.strip_prefix("container:") {
        Some(name) => format!("container:{}", (inputs.container)(name)?.id),
        None => host.network_mode.clone(),
    };
    let own = mode != "host" && mode != "none" && !mode.starts_with("container:");
    if !own && !ports.is_empty() && mode.starts_with("container:") {
        return Err(Error::Usage("conflicting options: port publishing and the container type network mode".into()));
    }
    if !own && (flags.ip.is_some() || flags.mac_address.is_some()) {
        return Err(Error::Usage(format!("--ip and --mac-address need a network of the container's own, not {mode}")));
    }
    Ok(NetworkRequest {
        // The host's own ports need no publishing.
        ports: if own { ports } else { Vec::new() },
        mode,
        aliases: flags.network_alias.clone(),
        ip: flags.ip.clone().unwrap_or_default(),
        mac: flags.mac_address.clone().unwrap_or_default(),
    })
}

fn host_config(flags: &CreateFlags, inputs: &Inputs<'_>) -> Result<HostConfig> {
    let bytes = |text: &Option<String>| text.as_deref().map_or(Ok(0), size::parse);
    let list = |values: &Vec<String>| (!values.is_empty()).then(|| values.clone());
    let restart: Policy =
        flags.restart.as_deref().unwrap_or("no").parse().map_err(|bad: dhow_api::documents::BadPolicy| {
            Invalid::new("--restart", flags.restart.clone().unwrap_or_default(), bad.to_string())
        })?;
    let memory = bytes(&flags.memory)?;
    let memory_swap = flags.memory_swap.as_deref().map_or(Ok(0), size::parse_or_unlimited)?;
    if memory_swap > 0 && memory_swap < memory {
        return Err(Error::Usage("minimum memoryswap limit should be larger than memory limit".into()));
    }
    if memory_swap != 0 && memory == 0 {
        return Err(Error::Usage("you should always set the memory limit when using memoryswap limit".into()));
    }
    // Parsed for the sake of its mistakes; the texts are what is kept.
    security::parse(&flags.security_opt)?;
    for name in flags.cap_add.iter().chain(&flags.cap_drop) {
        security::capability(name)?;
    }
    let cpus = flags.cpus.unwrap_or(0.0);
    if !(0.0..=65536.0).contains(&cpus) {
        return Err(Invalid::new("--cpus", cpus.to_string(), "a number of processors is expected").into());
    }
    if cpus > 0.0 && (flags.cpu_period.is_some() || flags.cpu_quota.is_some()) {
        return Err(Error::Usage("conflicting options: --cpus and --cpu-period or --cpu-quota".into()));
    }
    if flags.memory_swappiness.is_some_and(|value| !(-1..=100).contains(&value)) {
        return Err(Error::Usage("--memory-swappiness is not within 0 and 100 (-1: as the host)".into()));
    }
    let oom_score_adj = flags.oom_score_adj.unwrap_or(0);
    if !(-1000..=1000).contains(&oom_score_adj) {
        return Err(
            Invalid::new("--oom-score-adj", oom_score_adj.to_string(), "it is not within -1000 and 1000").into()
        );
    }
    Ok(HostConfig {
        binds: list(&flags.volume),
        container_id_file: flags.cidfile.clone().unwrap_or_default(),
        log_config: log_config(flags)?,
        network_mode: network_mode(flags.network.as_deref()),
        port_bindings: port_bindings(flags)?,
        restart_policy: restart.into(),
        auto_remove: flags.rm,
        volumes_from: list(&flags.volumes_from),
        cap_add: list(&flags.cap_add),
        cap_drop: list(&flags.cap_drop),
        cgroupns_mode: mode("--cgroupns", &flags.cgroupns, &["private", "host"], inputs)?,
        dns: flags.dns.clone(),
        dns_options: flags.dns_option.clone(),
        dns_search: flags.dns_search.clone(),
        extra_hosts: list(&flags.add_host),
        group_add: list(&flags.group_add),
        ipc_mode: mode("--ipc", &flags.ipc, &["private", "shareable", "none", "host", "container:"], inputs)?,
        oom_score_adj,
        pid_mode: mode("--pid", &flags.pid, &["", "private", "host", "container:"], inputs)?,
        privileged: flags.privileged,
        publish_all_ports: flags.publish_all,
        readonly_rootfs: flags.read_only,
        security_opt: list(&flags.security_opt),
        tmpfs: flags.tmpfs.iter().map(|t| t.split_once(':').unwrap_or((t, ""))).map(own).collect(),
        uts_mode: mode("--uts", &flags.uts, &["", "private", "host"], inputs)?,
        userns_mode: flags.userns.clone().unwrap_or_default(),
        shm_size: flags.shm_size.as_deref().map_or(Ok(SHM_SIZE), size::parse)?,
        sysctls: sysctls(flags)?,
        runtime: "dhow".into(),
        cpu_shares: flags.cpu_shares.unwrap_or(0),
        memory,
        nano_cpus: (cpus * 1e9) as i64,
        cgroup_parent: flags.cgroup_parent.clone().unwrap_or_default(),
        cpu_period: flags.cpu_period.unwrap_or(0),
        cpu_quota: flags.cpu_quota.unwrap_or(0),
        cpuset_cpus: flags.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: flags.cpuset_mems.clone().unwrap_or_default(),
        devices: flags.device.iter().map(|text| device_mapping(text)).collect::<Result<_>>()?,
        memory_reservation: bytes(&flags.memory_reservation)?,
        memory_swap,
        pids_limit: flags.pids_limit,
        init: flags.init.then_some(true),
        memory_swappiness: flags.memory_swappiness.filter(|value| *value >= 0),
        oom_kill_disable: flags.oom_kill_disable.then_some(true),
        ulimits: ulimits(flags)?,
        mounts: flags.mount.iter().map(|t| mount::parse_mount(t, inputs.cwd)).collect::<std::result::Result<_, _>>()?,
        annotations: flags.annotation.iter().map(|text| key_value(text)).collect(),
        masked_paths: (!flags.privileged).then(dhow_api::defaults::masked_paths),
        readonly_paths: (!flags.privileged).then(dhow_api::defaults::readonly_paths),
    })
}

fn own((key, value): (&str, &str)) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

fn network_mode(network: Option<&str>) -> String {
    match network {
        None | Some("" | "default") => "bridge".to_owned(),
        Some(name) => name.to_owned(),
    }
}

/// One of the known modes; `container:NAME` becomes `container:ID`. The first known one is the default.
fn mode(flag: &'static str, given: &Option<String>, known: &[&str], inputs: &Inputs<'_>) -> Result<String> {
    let given = given.as_deref().unwrap_or(known[0]);
    if let Some(name) = given.strip_prefix("container:").filter(|_| known.contains(&"container:")) {
        return Ok(format!("container:{}", (inputs.container)(name)?.id));
    }
    if known.contains(&given) && !given.ends_with(':') {
        return Ok(given.to_owned());
    }
    let shown: Vec<&str> = known.iter().copied().filter(|k| !k.is_empty()).collect();
    Err(Invalid::new(flag, given, format!("it is none of {}", shown.join(", "))).into())
}

fn log_config(flags: &CreateFlags) -> Result<LogConfig> {
    let kind = flags.log_driver.as_deref().unwrap_or("json-file");
    let why = "the drivers are json-file and none";
    if !matches!(kind, "json-file" | "none" | "local") {
        return Err(Invalid::new("--log-driver", kind, why).into());
    }
    let mut config = BTreeMap::new();
    for text in &flags.log_opt {
        let (key, value) = key_value(text);
        let valid = match key.as_str() {
            "max-size" => value == "-1" || size::parse(&value).is_ok_and(|bytes| bytes > 0),
            "max-file" => value.parse::<u32>().is_ok_and(|count| count > 0),
            // Accepted elsewhere, and without meaning here: labels go nowhere, rotated files are not compressed.
            "labels" | "env" | "tag" | "compress" | "mode" | "max-buffer-size" => true,
            _ => false,
        };
        if !valid {
            return Err(Invalid::new("--log-opt", text, "max-size=BYTES or max-file=NUMBER is expected").into());
        }
        config.insert(key, value);
    }
    Ok(LogConfig { kind: kind.to_owned(), config })
}

/// The log's bounds: bytes per file and number of files. Rotation is on unless `max-size=-1`.
pub(crate) fn log_bounds(config: &LogConfig) -> (u64, u32) {
    let text = |key: &str, default: &str| config.config.get(key).map_or(default, String::as_str).to_owned();
    let size = text("max-size", LOG_MAX_SIZE);
    let bytes = if size == "-1" { u64::MAX } else { size::parse(&size).map_or(10 << 20, i64::cast_unsigned) };
    (bytes, text("max-file", LOG_MAX_FILE).parse().unwrap_or(3))
}

fn port_bindings(flags: &CreateFlags) -> Result<BTreeMap<String, Vec<PortBinding>>> {
    let mut map: BTreeMap<String, Vec<PortBinding>> = BTreeMap::new();
    for text in &flags.publish {
        for mapping in port::parse(text)? {
            map.entry(mapping.container.to_string()).or_default().push(PortBinding {
                host_ip: mapping.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
                host_port: match (mapping.host_port, mapping.host_last) {
                    (Some(first), Some(last)) => format!("{first}-{last}"),
                    (first, _) => first.map(|port| port.to_string()).unwrap_or_default(),
                },
            });
        }
    }
    Ok(map)
}

fn sysctls(flags: &CreateFlags) -> Result<BTreeMap<String, String>> {
    let mut map = BTreeMap::new();
    for text in &flags.sysctl {
        let (key, value) =
            text.split_once('=').ok_or_else(|| Invalid::new("--sysctl", text, "NAME=VALUE is expected"))?;
        map.insert(key.to_owned(), value.to_owned());
    }
    Ok(map)
}

fn device_mapping(text: &str) -> Result<DeviceMapping> {
    let device = device::parse(text)?;
    Ok(DeviceMapping {
        path_on_host: device.host,
        path_in_container: device.container,
        cgroup_permissions: device.access,
    })
}

fn ulimits(flags: &CreateFlags) -> Result<Option<Vec<UlimitValue>>> {
    let mut list = Vec::new();
    for text in &flags.ulimit {
        let limit = ulimit::parse(text)?;
        list.push(UlimitValue { name: limit.name, hard: limit.hard.cast_signed(), soft: limit.soft.cast_signed() });
    }
    Ok((!list.is_empty()).then_some(list))
}

/// The image's configuration that a commit of this container starts from.
pub(crate) fn image_config(record: &Record, parent: &ImageConfig) -> dhow_image::ContainerConfig {
    let config = &record.config;
    dhow_image::ContainerConfig {
        user: config.user.clone(),
        exposed_ports: config.exposed_ports.clone(),
        env: config.env.iter().filter(|e| !e.starts_with("HOSTNAME=") && *e != "TERM=xterm").cloned().collect(),
        entrypoint: config.entrypoint.clone(),
        cmd: config.cmd.clone(),
        volumes: config.volumes.clone().unwrap_or_default().into_iter().collect::<BTreeMap<String, Value>>(),
        working_dir: config.working_dir.clone(),
        labels: config.labels.clone(),
        stop_signal: config.stop_signal.clone(),
        ..parent.config.clone()
    }
}

#[cfg(test)]
mod tests {
    use dhow_image::Digest;

    use super::*;
    use crate::flags::UnsupportedFlags;

    fn image() -> Image {
        let mut config = ImageConfig::default();
        config.config.env = vec!["PATH=/image".into(), "junk".into(), "A=1".into()];
        config.config.cmd = Some(vec!["serve".into(), "-p".into()]);
        config.config.entrypoint = Some(vec!["/entry".into()]);
        config.config.user = "web".into();
        config.config.volumes = [("/data".to_owned(), json!({}))].into();
        config.config.exposed_ports = [("80/tcp".to_owned(), json!({}))].into();
        let digest = Digest::of(b"x");
        Image {
            id: digest.clone(),
            manifest: digest,
            names: Vec::new(),
            repo_digests: Vec::new(),
            config,
            size: 0,
            layers: Vec::new(),
        }
    }

    fn planned(flags: &CreateFlags, command: &[&str]) -> Result<Record> {
        let image = image();
        let command: Vec<String> = command.iter().map(|w| (*w).to_owned()).collect();
        let other = |name: &str| Ok(Record { id: format!("id-of-{name}"), ..Record::default() });
        plan(
            flags,
            &Inputs {
                id: "0123456789abcdef",
                image_name: "image",
                image: &image,
                chain: None,
                command: &command,
                cwd: "/work",
                now: "2026-01-01T00:00:00Z".into(),
                variable: &|_| None,
                container: &other,
            },
        )
    }

    fn flags() -> CreateFlags {
        CreateFlags { pull: "missing".into(), ..CreateFlags::default() }
    }

    #[test]
    fn commands() {
        assert_eq!(planned(&flags(), &[]).unwrap().command, ["/entry", "serve", "-p"]);
        assert_eq!(planned(&flags(), &["x", "y"]).unwrap().command, ["/entry", "x", "y"]);
        let entry = CreateFlags { entrypoint: Some("sh".into()), ..flags() };
        assert_eq!(planned(&entry, &[]).unwrap().command, ["sh"]);
        assert_eq!(planned(&entry, &["-c", "x"]).unwrap().command, ["sh", "-c", "x"]);
        let none = CreateFlags { entrypoint: Some(String::new()), ..flags() };
        assert_eq!(planned(&none, &["x"]).unwrap().command, ["x"]);
        assert!(planned(&none, &[]).is_err());
    }

    #[test]
    fn the_image_shows_through() {
        let record = planned(&flags(), &[]).unwrap();
        assert_eq!(record.config.user, "web");
        assert_eq!(record.config.hostname, "0123456789ab");
        assert!(record.config.env.contains(&"PATH=/image".to_owned()));
        assert!(!record.config.env.contains(&"junk".to_owned()));
        assert_eq!(record.mounts[0].destination, "/data");
        assert!(record.mounts[0].anonymous);
        assert!(record.network.ports.is_empty());
        assert_eq!(record.network.mode, "bridge");
    }

    #[test]
    fn flags_win() {
        let given = CreateFlags {
            env: vec!["A=2".into()],
            user: Some("0".into()),
            volume: vec!["./x:/data:ro".into()],
            publish: vec!["8080:80".into(), "127.0.0.1:53:53/udp".into()],
            hostname: Some("h".into()),
            cpus: Some(1.5),
            pid: Some("container:web".into()),
            ..flags()
        };
        let record = planned(&given, &[]).unwrap();
        assert!(record.config.env.contains(&"A=2".to_owned()));
        assert!(record.config.env.contains(&"HOSTNAME=h".to_owned()));
        assert_eq!(record.mounts.len(), 1);
        assert_eq!((record.mounts[0].kind.as_str(), record.mounts[0].rw), ("bind", false));
        assert_eq!(record.network.ports.len(), 2);
        assert_eq!(record.host.nano_cpus, 1_500_000_000);
        assert_eq!(record.host.pid_mode, "container:id-of-web");
        assert!(record.config.exposed_ports.contains_key("53/udp"));
        let all = CreateFlags { publish_all: true, ..flags() };
        assert_eq!(planned(&all, &[]).unwrap().network.ports[0].container_port, 80);
    }

    #[test]
    fn mistakes() {
        let bad = [
            CreateFlags { memory_swappiness: Some(101), ..flags() },
            CreateFlags {
                unsupported: UnsupportedFlags { health_cmd: Some("true".into()), ..UnsupportedFlags::default() },
                ..flags()
            },
            CreateFlags { userns: Some("auto".into()), ..flags() },
            CreateFlags { rm: true, restart: Some("always".into()), ..flags() },
            CreateFlags { volume: vec!["/a:/x".into(), "/b:/x".into()], ..flags() },
            CreateFlags { workdir: Some("rel".into()), ..flags() },
            CreateFlags { memory_swap: Some("1g".into()), ..flags() },
            CreateFlags { memory: Some("2g".into()), memory_swap: Some("1g".into()), ..flags() },
            CreateFlags { cpus: Some(-1.0), ..flags() },
            CreateFlags { cpus: Some(f64::NAN), ..flags() },
            CreateFlags { log_driver: Some("syslog".into()), ..flags() },
            CreateFlags { log_opt: vec!["max-file=0".into()], ..flags() },
            CreateFlags { network: Some("none".into()), ip: Some("1.2.3.4".into()), ..flags() },
            CreateFlags { stop_signal: Some("SIGNOPE".into()), ..flags() },
            CreateFlags { ipc: Some("container".into()), ..flags() },
            CreateFlags { hostname: Some("a b".into()), ..flags() },
        ];
        for flags in bad {
            assert!(planned(&flags, &[]).is_err(), "{flags:?}");
        }
    }

    #[test]
    fn log_rotation() {
        assert_eq!(log_bounds(&LogConfig::default()), (10 << 20, 3));
        let given = CreateFlags { log_opt: vec!["max-size=1k".into(), "max-file=2".into()], ..flags() };
        assert_eq!(log_bounds(&planned(&given, &[]).unwrap().host.log_config), (1024, 2));
    }
}
