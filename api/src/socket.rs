//! Unix sockets of our own: reachable by paths of any length, for our own user only.
//!
//! `sun_path` holds 107 bytes. A longer path is taken apart: its directory is opened, and the socket is named through
//! `/proc/self/fd/N/`. Sockets are 0600 from the moment that they exist (Linux takes the mode of a socket file from the
//! socket's own inode), directories that have to be made are 0700.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{self, AddressFamily, Backlog, SockFlag, SockType, UnixAddr, sockopt};
use nix::sys::stat::Mode;
use nix::sys::time::{TimeVal, TimeValLike};

use crate::Error;

/// How long a connect waits for room in a stuck server's queue.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections that may wait to be accepted; enough for a burst of callers while the service starts.
const BACKLOG: i32 = 1024;

/// Connects to a listening socket and checks that it belongs to our user or to root.
///
/// # Errors
///
/// [`Error::Connect`] with `NotFound` or `ConnectionRefused` when nobody listens; [`Error::Peer`].
pub fn connect(path: &Path) -> Result<UnixStream, Error> {
    let stream = connect_raw(path).map_err(|source| Error::Connect { socket: path.to_owned(), source })?;
    let uid = peer_uid(&stream).map_err(|source| Error::Connect { socket: path.to_owned(), source })?;
    if trusted(uid) { Ok(stream) } else { Err(Error::Peer { socket: path.to_owned(), uid }) }
}

/// Makes a listening socket, replacing a dead one of the same name, under the lock beside it.
///
/// # Errors
///
/// [`Error::Listen`], with `AddrInUse` when a living server listens there.
pub fn listen(path: &Path) -> Result<UnixListener, Error> {
    let _lock = Lock::take(path)?;
    match connect_raw(path) {
        Ok(_alive) => Err(Error::Listen { socket: path.to_owned(), source: io::ErrorKind::AddrInUse.into() }),
        Err(_nobody) => bind(path),
    }
}

/// As [`listen`], for whoever holds the lock or owns the name: an existing socket file is replaced unasked.
///
/// # Errors
///
/// [`Error::Listen`].
pub fn bind(path: &Path) -> Result<UnixListener, Error> {
    bind_raw(path).map_err(|source| Error::Listen { socket: path.to_owned(), source })
}

/// Whether a process of this user may talk to us: root and ourselves.
#[must_use]
pub fn trusted(uid: u32) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw()
}

/// The user on the other end (SO_PEERCRED): of whoever connected, or called listen.
///
/// # Errors
///
/// The error of getsockopt(2).
pub fn peer_uid(stream: &impl AsFd) -> io::Result<u32> {
    Ok(socket::getsockopt(&stream.as_fd(), sockopt::PeerCredentials)?.uid())
}

/// The lock beside a socket: held while a service is started, and while one retires.
#[derive(Debug)]
pub struct Lock {
    _file: nix::fcntl::Flock<File>,
}

impl Lock {
    /// Waits for the lock. Makes the directory when it is not there.
    ///
    /// # Errors
    ///
    /// [`Error::File`].
    pub fn take(socket: &Path) -> Result<Self, Error> {
        Self::flock(socket, nix::fcntl::FlockArg::LockExclusive)
    }

    /// Takes the lock when it is free.
    ///
    /// # Errors
    ///
    /// [`Error::File`], with `WouldBlock` when another holds it.
    pub fn try_take(socket: &Path) -> Result<Self, Error> {
        Self::flock(socket, nix::fcntl::FlockArg::LockExclusiveNonblock)
    }

