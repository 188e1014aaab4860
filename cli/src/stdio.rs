//! The user's side of an attachment: standard input to the shim, output from it, signals and window sizes, in one loop
//! over `poll` and without threads.
//!
//! Bytes for the container wait in a buffer that is written only when the socket takes them: a container that does not
//! read its input must not keep us from showing its output.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;

use dhow_api::attach::{self, Decoder, End, Frame, Stream};
use dhow_api::task::{KillRequest, ResizePtyRequest};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{MsgFlags, send};

use crate::error::{Error, Result};
use crate::shims::Services;
use crate::signals::Proxy;
use crate::terminal::{self, Raw};

/// What is attached.
#[derive(Debug, Clone)]
pub(crate) struct Attachment {
    /// The container.
    pub id: String,
    /// An exec, or empty for the first process.
    pub exec_id: String,
    /// Forward standard input.
    pub stdin: bool,
    /// Show standard output.
    pub stdout: bool,
    /// Show standard error.
    pub stderr: bool,
    /// Whether the process has a terminal.
    pub tty: bool,
    /// docker's notation; empty is the default.
    pub detach_keys: String,
    /// Pass signals on.
    pub sig_proxy: bool,
}

/// How an attachment ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The process has ended.
    Exited,
    /// The user typed the detach keys.
    Detached,
    /// The shim went away.
    Lost,
}

/// A connection that is ready to carry bytes. The shim stays as long as it is open.
#[derive(Debug)]
pub(crate) struct Session {
    attachment: Attachment,
    socket: UnixStream,
    outgoing: Vec<u8>,
    stdin_open: bool,
}

/// Input is read only while fewer bytes than this wait.
const PENDING: usize = 256 << 10;
const CHUNK: usize = 64 << 10;

impl Session {
    /// Attaches; nothing flows before [`Session::run`].
    pub(crate) fn open(services: &Services, attachment: Attachment) -> Result<Self> {
        let request = dhow_api::shim::AttachRequest {
            id: attachment.id.clone(),
            exec_id: attachment.exec_id.clone(),
            stdin: attachment.stdin,
            stdout: attachment.stdout,
            stderr: attachment.stderr,
            // Without a terminal every byte of input means itself.
            detach_keys: if attachment.tty { attachment.detach_keys.clone() } else { "none".to_owned() },
            ..Default::default()
        };
        let answer = services.shim.attach(&request)?;
        let socket = attach::connect(answer.socket.as_ref(), &answer.token)?;
        let stdin_open = attachment.stdin;
        Ok(Self { attachment, socket, outgoing: Vec::new(), stdin_open })
    }

    /// Carries bytes and signals until the process ends, the user detaches or the shim goes.
    pub(crate) fn run(&mut self, services: &Services, signals: Option<&Proxy>) -> Result<Ended> {
        let _raw = if self.attachment.tty && terminal::stdin_is_terminal() && self.attachment.stdin {
            Some(Raw::enter()?)
        } else {
            None
        };
        let mut decoder = Decoder::default();
        loop {
            let ready = self.wait(signals)?;
            if ready.signal
                && let Some(signals) = signals
            {
                while let Some(signal) = signals.next()? {
                    self.signal(services, signal);
                }
            }
            if ready.stdin {
                self.read_stdin()?;
            }
            if ready.writable {
                self.flush()?;
            }
            if ready.readable
                && let Some(ended) = self.read_socket(&mut decoder)?
            {
                return Ok(ended);
            }
        }
    }

