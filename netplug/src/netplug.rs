//! The networks of an instance, and the containers attached to them.
//!
//! Every change is made under the store's lock, and what it is about to make is recorded before it is made. So whoever finds
//! a pending record while holding the lock knows that its maker has died, and undoes it: the next Attach of the container,
//! its Detach, or a Gc.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dhow_api::error::chain;
use dhow_sys::netlink::Protocol;

use crate::attachment::{self, Attachment, Mode};
use crate::bridge;
use crate::error::{Error, Result, file};
use crate::instance::Instance;
use crate::lease;
use crate::names::{ContainerId, NetworkName};
use crate::netlink::link::{self, Link};
use crate::netlink::{Socket, conntrack};
use crate::netns::Directory;
use crate::network::{self, DEFAULT, Driver, Network, NetworkRequest};
use crate::nft::{Firewall, State};
use crate::port::Transport;
use crate::prefix::Prefix;
use crate::store::{self, Lock, Store};

/// The networks of an instance. Cheap to make; several may work on one instance, in one process or many.
#[derive(Debug)]
pub struct Netplug {
    store: Store,
    namespaces: Directory,
    instance: Instance,
    inner: Mutex<Cache>,
}

/// What is kept between calls; none of it is truth.
#[derive(Debug)]
struct Cache {
    firewall: Firewall,
    /// A socket in the namespace of the host.
    route: Option<Socket>,
    /// Whether this process has compared the boot that the records belong to.
    boot_is_known: bool,
}

/// The instance under its lock: all that changes anything is a method of this.
#[derive(Debug)]
pub(crate) struct Session<'a> {
    pub(crate) store: &'a Store,
    pub(crate) namespaces: &'a Directory,
    pub(crate) instance: &'a Instance,
    cache: MutexGuard<'a, Cache>,
    _lock: Lock,
}

impl Netplug {
    /// The instance of two roots, which need not exist yet. Nothing is changed.
    pub fn new(root: &Path, runroot: &Path) -> Result<Self> {
        let given = std::path::absolute(root).map_err(file("resolve", root))?;
        let runroot = std::path::absolute(runroot).map_err(file("resolve", runroot))?;
        let root = resolve(&given);
        let instance = Instance::new(&given, &root);
        let firewall = Firewall::new(instance.table());
        Ok(Self {
            store: Store::new(root.join("networks")),
            namespaces: Directory::new(runroot.join("netns")),
            instance,
            inner: Mutex::new(Cache { firewall, route: None, boot_is_known: false }),
        })
    }

    /// The name of the instance's nftables table.
    pub fn table(&self) -> String {
        self.instance.table()
    }

    /// Makes a network. Its bridge is brought up by its first container.
    pub fn create_network(&self, request: NetworkRequest) -> Result<Network> {
        let mut session = self.session()?;
        let named = !request.subnets.is_empty();
        let taken = session.taken()?;
        let network = Network::of_request(request, &self.instance, || network::pick_subnet(false, &taken))?;
        let path = network::path(&self.store, &network.name);
        if path.exists() {
            return Err(Error::NetworkExists { name: network.name.into() });
        }
        if named {
            for subnet in &network.subnets {
                network::check_overlap(subnet.prefix, &taken)?;
            }
        }
        session.check_interface(&network)?;
        store::write(&path, &network)?;
        Ok(network)
    }

    /// Removes a network and its bridge.
    pub fn remove_network(&self, name: &str) -> Result<()> {
        let mut session = self.session()?;
        let network = session.network(name)?;
        if network::PREDEFINED.contains(&network.name.as_str()) {
            return Err(Error::Predefined { name: name.to_owned() });
        }
        let containers = session.containers(&network)?.len();
        if containers > 0 {
            return Err(Error::NetworkBusy { name: network.name.into(), containers });
        }
        if let Some(found) = bridge::find(session.route()?, &self.instance, &network)? {
            let mut doomed = session.abandoned_ports(&[found.index])?;
            doomed.push(found.index);
            session.delete_links(&doomed)?;
        }
        remove_all(&lease::directory(&self.store, &network.name))?;
        store::remove(&network::path(&self.store, &network.name))?;
        session.refresh_firewall()
    }

