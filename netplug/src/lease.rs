//! Addresses of a network's containers, and the host ports of containers: claims that exclude each other.

use std::net::IpAddr;
use std::path::PathBuf;

use crate::error::{Error, Result, file, invalid};
use crate::names::{ContainerId, NetworkName};
use crate::network::Subnet;
use crate::port::{Port, Transport, probe};
use crate::store::{self, Store, claim, give_up, owner_of};

/// Leases an address of the subnet: the wanted one, or the next free one after the last that was given, so that an address
/// rests as long as possible before somebody else gets it.
pub(crate) fn lease(
    store: &Store,
    network: &NetworkName,
    subnet: &Subnet,
    wanted: Option<IpAddr>,
    owner: &ContainerId,
) -> Result<IpAddr> {
    let directory = directory(store, network);
    if let Some(address) = wanted {
        if !subnet.prefix.is_host(address) || address == subnet.gateway {
            let reason = format!("not an address for a container in {}", subnet.prefix);
            return Err(invalid("address", address.to_string(), reason));
        }
        return match claim(&directory.join(address.to_string()), owner.as_str())? {
            Some(other) if other != owner.as_str() => Err(Error::AddressTaken { address, owner: other }),
            _ => Ok(address),
        };
    }
    let (first, last) = subnet.prefix.hosts();
    let gateway = subnet.prefix.offset(subnet.gateway);
    let start = last_given(&directory, subnet).map_or(first, |offset| offset + 1);
    // More than every address there is, or (IPv6) than there can be files, need not be tried.
    for offset in (start..=last).chain(first..start).filter(|offset| *offset != gateway) {
        let address = subnet.prefix.nth(offset);
        if claim(&directory.join(address.to_string()), owner.as_str())?.is_none() {
            // Only a hint where to begin: one that is cut off, or lost, costs a longer search.
            let last = directory.join(LAST);
            std::fs::write(&last, address.to_string()).map_err(file("write", last))?;
            return Ok(address);
        }
    }
    Err(Error::AddressesExhausted { network: network.to_string(), subnet: subnet.prefix })
}

/// Gives an address back.
pub(crate) fn release(store: &Store, network: &NetworkName, address: IpAddr, owner: &ContainerId) -> Result<()> {
    give_up(&directory(store, network).join(address.to_string()), owner.as_str())
}

/// Every lease of a network: the address and its container.
pub(crate) fn leases(store: &Store, network: &NetworkName) -> Result<Vec<(IpAddr, String)>> {
    let directory = directory(store, network);
    let mut leases = Vec::new();
    for name in store::names(&directory)? {
        let Ok(address) = name.parse() else { continue };
        if let Some(owner) = owner_of(&directory.join(name))? {
            leases.push((address, owner));
        }
    }
    Ok(leases)
}

/// Where a network's leases are.
pub(crate) fn directory(store: &Store, network: &NetworkName) -> PathBuf {
    store.path("leases").join(network.as_str())
}

/// Claims a host port, picking one when the request leaves it open. Fails with the name of who has it.
pub(crate) fn claim_port(store: &Store, wanted: &Port, owner: &ContainerId) -> Result<Port> {
    if wanted.host_port != 0 {
        return match try_port(store, wanted, owner)? {
            None => Ok(*wanted),
            Some(holder) => Err(Error::PortTaken { port: *wanted, owner: holder }),
        };
    }
    for _ in 0..PICKS {
        let Some(host_port) = probe(wanted)? else { continue };
        let port = Port { host_port, ..*wanted };
        if try_port(store, &port, owner)?.is_none() {
            return Ok(port);
        }
    }
    Err(Error::PortTaken { port: *wanted, owner: "no free port was found".to_owned() })
}

/// Gives a host port back.
pub(crate) fn release_port(store: &Store, port: &Port, owner: &ContainerId) -> Result<()> {
    let directory = port_directory(store, port.transport, port.host_port);
    give_up(&directory.join(host_name(port)), owner.as_str())?;
    store::remove_if_empty(&directory)
}

/// Every claim on a port: its path and its container.
pub(crate) fn port_claims(store: &Store) -> Result<Vec<(PathBuf, String)>> {
    let mut claims = Vec::new();
    for port in store::names(&store.path("ports"))? {
        let directory = store.path("ports").join(port);
        for host in store::names(&directory)? {
            let path = directory.join(host);
            if let Some(owner) = owner_of(&path)? {
                claims.push((path, owner));
            }
        }
    }
    Ok(claims)
}

