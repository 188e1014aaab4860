//! Cloning a container's process: one clone straight into its namespaces and its cgroup, wherever that is possible.
//!
//! A pid namespace to be joined takes effect for children only, so the runtime itself enters it around the clone.
//! A user namespace to be joined must own the new namespaces, so it has to be entered before they are made; the runtime
//! can't come back from there, so a helper process enters and clones the container's process as its sibling.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use dhow_sys::clone::{Child, InChild, Namespaces, Request, spawn};
use dhow_sys::{Errno, pidfd};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;

use crate::handshake::{Channel, Failure, Message};
use crate::{Error, Result};

/// Where a process is born.
#[derive(Debug)]
pub(crate) struct Birth<'a> {
    /// New namespaces.
    pub(crate) namespaces: Namespaces,
    /// A user namespace to join before those are made.
    pub(crate) user: Option<OwnedFd>,
    /// A pid namespace to join.
    pub(crate) pid: Option<OwnedFd>,
    /// The cgroup (v2).
    pub(crate) cgroup: Option<BorrowedFd<'a>>,
}

/// Takes the namespace of this kind out of a list.
pub(crate) fn take(list: &mut Vec<(Namespaces, &str, OwnedFd)>, kind: Namespaces) -> Option<OwnedFd> {
    let at = list.iter().position(|(k, ..)| *k == kind)?;
    Some(list.remove(at).2)
}

impl Birth<'_> {
    /// Clones; `main` runs in the child with `job`. `channel` is this side's end of the child's channel.
    ///
    /// # Errors
    /// [`Error::Threads`], [`Error::Sys`], [`Error::Child`].
    pub(crate) fn spawn<T>(self, channel: &Channel, job: T, main: fn(&InChild, T) -> u8) -> Result<Child>
    where
        T: HasChannel,
    {
        match &self.user {
            None => self.direct(false, |token| main(token, job)).map_err(refused),
            Some(user) => {
                let helper = |_: &InChild| {
                    let born = nix::sched::setns(user, Namespaces::USER.flags());
                    // The inner child is a fork of this one: it has the job, too. This one only tells its pid.
                    let told = job.channel().as_fd().try_clone_to_owned().map(Channel::from_socket);
                    let Ok(told) = told else { return 1 };
                    let message = match born.and_then(|()| self.direct(true, |token| main(token, job))) {
                        Ok(child) => Message::Born { pid: child.pid },
                        Err(e) => Message::Failed(Failure::errno("clone in the joined user namespace")(e)),
                    };
                    u8::from(told.send(&message).is_err())
                };
                let helper = spawn(&Request::default(), helper).map_err(refused)?;
                pidfd::reap(helper.pidfd.as_fd(), true).map_err(Error::sys("wait for the helper process"))?;
                adopt(channel)
            }
        }
    }

    fn direct(&self, sibling: bool, child: impl FnOnce(&InChild) -> u8) -> std::result::Result<Child, Errno> {
        let own = match &self.pid {
            None => None,
            Some(target) => {
                let own = nix::fcntl::open("/proc/self/ns/pid", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
                nix::sched::setns(target, Namespaces::PID.flags())?;
                Some(own)
            }
        };
        let born = spawn(&Request { namespaces: self.namespaces, cgroup: self.cgroup, sibling }, child);
        if let Some(own) = own {
            nix::sched::setns(own, Namespaces::PID.flags())?;
        }
        born
    }
}

/// Something that has the child's end of the channel.
pub(crate) trait HasChannel {
    /// The child's end.
    fn channel(&self) -> &Channel;
}

/// The process that a helper has cloned as this one's child. Its number stays its own until this process reaps it.
fn adopt(channel: &Channel) -> Result<Child> {
    match channel.receive().map_err(Error::sys("hear from the helper process"))? {
        Some((Message::Born { pid }, _)) => {
            Ok(Child { pid, pidfd: pidfd::open(pid).map_err(Error::sys("open a pidfd"))? })
        }
        Some((Message::Failed(f), _)) => Err(Error::Child { text: f.text, kind: f.kind }),
        Some((other, _)) => Err(crate::create::unexpected(&other)),
        None => Err(Error::ChildGone { step: "joining a user namespace" }),
    }
}

fn refused(errno: Errno) -> Error {
    match errno {
        Errno::EBUSY => Error::Threads,
        errno => Error::Sys { step: "clone the container's process", source: errno },
    }
}