    fn flock(socket: &Path, how: nix::fcntl::FlockArg) -> Result<Self, Error> {
        let path = suffixed(socket, ".lock");
        let fail = |source: io::Error| Error::File { action: "lock", path: path.clone(), source };
        make_parent(&path).map_err(fail)?;
        loop {
            let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
            let mut file = file.map_err(fail)?;
            let locked = loop {
                match nix::fcntl::Flock::lock(file, how) {
                    Ok(locked) => break locked,
                    Err((again, nix::errno::Errno::EINTR)) => file = again,
                    Err((_, errno)) => return Err(fail(errno.into())),
                }
            };
            // Whoever held it may have removed the directory with the lock in it: then this one excludes nobody.
            let (held, named) = (locked.metadata().map_err(fail)?, std::fs::metadata(&path));
            if named.is_ok_and(|named| (named.dev(), named.ino()) == (held.dev(), held.ino())) {
                return Ok(Self { _file: locked });
            }
            make_parent(&path).map_err(fail)?;
        }
    }
}

/// The socket's path with something appended to its name.
pub(crate) fn suffixed(socket: &Path, suffix: &str) -> PathBuf {
    let mut name = socket.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn make_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => DirBuilder::new().recursive(true).mode(0o700).create(parent),
        None => Ok(()),
    }
}

fn connect_raw(path: &Path) -> io::Result<UnixStream> {
    let socket = new_socket()?;
    socket::setsockopt(&socket, sockopt::SendTimeout, &time_val(CONNECT_TIMEOUT))?;
    with_address(path, |address| Ok(socket::connect(socket.as_raw_fd(), address)?))?;
    socket::setsockopt(&socket, sockopt::SendTimeout, &TimeVal::seconds(0))?;
    Ok(socket.into())
}

fn bind_raw(path: &Path) -> io::Result<UnixListener> {
    make_parent(path)?;
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = new_socket()?;
    nix::sys::stat::fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
    with_address(path, |address| Ok(socket::bind(socket.as_raw_fd(), address)?))?;
    socket::listen(&socket, Backlog::new(BACKLOG)?)?;
    Ok(socket.into())
}

fn new_socket() -> io::Result<OwnedFd> {
    Ok(socket::socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?)
}

fn time_val(duration: Duration) -> TimeVal {
    TimeVal::milliseconds(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

/// Calls `f` with an address for the path, through a handle of its directory when the path is too long.
fn with_address<T>(path: &Path, f: impl FnOnce(&UnixAddr) -> io::Result<T>) -> io::Result<T> {
    if let Ok(address) = UnixAddr::new(path) {
        return f(&address);
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidFilename.into());
    };
    let directory = OpenOptions::new().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(parent)?;
    let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
    f(&UnixAddr::new(&short)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::unix::fs::{FileTypeExt, PermissionsExt};

    #[test]
    fn long_paths_work_and_modes_are_tight() {
        let dir = tempfile::tempdir().unwrap();
        for path in [dir.path().join("a/s.sock"), dir.path().join("d".repeat(200)).join("s.sock")] {
            let listener = listen(&path).unwrap();
            let metadata = std::fs::symlink_metadata(&path).unwrap();
            assert!(metadata.file_type().is_socket());
            assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
            let parent = std::fs::metadata(path.parent().unwrap()).unwrap();
            assert_eq!(parent.permissions().mode() & 0o777, 0o700);
            let mut client = connect(&path).unwrap();
            let (mut served, _) = listener.accept().unwrap();
            client.write_all(b"x").unwrap();
            drop(client);
            let mut got = Vec::new();
            served.read_to_end(&mut got).unwrap();
            assert_eq!(got, b"x");
        }
    }

    #[test]
    fn a_living_socket_is_kept_and_a_dead_one_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let first = listen(&path).unwrap();
        let Err(Error::Listen { source, .. }) = listen(&path) else { panic!("replaced a living socket") };
        assert_eq!(source.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        let Err(Error::Connect { source, .. }) = connect(&path) else { panic!("nobody listens") };
        assert_eq!(source.kind(), io::ErrorKind::ConnectionRefused);
        listen(&path).unwrap();
    }

    #[test]
    fn the_lock_excludes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let held = Lock::take(&path).unwrap();
        assert!(
            matches!(Lock::try_take(&path), Err(Error::File { source, .. }) if source.kind() == io::ErrorKind::WouldBlock)
        );
        drop(held);
        Lock::try_take(&path).unwrap();
    }
}
