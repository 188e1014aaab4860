//! `dhow.network.v1.Network` over ttrpc: messages become requests of the library, its answers become messages.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use dhow_api::error::status;
use dhow_api::network as message;
use dhow_api::network_ttrpc_async::{Network as NetworkService, create_network};
use dhow_api::server::{Options, Services, blocking, run};
use protobuf::well_known_types::empty::Empty;
use ttrpc::r#async::TtrpcContext;

use crate::attachment::{AttachRequest, Attachment, Mode};
use crate::error::{Result, invalid};
use crate::files::{ExtraHost, FilesRequest};
use crate::names::ContainerId;
use crate::netplug::{Netplug, report};
use crate::network::{Driver, Network, NetworkRequest};
use crate::port::Port;

/// Serves until idle for that long, then takes down what no container uses.
///
/// # Errors
/// When the socket cannot be listened on or served.
pub fn serve(netplug: Netplug, socket: std::path::PathBuf, idle: Duration) -> Result<(), dhow_api::Error> {
    let netplug = Arc::new(netplug);
    let served = netplug.clone();
    run(&Options { socket, idle: Some(idle) }, move || services(served))?;
    report("take down what is idle", netplug.release());
    Ok(())
}

/// The service, for a server of one's own.
#[must_use]
pub fn services(netplug: Arc<Netplug>) -> Services {
    create_network(Arc::new(Service { netplug, sweeping: Arc::default() }))
}

#[derive(Debug)]
struct Service {
    netplug: Arc<Netplug>,
    /// Whether a sweep is going to be made anyway.
    sweeping: Arc<AtomicBool>,
}

impl Service {
    /// Runs a call of the library on a thread that may block.
    async fn call<T: Send + 'static>(
        &self,
        run: impl FnOnce(&Netplug) -> Result<T> + Send + 'static,
    ) -> ttrpc::Result<T> {
        let netplug = self.netplug.clone();
        blocking(move || run(&netplug).map_err(|error| status(error.kind(), &error))).await
    }

    /// Sees to it that what a container has left is removed soon, if the kernel has not done so by then.
    fn sweep_soon(&self) {
        if self.sweeping.swap(true, Ordering::SeqCst) {
            return;
        }
        let (netplug, sweeping) = (self.netplug.clone(), self.sweeping.clone());
        tokio::spawn(async move {
            tokio::time::sleep(SWEEP_AFTER).await;
            sweeping.store(false, Ordering::SeqCst);
            let swept = blocking(move || {
                report("remove what containers have left", netplug.sweep());
                Ok(())
            });
            // The error is that the process is about to end; the next one sweeps.
            let _ending = swept.await;
        });
    }
}

#[async_trait]
impl NetworkService for Service {
    async fn create_network(
        &self,
        _context: &TtrpcContext,
        request: message::CreateNetworkRequest,
    ) -> ttrpc::Result<message::CreateNetworkResponse> {
        let network = self.call(move |netplug| netplug.create_network(network_request(request))).await?;
        let network = Some(network_message(network, Vec::new())).into();
        Ok(message::CreateNetworkResponse { network, ..Default::default() })
    }

    async fn remove_network(
        &self,
        _context: &TtrpcContext,
        request: message::RemoveNetworkRequest,
    ) -> ttrpc::Result<Empty> {
        self.call(move |netplug| netplug.remove_network(&request.name)).await?;
        Ok(Empty::new())
    }

    async fn list_networks(
        &self,
        _context: &TtrpcContext,
        _request: message::ListNetworksRequest,
    ) -> ttrpc::Result<message::ListNetworksResponse> {
        let networks = self.call(Netplug::networks).await?;
        let networks = networks.into_iter().map(|(network, containers)| network_message(network, containers)).collect();
        Ok(message::ListNetworksResponse { networks, ..Default::default() })
    }

    async fn inspect_network(
        &self,
        _context: &TtrpcContext,
        request: message::InspectNetworkRequest,
    ) -> ttrpc::Result<message::InspectNetworkResponse> {
        let (network, containers) = self.call(move |netplug| netplug.network(&request.name)).await?;
        let network = Some(network_message(network, containers)).into();
        Ok(message::InspectNetworkResponse { network, ..Default::default() })
    }

    async fn attach(
        &self,
        _context: &TtrpcContext,
        request: message::AttachRequest,
    ) -> ttrpc::Result<message::AttachResponse> {
        let attachment = self.call(move |netplug| netplug.attach(&attach_request(&request)?)).await?;
        Ok(attach_response(attachment))
    }

    async fn detach(&self, _context: &TtrpcContext, request: message::DetachRequest) -> ttrpc::Result<Empty> {
        self.call(move |netplug| netplug.detach(&ContainerId::parse(&request.container_id)?)).await?;
        self.sweep_soon();
        Ok(Empty::new())
    }

