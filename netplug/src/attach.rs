//! Attach: a container gets its namespace, interface, address, ports and files, all or nothing.
//!
//! ```text
//! without the lock   namespace made, loopback up, held by a descriptor only
//! under the lock     bridge up, if it is not          1 request to look
//!                    address leased, ports claimed    symbolic links
//!                    files written
//!                    <id>.pending written             from here on a crash is undone by whoever comes next
//!                    namespace pinned                 1 mount
//!                    veth pair, both ends in place    1 datagram
//!                    address, default route, up       2 datagrams in the container's namespace
//!                    both ends settled                1 datagram
//!                    firewall                         1 transaction, or 1 question when no port is published
//!                    <id>.pending renamed to <id>.json
//! ```

use std::fs;

use nix::libc;

use crate::attachment::{self, AttachRequest, Attachment, Interface, Mode};
use crate::bridge;
use crate::error::{Error, Result, file};
use crate::files::View;
use crate::lease;
use crate::mac::Mac;
use crate::names::ContainerId;
use crate::netlink::link::{Link, Veth, add_veth, set_up, settle, vanished};
use crate::netlink::route::{add_address, add_default_route};
use crate::netns::Namespace;
use crate::netplug::{Netplug, Session, report};
use crate::network::{self, DEFAULT, Driver, Network};
use crate::port::Port;
use crate::store;
use crate::sysctl;

impl Netplug {
    /// Gives a container its network.
    pub fn attach(&self, request: &AttachRequest) -> Result<Attachment> {
        request.check()?;
        if let Some(files) = &request.files {
            files.check()?;
        }
        // The slowest step needs no lock, and leaves nothing behind wherever it is cut off.
        let namespace = match request.mode {
            Mode::Network(_) | Mode::None => Some(Namespace::create()?),
            Mode::Host | Mode::Container(_) => None,
        };
        self.session()?.attach(request, namespace)
    }
}

