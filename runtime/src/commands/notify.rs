//! systemd's readiness protocol, passed on: the container's program writes to a socket of ours, and its `READY=1` goes to
//! whoever supervises us (`NOTIFY_SOCKET`), with the pid that is to be watched from then on.
//!
//! Nothing but `READY=` passes: a container must not tell the supervisor whom to watch, or speak of other processes.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::{Context, Failure};

/// Whether a supervisor wants to hear of readiness.
pub(crate) fn wanted() -> bool {
    supervisor().is_some()
}

fn supervisor() -> Option<OsString> {
    std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty())
}

/// Between a container's program and the supervisor.
#[derive(Debug)]
pub(crate) struct Notify {
    from: UnixDatagram,
    to: UnixDatagram,
}

impl Notify {
    /// Listens for the container's program, which must not have been started. None when nobody wants to hear of it, or the
    /// container was made without the protocol.
    pub(crate) fn listen(context: &Context, id: &str) -> Result<Option<Self>, Failure> {
        let Some(name) = supervisor() else { return Ok(None) };
        let path = context.runtime.notify_socket(id);
        let error = |path: &Path| {
            let path = path.to_owned();
            move |e| Failure::because(path.display(), e)
        };
        let dir = path.parent().unwrap_or(&path);
        let dir = match std::fs::File::open(dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            other => other.map_err(error(dir))?,
        };
        // By the descriptor: a socket's address has room for 108 bytes only.
        let mut place = PathBuf::from(format!("/proc/self/fd/{}", dir.as_raw_fd()));
        place.push(path.file_name().unwrap_or_default());
        // One that a killed start has left.
        std::fs::remove_file(&place).ok();
        let from = UnixDatagram::bind(&place).map_err(error(&path))?;
        // The program's user is not ours.
        std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o777)).map_err(error(&path))?;
        from.set_nonblocking(true).map_err(error(&path))?;
        let bytes = name.as_bytes();
        let address = match bytes.strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(Path::new(&name)),
        };
        let to = UnixDatagram::unbound().map_err(error(&path))?;
        address.and_then(|address| to.connect_addr(&address)).map_err(error(Path::new(&name)))?;
        Ok(Some(Self { from, to }))
    }

    /// Waits until the program is ready, or has ended; `pid` is what the supervisor then watches.
    pub(crate) fn wait(&self, process: BorrowedFd<'_>, pid: u32) -> Result<(), Failure> {
        loop {
            let mut fds = [PollFd::new(process, PollFlags::POLLIN), PollFd::new(self.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(Failure::because("poll", e)),
            }
            let ended = fds[0].any().unwrap_or(false);
            if self.pass_on(pid)? || ended {
                return Ok(());
            }
        }
    }

    /// Takes what has arrived; whether the program is ready and the supervisor knows.
    pub(crate) fn pass_on(&self, pid: u32) -> Result<bool, Failure> {
        let mut buffer = [0; 4096];
        loop {
            let length = match self.from.recv(&mut buffer) {
                Ok(length) => length,
                Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(Failure::because("receive from the container", e)),
            };
            let Some(ready) = buffer[..length].split(|b| *b == b'\n').find(|line| line.starts_with(b"READY=")) else {
                continue;
            };
            self.announce(ready, pid).map_err(|e| Failure::because("tell the supervisor", e))?;
            return Ok(true);
        }
    }

    fn announce(&self, ready: &[u8], pid: u32) -> std::io::Result<()> {
        self.to.send(&[ready, b"\n"].concat())?;
        self.to.send(format!("MAINPID={pid}\n").as_bytes())?;
        // The supervisor tells who sent a message by looking at a process that must still be there: this one stays until
        // the supervisor has closed a descriptor that it got behind the messages.
        let (ours, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
        dhow_sys::fd::send(self.to.as_fd(), b"BARRIER=1", &[theirs.as_fd()])?;
        drop(theirs);
        let mut fds = [PollFd::new(ours.as_fd(), PollFlags::empty())];
        poll(&mut fds, PollTimeout::from(BARRIER_MILLIS)).map(drop).or_else(|e| match e {
            Errno::EINTR => Ok(()),
            e => Err(e.into()),
        })
    }
}

impl AsFd for Notify {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.from.as_fd()
    }
}

/// A supervisor that does not know barriers may never answer.
const BARRIER_MILLIS: u16 = 30_000;
