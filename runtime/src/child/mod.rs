//! The container's process, between its birth and its program: two short lists of steps, one for a container's first
//! process ([`init`]), one for exec ([`join`]), made of shared steps.
//!
//! Everything here runs in the cloned child. It never returns to its parent's frames, it has one thread, and what goes
//! wrong is told the parent as data. A step's place in its list matters; each says what must come before it.

mod cgroupfs;
mod console;
mod copy_up;
mod devices;
pub(crate) mod init;
pub(crate) mod join;
mod labels;
mod limits;
mod mounts;
mod paths;
mod procfs;
mod program;
mod root;
mod start;
mod user;

pub(crate) use mounts::bind_source;

use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use dhow_sys::clone::InChild;
use dhow_sys::{Errno, fd, process};

use crate::handshake::{Channel, Failure, Message};
use crate::hooks::StateDocument;
use crate::plan;
use crate::request::Stdio;
use crate::seccomp::Filter;

type Result<T> = std::result::Result<T, Failure>;

/// One line of a list.
type Step<T> = fn(&InChild, &mut T) -> Result<()>;

/// What every process of a container is made from.
#[derive(Debug)]
pub(crate) struct Common<'a> {
    pub(crate) process: &'a plan::Process,
    /// To the parent.
    pub(crate) channel: Channel,
    pub(crate) stdio: Stdio,
    pub(crate) filter: Option<&'a Filter>,
    /// A connection to the seccomp agent, made while its path could be reached, and the message for it.
    pub(crate) agent: Option<Agent<'a>>,
    /// The session keyring to join.
    pub(crate) keyring: Option<CString>,
    /// It is in a user namespace whose ids it has to take.
    pub(crate) user_namespace: bool,
    /// Descriptors from 3 on, this many, stay.
    pub(crate) preserve_fds: u32,
    /// Of those, as many are sockets for the program.
    pub(crate) listen_fds: u32,
    /// Own pid as the parent sees it, once the parent has told it; then the cgroup is the right one, too.
    pub(crate) pid: Option<i32>,
}

/// Where a seccomp notification descriptor goes.
#[derive(Debug)]
pub(crate) struct Agent<'a> {
    pub(crate) socket: OwnedFd,
    pub(crate) document: &'a StateDocument,
    /// The container's first process when it is not this one.
    pub(crate) running: Option<i32>,
    /// Passed on as it is.
    pub(crate) metadata: String,
}

impl Common<'_> {
    /// The descriptors that this process still needs.
    fn descriptors(&self) -> Vec<RawFd> {
        let mut keep: Vec<RawFd> = (3..3 + i32::try_from(self.preserve_fds).unwrap_or_default()).collect();
        keep.push(self.channel.as_fd().as_raw_fd());
        keep.extend(self.agent.as_ref().map(|a| a.socket.as_raw_fd()));
        if let Stdio::Fds { stdin, stdout, stderr } = &self.stdio {
            keep.extend([stdin, stdout, stderr].map(AsRawFd::as_raw_fd));
        }
        keep
    }

    /// Waits for a message, keeping in mind what arrives before it. The parent's death ends this process at once.
    fn expect(&mut self, wanted: &Message) -> Result<()> {
        loop {
            let received = self.channel.receive().map_err(Failure::errno("hear from the runtime"))?;
            match received {
                None => process::exit_now(1),
                Some((Message::Attached { pid }, _)) => {
                    self.pid = Some(pid);
                    if matches!(wanted, Message::Attached { .. }) {
                        return Ok(());
                    }
                }
                Some((message, _)) if message == *wanted => return Ok(()),
                Some((message, _)) => return Err(Failure::new(format!("unexpected {message:?} from the runtime"))),
            }
        }
    }

    /// Waits until this process is in its cgroup; idempotent.
    fn attached(&mut self) -> Result<i32> {
        match self.pid {
            Some(pid) => Ok(pid),
            None => {
                self.expect(&Message::Attached { pid: 0 })?;
                Ok(self.pid.unwrap_or_default())
            }
        }
    }
}

