//! What a container's network is: the record of an Attach, and what is asked of one.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Result, invalid};
use crate::files::FilesRequest;
use crate::mac::Mac;
use crate::names::{ContainerId, NetworkName};
use crate::nft::Published;
use crate::port::Port;
use crate::prefix::Prefix;
use crate::store::{self, Store};

/// How a container is connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// To a bridge network, by name.
    Network(NetworkName),
    /// It uses the host's namespace.
    Host,
    /// A namespace of its own with a loopback only.
    None,
    /// It uses another container's namespace.
    Container(ContainerId),
}

/// What is asked of an Attach.
#[derive(Clone, Debug)]
pub struct AttachRequest {
    /// The container.
    pub container: ContainerId,
    /// How it is to be connected.
    pub mode: Mode,
    /// Host ports to publish.
    pub ports: Vec<Port>,
    /// A wanted address.
    pub ip: Option<IpAddr>,
    /// A wanted Ethernet address.
    pub mac: Option<Mac>,
    /// The files to write, if any.
    pub files: Option<FilesRequest>,
}

/// A container's interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// The network it leads to.
    pub network: NetworkName,
    /// Its name in the container.
    pub name: String,
    /// The name of its other end on the host.
    pub host_name: String,
    /// Its Ethernet address.
    pub mac: Mac,
    /// Its addresses.
    pub addresses: Vec<Prefix>,
    /// The default routes by it.
    pub gateways: Vec<IpAddr>,
}

/// What an Attach has made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// The container.
    pub container: ContainerId,
    /// How it is connected.
    pub mode: Mode,
    /// The namespace to join; none: the host's.
    pub netns: Option<PathBuf>,
    /// Its interfaces beside the loopback.
    pub interfaces: Vec<Interface>,
    /// Its published ports, those that were picked filled in.
    pub ports: Vec<Port>,
    /// The nameservers it was given.
    pub dns: Vec<IpAddr>,
    /// Where its files were written.
    pub files_dir: Option<PathBuf>,
}

impl Mode {
    /// A mode as a request has it; anything that is not a keyword is a network.
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "" | "bridge" | "default" => NetworkName::parse(crate::network::DEFAULT).map(Self::Network),
            "host" => Ok(Self::Host),
            "none" => Ok(Self::None),
            _ => match text.strip_prefix("container:") {
                Some(id) => ContainerId::parse(id).map(Self::Container),
                None => NetworkName::parse(text).map(Self::Network),
            },
        }
    }
}

impl AttachRequest {
    /// Refuses what the mode cannot give.
    pub(crate) fn check(&self) -> Result<()> {
        if matches!(self.mode, Mode::Network(_)) {
            return Ok(());
        }
        if let Some(ip) = self.ip {
            return Err(invalid("address", ip.to_string(), "only containers on a bridge network can choose one"));
        }
        if let Some(mac) = self.mac {
            return Err(invalid("MAC address", mac.to_string(), "only containers on a bridge network can choose one"));
        }
        if let (Mode::Container(other), Some(port)) = (&self.mode, self.ports.first()) {
            let reason = format!("ports are published by container {other}, whose network this one uses");
            return Err(invalid("port", port.to_string(), reason));
        }
        Ok(())
    }
}

impl Attachment {
    /// An attachment with nothing in it.
    pub(crate) fn new(request: &AttachRequest) -> Self {
        Self {
            container: request.container.clone(),
            mode: request.mode.clone(),
            netns: None,
            interfaces: Vec::new(),
            ports: Vec::new(),
            dns: Vec::new(),
            files_dir: request.files.as_ref().map(|files| files.directory.clone()),
        }
    }

    /// The firewall's view of its ports.
    pub(crate) fn published(&self) -> Vec<Published> {
        let Some(container) = self.address() else { return Vec::new() };
        let publish = |port: &Port| Published {
            transport: port.transport,
            host: port.host,
            host_port: port.host_port,
            container,
            container_port: port.container_port,
        };
        self.ports.iter().map(publish).collect()
    }

    /// The container's first address.
    pub(crate) fn address(&self) -> Option<IpAddr> {
        Some(self.interfaces.first()?.addresses.first()?.address())
    }
}

/// Where the record of a finished Attach is.
pub(crate) fn path(store: &Store, container: &str) -> PathBuf {
    store.path("attachments").join(format!("{container}.json"))
}

/// Where the record of an Attach that is being made is.
pub(crate) fn pending_path(store: &Store, container: &str) -> PathBuf {
    store.path("attachments").join(format!("{container}.pending"))
}

/// Where it is marked that others use the container's namespace.
pub(crate) fn shared_path(store: &Store, container: &str) -> PathBuf {
    store.path("attachments").join(format!("{container}.shared"))
}

/// The ids of the containers that have a record of either kind.
pub(crate) fn containers(store: &Store) -> Result<Vec<String>> {
    let names = store::names(&store.path("attachments"))?;
    let stem = |name: &String| {
        let visible = !name.starts_with('.');
        let stem = name.strip_suffix(".json").or_else(|| name.strip_suffix(".pending"))?;
        visible.then(|| stem.to_owned())
    };
    let mut containers: Vec<_> = names.iter().filter_map(stem).collect();
    containers.sort_unstable();
    containers.dedup();
    Ok(containers)
}

/// The record of a container, finished or not; one that cannot be read is reported and taken for none.
pub(crate) fn read(store: &Store, container: &str) -> Option<Attachment> {
    [path(store, container), pending_path(store, container)].iter().find_map(|path| match store::read(path) {
        Ok(record) => record,
        Err(error) => {
            log::warn!("skipping an attachment: {}", dhow_api::error::chain(&error));
            None
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_modes() {
        for (text, wanted) in [
            ("", Mode::Network(NetworkName::parse("bridge").unwrap())),
            ("default", Mode::Network(NetworkName::parse("bridge").unwrap())),
            ("host", Mode::Host),
            ("none", Mode::None),
            ("container:abc", Mode::Container(ContainerId::parse("abc").unwrap())),
            ("mine", Mode::Network(NetworkName::parse("mine").unwrap())),
        ] {
            assert_eq!(Mode::parse(text).unwrap(), wanted);
        }
        for bad in ["container:", "container:../x", "../mine", "pasta:x"] {
            assert!(Mode::parse(bad).is_err(), "{bad}");
        }
    }
}