    fn wait(&self, signals: Option<&Proxy>) -> Result<Ready> {
        let stdin = io::stdin();
        let mut wanted = PollFlags::POLLIN;
        if !self.outgoing.is_empty() {
            wanted |= PollFlags::POLLOUT;
        }
        let mut fds = vec![PollFd::new(self.socket.as_fd(), wanted)];
        let signal_at = signals.map(|signals| {
            fds.push(PollFd::new(signals.as_fd(), PollFlags::POLLIN));
            fds.len() - 1
        });
        let stdin_at = (self.stdin_open && self.outgoing.len() < PENDING).then(|| {
            fds.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
            fds.len() - 1
        });
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => {}
            Err(nix::errno::Errno::EINTR) => return Ok(Ready::default()),
            Err(errno) => return Err(Error::system("wait for input and output")(errno)),
        }
        let any = |at: usize, flags: PollFlags| fds[at].revents().is_some_and(|r| r.intersects(flags));
        let input = PollFlags::POLLIN | PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL;
        Ok(Ready {
            readable: any(0, input),
            writable: any(0, PollFlags::POLLOUT),
            signal: signal_at.is_some_and(|at| any(at, input)),
            stdin: stdin_at.is_some_and(|at| any(at, input)),
        })
    }

    fn read_stdin(&mut self) -> Result<()> {
        let mut buffer = vec![0; CHUNK];
        // A terminal that hung up (EIO) has no more input, as any other end.
        let count = match nix::unistd::read(io::stdin().as_fd(), &mut buffer) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR | nix::errno::Errno::EAGAIN) => return Ok(()),
            Err(_gone) => 0,
        };
        if count == 0 {
            self.stdin_open = false;
            self.outgoing.extend_from_slice(&attach::header(Stream::StdinEnd, 0));
        } else {
            self.outgoing.extend_from_slice(&attach::header(Stream::Stdin, count));
            self.outgoing.extend_from_slice(&buffer[..count]);
        }
        self.flush()
    }

    /// Writes what the socket takes without blocking.
    fn flush(&mut self) -> Result<()> {
        while !self.outgoing.is_empty() {
            let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
            match send(self.socket.as_raw_fd(), &self.outgoing, flags) {
                Ok(count) => drop(self.outgoing.drain(..count)),
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::EAGAIN) => return Ok(()),
                // The process may end before it has read its input: what it still says is to be heard.
                Err(nix::errno::Errno::EPIPE | nix::errno::Errno::ECONNRESET) => {
                    self.outgoing.clear();
                    self.stdin_open = false;
                }
                Err(errno) => return Err(Error::system("send input to the container")(errno)),
            }
        }
        Ok(())
    }

    fn read_socket(&mut self, decoder: &mut Decoder) -> Result<Option<Ended>> {
        let mut buffer = vec![0; CHUNK];
        let count = match self.socket.read(&mut buffer) {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => 0,
            Err(source) => return Err(Error::System { action: "read the container's output", source }),
        };
        if count == 0 {
            return Ok(Some(Ended::Lost));
        }
        decoder.push(&buffer[..count]);
        loop {
            let frame = decoder.next_frame();
            let frame =
                frame.map_err(|bad| Error::System { action: "read the container's output", source: bad.into() })?;
            match frame {
                None => return Ok(None),
                Some(Frame::Stdout(bytes)) => write_all(io::stdout().lock(), &bytes)?,
                Some(Frame::Stderr(bytes)) => write_all(io::stderr().lock(), &bytes)?,
                Some(Frame::End(End::Exited)) => return Ok(Some(Ended::Exited)),
                Some(Frame::End(End::Detached)) => return Ok(Some(Ended::Detached)),
                Some(Frame::Stdin(_) | Frame::StdinEnd) => {}
            }
        }
    }

    /// Passes a signal on; a change of the window's size is told as such. The process may just have ended: no failure.
    fn signal(&self, services: &Services, signal: i32) {
        let outcome = if signal == libc::SIGWINCH {
            if !self.attachment.tty {
                return;
            }
            resize(services, &self.attachment.id, &self.attachment.exec_id)
        } else if self.attachment.sig_proxy {
            let request = KillRequest {
                id: self.attachment.id.clone(),
                exec_id: self.attachment.exec_id.clone(),
                signal: signal.cast_unsigned(),
                ..Default::default()
            };
            services.task.kill(&request).map(drop).map_err(Error::from)
        } else {
            return;
        };
        if let Err(error) = outcome {
            log::debug!("signal {signal} was not passed on: {}", dhow_api::error::chain(&error));
        }
    }
}

#[derive(Default)]
struct Ready {
    readable: bool,
    writable: bool,
    signal: bool,
    stdin: bool,
}

/// Tells a process's terminal the size of ours.
pub(crate) fn resize(services: &Services, id: &str, exec_id: &str) -> Result<()> {
    let Some(size) = terminal::size() else { return Ok(()) };
    let request = ResizePtyRequest {
        id: id.to_owned(),
        exec_id: exec_id.to_owned(),
        width: size.columns.into(),
        height: size.rows.into(),
        ..Default::default()
    };
    services.task.resize_pty(&request)?;
    Ok(())
}

/// Writes and flushes at once: a prompt has no newline.
fn write_all(mut out: impl Write, bytes: &[u8]) -> Result<()> {
    out.write_all(bytes).and_then(|()| out.flush()).map_err(Error::output)
}
