//! What `inspect` shows, in the shape docker's clients expect.

use std::collections::BTreeMap;

use dhow_image::Image;
use serde::Serialize;
use serde_json::{Value, json};

use crate::container::record::{Config, HostConfig, Interface, MountPoint, PortBinding};
use crate::container::{Container, State};
use crate::context::Context;
use crate::sizes::Sizes;
use crate::snapshot::{self, Layers};

/// docker's description of a container.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ContainerView {
    id: String,
    created: String,
    path: String,
    args: Vec<String>,
    state: StateView,
    image: String,
    resolv_conf_path: String,
    hostname_path: String,
    hosts_path: String,
    log_path: String,
    name: String,
    restart_count: u32,
    driver: &'static str,
    platform: String,
    host_config: HostConfig,
    graph_driver: Value,
    mounts: Vec<MountPoint>,
    config: Config,
    network_settings: NetworkView,
}

/// docker's `State`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct StateView {
    status: &'static str,
    running: bool,
    paused: bool,
    restarting: bool,
    #[serde(rename = "OOMKilled")]
    oom_killed: bool,
    dead: bool,
    pid: i32,
    exit_code: u32,
    error: String,
    started_at: String,
    finished_at: String,
}

/// docker's `NetworkSettings`.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkView {
    #[serde(rename = "SandboxID")]
    sandbox_id: String,
    sandbox_key: String,
    ports: BTreeMap<String, Option<Vec<PortBinding>>>,
    gateway: String,
    #[serde(rename = "IPAddress")]
    ip_address: String,
    #[serde(rename = "IPPrefixLen")]
    ip_prefix_len: u8,
    #[serde(rename = "GlobalIPv6Address")]
    global_ipv6_address: String,
    mac_address: String,
    networks: BTreeMap<String, EndpointView>,
}

/// One of docker's `Networks`.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
struct EndpointView {
    aliases: Vec<String>,
    mac_address: String,
    gateway: String,
    #[serde(rename = "IPAddress")]
    ip_address: String,
    #[serde(rename = "IPPrefixLen")]
    ip_prefix_len: u8,
    #[serde(rename = "IPv6Gateway")]
    ipv6_gateway: String,
    #[serde(rename = "GlobalIPv6Address")]
    global_ipv6_address: String,
    #[serde(rename = "GlobalIPv6PrefixLen")]
    global_ipv6_prefix_len: u8,
    #[serde(rename = "DNSNames")]
    dns_names: Vec<String>,
}

/// Go's zero time: never.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Describes a container. The snapshotter is asked for the layers' directories; without an answer they are left out.
pub(crate) fn container(ctx: &Context, container: &Container) -> ContainerView {
    let record = &container.record;
    let state = container.state();
    let mounts = snapshot::mounts(ctx, &record.id).unwrap_or_default();
    let layers = Layers::of(&mounts);
    let join = |paths: &[std::path::PathBuf]| {
        paths.iter().map(|p| p.to_string_lossy().into_owned()).collect::<Vec<_>>().join(":")
    };
    let file = |name: &str| container.bundle.path().join(name).to_string_lossy().into_owned();
    ContainerView {
        id: record.id.clone(),
        created: record.created.clone(),
        path: record.command.first().cloned().unwrap_or_default(),
        args: record.command.iter().skip(1).cloned().collect(),
        image: record.image.clone(),
        resolv_conf_path: file("resolv.conf"),
        hostname_path: file("hostname"),
        hosts_path: file("hosts"),
        log_path: container.log().to_string_lossy().into_owned(),
        name: format!("/{}", record.name),
        restart_count: state.exit.as_ref().map_or(0, |exit| exit.restarts),
        driver: "overlayfs",
        platform: record.platform.clone(),
        host_config: record.host.clone(),
        graph_driver: json!({
            "Name": "overlayfs",
            "Data": {
                "UpperDir": layers.upper.as_ref().map(|p| p.to_string_lossy().into_owned()),
                "LowerDir": join(&layers.lowers),
            },
        }),
        mounts: record
            .mounts
            .iter()
            .filter(|m| m.kind != "tmpfs" || !record.host.tmpfs.contains_key(&m.destination))
            .cloned()
            .collect(),
        config: record.config.clone(),
        network_settings: network(container, &state),
        state: state_view(container, &state),
    }
}

fn state_view(container: &Container, state: &State) -> StateView {
    use crate::container::Status;
    let time = |at: Option<jiff::Timestamp>| at.map_or_else(|| NEVER.to_owned(), |at| at.to_string());
    let started = state.started.map(|at| at.to_string()).or_else(|| container.record.started.clone());
    StateView {
        status: state.status.name(),
        running: state.is_up() || state.status == Status::Restarting,
        paused: state.status == Status::Paused,
        restarting: state.status == Status::Restarting,
        oom_killed: state.exit.as_ref().is_some_and(|exit| exit.oom_killed),
        dead: state.status == Status::Dead,
        pid: state.pid,
        exit_code: state.exit_code(),
        error: state.exit.as_ref().and_then(|exit| exit.error.clone()).unwrap_or_default(),
        started_at: started.unwrap_or_else(|| NEVER.to_owned()),
        finished_at: time(state.finished()),
    }
}

