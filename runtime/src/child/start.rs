//! Created: waiting to be started.
//!
//! The process listens on `start.sock`; whoever connects starts it, once. One that is held by its creator waits for the creator's
//! word instead. Until then it is pid 1 of its pid namespace and
//! the kernel would ignore every signal that it has no handler for, so it looks for them itself: a container that is only
//! created ends by the signals that would end any other process.

use std::os::fd::AsFd;

use dhow_sys::{Errno, process, seqpacket};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::init::Init;
use super::{Failure, Result};
use crate::handshake::{Channel, Message};

/// Tells the parent that all is ready and waits. From then on errors go to the one who started it.
///
/// A parent that dies before it has written down the process's pid takes the process along: nobody would find it.
pub(super) fn wait(job: &mut Init<'_>) -> Result<()> {
    process::block_signals().map_err(Failure::errno("block signals"))?;
    let signals = process::signal_fd().map_err(Failure::errno("make a signalfd"))?;
    job.common.channel.send(&Message::Ready).map_err(Failure::errno("tell that it is ready"))?;
    if job.listener.is_some() {
        job.common.expect(&Message::Recorded)?;
    }
    loop {
        let starter = job.listener.as_ref().map_or(job.common.channel.as_fd(), AsFd::as_fd);
        let mut fds = [PollFd::new(starter, PollFlags::POLLIN), PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => continue,
            other => other.map_err(Failure::errno("wait to be started"))?,
        };
        if let Ok(Some(info)) = signals.read_signal() {
            end_by(info.ssi_signo);
            continue;
        }
        let Some(listener) = &job.listener else {
            // When the creator is gone that is an error which nobody hears, and the end.
            job.common.expect(&Message::Start)?;
            break;
        };
        match seqpacket::accept(listener.as_fd()) {
            Ok(socket) => {
                job.common.channel = Channel::from_socket(socket);
                // When the starter is gone already the container starts all the same: it was asked to.
                job.common.channel.send(&Message::Accepted).ok();
                break;
            }
            Err(Errno::EINTR | Errno::EAGAIN | Errno::ECONNABORTED) => {}
            Err(e) => return Err(Failure::errno("accept the start")(e)),
        }
    }
    drop(signals);
    process::unblock_signals().map_err(Failure::errno("unblock signals"))
}

/// Ends this process if the default action of the signal is to end one.
fn end_by(signal: u32) {
    let Ok(signal) = i32::try_from(signal) else { return };
    let harmless =
        [libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
    if !harmless.contains(&signal) {
        process::exit_now(u8::try_from(128 + signal).unwrap_or(u8::MAX));
    }
}