/// Runs a list; the first failure ends it.
fn run<T>(token: &InChild, steps: &[Step<T>], job: &mut T) -> Result<()> {
    steps.iter().try_for_each(|step| step(token, job))
}

/// First of all: nothing of the parent's is left but what is named. A container's process must not hold a descriptor
/// of its engine, nor ignore a signal because its engine did.
fn isolate(token: &InChild, keep: &mut [RawFd]) -> Result<()> {
    fd::keep_only(token, keep).map_err(Failure::errno("close foreign descriptors"))?;
    process::reset_signals();
    process::unblock_signals().map_err(Failure::errno("unblock signals"))?;
    // Modes of what is made from here on are exactly what is asked for; the program's own mask comes at the end.
    nix::sys::stat::umask(nix::sys::stat::Mode::empty());
    Ok(())
}

/// Becomes the root of its user namespace, in whose name everything that follows is done; where no root is mapped, the
/// program's user, which has all capabilities there as well until they are given up. After the mappings are there.
fn become_root(process: &plan::Process) -> Result<()> {
    // An unprivileged mapping forbids setgroups; then there is nothing to give up either.
    match if process.keeps_groups { Ok(()) } else { nix::unistd::setgroups(&[]) } {
        Ok(()) | Err(Errno::EPERM) => {}
        Err(e) => return Err(Failure::errno("give up the caller's groups")(e)),
    }
    let group = |id| {
        let gid = nix::unistd::Gid::from_raw(id);
        nix::unistd::setresgid(gid, gid, gid)
    };
    let user = |id| {
        let uid = nix::unistd::Uid::from_raw(id);
        nix::unistd::setresuid(uid, uid, uid)
    };
    let unmapped = |result, fallback: &dyn Fn() -> dhow_sys::Result<()>| match result {
        Err(Errno::EINVAL) => fallback(),
        other => other,
    };
    unmapped(group(0), &|| group(process.gid)).map_err(Failure::errno("become group 0 of the user namespace"))?;
    unmapped(user(0), &|| user(process.uid)).map_err(Failure::errno("become user 0 of the user namespace"))
}

/// Nobody in the container may look into this process while it is still ours: not at its descriptors, not at its
/// executable. Exec sets it back. After the parent has written to this process's files in /proc, which this takes away
/// from a parent that is not root.
fn hide() -> Result<()> {
    process::set_dumpable(false).map_err(Failure::errno("become undumpable"))
}

/// A session and a keyring of its own: no terminal and no keys of the caller's.
fn new_session(common: &Common<'_>) -> Result<()> {
    nix::unistd::setsid().map_err(Failure::errno("make a session"))?;
    let Some(name) = &common.keyring else { return Ok(()) };
    match dhow_sys::keyring::join_session(name) {
        Ok(keyring) => keyring.allow_user_search().map_err(Failure::errno("open up the session keyring")),
        // A kernel without keys, or one whose keys an outer container's filter hides.
        Err(Errno::ENOSYS | Errno::EPERM) => Ok(()),
        Err(e) => Err(Failure::errno("join a session keyring")(e)),
    }
}

/// Limits and scheduling, while this process still has the privileges for it.
fn scheduling(common: &mut Common<'_>) -> Result<()> {
    if common.process.scheduler.is_some() {
        // Some policies depend on the processors that the cgroup allows.
        common.attached()?;
    }
    limits::apply(common.process)
}

/// Puts stdin, stdout and stderr where the program expects them. Not for a terminal: see [`console`].
fn place_stdio(token: &InChild, common: &Common<'_>) -> Result<()> {
    if let Stdio::Fds { stdin, stdout, stderr } = &common.stdio {
        // None of the three has a number below 3 (the parent saw to it), so no step overwrites what a later one needs.
        for (fd, target) in [(stdin, 0), (stdout, 1), (stderr, 2)] {
            fd::place(token, fd.as_fd(), target).map_err(Failure::errno("place stdio"))?;
        }
    }
    Ok(())
}
