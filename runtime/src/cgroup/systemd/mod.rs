//! The systemd driver: a container's cgroup is that of a transient scope, which systemd makes around its first process.
//!
//! systemd owns the tree, so whoever wants a cgroup in it has to ask (systemd: CGROUP_DELEGATION.md). What is asked for:
//!
//! ```text
//! before anything is made   connect; ControlGroup, Version           (nobody answers: an error, and nothing was made)
//! the process exists        StartTransientUnit(pid, limits, Delegate=yes) … JobRemoved "done"
//!                           then limits, device filter and v1's other hierarchies by their files, as without systemd:
//!                           systemd has no word for some, and rounds others
//! exec                      straight into the cgroup; who may not cross over to it asks: AttachProcessesToUnit
//! update                    SetUnitProperties, then the files
//! delete                    StopUnit … JobRemoved, ResetFailedUnit, then what is left of the directories
//! ```
//! state.json keeps the unit's name, so that everything after creation needs no flag.
//!
//! * `unit`: names and places of units; `manager`: systemd's methods; `text`: values in annotations
//! * `limits::systemd`, `devices::systemd`: the resources as properties

mod manager;
mod text;
mod unit;

use std::collections::BTreeMap;
use std::path::PathBuf;

use oci_spec::runtime::LinuxResources;

pub(super) use manager::Manager;
pub(super) use unit::Unit;

use super::error::{CgroupError, Result};
use super::limits::systemd::{self as limits, Property};
use super::{Cgroup, devices};
use crate::dbus::{Address, Value};

/// Where systemd answers, in D-Bus's syntax of addresses; else where it usually does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Buses {
    /// The machine's.
    pub system: Option<String>,
    /// The user's, for rootless containers.
    pub user: Option<String>,
}

impl Buses {
    fn addresses(&self, rootless: bool) -> Result<Vec<Address>> {
        let given = if rootless { &self.user } else { &self.system };
        if let Some(given) = given {
            return Ok(Address::list(given)?);
        }
        if !rootless {
            // Without a bus systemd itself listens, for root only.
            return Ok(vec![Address::bus("/run/dbus/system_bus_socket"), Address::direct("/run/systemd/private")]);
        }
        let session = format!("/run/user/{}", nix::unistd::getuid());
        Ok(vec![Address::bus(format!("{session}/bus")), Address::direct(format!("{session}/systemd/private"))])
    }
}

/// Connects to the systemd that makes the cgroups of containers like this one.
pub(super) fn connect(buses: &Buses, rootless: bool) -> Result<Manager> {
    buses.addresses(rootless).and_then(|addresses| Manager::open(&addresses)).map_err(|error| match error {
        CgroupError::Bus(source) => CgroupError::NoSystemd { source },
        other => other,
    })
}

/// A container's scope before it exists.
#[derive(Debug)]
pub(super) struct Scope {
    pub(super) unit: Unit,
    manager: Manager,
    /// By annotations.
    properties: Vec<Property>,
    rootless: bool,
}

impl Scope {
    /// Connects to systemd. Makes nothing.
    ///
    /// # Errors
    /// Nobody answers; an annotation that is no property.
    pub(super) fn new(
        unit: Unit,
        annotations: &BTreeMap<String, String>,
        buses: &Buses,
        rootless: bool,
    ) -> Result<Self> {
        let properties = text::properties(annotations)?;
        Ok(Self { unit, manager: connect(buses, rootless)?, properties, rootless })
    }

    /// Where the scope's cgroup will be, from the root of any hierarchy.
    pub(super) fn place(&self) -> PathBuf {
        self.manager.root().join(self.unit.place())
    }

    /// Starts it around a process, with these limits; returns when the process is in it.
    ///
    /// # Errors
    /// What systemd says; then there is no such unit.
    pub(super) fn start(&mut self, pid: i32, resources: &LinuxResources, unified: bool) -> Result<()> {
        let mut properties = self.unit.properties(pid, unified);
        if !self.rootless {
            // A user's systemd has no power over devices.
            properties.extend(devices::systemd::properties(resources)?);
        }
        let current = limits::Current::default();
        properties.extend(limits::properties(resources, &self.machine(unified), current)?);
        properties.extend(self.properties.iter().cloned());
        self.manager.start(&self.unit, &properties)
    }

    /// Undoes [`Self::start`]. What can't be undone is told by the next attempt to use the name.
    pub(super) fn abandon(&mut self) {
        drop(self.manager.stop(self.unit.name()));
    }

    fn machine(&self, unified: bool) -> limits::Machine {
        limits::Machine { unified, version: self.manager.version() }
    }
}

/// Changes the limits that are set in `resources` in the unit, of which `cgroup` is the cgroup.
pub(super) fn update(unit: &str, resources: &LinuxResources, cgroup: &Cgroup, mut manager: Manager) -> Result<()> {
    let machine = limits::Machine { unified: cgroup.is_v2(), version: manager.version() };
    let properties = limits::properties(resources, &machine, limits::Current::of(cgroup))?;
    if properties.is_empty() { Ok(()) } else { manager.set(unit, &properties) }
}

/// Properties as the methods take them.
fn list(properties: &[Property]) -> Value {
    let one = |(name, value): &Property| Value::property(name, value.clone());
    Value::Array("(sv)".into(), properties.iter().map(one).collect())
}
