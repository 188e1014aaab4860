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
    /// To whoever listens at the other end of this socket.
    Socket(UnixStream),
    /// This command relays between it and its own stdin and stdout.
    Relay,
}

impl Terminal {
    /// Decides, with runc's complaints for what does not go together. A socket is connected to at once: a process whose
    /// terminal nobody takes is not even started.
    pub(crate) fn choose(terminal: bool, detach: bool, socket: Option<&str>) -> Result<Self, Failure> {
        match (terminal, detach, socket.filter(|path| !path.is_empty())) {
            (true, _, Some(path)) if detach => Ok(Self::Socket(connect(path)?)),
            (true, true, None) => {
                Err(Failure::new("cannot allocate tty if runc will detach without setting console socket"))
            }
            (_, _, Some(_)) => Err(Failure::new("cannot use console socket if runc will not detach or allocate tty")),
            (true, false, None) => Ok(Self::Relay),
            (false, _, None) => Ok(Self::None),
        }
    }

    /// What the library has to be told.
    pub(crate) fn stdio(&self) -> Stdio {
        match self {
            Self::None => Stdio::Inherit,
            Self::Socket(_) => Stdio::Terminal,
            Self::Relay => Stdio::RelayedTerminal,
        }
    }
}

/// The connection that gets the pidfd, if one is asked for; made before the process, as the terminal's.
pub(crate) fn pidfd_socket(parsed: &Parsed) -> Result<Option<UnixStream>, Failure> {
    parsed.value("pidfd-socket").filter(|path| !path.is_empty()).map(connect).transpose()
}

/// Gives the terminal and the pidfd to those who asked for them.
pub(crate) fn hand_over(created: &Created, terminal: &Terminal, pidfd: Option<&UnixStream>) -> Result<(), Failure> {
    let send = |socket: &UnixStream, name: &[u8], fd: BorrowedFd<'_>, flag: &'static str| {
        dhow_sys::fd::send(socket.as_fd(), name, &[fd]).map_err(|e| Failure::because(flag, e))
    };
    if let (Terminal::Socket(socket), Some(console)) = (terminal, &created.console) {
        send(socket, b"/dev/ptmx", console.as_fd(), "--console-socket")?;
    }
    pidfd.map_or(Ok(()), |socket| send(socket, b"pidfd", created.pidfd.as_fd(), "--pidfd-socket"))
}

/// How many descriptors from 3 on are open, without a gap.
pub(crate) fn inherited() -> u32 {
    let mut count = 0;
    while i32::try_from(count + 3).is_ok_and(dhow_sys::fd::is_open) {
        count += 1;
    }
    count
}

/// What is to be passed on has to be the caller's.
pub(crate) fn all_inherited(context: &Context, count: u32) -> Result<(), Failure> {
    let had = context.inherited;
    if count <= had {
        return Ok(());
    }
    Err(Failure::new(format!("unable to stat preserved-fd {} (of {count}): no such file or directory", had + 3)))
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

fn connect(path: &str) -> Result<UnixStream, Failure> {
    let path = absolute(Path::new(path))?;
    UnixStream::connect(&path).map_err(|e| Failure::because(format_args!("dial unix {}: connect", path.display()), e))
}
