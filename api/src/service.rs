//! Reaching a service that nobody had to install: connect, and where nobody listens, start it.
//!
//! ```text
//! caller 1: connect ─ refused ─ flock(sock.lock) ─ connect ─ refused ─ bind 0600, listen ─ spawn(fd 3) ─ connect ─ unlock
//! caller 2: connect ─ refused ─ flock ............................................................................ ─ connect
//! ```
//!
//! The starter makes the listening socket, so a connection works before the service has read its first byte of code,
//! nobody waits and nobody races. The service is the leader of its own session, its standard streams are /dev/null
//! except for stderr, which is `<name>.log` beside the socket.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use crate::{Error, paths, socket};

/// Where dhow's programs lie when a distribution installs them.
const LIBEXEC: &str = "/usr/libexec/dhow";

/// A log that has grown beyond this is begun anew by the next start.
const LOG_LIMIT: u64 = 1 << 20;

/// How to reach a service, and how to start it.
#[derive(Debug, Clone)]
pub struct ServiceSpec {
    /// The socket's path; `.lock` and `.log` lie beside it.
    pub socket: PathBuf,
    /// The program: a path, or a bare name for [`locate_binary`].
    pub binary: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// Its working directory.
    pub cwd: PathBuf,
    /// Whether containers are born from it: then they must not lead to its file but by a read-only mount.
    pub protected: bool,
}

impl ServiceSpec {
    /// The snapshotter of an instance.
    #[must_use]
    pub fn snapshotter(root: &Path, runroot: &Path) -> Self {
        Self::of_instance("dhow-snapshotter", "snapshotter.sock", root, runroot)
    }

    /// The network service of an instance.
    #[must_use]
    pub fn netplug(root: &Path, runroot: &Path) -> Self {
        Self::of_instance("dhow-netplug", "netplug.sock", root, runroot)
    }

    fn of_instance(binary: &str, socket: &str, root: &Path, runroot: &Path) -> Self {
        let args = vec!["--root".into(), root.into(), "--runroot".into(), runroot.into()];
        Self { socket: runroot.join(socket), binary: binary.into(), args, cwd: "/".into(), protected: false }
    }

    /// The shim of a container whose bundle (`ROOT/containers/<id>`, with its `shim.json`) is complete.
    ///
    /// A container that runs without a shim is adopted by the one that this starts.
    #[must_use]
    pub fn shim(root: &Path, runroot: &Path, id: &str) -> Self {
        Self {
            socket: paths::RunRoot::new(runroot).shim(id).socket(),
            binary: "containerd-shim-dhow-v2".into(),
            args: ["-namespace", "dhow", "-id", id, "serve"].map(OsString::from).into(),
            cwd: paths::Root::new(root).container(id).path().to_owned(),
            protected: true,
        }
    }

    fn log(&self) -> PathBuf {
        self.socket.with_extension("log")
    }

    /// The error for a service that does not live long enough to take a request.
    pub(crate) fn died(&self) -> Error {
        Error::Died { binary: self.binary.clone(), last_words: last_line(&self.log()).unwrap_or_default() }
    }
}

/// Connects to the service; starts it when nobody listens. Any number of callers at once start one.
///
/// # Errors
///
/// [`Error::Connect`], [`Error::Peer`], [`Error::NoBinary`], [`Error::Start`], [`Error::File`] for lock and log.
pub fn connect_or_start(spec: &ServiceSpec) -> Result<UnixStream, Error> {
    match socket::connect(&spec.socket) {
        Err(Error::Connect { source, .. }) if nobody(&source) => {}
        other => return other,
    }
    let _lock = socket::Lock::take(&spec.socket)?;
    match socket::connect(&spec.socket) {
        Err(Error::Connect { source, .. }) if nobody(&source) => {}
        other => return other,
    }
    // The starter's own copy keeps the queue open until its connection is in it, even when the service dies at once.
    let _listener = start(spec)?;
    socket::connect(&spec.socket)
}

/// Connects to whoever listens at the path.
///
/// # Errors
///
/// [`Error::Connect`], [`Error::Peer`].
pub fn connect(path: &Path) -> Result<UnixStream, Error> {
    socket::connect(path)
}

/// Finds a program of ours: beside our own executable, in /usr/libexec/dhow, in PATH.
///
/// # Errors
///
/// [`Error::NoBinary`].
pub fn locate_binary(name: &str) -> Result<PathBuf, Error> {
    let beside = dhow_sys::exe::path().ok().and_then(|exe| exe.parent().map(Path::to_owned));
    let path = std::env::var_os("PATH").unwrap_or_default();
    beside
        .into_iter()
        .chain([LIBEXEC.into()])
        .chain(std::env::split_paths(&path).filter(|directory| directory.is_absolute()))
        .map(|directory| directory.join(name))
        .find(|candidate| is_executable(candidate))
        .ok_or_else(|| Error::NoBinary { name: name.to_owned() })
}

/// Binds the socket and starts the program with it. The caller holds the lock.
fn start(spec: &ServiceSpec) -> Result<UnixListener, Error> {
    let binary = match spec.binary.parent() {
        Some(parent) if parent == Path::new("") => locate_binary(&spec.binary.to_string_lossy())?,
        _ => spec.binary.clone(),
    };
    let log_path = spec.log();
    let log = open_log(&log_path).map_err(|source| Error::File { action: "open", path: log_path, source })?;
    let listener = socket::bind(&spec.socket)?;
    let announced = OsStr::new("1");
    dhow_sys::spawn::Detached {
        program: &binary,
        args: &spec.args,
        env: &[("LISTEN_FDS", announced)],
        cwd: Some(&spec.cwd),
        fds: &[(listener.as_fd(), dhow_sys::listen_fds::FIRST), (log.as_fd(), 2)],
        protected: spec.protected,
    }
    .spawn()
    .map_err(|errno| Error::Start { binary, source: errno.into() })?;
    Ok(listener)
}

/// Whether the error says that there is no server.
fn nobody(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn is_executable(path: &Path) -> bool {
    path.metadata().is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

fn open_log(path: &Path) -> io::Result<File> {
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(path)?;
    if log.metadata()?.len() > LOG_LIMIT {
        log.set_len(0)?;
    }
    Ok(log)
}

fn last_line(log: &Path) -> Option<String> {
    let mut file = File::open(log).ok()?;
    let start = file.metadata().ok()?.len().saturating_sub(1024);
    file.seek(SeekFrom::Start(start)).ok()?;
    let mut tail = Vec::new();
    file.take(1024).read_to_end(&mut tail).ok()?;
    let tail = String::from_utf8_lossy(&tail);
    tail.lines().rfind(|line| !line.trim().is_empty()).map(str::to_owned)
}
