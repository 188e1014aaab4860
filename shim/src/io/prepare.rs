//! The descriptors of a new process, and our ends of them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dhow_runtime::Stdio;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::Mode;

use crate::error::{Error, Result};

/// How long containerd may take to open the reading ends of the fifos that it named.
const READER_TIMEOUT: Duration = Duration::from_secs(10);
const READER_POLL: Duration = Duration::from_millis(1);

/// stdio as a request names it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    /// A fifo's path; empty: none.
    pub(crate) stdin: String,
    /// A fifo's path or a `file://` URI; empty: none.
    pub(crate) stdout: String,
    /// As `stdout`; not used with a terminal.
    pub(crate) stderr: String,
    /// Whether the process gets a terminal.
    pub(crate) terminal: bool,
}

impl Names {
    /// Whether the shim itself owns the stdio.
    pub(crate) fn are_ours(&self) -> bool {
        self.stdin.is_empty() && self.stdout.is_empty() && self.stderr.is_empty()
    }
}

/// Our ends.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    /// Written to.
    pub(crate) stdin: Option<OwnedFd>,
    /// Read from.
    pub(crate) stdout: Option<OwnedFd>,
    /// Read from.
    pub(crate) stderr: Option<OwnedFd>,
    /// Kept open until stdin is closed.
    pub(crate) held: Option<OwnedFd>,
    /// containerd's fifo with what is typed.
    pub(crate) terminal_source: Option<OwnedFd>,
    /// containerd's fifo for what the terminal shows.
    pub(crate) terminal_sink: Option<OwnedFd>,
}

/// Whether a process of our own has stdin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Own {
    /// It reads the end of file.
    NoStdin,
    /// It reads what clients send.
    WithStdin,
}

