//! Check: whether what an Attach made is still there.

use crate::attachment::{self, Attachment, Mode};
use crate::bridge;
use crate::error::{Error, Result};
use crate::names::ContainerId;
use crate::netns::Namespace;
use crate::netplug::{Netplug, Session};
use crate::store;

impl Netplug {
    /// Fails with [`Error::Gone`], naming it, when something is missing.
    pub fn check(&self, container: &ContainerId) -> Result<()> {
        let mut session = self.session()?;
        let path = attachment::path(session.store, container.as_str());
        let record: Attachment =
            store::read(&path)?.ok_or_else(|| Error::NotAttached { container: container.to_string() })?;
        session.check(&record)
    }
}

impl Session<'_> {
    fn check(&mut self, record: &Attachment) -> Result<()> {
        let owner = match &record.mode {
            Mode::Container(owner) => owner,
            _ => &record.container,
        };
        let gone = |what: String| Error::Gone { container: record.container.to_string(), what };
        if let Some(path) = &record.netns {
            if !self.namespaces.is_pinned(owner.as_str()) {
                return Err(gone(format!("network namespace {}", path.display())));
            }
            check_interfaces(record, Namespace::open(path)?)?;
        }
        let Mode::Network(name) = &record.mode else { return Ok(()) };
        let network = self.network(name.as_str())?;
        let instance = self.instance;
        let bridge = bridge::find(self.route()?, instance, &network)?
            .ok_or_else(|| gone(format!("bridge {}", network.interface)))?;
        for interface in &record.interfaces {
            let end = self.route()?.link(&interface.host_name)?;
            if end.is_none_or(|end| end.master != Some(bridge.index)) {
                return Err(gone(format!("interface {} on {}", interface.host_name, network.interface)));
            }
        }
        if !self.is_published(record, &network)? {
            return Err(gone(format!("a rule or element of nftables table {}", self.instance.table())));
        }
        Ok(())
    }
}

fn check_interfaces(record: &Attachment, mut namespace: Namespace) -> Result<()> {
    let gone = |what: String| Error::Gone { container: record.container.to_string(), what };
    for interface in &record.interfaces {
        let link = namespace.route.link(&interface.name)?.filter(|link| link.up);
        let link = link.ok_or_else(|| gone(format!("interface {}", interface.name)))?;
        for address in &interface.addresses {
            if !namespace.route.has_address(link.index, address.address())? {
                return Err(gone(format!("address {address} of {}", interface.name)));
            }
        }
    }
    Ok(())
}