    /// Every network with the ids of its containers, by name.
    pub fn networks(&self) -> Result<Vec<(Network, Vec<String>)>> {
        let mut session = self.session()?;
        let mut networks = network::recorded(&self.store)?;
        if !networks.iter().any(|network| network.name.as_str() == DEFAULT) {
            networks.push(session.propose_default(0)?);
        }
        networks.push(Network::without_interface("host", Driver::Host));
        networks.push(Network::without_interface("none", Driver::None));
        networks.sort_by(|one, other| one.name.cmp(&other.name));
        networks
            .into_iter()
            .map(|network| session.containers(&network).map(|containers| (network, containers)))
            .collect()
    }

    /// One network, by name, id, or the beginning of its id.
    pub fn network(&self, name: &str) -> Result<(Network, Vec<String>)> {
        let mut session = self.session()?;
        let network = session.network(name)?;
        let containers = session.containers(&network)?;
        Ok((network, containers))
    }

    /// Undoes an Attach, finished or cut off. A container that is not attached is no error.
    ///
    /// The container's processes should be gone: the namespace lives, without its name, as long as any of them.
    pub fn detach(&self, container: &ContainerId) -> Result<()> {
        self.session()?.detach(container)
    }

    /// Detaches every container that is not among these, and removes what belongs to none. With no container left nothing
    /// of the instance stays in the kernel.
    pub fn gc(&self, living: &[ContainerId]) -> Result<()> {
        self.session()?.gc(living)
    }

    /// Takes down what no container uses: to be called when nothing is going to happen for a while.
    pub fn release(&self) -> Result<()> {
        // An instance that was removed meanwhile is not to come back by being locked.
        if !self.store.path("").exists() {
            return Ok(());
        }
        self.session()?.release()
    }

    /// Removes the ends of veth pairs that containers have left: the kernel keeps the namespace of a dead container, and
    /// with it the container's address on the bridge, as long as a TCP connection of it waits for answers.
    pub fn sweep(&self) -> Result<()> {
        let doomed = {
            let mut session = self.session()?;
            let (bridges, _) = session.bridges()?;
            session.abandoned_ports(&bridges)?
        };
        // Removing takes its time. By their numbers, which are not given twice, that needs no lock.
        Socket::open(Protocol::Route)?.execute(&link::delete(&doomed)?)
    }

    pub(crate) fn session(&self) -> Result<Session<'_>> {
        // Threads queue here rather than at the file lock, whose waiters the kernel wakes all at once.
        let cache = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let lock = self.store.lock()?;
        let mut session =
            Session { store: &self.store, namespaces: &self.namespaces, instance: &self.instance, cache, _lock: lock };
        if !session.cache.boot_is_known {
            session.forget_other_boots()?;
            session.cache.boot_is_known = true;
        }
        Ok(session)
    }
}