impl Session<'_> {
    fn attach(&mut self, request: &AttachRequest, namespace: Option<Namespace>) -> Result<Attachment> {
        let container = &request.container;
        if attachment::path(self.store, container.as_str()).exists() {
            return Err(Error::AlreadyAttached { container: container.to_string() });
        }
        if attachment::pending_path(self.store, container.as_str()).exists() {
            self.detach(container)?;
        }
        let mut record = Attachment::new(request);
        record.netns = namespace.is_some().then(|| self.namespaces.path_of(container.as_str()));
        let outcome = match (&request.mode, namespace) {
            (Mode::Network(name), Some(namespace)) => {
                let name = name.as_str().to_owned();
                self.attach_to_network(&name, request, &mut record, namespace)
            }
            (Mode::None, Some(namespace)) => self.attach_to_nothing(request, &mut record, &namespace),
            (Mode::Container(other), _) => self.attach_to_container(other, request, &mut record),
            _ => self.attach_to_host(request, &mut record),
        };
        if let Err(error) = outcome.and_then(|()| self.finish(&record)) {
            self.forget_route();
            report("undo an attachment that failed", self.tear_down(&record));
            return Err(error);
        }
        Ok(record)
    }

    fn attach_to_network(
        &mut self,
        name: &str,
        request: &AttachRequest,
        record: &mut Attachment,
        namespace: Namespace,
    ) -> Result<()> {
        let network = self.network(name)?;
        if network.driver != Driver::Bridge {
            return Err(Error::UnknownNetwork { name: name.to_owned() });
        }
        let (network, bridge) = self.bring_up(network)?;
        record.mode = Mode::Network(network.name.clone());
        self.claim(&network, request, record)?;
        if let Some(files) = &request.files {
            let gateway = network.subnets.first().map(|subnet| subnet.gateway);
            record.dns = files.write(View::Own { address: record.address(), gateway })?;
        }
        self.begin(record)?;
        self.namespaces.pin(record.container.as_str(), &namespace)?;
        self.connect(&network, &bridge, record, namespace)?;
        self.publish(record, &network)?;
        if record.ports.iter().any(Port::covers_loopback) {
            sysctl::route_loopback(&network.interface)?;
        }
        if !network.internal {
            sysctl::enable_forwarding()?;
        }
        self.forget_streams(record)
    }

    fn attach_to_nothing(
        &mut self,
        request: &AttachRequest,
        record: &mut Attachment,
        namespace: &Namespace,
    ) -> Result<()> {
        if let Some(files) = &request.files {
            record.dns = files.write(View::Own { address: None, gateway: None })?;
        }
        self.begin(record)?;
        self.namespaces.pin(record.container.as_str(), namespace)
    }

    fn attach_to_host(&mut self, request: &AttachRequest, record: &mut Attachment) -> Result<()> {
        if let Some(files) = &request.files {
            record.dns = files.write(View::Host)?;
        }
        self.begin(record)
    }

    fn attach_to_container(
        &mut self,
        other: &ContainerId,
        request: &AttachRequest,
        record: &mut Attachment,
    ) -> Result<()> {
        let finished = attachment::path(self.store, other.as_str());
        let target: Attachment =
            store::read(&finished)?.ok_or_else(|| Error::NotAttached { container: other.to_string() })?;
        // With a container that itself uses another's the namespace is that one's.
        let owner = match &target.mode {
            Mode::Container(owner) => owner.clone(),
            _ => other.clone(),
        };
        record.mode = Mode::Container(owner.clone());
        record.netns.clone_from(&target.netns);
        record.interfaces.clone_from(&target.interfaces);
        record.dns.clone_from(&target.dns);
        match (&request.files, &target.files_dir) {
            (Some(files), Some(directory)) => files.copy(directory)?,
            (Some(files), None) => {
                let gateway = target.interfaces.first().and_then(|interface| interface.gateways.first().copied());
                record.dns = files.write(View::Own { address: target.address(), gateway })?;
            }
            (None, _) => {}
        }
        self.begin(record)?;
        store::replace(&attachment::shared_path(self.store, owner.as_str()), b"", 0o600)
    }

    /// The network with its bridge up.
    fn bring_up(&mut self, mut network: Network) -> Result<(Network, Link)> {
        let instance = self.instance;
        let mut attempt = 0;
        loop {
            match bridge::find(self.route()?, instance, &network) {
                Ok(Some(found)) if bridge::is_whole(&found, instance, &network.name) => return Ok((network, found)),
                // A link that is not ours has the default bridge's name: take another.
                Err(Error::ForeignLink { .. }) if network.name.as_str() == DEFAULT && attempt < ATTEMPTS => {
                    attempt += 1;
                    network = self.propose_default(attempt)?;
                    continue;
                }
                found => found?,
            };
            if network.name.as_str() == DEFAULT {
                store::write(&network::path(self.store, &network.name), &network)?;
            }
            match bridge::bring_up(self.route()?, instance, &network) {
                Ok(made) => return Ok((network, made)),
                // The subnet was picked by us and somebody has taken it since; nobody here has an address of it.
                Err(Error::SubnetOverlaps { .. }) if network.name.as_str() == DEFAULT && attempt < ATTEMPTS => {
                    attempt += 1;
                    store::remove(&network::path(self.store, &network.name))?;
                    let subnet = *self.propose_default(0)?.subnet()?;
                    network.subnets = vec![subnet];
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Leases the address and claims the ports.
    fn claim(&mut self, network: &Network, request: &AttachRequest, record: &mut Attachment) -> Result<()> {
        let subnet = network.subnet()?;
        let container = &request.container;
        let take = |session: &Self| lease::lease(session.store, &network.name, subnet, request.ip, container);
        let address = match take(self) {
            Err(Error::AddressesExhausted { .. } | Error::AddressTaken { .. }) => {
                self.sweep_claims()?;
                take(self)?
            }
            outcome => outcome?,
        };
        record.interfaces = vec![Interface {
            network: network.name.clone(),
            name: INTERFACE.to_owned(),
            host_name: self.instance.host_end(container.as_str(), 0),
            mac: request.mac.unwrap_or_else(|| Mac::of_address(address)),
            addresses: vec![subnet.prefix.with_address(address)],
            gateways: if network.internal { Vec::new() } else { vec![subnet.gateway] },
        }];
        // Nobody outside can reach an internal network, so nothing of it is published.
        for wanted in request.ports.iter().filter(|_| !network.internal) {
            let port = match lease::claim_port(self.store, wanted, container) {
                Err(Error::PortTaken { .. }) => {
                    self.sweep_claims()?;
                    lease::claim_port(self.store, wanted, container)?
                }
                outcome => outcome?,
            };
            record.ports.push(port);
        }
        Ok(())
    }

    /// Makes the veth pair and configures the container's end.
    fn connect(
        &mut self,
        network: &Network,
        bridge: &Link,
        record: &mut Attachment,
        mut namespace: Namespace,
    ) -> Result<()> {
        let hairpin = !record.ports.is_empty();
        let mtu = network.mtu().unwrap_or(bridge.mtu);
        for attempt in 1.. {
            let Some(interface) = record.interfaces.first() else { return Ok(()) };
            let veth = Veth {
                host_name: &interface.host_name,
                bridge: bridge.index,
                name: &interface.name,
                mac: interface.mac,
                namespace: namespace.handle(),
                mtu,
                hairpin,
            };
            match self.route()?.execute(&add_veth(&veth)?) {
                Ok(()) => break,
                // Another container's name has the same hash, or the last one of this container is still being freed.
                Err(error) if error.code() == Some(libc::EEXIST) && attempt < ATTEMPTS => {
                    self.forget_route();
                    let host_name = self.instance.host_end(record.container.as_str(), attempt);
                    record.interfaces[0].host_name = host_name;
                    self.begin(record)?;
                }
                Err(error) => return Err(error),
            }
        }
        for interface in &record.interfaces {
            let route = &mut namespace.route;
            let link = route.link(&interface.name)?.ok_or_else(|| vanished(&interface.name))?;
            let mut requests = vec![set_up(link.index, "")?];
            for address in &interface.addresses {
                requests.push(add_address(link.index, *address)?);
            }
            for gateway in &interface.gateways {
                requests.push(add_default_route(*gateway)?);
            }
            requests.push(settle(&interface.name)?);
            route.execute(&requests)?;
            // The port's carrier brings the bridge's.
            self.route()?.execute(&[settle(&interface.host_name)?, settle(&bridge.name)?])?;
        }
        Ok(())
    }

    /// Records what is about to be made: the whole of it.
    fn begin(&self, record: &Attachment) -> Result<()> {
        store::write(&attachment::pending_path(self.store, record.container.as_str()), record)
    }

    /// Records that it has been made.
    fn finish(&self, record: &Attachment) -> Result<()> {
        let pending = attachment::pending_path(self.store, record.container.as_str());
        let finished = attachment::path(self.store, record.container.as_str());
        fs::rename(&pending, finished).map_err(file("rename", pending))
    }
}

/// The interface's name in the container.
const INTERFACE: &str = "eth0";
/// How often another name or subnet is tried.
const ATTEMPTS: u32 = 8;
