//! A new network namespace, made by the runtime while the container's process mounts.
//!
//! It is what takes longest of a new container's namespaces: longer than all mounts of an ordinary container together. Made by
//! clone it would come before everything else; made here it comes beside it, on another processor, and the process joins it when
//! it first matters ([`crate::handshake::Message::Network`]).

use std::os::fd::OwnedFd;

use dhow_sys::clone::Namespaces;
use dhow_sys::{Errno, net};
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::Mode;

use crate::plan::Plan;
use crate::{Error, Result};

/// The network namespace that this thread is in, and can come back to.
#[derive(Debug)]
pub(crate) struct Home(OwnedFd);

impl Home {
    /// `None` where the container has no new network namespace that this process could make: one of a user namespace belongs to
    /// that, and devices are moved to where the process is from the beginning; or where this process may not come back, being root
    /// of a user namespace which the network is not of.
    pub(crate) fn of(plan: &Plan) -> Option<Self> {
        let namespaces = &plan.namespaces;
        let new = namespaces.new.contains(Namespaces::NETWORK) && !namespaces.has(Namespaces::USER);
        if !new || !plan.net_devices.is_empty() {
            return None;
        }
        let home = open().ok()?;
        setns(&home, CloneFlags::CLONE_NEWNET).is_ok().then_some(Self(home))
    }

    /// Makes one whose loopback is up. Other threads of this process stay where they are.
    ///
    /// # Errors
    /// [`Error::Sys`].
    pub(crate) fn make_another(self) -> Result<OwnedFd> {
        unshare(CloneFlags::CLONE_NEWNET).map_err(Error::sys("make a network namespace"))?;
        let made = net::loopback_up().and_then(|()| open());
        setns(self.0, CloneFlags::CLONE_NEWNET)
            .map_err(Error::sys("come back from the container's network namespace"))?;
        made.map_err(Error::sys("bring up the loopback of a new network namespace"))
    }
}

fn open() -> std::result::Result<OwnedFd, Errno> {
    nix::fcntl::open("/proc/thread-self/ns/net", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
}
