//! Detach and Gc: everything that an Attach made goes, from wherever it was cut off.
//!
//! Both work from the record and from names that follow from the container's id; neither needs the namespace, the container
//! or its shim to be alive. Each step takes what is already gone for done, and a failed one does not stop the others; the
//! record goes last, and only when all of it worked, so that the next call tries again.

use std::collections::BTreeSet;

use crate::attachment::{self, Attachment, Mode};
use crate::error::{Error, Result};
use crate::lease;
use crate::names::ContainerId;
use crate::netplug::Session;
use crate::network;
use crate::store;

impl Session<'_> {
    /// Undoes the container's Attach.
    pub(crate) fn detach(&mut self, container: &ContainerId) -> Result<()> {
        match attachment::read(self.store, container.as_str()) {
            Some(record) => self.tear_down(&record),
            None => self.detach_unrecorded(container.as_str()),
        }
    }

    /// Undoes what a record says.
    pub(crate) fn tear_down(&mut self, record: &Attachment) -> Result<()> {
        let container = &record.container;
        let mut errors = Vec::new();
        if matches!(record.mode, Mode::Network(_)) {
            errors.extend(self.withdraw(record).err());
            errors.extend(self.forget_streams(record).err());
            errors.extend(self.cut_off_sharers(record).err());
        }
        errors.extend(self.namespaces.unpin(container.as_str()).err());
        if errors.is_empty() {
            errors.extend(self.give_back(record).err());
        }
        if errors.is_empty() {
            errors.extend(self.forget(container.as_str()).err());
        }
        Error::several(errors)
    }

    /// Detaches every container that is not among these, undoes what was cut off, and removes what belongs to none.
    pub(crate) fn gc(&mut self, living: &[ContainerId]) -> Result<()> {
        let living: BTreeSet<&str> = living.iter().map(ContainerId::as_str).collect();
        let mut errors = Vec::new();
        for name in attachment::containers(self.store)? {
            let cut_off = attachment::pending_path(self.store, &name).exists();
            if cut_off || !living.contains(name.as_str()) {
                errors.extend(ContainerId::parse(&name).and_then(|id| self.detach(&id)).err());
            }
        }
        for name in self.namespaces.list()? {
            if !self.is_recorded(&name) {
                errors.extend(self.namespaces.unpin(&name).err());
            }
        }
        errors.extend(self.sweep_claims().err());
        errors.extend(self.remove_strange_links().err());
        errors.extend(if attachment::containers(self.store)?.is_empty() {
            self.release().err()
        } else {
            self.refresh_firewall().err()
        });
        Error::several(errors)
    }

    /// Removes leases and port claims of containers that have no record: of an Attach that died between claiming and
    /// recording, which the lock says it is not still about to do.
    pub(crate) fn sweep_claims(&mut self) -> Result<()> {
        for network in network::recorded(self.store)? {
            for (address, owner) in lease::leases(self.store, &network.name)? {
                if !self.is_recorded(&owner) {
                    store::remove(&lease::directory(self.store, &network.name).join(address.to_string()))?;
                }
            }
        }
        for (path, owner) in lease::port_claims(self.store)? {
            if !self.is_recorded(&owner) {
                store::remove(&path)?;
                if let Some(directory) = path.parent() {
                    store::remove_if_empty(directory)?;
                }
            }
        }
        Ok(())
    }

    /// A container without a readable record may still have a namespace and claims.
    fn detach_unrecorded(&mut self, container: &str) -> Result<()> {
        let damaged = self.is_recorded(container);
        self.namespaces.unpin(container)?;
        if damaged {
            self.forget(container)?;
            self.sweep_claims()?;
            self.refresh_firewall()?;
        }
        Ok(())
    }

    /// Containers that share the namespace keep it, and its end of the veth pair, alive. The address is going to be
    /// somebody else's, so the pair has to go now, slow as that is.
    fn cut_off_sharers(&mut self, record: &Attachment) -> Result<()> {
        if !attachment::shared_path(self.store, record.container.as_str()).exists() {
            return Ok(());
        }
        let mut doomed = Vec::new();
        for interface in &record.interfaces {
            doomed.extend(self.route()?.link(&interface.host_name)?.map(|link| link.index));
        }
        self.delete_links(&doomed)
    }

    fn give_back(&mut self, record: &Attachment) -> Result<()> {
        if !matches!(record.mode, Mode::Network(_)) {
            return Ok(());
        }
        for interface in &record.interfaces {
            for address in &interface.addresses {
                lease::release(self.store, &interface.network, address.address(), &record.container)?;
            }
        }
        for port in &record.ports {
            lease::release_port(self.store, port, &record.container)?;
        }
        Ok(())
    }

    fn forget(&self, container: &str) -> Result<()> {
        store::remove(&attachment::shared_path(self.store, container))?;
        store::remove(&attachment::pending_path(self.store, container))?;
        store::remove(&attachment::path(self.store, container))
    }

    /// Removes bridges whose network is gone, and what dead containers have left on the others.
    fn remove_strange_links(&mut self) -> Result<()> {
        let (bridges, mut doomed) = self.bridges()?;
        doomed.extend(self.abandoned_ports(&bridges)?);
        self.delete_links(&doomed)
    }
}
