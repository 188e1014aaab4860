//! Networks: what one is, and which there are.
//!
//! `bridge`, `host` and `none` are always there. The record of `bridge` exists only while its interface does, as its subnet
//! is chosen when it is brought up; every other network has one from CreateNetwork to RemoveNetwork.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, invalid};
use crate::instance::Instance;
use crate::names::{NetworkName, check_link_name};
use crate::nft::Bridge;
use crate::prefix::Prefix;
use crate::store::{self, Store};

/// How a network connects its containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Driver {
    /// By a bridge and NAT.
    Bridge,
    /// Not at all: they use the host's namespace.
    Host,
    /// Not at all: they have a loopback only.
    None,
}

/// A subnet and the address that the host has in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The subnet, without host bits.
    pub prefix: Prefix,
    /// The bridge's address: the containers' default route.
    pub gateway: IpAddr,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its name, unique in the instance.
    pub name: NetworkName,
    /// 64 hexadecimal digits.
    pub id: String,
    /// How it connects.
    pub driver: Driver,
    /// The bridge on the host; empty where there is none.
    pub interface: String,
    /// Its subnets; one for now, IPv4.
    pub subnets: Vec<Subnet>,
    /// Whether its containers reach each other and the host only.
    pub internal: bool,
    /// The user's.
    pub labels: BTreeMap<String, String>,
    /// As given; `mtu` is understood.
    pub options: BTreeMap<String, String>,
    /// RFC 3339.
    pub created: String,
}

/// What a new network is asked to be.
#[derive(Clone, Debug, Default)]
pub struct NetworkRequest {
    /// Its name.
    pub name: String,
    /// Empty or `bridge`.
    pub driver: String,
    /// The bridge's name; empty: one is made up.
    pub interface: String,
    /// Subnets and gateways; no subnet: one is picked; no gateway: its first address.
    pub subnets: Vec<(String, String)>,
    /// See [`Network::internal`].
    pub internal: bool,
    /// See [`Network::labels`].
    pub labels: BTreeMap<String, String>,
    /// See [`Network::options`].
    pub options: BTreeMap<String, String>,
}

impl Network {
    /// The network of a request. `pick` finds a subnet when none is named.
    pub(crate) fn of_request(
        request: NetworkRequest,
        instance: &Instance,
        pick: impl FnOnce() -> Result<Subnet>,
    ) -> Result<Self> {
        let name = NetworkName::parse(&request.name)?;
        if PREDEFINED.contains(&name.as_str()) || matches!(name.as_str(), "default" | "container") {
            return Err(Error::NetworkExists { name: request.name });
        }
        if !matches!(request.driver.as_str(), "" | "bridge") {
            return Err(invalid("driver", request.driver, "want bridge"));
        }
        for (key, value) in &request.options {
            check_option(key, value)?;
        }
        let subnet = match request.subnets.as_slice() {
            [] => pick()?,
            [(subnet, gateway)] => Subnet::parse(subnet, gateway)?,
            [_, (second, _), ..] => return Err(invalid("subnet", second, "one subnet per network so far")),
        };
        let option = request.options.get(OPTION_BRIDGE).cloned().unwrap_or_default();
        let wanted = if request.interface.is_empty() { option } else { request.interface };
        let interface = if wanted.is_empty() { instance.bridge(name.as_str(), 0) } else { wanted };
        check_link_name(&interface)?;
        Ok(Self {
            name,
            id: crate::names::random_id()?,
            driver: Driver::Bridge,
            interface,
            subnets: vec![subnet],
            internal: request.internal,
            labels: request.labels,
            options: request.options,
            created: now(),
        })
    }

    /// The default network.
    pub(crate) fn default_bridge(instance: &Instance, attempt: u32, subnet: Subnet) -> Self {
        let interface = instance.default_bridge(attempt);
        Self {
            id: crate::names::hash(&[interface.as_bytes()], 64),
            interface,
            subnets: vec![subnet],
            created: now(),
            ..Self::without_interface(DEFAULT, Driver::Bridge)
        }
    }

    /// `host` and `none`.
    pub(crate) fn without_interface(name: &str, driver: Driver) -> Self {
        Self {
            name: NetworkName::parse(name).unwrap_or_else(|_error| unreachable!("predefined names are well formed")),
            id: crate::names::hash(&[name.as_bytes()], 64),
            driver,
            interface: String::new(),
            subnets: Vec::new(),
            internal: false,
            labels: BTreeMap::new(),
            options: BTreeMap::new(),
            created: ALWAYS.to_owned(),
        }
    }

