//! Descriptors that a container's process gets from its parent.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;

use dhow_sys::fd;

use crate::child::Agent;
use crate::hooks::StateDocument;
use crate::request::Stdio;
use crate::seccomp::Filter;
use crate::{Error, Result};

/// Descriptors to be passed on must be there: a number that is not open would be taken by one of ours.
pub(crate) fn inherited(count: u32) -> Result<()> {
    let last = i32::try_from(count).unwrap_or(i32::MAX).saturating_add(3);
    match (3..last).find(|number| !fd::is_open(*number)) {
        Some(number) => Err(Error::config("--preserve-fds", format!("descriptor {number} is not open"))),
        None => Ok(()),
    }
}

/// Descriptors for stdio with numbers from 3 on, so that placing one never covers another.
pub(crate) fn above_stdio(stdio: Stdio) -> Result<Stdio> {
    let lift = |fd: OwnedFd| {
        if fd.as_raw_fd() > 2 { Ok(fd) } else { fd.try_clone().map_err(Error::file("duplicate", Path::new("stdio"))) }
    };
    Ok(match stdio {
        // try_clone gives a number from 3 on.
        Stdio::Fds { stdin, stdout, stderr } => {
            Stdio::Fds { stdin: lift(stdin)?, stdout: lift(stdout)?, stderr: lift(stderr)? }
        }
        other => other,
    })
}

/// A connection to the seccomp agent, if the profile notifies one. `running` is the first process of a container that runs.
pub(crate) fn agent<'a>(
    filter: &Filter,
    document: &'a StateDocument,
    running: Option<i32>,
) -> Result<Option<Agent<'a>>> {
    let Some(listener) = filter.listener() else { return Ok(None) };
    let socket = std::os::unix::net::UnixStream::connect(&listener.path)
        .map_err(Error::file("linux.seccomp.listenerPath: failed to connect with seccomp agent", &listener.path))?;
    let metadata = listener.metadata.clone();
    Ok(Some(Agent { socket: socket.into(), document, running, metadata }))
}