/// The stdio that containerd names. Waits for the reading ends, as the fifos must not be written to before.
pub(crate) async fn for_engine(names: &Names) -> Result<(Stdio, Ends)> {
    let mut ends = Ends::default();
    if names.terminal {
        if !names.stdin.is_empty() {
            ends.terminal_source = Some(open(Path::new(&names.stdin), OFlag::O_RDONLY | OFlag::O_NONBLOCK)?);
            ends.held = Some(open(Path::new(&names.stdin), OFlag::O_WRONLY | OFlag::O_NONBLOCK)?);
        }
        if !names.stdout.is_empty() {
            ends.terminal_sink = Some(engine_output(&names.stdout).await?);
        }
        return Ok((Stdio::Terminal, ends));
    }
    let stdin = if names.stdin.is_empty() {
        null()?
    } else {
        let path = Path::new(&names.stdin);
        // Opened without waiting for a writer, which we are ourselves until CloseIO.
        let stdin = open(path, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?;
        ends.held = Some(open(path, OFlag::O_WRONLY | OFlag::O_NONBLOCK)?);
        blocking(&stdin)?;
        stdin
    };
    let stdout = engine_output(&names.stdout).await?;
    let stderr = engine_output(&names.stderr).await?;
    Ok((Stdio::Fds { stdin, stdout, stderr }, ends))
}

/// Fifos in the shim's directory for a container's first process. It holds its own both ways, so that it outlives us
/// without a broken pipe, and a successor finds them by name.
pub(crate) fn own_init(directory: &Path, own: Own) -> Result<(Stdio, Ends)> {
    std::fs::DirBuilder::new().recursive(true).create(directory).map_err(Error::file("make", directory))?;
    let mut ends = Ends::default();
    let stdin = match own {
        Own::NoStdin => null()?,
        Own::WithStdin => {
            let path = fifo(directory, "stdin")?;
            let stdin = open(&path, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?;
            ends.stdin = Some(open(&path, OFlag::O_WRONLY | OFlag::O_NONBLOCK)?);
            blocking(&stdin)?;
            stdin
        }
    };
    let output = |name| {
        let path = fifo(directory, name)?;
        let theirs = open(&path, OFlag::O_RDWR)?;
        Ok::<_, Error>((theirs, open(&path, OFlag::O_RDONLY | OFlag::O_NONBLOCK)?))
    };
    let (stdout, ours) = output("stdout")?;
    ends.stdout = Some(ours);
    let (stderr, ours) = output("stderr")?;
    ends.stderr = Some(ours);
    Ok((Stdio::Fds { stdin, stdout, stderr }, ends))
}

/// Our ends of the fifos of a container that runs already.
pub(crate) fn adopt(directory: &Path) -> Result<Ends> {
    let reopen = |name: &str, flags| {
        let path = directory.join(name);
        match open(&path, flags | OFlag::O_NONBLOCK) {
            Ok(fd) => Ok(Some(fd)),
            // Not made (no stdin), or nobody reads it any more.
            Err(Error::File { source, .. }) if matches!(source.raw_os_error(), Some(libc::ENOENT | libc::ENXIO)) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    };
    Ok(Ends {
        stdin: reopen("stdin", OFlag::O_WRONLY)?,
        stdout: reopen("stdout", OFlag::O_RDONLY)?,
        stderr: reopen("stderr", OFlag::O_RDONLY)?,
        ..Ends::default()
    })
}

/// Pipes for a further process: nobody else has to find them.
pub(crate) fn own_exec(own: Own) -> Result<(Stdio, Ends)> {
    let mut ends = Ends::default();
    let stdin = match own {
        Own::NoStdin => null()?,
        Own::WithStdin => {
            let (theirs, ours) = pipe()?;
            ends.stdin = Some(ours);
            theirs
        }
    };
    let (ours, stdout) = pipe()?;
    ends.stdout = Some(ours);
    let (ours, stderr) = pipe()?;
    ends.stderr = Some(ours);
    Ok((Stdio::Fds { stdin, stdout, stderr }, ends))
}

/// Opens what containerd wants output to go to.
async fn engine_output(name: &str) -> Result<OwnedFd> {
    if name.is_empty() {
        return null();
    }
    if let Some(path) = name.strip_prefix("file://") {
        let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        return file.map(OwnedFd::from).map_err(Error::file("open", Path::new(path)));
    }
    if let Some((scheme, _)) = name.split_once("://") {
        return Err(Error::Unsupported { what: format!("logging to {scheme}://") });
    }
    let path = Path::new(name);
    // Held until we have it both ways: a fifo whose writer goes away tells its reader the end.
    let _reader_is_there = wait_for_reader(path).await?;
    open(path, OFlag::O_RDWR)
}

async fn wait_for_reader(path: &Path) -> Result<OwnedFd> {
    let attempts = READER_TIMEOUT.as_millis() / READER_POLL.as_millis();
    let mut last = Error::NotFound { what: format!("a reader of {}", path.display()) };
    for _ in 0..attempts {
        match open(path, OFlag::O_WRONLY | OFlag::O_NONBLOCK) {
            Ok(fd) => return Ok(fd),
            Err(Error::File { action, path, source }) if source.raw_os_error() == Some(libc::ENXIO) => {
                last = Error::File { action, path, source };
                tokio::time::sleep(READER_POLL).await;
            }
            Err(error) => return Err(error),
        }
    }
    Err(last)
}

/// Makes a fifo that every user of the container may open again by `/dev/stdout`; the directory keeps others away.
fn fifo(directory: &Path, name: &str) -> Result<PathBuf> {
    let path = directory.join(name);
    match std::fs::remove_file(&path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::file("remove", &path)(error)),
        _ => {}
    }
    nix::unistd::mkfifo(&path, Mode::S_IRUSR | Mode::S_IWUSR)
        .and_then(|()| {
            nix::sys::stat::fchmodat(
                nix::fcntl::AT_FDCWD,
                &path,
                everyone(),
                nix::sys::stat::FchmodatFlags::FollowSymlink,
            )
        })
        .map_err(|errno| Error::file("make fifo", &path)(errno.into()))?;
    Ok(path)
}

fn everyone() -> Mode {
    Mode::from_bits_truncate(0o666)
}

fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(Error::sys("make a pipe"))?;
    nix::sys::stat::fchmod(&reader, everyone()).map_err(Error::sys("make a pipe"))?;
    Ok((reader, writer))
}

fn null() -> Result<OwnedFd> {
    let path = Path::new("/dev/null");
    File::options().read(true).write(true).open(path).map(OwnedFd::from).map_err(Error::file("open", path))
}

fn open(path: &Path, flags: OFlag) -> Result<OwnedFd> {
    nix::fcntl::open(path, flags | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(|errno| Error::file("open", path)(errno.into()))
}

fn blocking(fd: &OwnedFd) -> Result<()> {
    fcntl(fd, FcntlArg::F_SETFL(OFlag::empty())).map(drop).map_err(Error::sys("make a descriptor blocking"))
}