    async fn check(&self, _context: &TtrpcContext, request: message::CheckRequest) -> ttrpc::Result<Empty> {
        self.call(move |netplug| netplug.check(&ContainerId::parse(&request.container_id)?)).await?;
        Ok(Empty::new())
    }

    async fn gc(&self, _context: &TtrpcContext, request: message::GcRequest) -> ttrpc::Result<Empty> {
        self.call(move |netplug| {
            let living = request.container_ids.iter().map(|id| ContainerId::parse(id)).collect::<Result<Vec<_>>>()?;
            netplug.gc(&living)
        })
        .await?;
        Ok(Empty::new())
    }
}

fn network_request(request: message::CreateNetworkRequest) -> NetworkRequest {
    let network = request.network.unwrap_or_default();
    NetworkRequest {
        name: network.name,
        driver: network.driver,
        interface: network.interface,
        subnets: network.subnets.into_iter().map(|subnet| (subnet.subnet, subnet.gateway)).collect(),
        internal: network.internal,
        labels: network.labels.into_iter().collect(),
        options: network.options.into_iter().collect(),
    }
}

fn network_message(network: Network, containers: Vec<String>) -> message::NetworkConfig {
    let subnet = |subnet: &crate::Subnet| message::Subnet {
        subnet: subnet.prefix.to_string(),
        gateway: subnet.gateway.to_string(),
        ..Default::default()
    };
    message::NetworkConfig {
        name: network.name.into(),
        id: network.id,
        driver: match network.driver {
            Driver::Bridge => "bridge",
            Driver::Host => "host",
            Driver::None => "none",
        }
        .to_owned(),
        interface: network.interface,
        subnets: network.subnets.iter().map(subnet).collect(),
        internal: network.internal,
        labels: network.labels.into_iter().collect(),
        options: network.options.into_iter().collect(),
        created: network.created,
        containers,
        ..Default::default()
    }
}

fn attach_request(request: &message::AttachRequest) -> Result<AttachRequest> {
    let port = |port: &message::Port| Port::parse(&port.protocol, &port.host_ip, port.host_port, port.container_port);
    let files = if request.files_dir.is_empty() { None } else { Some(files_request(request)?) };
    Ok(AttachRequest {
        container: ContainerId::parse(&request.container_id)?,
        mode: Mode::parse(&request.mode)?,
        ports: request.ports.iter().map(port).collect::<Result<_>>()?,
        ip: match request.ip.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_error| invalid("address", text, "not an IP address"))?),
        },
        mac: match request.mac.as_str() {
            "" => None,
            text => Some(text.parse()?),
        },
        files,
    })
}

fn files_request(request: &message::AttachRequest) -> Result<FilesRequest> {
    let name = (!request.container_name.is_empty()).then(|| request.container_name.clone());
    let address = |text: &String| text.parse().map_err(|_error| invalid("nameserver", text, "not an IP address"));
    Ok(FilesRequest {
        directory: request.files_dir.clone().into(),
        hostname: match request.hostname.as_str() {
            "" => request.container_id.chars().take(12).collect(),
            name => name.to_owned(),
        },
        aliases: name.into_iter().chain(request.aliases.iter().cloned()).collect(),
        dns: request.dns.iter().map(address).collect::<Result<_>>()?,
        dns_search: request.dns_search.clone(),
        dns_options: request.dns_options.clone(),
        extra_hosts: request.extra_hosts.iter().map(|host| ExtraHost::parse(host)).collect::<Result<_>>()?,
    })
}

fn attach_response(attachment: Attachment) -> message::AttachResponse {
    let texts = |list: &[std::net::IpAddr]| list.iter().map(ToString::to_string).collect();
    let interface = |interface: &crate::Interface| message::Interface {
        network: interface.network.to_string(),
        name: interface.name.clone(),
        host_name: interface.host_name.clone(),
        mac: interface.mac.to_string(),
        addresses: interface.addresses.iter().map(ToString::to_string).collect(),
        gateways: texts(&interface.gateways),
        ..Default::default()
    };
    let port = |port: &Port| message::Port {
        protocol: port.transport.as_str().to_owned(),
        host_ip: port.host.map(|address| address.to_string()).unwrap_or_default(),
        host_port: port.host_port.into(),
        container_port: port.container_port.into(),
        ..Default::default()
    };
    message::AttachResponse {
        netns: attachment.netns.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default(),
        interfaces: attachment.interfaces.iter().map(interface).collect(),
        ports: attachment.ports.iter().map(port).collect(),
        dns: texts(&attachment.dns),
        ..Default::default()
    }
}

/// The kernel frees a namespace within some tens of milliseconds, unless something holds it.
const SWEEP_AFTER: Duration = Duration::from_secs(1);
