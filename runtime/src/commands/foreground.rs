//! Waiting for a process in the foreground: signals go to it, its terminal is relayed, orphans are reaped.
//!
//! ```text
//! stdin ──▶ (raw mode) ──▶ pty's primary end ──▶ stdout
//! SIGWINCH ──▶ the pty's size          other signals ──▶ the process
//! ```
//!
//! The container's terminal does the line discipline but for newlines on output, which our own terminal makes CR LF, if
//! we have one: stdout as a file gets no CR. Everything waits in one poll.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use dhow_runtime::Created;
use dhow_sys::{pidfd, process, tty};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use nix::sys::termios::{self, OutputFlags, SetArg, Termios};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

use super::Failure;
use super::notify::Notify;

/// Signals are ours from [`Foreground::begin`] on, so that none is lost between the process's birth and the wait.
#[derive(Debug)]
pub(crate) struct Foreground {
    signals: SignalFd,
    reaps_orphans: bool,
}

impl Foreground {
    /// Blocks all signals and reads them from now on. The library resets the mask in what it starts.
    pub(crate) fn begin(subreaper: bool) -> Result<Self, Failure> {
        process::block_signals().map_err(|e| Failure::because("block signals", e))?;
        let signals = process::signal_fd().map_err(|e| Failure::because("signalfd", e))?;
        if subreaper {
            process::set_child_subreaper(true).map_err(|e| Failure::because("become a subreaper", e))?;
        }
        Ok(Self { signals, reaps_orphans: subreaper })
    }

    /// Relays until the process has ended; its exit code, or 128 + the signal that ended it.
    pub(crate) fn wait(self, created: Created, mut notify: Option<Notify>) -> Result<u8, Failure> {
        let Created { pidfd, console, .. } = created;
        let mut relay = console.map(Relay::new).transpose()?;
        loop {
            let ready = self.poll(pidfd.as_fd(), relay.as_ref(), notify.as_ref())?;
            if ready.signal {
                self.forward(pidfd.as_fd(), relay.as_ref())?;
            }
            // In the foreground it is this process that stands for the container.
            if let Some(true) = notify.as_ref().map(|notify| notify.pass_on(std::process::id())).transpose()? {
                notify = None;
            }
            if let Some(relay) = &mut relay {
                relay.step(ready.input, ready.output);
            }
            if ready.ended {
                if let Some(relay) = &mut relay {
                    relay.drain();
                }
                let exit = pidfd::reap(pidfd.as_fd(), true).map_err(|e| Failure::because("wait", e))?;
                let code = exit.map_or(255, |exit| exit.code());
                return Ok(u8::try_from(code).unwrap_or(255));
            }
        }
    }

