//! Signals as data: blocked before anything starts, read from a descriptor, never handled asynchronously.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::JoinHandle;

use dhow_image::Cancel;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, pthread_sigmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::error::{Error, Result};

/// What a user or a supervisor sends to stop us.
const STOPPING: [Signal; 3] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP];

/// Sets a [`Cancel`] flag when a stopping signal comes. A second signal ends the process the ordinary way.
#[derive(Debug)]
pub(crate) struct Interrupt {
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    old: SigSet,
}

impl Interrupt {
    /// Watches from now until dropped.
    pub(crate) fn watch(cancel: &Cancel) -> Result<Self> {
        let set: SigSet = STOPPING.into_iter().collect();
        let mut old = SigSet::empty();
        pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&set), Some(&mut old)).map_err(Error::system("block signals"))?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC).map_err(Error::system("watch signals"))?;
        let (end, stop) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(Error::system("make a pipe"))?;
        let cancel = cancel.clone();
        let thread = std::thread::spawn(move || {
            let mut fds =
                [PollFd::new(signals.as_fd(), PollFlags::POLLIN), PollFd::new(end.as_fd(), PollFlags::POLLIN)];
            while let Err(nix::errno::Errno::EINTR) = poll(&mut fds, PollTimeout::NONE) {}
            if fds[0].any() == Some(true) {
                // Taken off the queue, so that it does not strike when signals are let in again.
                log_failure(signals.read_signal().map(drop));
                cancel.cancel();
                log_failure(set.thread_unblock());
                let mut rest = [PollFd::new(end.as_fd(), PollFlags::POLLIN)];
                while let Err(nix::errno::Errno::EINTR) = poll(&mut rest, PollTimeout::NONE) {}
            }
        });
        Ok(Self { stop: Some(stop), thread: Some(thread), old })
    }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in there has been reported by the panic itself.
            drop(thread.join());
        }
        log_failure(pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&self.old), None));
    }
}

/// For what can only fail by a mistake of ours, where nobody can be told.
fn log_failure(outcome: nix::Result<()>) {
    if let Err(errno) = outcome {
        log::debug!("handling signals: {errno}");
    }
}

/// All signals that are passed on to a container, and SIGWINCH.
#[derive(Debug)]
pub(crate) struct Proxy {
    signals: SignalFd,
}

impl Proxy {
    /// Blocks them from now on. What arrives before the container runs waits in the queue.
    pub(crate) fn block() -> Result<Self> {
        let mut set = SigSet::all();
        for own in [
            // The kernel's word on our own mistakes, and job control, which has to work on us.
            Signal::SIGSEGV,
            Signal::SIGBUS,
            Signal::SIGILL,
            Signal::SIGFPE,
            Signal::SIGABRT,
            Signal::SIGTRAP,
            Signal::SIGSYS,
            Signal::SIGCHLD,
            Signal::SIGPIPE,
            Signal::SIGURG,
            Signal::SIGTTIN,
            Signal::SIGTTOU,
            Signal::SIGTSTP,
            Signal::SIGCONT,
        ] {
            set.remove(own);
        }
        pthread_sigmask(SigmaskHow::SIG_BLOCK, Some(&set), None).map_err(Error::system("block signals"))?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&set, flags).map_err(Error::system("watch signals"))?;
        Ok(Self { signals })
    }

    /// The next one that has arrived.
    pub(crate) fn next(&self) -> Result<Option<i32>> {
        let info = self.signals.read_signal().map_err(Error::system("read a signal"))?;
        Ok(info.and_then(|info| i32::try_from(info.ssi_signo).ok()))
    }
}

impl AsFd for Proxy {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}