    /// The subnet that addresses are leased from.
    pub(crate) fn subnet(&self) -> Result<&Subnet> {
        self.subnets.first().ok_or_else(|| invalid("network", self.name.as_str(), "it has no subnet"))
    }

    /// The packet size that the network was asked for.
    pub(crate) fn mtu(&self) -> Option<u32> {
        OPTIONS_MTU.iter().find_map(|key| self.options.get(*key)).and_then(|value| value.parse().ok())
    }

    /// The firewall's view of it.
    pub(crate) fn bridge(&self) -> Bridge {
        Bridge { name: self.interface.clone(), internal: self.internal }
    }
}

impl Subnet {
    /// A subnet of a request; an empty gateway is the first address.
    pub(crate) fn parse(subnet: &str, gateway: &str) -> Result<Self> {
        let given: Prefix = subnet.parse()?;
        let prefix = given.network();
        if !prefix.address().is_ipv4() {
            return Err(invalid("subnet", subnet, "networks are IPv4 so far"));
        }
        if !(8..=30).contains(&prefix.length()) {
            return Err(invalid("subnet", subnet, "want a prefix length from 8 to 30"));
        }
        let address = prefix.address();
        if address.is_loopback() || address.is_multicast() || address.is_unspecified() {
            return Err(invalid("subnet", subnet, "not a range for hosts"));
        }
        let mut parsed = Self::first_is_gateway(prefix);
        if !gateway.is_empty() {
            parsed.gateway = gateway.parse().map_err(|_error| invalid("gateway", gateway, "not an IP address"))?;
        }
        if !prefix.is_host(parsed.gateway) {
            return Err(invalid("gateway", gateway, format!("not an address for a host in {prefix}")));
        }
        Ok(parsed)
    }

    /// The subnet with its first address as gateway.
    pub(crate) fn first_is_gateway(prefix: Prefix) -> Self {
        Self { prefix, gateway: prefix.nth(prefix.hosts().0) }
    }
}

/// The records of networks, those that cannot be read being reported and left out.
pub(crate) fn recorded(store: &Store) -> Result<Vec<Network>> {
    let mut networks = Vec::new();
    for file in store::names(&store.path(""))? {
        if file.starts_with('.') || !file.ends_with(".json") {
            continue;
        }
        match store::read::<Network>(&store.path(&file)) {
            Ok(network) => networks.extend(network),
            Err(error) => log::warn!("skipping a network: {}", dhow_api::error::chain(&error)),
        }
    }
    Ok(networks)
}

/// Where a network's record is.
pub(crate) fn path(store: &Store, name: &NetworkName) -> PathBuf {
    store.path(format!("{name}.json"))
}

/// Picks a free subnet: a /16 for the default network, a /24 for others.
pub(crate) fn pick_subnet(is_default: bool, taken: &[(Prefix, String)]) -> Result<Subnet> {
    let free = |candidate: &Prefix| !taken.iter().any(|(prefix, _)| prefix.overlaps(candidate));
    let large = std::iter::once(88).chain(128..192).map(|second| Prefix::v4(10, second, 0, 0, 16));
    let small =
        (89..96).chain(192..240).flat_map(|second| (0..=255).map(move |third| Prefix::v4(10, second, third, 0, 24)));
    let found = if is_default { large.chain(small).find(free) } else { small.chain(large).find(free) };
    found.map(Subnet::first_is_gateway).ok_or(Error::SubnetsExhausted)
}

/// Refuses a subnet that overlaps what is taken.
pub(crate) fn check_overlap(subnet: Prefix, taken: &[(Prefix, String)]) -> Result<()> {
    match taken.iter().find(|(prefix, _)| prefix.overlaps(&subnet)) {
        Some((_, with)) => Err(Error::SubnetOverlaps { subnet, with: with.clone() }),
        None => Ok(()),
    }
}

fn check_option(key: &str, value: &str) -> Result<()> {
    if OPTIONS_MTU.contains(&key) {
        let fits = value.parse::<u32>().is_ok_and(|mtu| (68..=65_535).contains(&mtu));
        return if fits { Ok(()) } else { Err(invalid("mtu", value, "want 68 to 65535")) };
    }
    if key == OPTION_BRIDGE {
        return check_link_name(value);
    }
    Err(invalid("network option", key, "want mtu or com.docker.network.bridge.name"))
}

