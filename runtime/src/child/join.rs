//! A further process in a running container.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use dhow_sys::clone::{InChild, Namespaces};

use super::{
    Common, Result, Step, become_root, console, hide, isolate, labels, limits, new_session, place_stdio, program, root,
    run, scheduling,
};
use crate::birth::HasChannel;
use crate::handshake::{Channel, Failure, Message};

/// Everything such a process is made from.
#[derive(Debug)]
pub(crate) struct Join<'a> {
    pub(crate) common: Common<'a>,
    /// The container's first process.
    pub(crate) target: OwnedFd,
    /// Its root, if it has no mount namespace, joining which would make it this process's as well.
    pub(crate) root: Option<OwnedFd>,
    /// Its namespaces; the pid namespace is the parent's matter, it takes effect at clone.
    pub(crate) namespaces: Namespaces,
}

impl HasChannel for Join<'_> {
    fn channel(&self) -> &Channel {
        &self.common.channel
    }
}

/// The order of things.
fn steps<'a>() -> [Step<Join<'a>>; 12] {
    [
        |token, job| {
            let mut keep = job.common.descriptors();
            keep.push(job.target.as_raw_fd());
            keep.extend(job.root.iter().map(AsRawFd::as_raw_fd));
            isolate(token, &mut keep)
        },
        |_, job| limits::initial_affinity(job.common.process),
        // The container's processes can see this one as soon as it is in their namespaces: so first hide.
        |_, _| hide(),
        |_, job| labels::keys(&job.common),
        |_, job| namespaces(job),
        |_, job| new_session(&job.common),
        |token, job| console::for_exec(token, &job.common),
        |token, job| place_stdio(token, &job.common),
        |_, job| scheduling(&mut job.common),
        |_, job| program::look(&mut job.common),
        |_, job| job.common.attached().map(drop),
        |token, job| program::run(token, &mut job.common, |_, _| Ok(())),
    ]
}

/// Runs all of it. Returns only when it failed: the exit code.
pub(crate) fn main(token: &InChild, mut job: Join<'_>) -> u8 {
    let failure = match run(token, &steps(), &mut job) {
        Ok(()) => Failure::new("the program was not executed"),
        Err(failure) => failure,
    };
    job.common.channel.send(&Message::Failed(failure)).ok();
    // What runc's exec ends with when there is no program to end.
    255
}

/// One call joins them all (Linux 5.8), the user namespace first. It also makes the container's root this one's.
fn namespaces(job: &Join<'_>) -> Result<()> {
    if !job.namespaces.is_empty() {
        let joined = nix::sched::setns(job.target.as_fd(), job.namespaces.flags());
        joined.map_err(Failure::errno("join the container's namespaces"))?;
    }
    if let Some(dir) = &job.root {
        root::change(dir.as_fd())?;
    }
    if job.common.user_namespace {
        become_root(job.common.process)?;
        // Changing ids made it dumpable again where the kernel's default says so.
        hide()?;
    }
    Ok(())
}