/// Claims a port; returns in words who has it, if somebody has.
fn try_port(store: &Store, port: &Port, owner: &ContainerId) -> Result<Option<String>> {
    let directory = port_directory(store, port.transport, port.host_port);
    // A port on every address and one on a single address exclude each other.
    for name in store::names(&directory)? {
        if port.host.is_none() || name == EVERY_ADDRESS || name == host_name(port) {
            let holder = owner_of(&directory.join(&name))?.unwrap_or_default();
            return Ok(Some(format!("container {holder} has it")));
        }
    }
    if probe(port)?.is_none() {
        return Ok(Some(crate::listener::describe(port)));
    }
    claim(&directory.join(host_name(port)), owner.as_str())?;
    Ok(None)
}

fn port_directory(store: &Store, transport: Transport, port: u16) -> PathBuf {
    store.path("ports").join(format!("{}-{port}", transport.as_str()))
}

fn host_name(port: &Port) -> String {
    port.host.map_or_else(|| EVERY_ADDRESS.to_owned(), |address| address.to_string())
}

fn last_given(directory: &std::path::Path, subnet: &Subnet) -> Option<u128> {
    let text = std::fs::read_to_string(directory.join(LAST)).ok()?;
    let address: IpAddr = text.parse().ok()?;
    subnet.prefix.is_host(address).then(|| subnet.prefix.offset(address))
}

const LAST: &str = ".last";
const EVERY_ADDRESS: &str = "any";
/// How often a port is picked that a container of ours turns out to have.
const PICKS: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(prefix: &str, gateway: &str) -> Subnet {
        Subnet { prefix: prefix.parse().unwrap(), gateway: gateway.parse().unwrap() }
    }

    fn container(name: &str) -> ContainerId {
        ContainerId::parse(name).unwrap()
    }

    #[test]
    fn leases_go_round_until_none_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path().to_owned());
        let network = NetworkName::parse("n").unwrap();
        let subnet = subnet("10.9.0.0/29", "10.9.0.1");
        let next = |owner: &str| lease(&store, &network, &subnet, None, &container(owner));
        let given: Vec<_> = (0..5).map(|n| next(&format!("c{n}")).unwrap().to_string()).collect();
        assert_eq!(given, ["10.9.0.2", "10.9.0.3", "10.9.0.4", "10.9.0.5", "10.9.0.6"]);
        assert!(matches!(next("x"), Err(Error::AddressesExhausted { .. })));
        for (owner, address) in [("c3", "10.9.0.5"), ("c0", "10.9.0.2")] {
            release(&store, &network, address.parse().unwrap(), &container(owner)).unwrap();
        }
        // Released by somebody else: nothing happens.
        release(&store, &network, "10.9.0.3".parse().unwrap(), &container("c9")).unwrap();
        assert_eq!(next("y").unwrap().to_string(), "10.9.0.2");
        assert_eq!(next("z").unwrap().to_string(), "10.9.0.5");
        assert_eq!(leases(&store, &network).unwrap().len(), 5);
    }

    #[test]
    fn a_wanted_address_is_checked() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path().to_owned());
        let network = NetworkName::parse("n").unwrap();
        let subnet = subnet("10.9.0.0/24", "10.9.0.1");
        let want = |text: &str, owner: &str| {
            lease(&store, &network, &subnet, Some(text.parse().unwrap()), &container(owner))
                .map_err(|error| error.kind())
        };
        assert!(want("10.9.0.77", "a").is_ok());
        assert_eq!(want("10.9.0.77", "b"), Err(dhow_api::Kind::AlreadyExists));
        for bad in ["10.9.0.1", "10.9.0.0", "10.9.0.255", "10.9.1.2", "fd00::2"] {
            assert_eq!(want(bad, "b"), Err(dhow_api::Kind::InvalidArgument), "{bad}");
        }
    }

    #[test]
    fn ports_exclude_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path().to_owned());
        let any = claim_port(&store, &Port::parse("tcp", "", 0, 80).unwrap(), &container("a")).unwrap();
        let on = |host: &str| Port { host: Some(host.parse().unwrap()), ..any };
        let error = claim_port(&store, &on("127.0.0.1"), &container("b")).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("port 127.0.0.1:{}/tcp is already allocated: container a has it", any.host_port)
        );
        release_port(&store, &any, &container("a")).unwrap();
        claim_port(&store, &on("127.0.0.1"), &container("b")).unwrap();
        claim_port(&store, &on("127.0.0.2"), &container("c")).unwrap();
        assert!(claim_port(&store, &any, &container("a")).is_err());
        assert!(claim_port(&store, &on("127.0.0.2"), &container("a")).is_err());
        assert_eq!(port_claims(&store).unwrap().len(), 2);
    }
}