fn network(container: &Container, state: &State) -> NetworkView {
    let record = &container.record;
    let nothing = crate::container::record::Attached::default();
    let attached = if state.is_up() { &record.attached } else { &nothing };
    let mut ports: BTreeMap<String, Option<Vec<PortBinding>>> = BTreeMap::new();
    if state.is_up() {
        ports.extend(record.config.exposed_ports.keys().map(|port| (port.clone(), None)));
    }
    for port in &attached.ports {
        let entry = ports.entry(format!("{}/{}", port.container_port, port.protocol)).or_default();
        let host_ip = if port.host_ip.is_empty() { "0.0.0.0".to_owned() } else { port.host_ip.clone() };
        entry.get_or_insert_default().push(PortBinding { host_ip, host_port: port.host_port.to_string() });
    }
    let mut networks: BTreeMap<String, EndpointView> = attached
        .interfaces
        .iter()
        .map(|interface| (interface.network.clone(), endpoint(container, interface)))
        .collect();
    if networks.is_empty() {
        let mode = record.network.mode.as_str();
        if !mode.starts_with("container:") {
            networks.insert(mode.to_owned(), EndpointView::default());
        }
    }
    let first = attached.interfaces.first().map(|i| endpoint(container, i)).unwrap_or_default();
    NetworkView {
        sandbox_id: if attached.netns.is_empty() { String::new() } else { record.id.clone() },
        sandbox_key: attached.netns.clone(),
        ports,
        gateway: first.gateway,
        ip_address: first.ip_address,
        ip_prefix_len: first.ip_prefix_len,
        global_ipv6_address: first.global_ipv6_address,
        mac_address: first.mac_address,
        networks,
    }
}

fn endpoint(container: &Container, interface: &Interface) -> EndpointView {
    let split = |v6: bool| {
        let found = interface.addresses.iter().find(|a| a.contains(':') == v6);
        let (ip, length) = found.and_then(|a| a.split_once('/')).unwrap_or_default();
        (ip.to_owned(), length.parse().unwrap_or(0))
    };
    let gateway = |v6: bool| interface.gateways.iter().find(|g| g.contains(':') == v6).cloned().unwrap_or_default();
    let record = &container.record;
    let (ip_address, ip_prefix_len) = split(false);
    let (global_ipv6_address, global_ipv6_prefix_len) = split(true);
    let mut dns_names = vec![record.name.clone(), crate::names::short(&record.id).to_owned()];
    dns_names.extend(record.network.aliases.clone());
    EndpointView {
        aliases: record.network.aliases.clone(),
        mac_address: interface.mac.clone(),
        gateway: gateway(false),
        ip_address,
        ip_prefix_len,
        ipv6_gateway: gateway(true),
        global_ipv6_address,
        global_ipv6_prefix_len,
        dns_names,
    }
}

/// docker's description of an image.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct ImageView {
    id: String,
    repo_tags: Vec<String>,
    repo_digests: Vec<String>,
    parent: &'static str,
    comment: String,
    created: String,
    author: String,
    config: dhow_image::ContainerConfig,
    architecture: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    variant: String,
    os: String,
    size: u64,
    graph_driver: Value,
    #[serde(rename = "RootFS")]
    root_fs: Value,
    metadata: Value,
}

/// Describes an image.
pub(crate) fn image(ctx: &Context, image: &Image) -> ImageView {
    let config = &image.config;
    let tags = image.names.iter().filter(|n| n.reference.tag().is_some()).map(|n| n.reference.familiar());
    ImageView {
        id: image.id.to_string(),
        repo_tags: tags.collect(),
        repo_digests: image.repo_digests.iter().map(dhow_image::Reference::familiar).collect(),
        parent: "",
        comment: config.history.last().map(|step| step.comment.clone()).unwrap_or_default(),
        created: config.created.clone().unwrap_or_else(|| NEVER.to_owned()),
        author: config.author.clone(),
        config: config.config.clone(),
        architecture: config.architecture.clone(),
        variant: config.variant.clone(),
        os: config.os.clone(),
        size: Sizes::new(ctx).image(image),
        graph_driver: json!({ "Name": "overlayfs", "Data": null }),
        root_fs: json!({ "Type": "layers", "Layers": config.rootfs.diff_ids }),
        metadata: json!({ "LastTagTime": NEVER }),
    }
}

#[cfg(test)]
mod tests {
    use dhow_api::paths::{Bundle, RunRoot};

    use super::*;
    use crate::container::Record;

    #[test]
    fn dockers_shape() {
        let mut record = Record { id: "a".repeat(64), name: "web".into(), ..Record::default() };
        record.command = vec!["sh".into(), "-c".into()];
        record.network.mode = "bridge".into();
        let dir = tempfile::tempdir().unwrap();
        let ctx = Context::new(Some(dir.path().join("r")), Some(dir.path().join("n"))).unwrap();
        let made = Container::new(record, Bundle::new("/nowhere"), &RunRoot::new("/nowhere"));
        let state = made.state();
        let view = json!({ "State": state_view(&made, &state), "NetworkSettings": network(&made, &state) });
        assert_eq!(view["State"]["Status"], "created");
        assert_eq!(view["State"]["StartedAt"], NEVER);
        assert_eq!(view["State"]["OOMKilled"], false);
        assert_eq!(view["NetworkSettings"]["IPAddress"], "");
        assert!(view["NetworkSettings"]["Networks"]["bridge"].is_object());
        drop(ctx);
    }

    #[test]
    fn addresses() {
        let record = Record { id: "a".repeat(64), name: "web".into(), ..Record::default() };
        let made = Container::new(record, Bundle::new("/nowhere"), &RunRoot::new("/nowhere"));
        let interface = Interface {
            addresses: vec!["10.0.0.2/24".into(), "fd00::2/64".into()],
            gateways: vec!["10.0.0.1".into()],
            ..Interface::default()
        };
        let view = endpoint(&made, &interface);
        assert_eq!((view.ip_address.as_str(), view.ip_prefix_len, view.gateway.as_str()), ("10.0.0.2", 24, "10.0.0.1"));
        assert_eq!(view.global_ipv6_address, "fd00::2");
    }
}