    fn poll(&self, pidfd: BorrowedFd<'_>, relay: Option<&Relay>, notify: Option<&Notify>) -> Result<Ready, Failure> {
        let stdin = io::stdin();
        let mut fds = vec![PollFd::new(pidfd, PollFlags::POLLIN), PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        if let Some(relay) = relay {
            let output = if relay.output_open { PollFlags::POLLIN } else { PollFlags::empty() };
            fds.push(PollFd::new(relay.console.as_fd(), output));
            if relay.input_open {
                fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
            }
        }
        // A closed console reports POLLHUP at once whatever is asked; then only the process's end is worth waking for.
        if relay.is_some_and(|relay| !relay.output_open) {
            fds.truncate(2);
        }
        let known = fds.len();
        fds.extend(notify.map(|notify| PollFd::new(notify.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(Failure::because("poll", e)),
        }
        let happened = |index: usize| fds[..known].get(index).is_some_and(|fd| fd.any().unwrap_or(false));
        Ok(Ready { ended: happened(0), signal: happened(1), output: happened(2), input: happened(3) })
    }

    fn forward(&self, pidfd: BorrowedFd<'_>, relay: Option<&Relay>) -> Result<(), Failure> {
        while let Some(info) = self.signals.read_signal().map_err(|e| Failure::because("signalfd", e))? {
            let number = i32::try_from(info.ssi_signo).unwrap_or(0);
            match Signal::try_from(number) {
                Ok(Signal::SIGCHLD) if self.reaps_orphans => reap_orphans(pidfd),
                Ok(Signal::SIGWINCH) => {
                    if let Some(relay) = relay {
                        relay.resize();
                    }
                }
                // SIGPIPE is about our own stdout, SIGURG and SIGTTOU/IN about our own terminal.
                Ok(Signal::SIGCHLD | Signal::SIGPIPE | Signal::SIGURG | Signal::SIGTTIN | Signal::SIGTTOU) => {}
                _ => match pidfd::send_signal(pidfd, number) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(e) => return Err(Failure::because("forward a signal", e)),
                },
            }
        }
        Ok(())
    }
}

#[derive(Debug)]
struct Ready {
    ended: bool,
    signal: bool,
    output: bool,
    input: bool,
}

/// Reaps children that are not ours by birth, and leaves the process itself for [`pidfd::reap`].
fn reap_orphans(own: BorrowedFd<'_>) {
    let ours = pidfd::info(own).map(|info| info.pid).ok();
    loop {
        let peek = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        let Some(pid) = waitid(Id::All, peek).ok().as_ref().and_then(WaitStatus::pid) else { return };
        // While our own one lies in front, those behind it wait for us to end.
        if ours.is_none() || ours == Some(pid.as_raw()) {
            return;
        }
        waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG).ok();
    }
}

/// The two directions between a pty and our stdin and stdout.
#[derive(Debug)]
struct Relay {
    console: OwnedFd,
    /// Settings to go back to.
    saved: Option<Termios>,
    input_open: bool,
    output_open: bool,
}

impl Relay {
    fn new(console: OwnedFd) -> Result<Self, Failure> {
        let saved = termios::tcgetattr(io::stdin()).ok();
        if let Some(settings) = &saved {
            let mut raw = settings.clone();
            termios::cfmakeraw(&mut raw);
            // The container's terminal leaves newlines alone, so that they are right in a file, too; ours sees to them.
            raw.output_flags |= settings.output_flags & OutputFlags::OPOST;
            termios::tcsetattr(io::stdin(), SetArg::TCSANOW, &raw).map_err(|e| Failure::because("raw mode", e))?;
        }
        let relay = Self { console, saved, input_open: true, output_open: true };
        relay.resize();
        Ok(relay)
    }

    /// Gives the pty the size of our terminal, if we have one.
    fn resize(&self) {
        if let Ok(size) = tty::size(io::stdin().as_fd()) {
            // A pty whose other end is gone can't be sized, and need not be.
            tty::set_size(self.console.as_fd(), size).ok();
        }
    }

    fn step(&mut self, input: bool, output: bool) {
        if output {
            self.output_open = self.copy_out();
        }
        if input {
            self.input_open = self.copy_in();
        }
    }

    fn copy_out(&self) -> bool {
        let mut buffer = [0; 16 << 10];
        match nix::unistd::read(&self.console, &mut buffer) {
            // EIO: no process has the other end open any more.
            Ok(0) | Err(Errno::EIO) => false,
            Ok(n) => {
                let mut stdout = io::stdout();
                stdout.write_all(&buffer[..n]).and_then(|()| stdout.flush()).is_ok()
            }
            Err(e) => matches!(e, Errno::EINTR | Errno::EAGAIN),
        }
    }

    fn copy_in(&self) -> bool {
        let mut buffer = [0; 4 << 10];
        match nix::unistd::read(io::stdin(), &mut buffer) {
            Ok(0) => {
                // The end of a file is a key on a terminal.
                self.write_all(&[END_OF_TRANSMISSION]);
                false
            }
            Ok(n) => self.write_all(&buffer[..n]),
            Err(e) => matches!(e, Errno::EINTR | Errno::EAGAIN),
        }
    }

    fn write_all(&self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            match nix::unistd::write(&self.console, bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(Errno::EINTR) => {}
                Err(_) => return false,
            }
        }
        true
    }

    /// What the process wrote before it ended may still lie in the pty.
    fn drain(&mut self) {
        while self.output_open {
            let mut fds = [PollFd::new(self.console.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::ZERO) {
                Ok(1) => self.output_open = self.copy_out(),
                _ => return,
            }
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if let Some(settings) = &self.saved {
            // Nothing better can be done for a terminal that does not want its settings back.
            termios::tcsetattr(io::stdin(), SetArg::TCSANOW, settings).ok();
        }
    }
}

const END_OF_TRANSMISSION: u8 = 4;
