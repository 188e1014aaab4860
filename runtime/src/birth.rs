//! Cloning a container's process: one clone straight into its namespaces and its cgroup, wherever that is possible.
//!
//! A pid namespace to be joined takes effect for children only, so the runtime itself enters it around the clone.
//! A user namespace to be joined must own the new namespaces, so it has to be entered before they are made; the runtime
//! can't come back from there, so a helper process enters and clones the container's process as its sibling. So it does where
//! the runtime could not come back from a pid namespace: as root of a user namespace that its own does not belong to.

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

/// Namespaces that this process has entered, to come back from.
#[derive(Debug)]
#[must_use]
pub(crate) struct Entered(Vec<(Namespaces, OwnedFd)>);

impl Entered {
    /// Enters those of a list that this process may, and takes them out of it. For a container with a user namespace: its
    /// root has no right to join what belongs to the host's, such as a network that an engine has made.
    ///
    /// # Errors
    /// [`Error::Sys`]; then this process is where it was.
    pub(crate) fn enter(list: &mut Vec<(Namespaces, &str, OwnedFd)>) -> Result<Self> {
        let mut entered = Self(Vec::new());
        for (kind, field, namespace) in std::mem::take(list) {
            let file = EARLY.iter().find(|early| early.0 == kind).map(|early| early.1);
            let Some(file) = file else {
                list.push((kind, field, namespace));
                continue;
            };
            let own = nix::fcntl::open(file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
            let gone = own.and_then(|own| nix::sched::setns(&namespace, kind.flags()).map(|()| own));
            match gone {
                Ok(own) => entered.0.push((kind, own)),
                // It may be the container's user namespace that has the right to.
                Err(Errno::EPERM) => list.push((kind, field, namespace)),
                Err(e) => {
                    entered.leave()?;
                    return Err(Error::config(field, crate::error::errno_text(e)));
                }
            }
        }
        Ok(entered)
    }

    /// Comes back.
    ///
    /// # Errors
    /// [`Error::Sys`]; this process must not go on then.
    pub(crate) fn leave(self) -> Result<()> {
        let back = |(kind, own): (Namespaces, OwnedFd)| nix::sched::setns(own, kind.flags());
        self.0.into_iter().try_for_each(back).map_err(Error::sys("come back from the container's namespaces"))
    }
}

/// Namespaces that a process can enter and leave without losing anything.
const EARLY: [(Namespaces, &str); 5] = [
    (Namespaces::IPC, "/proc/self/ns/ipc"),
    (Namespaces::UTS, "/proc/self/ns/uts"),
    (Namespaces::NETWORK, "/proc/self/ns/net"),
    (Namespaces::CGROUP, "/proc/self/ns/cgroup"),
    (Namespaces::TIME, "/proc/self/ns/time"),
];

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
            None if self.pid.is_none() || may_come_back() => {
                self.direct(false, |token| main(token, job)).map_err(refused)
            }
            user => {
                let helper = |_: &InChild| {
                    let enter = |user| nix::sched::setns(user, Namespaces::USER.flags());
                    let born = user.as_ref().map_or(Ok(()), enter);
                    // The inner child is a fork of this one: it has the job, too. This one only tells its pid.
                    let told = job.channel().as_fd().try_clone_to_owned().map(Channel::from_socket);
                    let Ok(told) = told else { return 1 };
                    let message = match born.and_then(|()| self.direct(true, |token| main(token, job))) {
                        Ok(child) => Message::Born { pid: child.pid },
                        Err(e) => Message::Failed(Failure::errno("clone in the joined namespace")(e)),
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
        match own {
            // A helper ends here, and has no right to come back.
            Some(own) if !sibling => nix::sched::setns(own, Namespaces::PID.flags())?,
            _ => {}
        }
        born
    }
}

/// Whether this process has power over its own pid namespace, so that it can enter it again.
fn may_come_back() -> bool {
    let own = nix::fcntl::open("/proc/self/ns/pid", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
    own.is_ok_and(|own| nix::sched::setns(own, Namespaces::PID.flags()).is_ok())
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
        Some((other, _)) => Err(crate::parent::unexpected(&other)),
        None => Err(Error::ChildGone { step: "joining a user namespace" }),
    }
}

fn refused(errno: Errno) -> Error {
    match errno {
        Errno::EBUSY => Error::Threads,
        errno => Error::Sys { step: "clone the container's process", source: errno },
    }
}
