//! What `create`, `run` and `exec` share: where a process's terminal goes, and handing descriptors over a socket.

use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use dhow_runtime::{Created, Stdio};

use super::args::{Flag, Parsed};
use super::{Context, Failure, absolute};

pub(crate) const CONSOLE_SOCKET: Flag =
    Flag::value("console-socket", "unix socket that gets the terminal's primary end");
pub(crate) const PIDFD_SOCKET: Flag = Flag::value("pidfd-socket", "unix socket that gets a pidfd of the process");
pub(crate) const PID_FILE: Flag = Flag::value("pid-file", "file that gets the process's id");
pub(crate) const PRESERVE_FDS: Flag =
    Flag::value("preserve-fds", "pass this many more descriptors, from 3 on (and those of LISTEN_FDS)");

/// Where the process's terminal goes.
#[derive(Debug)]
pub(crate) enum Terminal {
    /// It has none.
    None,
    /// To whoever listens on this socket.
    Socket(PathBuf),
    /// This command relays between it and its own stdin and stdout.
    Relay,
}

impl Terminal {
    /// Decides, with runc's complaints for what does not go together.
    pub(crate) fn choose(terminal: bool, detach: bool, socket: Option<&str>) -> Result<Self, Failure> {
        match (terminal, detach, socket.filter(|path| !path.is_empty())) {
            (true, _, Some(path)) if detach => Ok(Self::Socket(absolute(Path::new(path))?)),
            (true, true, None) => {
                Err(Failure::usage("cannot allocate tty if runc will detach without setting console socket"))
            }
            (_, _, Some(_)) => Err(Failure::usage("cannot use console socket if runc will not detach or allocate tty")),
            (true, false, None) => Ok(Self::Relay),
            (false, _, None) => Ok(Self::None),
        }
    }

    /// What the library has to be told.
    pub(crate) fn stdio(&self) -> Stdio {
        match self {
            Self::None => Stdio::Inherit,
            Self::Socket(_) | Self::Relay => Stdio::Terminal,
        }
    }
}

/// Gives the terminal and the pidfd to those who asked for them.
pub(crate) fn hand_over(created: &Created, terminal: &Terminal, parsed: &Parsed) -> Result<(), Failure> {
    if let (Terminal::Socket(path), Some(console)) = (terminal, &created.console) {
        send(path, b"/dev/ptmx", console.as_fd())?;
    }
    match parsed.value("pidfd-socket") {
        Some(path) => send(&absolute(Path::new(path))?, b"pidfd", created.pidfd.as_fd()),
        None => Ok(()),
    }
}

/// Keeps the container from reaching this program's file, and others from looking into this process. To be called before
/// anything is opened or made: the program may start over.
pub(crate) fn protect(context: &Context) {
    if let Err(e) = dhow_sys::exe::protect() {
        context.warn(&[format!("this program's file can't be protected from the container: {e}")]);
    }
    // A parent that is not root has to stay open, or it could not write to its child's files in /proc.
    if nix::unistd::geteuid().is_root() {
        dhow_sys::process::set_dumpable(false).ok();
    }
}

/// The path of `--pid-file`.
pub(crate) fn pid_file(parsed: &Parsed) -> Result<Option<PathBuf>, Failure> {
    parsed.value("pid-file").filter(|path| !path.is_empty()).map(|path| absolute(Path::new(path))).transpose()
}

fn send(socket: &Path, name: &[u8], fd: BorrowedFd<'_>) -> Result<(), Failure> {
    let stream = UnixStream::connect(socket).map_err(|e| Failure::because(socket.display(), e))?;
    dhow_sys::fd::send(stream.as_fd(), name, &[fd]).map_err(|e| Failure::because(socket.display(), e))
}