fn now() -> String {
    dhow_api::Timestamp::now().to_string()
}

/// The name of the network that containers get when they name none.
pub(crate) const DEFAULT: &str = "bridge";
/// The names that are always there.
pub(crate) const PREDEFINED: [&str; 3] = [DEFAULT, "host", "none"];
/// The zero time, as docker writes it.
const ALWAYS: &str = "0001-01-01T00:00:00Z";
const OPTIONS_MTU: [&str; 2] = ["mtu", "com.docker.network.driver.mtu"];
const OPTION_BRIDGE: &str = "com.docker.network.bridge.name";

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(prefixes: &[&str]) -> Vec<(Prefix, String)> {
        prefixes.iter().map(|text| (text.parse().unwrap(), format!("route {text}"))).collect()
    }

    #[test]
    fn picks_what_is_free() {
        for (is_default, used, wanted) in [
            (true, &[][..], "10.88.0.0/16"),
            (true, &["10.88.3.0/24"], "10.128.0.0/16"),
            (false, &[], "10.89.0.0/24"),
            (false, &["10.89.0.0/24", "10.89.1.0/30"], "10.89.2.0/24"),
            (false, &["10.0.0.0/9"], "10.192.0.0/24"),
        ] {
            assert_eq!(pick_subnet(is_default, &taken(used)).unwrap().prefix.to_string(), wanted);
        }
        assert!(matches!(pick_subnet(true, &taken(&["10.0.0.0/8"])), Err(Error::SubnetsExhausted)));
        let error = check_overlap("10.1.2.0/24".parse().unwrap(), &taken(&["10.1.0.0/16"])).unwrap_err();
        assert_eq!(error.to_string(), "subnet 10.1.2.0/24 overlaps route 10.1.0.0/16");
    }

    #[test]
    fn parses_subnets() {
        let subnet = Subnet::parse("10.7.0.9/24", "").unwrap();
        assert_eq!(
            (subnet.prefix.to_string().as_str(), subnet.gateway.to_string().as_str()),
            ("10.7.0.0/24", "10.7.0.1")
        );
        assert_eq!(Subnet::parse("10.7.0.0/24", "10.7.0.254").unwrap().gateway.to_string(), "10.7.0.254");
        for (prefix, gateway) in [
            ("fd00::/64", ""),
            ("10.7.0.0/31", ""),
            ("10.0.0.0/4", ""),
            ("127.0.0.0/16", ""),
            ("224.0.0.0/8", ""),
            ("10.7.0.0/24", "10.7.1.1"),
            ("10.7.0.0/24", "10.7.0.0"),
            ("10.7.0.0/24", "x"),
        ] {
            assert!(Subnet::parse(prefix, gateway).is_err(), "{prefix} {gateway}");
        }
    }

    #[test]
    fn refuses_what_it_does_not_know() {
        let instance = Instance::new("/tmp/x".as_ref(), "/tmp/x".as_ref());
        let pick = || Ok(Subnet::parse("10.7.0.0/24", "").unwrap());
        let make = |change: fn(&mut NetworkRequest)| {
            let mut request = NetworkRequest { name: "mine".to_owned(), ..NetworkRequest::default() };
            change(&mut request);
            Network::of_request(request, &instance, pick).map_err(|error| error.kind())
        };
        use dhow_api::Kind::{AlreadyExists, InvalidArgument};
        assert!(make(|_request| {}).is_ok());
        assert_eq!(make(|request| request.name = "host".to_owned()).unwrap_err(), AlreadyExists);
        assert_eq!(make(|request| request.driver = "macvlan".to_owned()).unwrap_err(), InvalidArgument);
        assert_eq!(make(|request| request.interface = "a/b".to_owned()).unwrap_err(), InvalidArgument);
        assert_eq!(make(|request| request.options = [("mtu".into(), "9".into())].into()).unwrap_err(), InvalidArgument);
        assert_eq!(make(|request| request.options = [("x".into(), "9".into())].into()).unwrap_err(), InvalidArgument);
        let mtu = make(|request| request.options = [("mtu".into(), "1400".into())].into()).unwrap().mtu();
        assert_eq!(mtu, Some(1400));
    }
}
