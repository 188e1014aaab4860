//! The bridge of a network on the host: brought up by the first container, taken down when the network is idle.

use std::fs::File;

use nix::fcntl::{Flock, FlockArg};

use crate::error::{Error, Result};
use crate::instance::Instance;
use crate::mac::Mac;
use crate::names::NetworkName;
use crate::netlink::Socket;
use crate::netlink::link::{self, Link};
use crate::netlink::route::{Family, add_address};
use crate::netns::own_namespace;
use crate::network::{Network, check_overlap};
use crate::prefix::Prefix;
use crate::sysctl;

/// The bridge of a network, if it is there. A link of its name that is not ours is an error.
pub(crate) fn find(route: &mut Socket, instance: &Instance, network: &Network) -> Result<Option<Link>> {
    match route.link(&network.interface)? {
        Some(found) if is_ours(&found, instance, network) => Ok(Some(found)),
        Some(found) => Err(Error::ForeignLink { name: found.name }),
        None => Ok(None),
    }
}

/// Makes the bridge. Fails with [`Error::SubnetOverlaps`] when the host has come to use its subnet otherwise.
pub(crate) fn bring_up(route: &mut Socket, instance: &Instance, network: &Network) -> Result<Link> {
    // Two instances look for free subnets and take them under the lock of the namespace that they share.
    let _lock = lock_namespace()?;
    let taken = routes(route)?;
    for subnet in &network.subnets {
        check_overlap(subnet.prefix, &taken)?;
    }
    let mtu = match network.mtu() {
        Some(mtu) => mtu,
        None => mtu_of_default_route(route)?,
    };
    let name = &network.interface;
    route.execute(&[link::add_bridge(name, mac(instance, network), mtu)?])?;
    sysctl::silence_ipv6(name)?;
    let made = route.link(name)?.ok_or_else(|| link::vanished(name))?;
    let mut requests = Vec::new();
    for subnet in &network.subnets {
        requests.push(add_address(made.index, subnet.prefix.with_address(subnet.gateway))?);
    }
    // The alias comes last: a bridge that has it is whole.
    requests.push(link::set_up(made.index, &instance.alias(network.name.as_str()))?);
    route.execute(&requests)?;
    Ok(made)
}

/// The bridges of this instance among the links: by their alias, or, if one was not made to its end, by its network.
pub(crate) fn among<'a>(links: &'a [Link], instance: &Instance, networks: &[Network]) -> Vec<&'a Link> {
    let prefix = instance.alias_prefix();
    let unfinished =
        |link: &Link| networks.iter().any(|network| network.interface == link.name && is_ours(link, instance, network));
    let ours = |link: &&Link| link.kind == "bridge" && (link.alias.starts_with(&prefix) || unfinished(link));
    links.iter().filter(ours).collect()
}

/// The subnets that the host routes, in words.
pub(crate) fn routes(route: &mut Socket) -> Result<Vec<(Prefix, String)>> {
    let routes = route.routes(Family::V4)?;
    Ok(routes
        .iter()
        .filter_map(|route| route.destination)
        .map(|to| (to, format!("the host's route to {to}")))
        .collect())
}

/// Whether a bridge is whole: made to its end.
pub(crate) fn is_whole(found: &Link, instance: &Instance, network: &NetworkName) -> bool {
    found.up && found.alias == instance.alias(network.as_str())
}

/// A bridge that was not made to its end has no alias yet, but the Ethernet address that it was born with.
fn is_ours(found: &Link, instance: &Instance, network: &Network) -> bool {
    let unfinished = found.alias.is_empty() && !found.up && found.mac == Some(mac(instance, network));
    found.kind == "bridge" && (unfinished || found.alias == instance.alias(network.name.as_str()))
}

/// The bridge's Ethernet address, which stays the same whatever ports come and go.
fn mac(instance: &Instance, network: &Network) -> Mac {
    Mac::of_bytes(instance.alias(network.name.as_str()).as_bytes())
}

fn mtu_of_default_route(route: &mut Socket) -> Result<u32> {
    let routes = route.routes(Family::V4)?;
    let default = routes.iter().filter(|route| route.destination.is_none()).min_by_key(|route| route.metric);
    let Some(index) = default.and_then(|route| route.link) else { return Ok(ETHERNET_MTU) };
    Ok(route.link_by_index(index)?.map_or(ETHERNET_MTU, |link| link.mtu))
}

/// The lock of the network namespace itself: flock on its file, which every opener shares.
fn lock_namespace() -> Result<Flock<File>> {
    let handle = File::from(own_namespace()?);
    Flock::lock(handle, FlockArg::LockExclusive)
        .map_err(|(_file, errno)| Error::Namespace { operation: "lock the", source: errno.into() })
}

const ETHERNET_MTU: u32 = 1500;