impl Session<'_> {
    /// The socket in the host's namespace.
    pub(crate) fn route(&mut self) -> Result<&mut Socket> {
        match &mut self.cache.route {
            Some(route) => Ok(route),
            empty => Ok(empty.insert(Socket::open(Protocol::Route)?)),
        }
    }

    /// Drops the socket: what comes next must not read the rest of an answer that went wrong.
    pub(crate) fn forget_route(&mut self) {
        self.cache.route = None;
    }

    /// The firewall, and what it should hold in case it has to be made anew. `beside`: an attachment that is not recorded
    /// yet, or that should no longer count.
    pub(crate) fn publish(&mut self, record: &Attachment, network: &Network) -> Result<()> {
        let (store, published) = (self.store, record.published());
        let all = || {
            let mut state = state(store, Some(record.container.as_str()))?;
            state.published.extend(record.published());
            Ok(state)
        };
        self.cache.firewall.add(&network.bridge(), &published, all)
    }

    /// Takes a container's ports away.
    pub(crate) fn withdraw(&mut self, record: &Attachment) -> Result<()> {
        let store = self.store;
        self.cache.firewall.withdraw(&record.published(), || state(store, Some(record.container.as_str())))
    }

    /// Makes the kernel forget UDP streams that know another way than to this container.
    pub(crate) fn forget_streams(&mut self, record: &Attachment) -> Result<()> {
        let udp = record.ports.iter().filter(|port| port.transport == Transport::Udp);
        let ports: Vec<_> = udp.map(|port| port.host_port).collect();
        match record.address() {
            Some(address) if !ports.is_empty() => {
                conntrack::forget(self.cache.firewall.socket()?, Transport::Udp.number(), &ports, address)
            }
            _ => Ok(()),
        }
    }

    /// Whether the firewall has what an attachment needs.
    pub(crate) fn is_published(&mut self, record: &Attachment, network: &Network) -> Result<bool> {
        self.cache.firewall.has(&network.bridge(), &record.published())
    }

    /// The network of a name, id, or beginning of an id.
    pub(crate) fn network(&mut self, wanted: &str) -> Result<Network> {
        let wanted = if wanted == "default" { DEFAULT } else { wanted };
        match wanted {
            "host" => return Ok(Network::without_interface(wanted, Driver::Host)),
            "none" => return Ok(Network::without_interface(wanted, Driver::None)),
            _ => {}
        }
        if let Ok(name) = NetworkName::parse(wanted)
            && let Some(network) = store::read(&network::path(self.store, &name))?
        {
            return Ok(network);
        }
        if wanted == DEFAULT {
            return self.propose_default(0);
        }
        let mut by_id = network::recorded(self.store)?;
        by_id.retain(|network| !wanted.is_empty() && network.id.starts_with(wanted));
        match (by_id.pop(), by_id.is_empty()) {
            (Some(network), true) => Ok(network),
            _ => Err(Error::UnknownNetwork { name: wanted.to_owned() }),
        }
    }

    /// The default network as it would be brought up now.
    pub(crate) fn propose_default(&mut self, attempt: u32) -> Result<Network> {
        let taken = self.taken()?;
        Ok(Network::default_bridge(self.instance, attempt, network::pick_subnet(true, &taken)?))
    }

    /// The ids of the containers that have an address of a network.
    pub(crate) fn containers(&self, network: &Network) -> Result<Vec<String>> {
        let owners = lease::leases(self.store, &network.name)?.into_iter().map(|(_, owner)| owner);
        let attached: BTreeSet<_> = owners.filter(|owner| self.is_recorded(owner)).collect();
        Ok(attached.into_iter().collect())
    }

    /// Whether there is any record of a container.
    pub(crate) fn is_recorded(&self, container: &str) -> bool {
        attachment::path(self.store, container).exists() || attachment::pending_path(self.store, container).exists()
    }

    /// Makes the firewall anew from what is on disk, or removes it when there is nothing.
    pub(crate) fn refresh_firewall(&mut self) -> Result<()> {
        if attachment::containers(self.store)?.is_empty() {
            return self.cache.firewall.remove();
        }
        let state = state(self.store, None)?;
        self.cache.firewall.replace(&state)
    }

    /// Takes down what no container uses.
    pub(crate) fn release(&mut self) -> Result<()> {
        if !attachment::containers(self.store)?.is_empty() {
            return Ok(());
        }
        let (mut doomed, _) = self.bridges()?;
        doomed.extend(self.abandoned_ports(&doomed)?);
        let mut errors = Vec::new();
        errors.extend(self.delete_links(&doomed).err());
        errors.extend(self.cache.firewall.remove().err());
        errors.extend(self.namespaces.release().err());
        errors.extend(store::remove(&network::path(self.store, &NetworkName::parse(DEFAULT)?)).err());
        for directory in ["leases", "ports", "attachments"] {
            errors.extend(remove_all(&self.store.path(directory)).err());
        }
        Error::several(errors)
    }

    /// The bridges of the instance by index, and those among them whose network is gone.
    pub(crate) fn bridges(&mut self) -> Result<(Vec<u32>, Vec<u32>)> {
        let instance = self.instance;
        let networks = network::recorded(self.store)?;
        let links = self.route()?.links()?;
        let bridges = bridge::among(&links, instance, &networks);
        let strange = |link: &&&Link| !networks.iter().any(|network| network.interface == link.name);
        let strange = bridges.iter().filter(strange).map(|link| link.index).collect();
        Ok((bridges.iter().map(|link| link.index).collect(), strange))
    }

    /// The ports of these bridges that belong to no attached container.
    pub(crate) fn abandoned_ports(&mut self, bridges: &[u32]) -> Result<Vec<u32>> {
        let containers = attachment::containers(self.store)?;
        let records: Vec<_> = containers.iter().filter_map(|name| attachment::read(self.store, name)).collect();
        let interfaces = records.iter().flat_map(|record| &record.interfaces);
        let used: BTreeSet<&str> = interfaces.map(|interface| interface.host_name.as_str()).collect();
        let links = self.route()?.links()?;
        let abandoned = |link: &&Link| {
            link.master.is_some_and(|master| bridges.contains(&master))
                && link.name.starts_with(Instance::HOST_END)
                && !used.contains(link.name.as_str())
        };
        Ok(links.iter().filter(abandoned).map(|link| link.index).collect())
    }

    /// Removes links in one go.
    pub(crate) fn delete_links(&mut self, links: &[u32]) -> Result<()> {
        self.route()?.execute(&link::delete(links)?)
    }

    /// What of the address space is in use, in words: the host's routes and the networks, up or not.
    fn taken(&mut self) -> Result<Vec<(Prefix, String)>> {
        let mut taken = bridge::routes(self.route()?)?;
        for network in network::recorded(self.store)? {
            taken.extend(network.subnets.iter().map(|subnet| (subnet.prefix, format!("network {}", network.name))));
        }
        Ok(taken)
    }

    /// Refuses an interface name that another network or another link has.
    fn check_interface(&mut self, network: &Network) -> Result<()> {
        let recorded = network::recorded(self.store)?;
        let same = |other: &&Network| other.interface == network.interface;
        if let Some(other) = recorded.iter().find(same) {
            let reason = format!("network {} has it", other.name);
            return Err(crate::error::invalid("interface name", network.interface.as_str(), reason));
        }
        match self.route()?.link(&network.interface)? {
            Some(link) => Err(Error::ForeignLink { name: link.name }),
            None => Ok(()),
        }
    }

    /// Removes every record of what a boot has ended.
    fn forget_other_boots(&mut self) -> Result<()> {
        let path = self.store.path("boot");
        let boot = fs::read_to_string(BOOT_ID).map_err(file("read", BOOT_ID))?;
        if fs::read_to_string(&path).is_ok_and(|recorded| recorded == boot) {
            return Ok(());
        }
        for directory in ["leases", "ports", "attachments"] {
            remove_all(&self.store.path(directory))?;
        }
        for name in self.namespaces.list()? {
            self.namespaces.unpin(&name)?;
        }
        store::remove(&network::path(self.store, &NetworkName::parse(DEFAULT)?))?;
        store::replace(&path, boot.as_bytes(), 0o600)
    }
}

/// What the firewall should hold, by the records on disk. `except`: a container that does not count.
fn state(store: &Store, except: Option<&str>) -> Result<State> {
    let mut state = State::default();
    for network in network::recorded(store)? {
        state.bridges.push(network.bridge());
    }
    for container in attachment::containers(store)? {
        if except == Some(container.as_str()) {
            continue;
        }
        if let Some(record) = attachment::read(store, &container)
            && matches!(record.mode, Mode::Network(_))
        {
            state.published.extend(record.published());
        }
    }
    Ok(state)
}

/// Removes a directory of ours with all that is in it.
pub(crate) fn remove_all(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        outcome => outcome.map_err(file("remove directory", path)),
    }
}

/// A path without symbolic links, also when the end of it does not exist yet.
fn resolve(path: &Path) -> PathBuf {
    match (fs::canonicalize(path), path.parent(), path.file_name()) {
        (Ok(resolved), ..) => resolved,
        (Err(_), Some(parent), Some(name)) => resolve(parent).join(name),
        _ => path.to_owned(),
    }
}

/// Reports an error that must not stop what is being done.
pub(crate) fn report(what: &str, outcome: Result<()>) {
    if let Err(error) = outcome {
        log::warn!("{what}: {}", chain(&error));
    }
}

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
