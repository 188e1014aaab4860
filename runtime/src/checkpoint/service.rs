//! The process `criu swrk 3`, and the conversation with it.
//!
//! ```text
//!  runtime                                  criu (descriptor 3)
//!     │  clone, exec                           │
//!     │── VERSION (keep open) ────────────────▶│
//!     │◀─────────────────────────── version ───│
//!     │── FEATURE_CHECK (keep open) ──────────▶│  only with --pre-dump or --lazy-pages
//!     │◀────────────────────────── features ───│
//!     │── DUMP | PRE_DUMP | RESTORE ──────────▶│
//!     │◀──────────────── NOTIFY (+ terminal) ──│  any number of times: network-lock, setup-namespaces,
//!     │── NOTIFY: done ───────────────────────▶│  orphan-pts-master, post-restore, …
//!     │◀─────────── the request's own answer ──│
//!     │── end of stream ──────────────────────▶│  it exits
//! ```
//!
//! One message per datagram (SOCK_SEQPACKET). A restored container's first process becomes the runtime's child, as criu's
//! sibling. criu opens the directories, which are named by descriptor, through /proc/PID/fd of whoever has made the socket
//! pair. It mounts in them, so they have to be of its own mount namespace: criu's process makes the pair and opens the
//! directories itself, before it becomes criu.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};
use std::path::Path;

use dhow_sys::clone::{Child, InChild, Namespaces, Request, spawn};
use dhow_sys::mountfd::{Change, Propagation, clone_tree, move_mount, set_attr};
use dhow_sys::openat2::c_path;
use dhow_sys::pidfd::{self, Exit};
use dhow_sys::{Errno, fd, process};
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::stat::Mode;

use super::message::{Feature, Kind, Notification, Response, noted, question};
use super::options::Directories;
use crate::handshake::Failure;
use crate::request::{RootfsSource, Stdio};
use crate::{Error, Result};

/// How criu is started.
#[derive(Debug)]
pub(super) struct Start<'a> {
    /// Where it works.
    pub(super) directories: &'a Directories,
    /// The cgroup (v2) that it is born in.
    pub(super) cgroup: Option<BorrowedFd<'a>>,
    /// Its own 0, 1 and 2; a restored container is given them.
    pub(super) stdio: Option<&'a Stdio>,
    /// What it gets as descriptors from [`FIRST_PASSED`] on.
    pub(super) passed: &'a [OwnedFd],
    /// A mount namespace of its own, with the root file system mounted at a directory: criu wants a mount there, and the
    /// host's namespace is to stay as it is.
    pub(super) root: Option<(&'a RootfsSource, &'a Path, &'a Path)>,
}

impl<'a> Start<'a> {
    /// As its parent is.
    pub(super) fn new(directories: &'a Directories) -> Self {
        Self { directories, cgroup: None, stdio: None, passed: &[], root: None }
    }

    fn first_free(&self) -> RawFd {
        FIRST_PASSED + RawFd::try_from(self.passed.len()).unwrap_or(0)
    }
}

// criu's descriptors.
const SOCKET: RawFd = 3;
/// The directory of the images.
pub(super) const IMAGES: RawFd = 4;
/// The directory of the log.
pub(super) const WORK: RawFd = 5;
/// The first in [`Start::passed`].
pub(super) const FIRST_PASSED: RawFd = 6;

/// Older ones can't tell their errors, or lack what is asked of them here.
const OLDEST: (i32, i32) = (3, 16);

/// A running criu. It is killed when it is dropped before its [end](Self::end).
#[derive(Debug)]
pub(super) struct Criu {
    child: Option<Child>,
    socket: Option<OwnedFd>,
}

impl Criu {
    /// Starts it, found by `$PATH`, and asks for its version.
    pub(super) fn start(start: &Start<'_>) -> Result<Self> {
        let (hears, tells) = socket_pair().map_err(Error::sys("make a socket pair"))?;
        let namespaces = if start.root.is_some() { Namespaces::MOUNT } else { Namespaces::NONE };
        let request = Request { namespaces, cgroup: start.cgroup, sibling: false };
        let child = spawn(&request, |token| {
            // Out of the way of criu's numbers, so that it can still be used when they are taken.
            let Ok(tells) = fd::lift(tells.as_fd(), start.first_free()) else { return 1 };
            let Err(failure) = execute(token, start, tells.as_fd());
            // Nothing is left to do about an error here.
            fd::send(tells.as_fd(), failure.text.as_bytes(), &[]).ok();
            1
        });
        let child = child.map_err(|e| match e {
            Errno::EBUSY => Error::Threads,
            source => Error::Sys { step: "clone criu's process", source },
        })?;
        drop(tells);
        let criu = Self::connect(child, hears.as_fd())?;
        let (major, minor) = criu.ask(Kind::Version, None)?.version;
        if (major, minor) < OLDEST {
            let problem = format!("version {major}.{minor} is older than {}.{}", OLDEST.0, OLDEST.1);
            return Err(Error::CriuStart { problem });
        }
        Ok(criu)
    }

    /// Takes the connection from a process that is about to become criu, and waits until it has.
    fn connect(child: Child, hears: BorrowedFd<'_>) -> Result<Self> {
        let mut buffer = [0; 4096];
        let mut criu = Self { child: Some(child), socket: None };
        loop {
            let received = fd::receive(hears, &mut buffer).map_err(Error::sys("hear from criu's process"))?;
            match received {
                (0, _) if criu.socket.is_some() => return Ok(criu),
                (0, _) => return Err(Error::ChildGone { step: "the start of criu" }),
                (_, fds) if !fds.is_empty() => criu.socket = fds.into_iter().next(),
                (length, _) => {
                    let problem = String::from_utf8_lossy(&buffer[..length]).into_owned();
                    return Err(Error::CriuStart { problem });
                }
            }
        }
    }

    fn socket(&self) -> Result<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd).ok_or(Error::ChildGone { step: "the start of criu" })
    }

    /// Its pid; 0 when it has ended.
    pub(super) fn pid(&self) -> i32 {
        self.child.as_ref().map_or(0, |child| child.pid)
    }

    /// Makes sure that this criu and this kernel can do something.
    pub(super) fn require(&self, feature: Feature, name: &'static str) -> Result<()> {
        let response = self.ask(Kind::FeatureCheck, Some(feature))?;
        if response.features.contains(&(feature as u32)) {
            return Ok(());
        }
        Err(Error::CriuStart { problem: format!("criu or the kernel has no {name}") })
    }

    fn ask(&self, kind: Kind, feature: Option<Feature>) -> Result<Response> {
        self.send(&question(kind, feature))?;
        let (response, _) = self.receive(kind)?;
        if response.success { Ok(response) } else { Err(refused(kind, &response)) }
    }

    /// Makes a request. `notice` is called at every moment that criu tells of, with the descriptor that came along.
    pub(super) fn call(
        &self,
        kind: Kind,
        request: &[u8],
        mut notice: impl FnMut(&Notification, Option<OwnedFd>) -> Result<()>,
    ) -> Result<()> {
        self.send(request)?;
        loop {
            let (response, fd) = self.receive(kind)?;
            if response.kind == Some(Kind::Notify) && response.success {
                let noticed = notice(&response.notification, fd);
                self.send(&noted(noticed.is_ok()))?;
                noticed?;
            } else if response.success && response.kind == Some(kind) {
                return Ok(());
            } else {
                return Err(refused(kind, &response));
            }
        }
    }

    /// Lets it go, and waits for its end.
    pub(super) fn end(mut self) -> Result<Exit> {
        let Some(child) = self.child.take() else { return Ok(Exit::Code(0)) };
        self.socket = None;
        let exit = pidfd::reap(child.pidfd.as_fd(), true).map_err(Error::sys("wait for criu"))?;
        Ok(exit.unwrap_or(Exit::Code(0)))
    }

    fn send(&self, message: &[u8]) -> Result<()> {
        match fd::send(self.socket()?, message, &[]) {
            // It has ended. What it had to say may still be there to be read.
            Err(Errno::EPIPE | Errno::ECONNRESET) => Ok(()),
            other => other.map_err(Error::sys("write to criu")),
        }
    }

    fn receive(&self, kind: Kind) -> Result<(Response, Option<OwnedFd>)> {
        // criu's own limit for a message is 16 KiB.
        let mut buffer = vec![0; 64 << 10];
        let (length, fds) = match fd::receive(self.socket()?, &mut buffer) {
            Err(Errno::ECONNRESET) => (0, Vec::new()),
            other => other.map_err(Error::sys("read from criu"))?,
        };
        let damaged = |problem: &str| Error::Criu { request: kind.name(), problem: problem.into() };
        if length == 0 {
            return Err(damaged("it ended without an answer"));
        }
        let response = Response::parse(&buffer[..length]).ok_or_else(|| damaged("its answer makes no sense"))?;
        Ok((response, fds.into_iter().next()))
    }
}

impl Drop for Criu {
    fn drop(&mut self) {
        // The end of the connection tells it to give up, and to let go of what it has stopped.
        self.socket = None;
        if let Some(child) = &self.child {
            if !matches!(pidfd::wait_ended(child.pidfd.as_fd(), Some(GRACE)), Ok(true)) {
                pidfd::send_signal(child.pidfd.as_fd(), libc::SIGKILL).ok();
            }
            pidfd::reap(child.pidfd.as_fd(), true).ok();
        }
    }
}

/// How long a criu that has failed may take for it.
const GRACE: std::time::Duration = std::time::Duration::from_secs(10);

fn refused(kind: Kind, response: &Response) -> Error {
    let answered = response.kind.unwrap_or(kind);
    let mut problem = format!("errno {}", response.errno);
    if !response.message.is_empty() {
        problem.push_str(": ");
        problem.push_str(response.message.trim());
    }
    Error::Criu { request: answered.name(), problem }
}

/// Becomes criu, after it has sent one end of the connection through `tells`. In a process that was just cloned.
fn execute(
    token: &InChild,
    start: &Start<'_>,
    tells: BorrowedFd<'_>,
) -> std::result::Result<std::convert::Infallible, Failure> {
    if let Some((source, path, place)) = start.root {
        mount_root(source, path, place)?;
    }
    let (theirs, socket) = socket_pair().map_err(Failure::errno("make a socket pair"))?;
    fd::send(tells, b"criu", &[theirs.as_fd()]).map_err(Failure::errno("hand the connection over"))?;
    // Placing one must not cover another: all are first moved out of the way.
    let first = start.first_free();
    let away = |fd: BorrowedFd<'_>| fd::lift(fd, first).map_err(Failure::errno("duplicate a descriptor"));
    let (images, work) = (directory(&start.directories.images)?, directory(&start.directories.work)?);
    let mut places =
        vec![(away(socket.as_fd())?, SOCKET), (away(images.as_fd())?, IMAGES), (away(work.as_fd())?, WORK)];
    for (fd, number) in start.passed.iter().zip(FIRST_PASSED..) {
        places.push((away(fd.as_fd())?, number));
    }
    let null;
    match start.stdio {
        None | Some(Stdio::Inherit) => {}
        Some(Stdio::Fds { stdin, stdout, stderr }) => {
            for (fd, number) in [stdin, stdout, stderr].into_iter().zip(0..) {
                places.push((away(fd.as_fd())?, number));
            }
        }
        Some(Stdio::Terminal | Stdio::RelayedTerminal) => {
            null = nix::fcntl::open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty());
            let null = null.map_err(Failure::errno("/dev/null"))?;
            for number in 0..3 {
                places.push((away(null.as_fd())?, number));
            }
        }
    }
    for (fd, number) in &places {
        fd::place(token, fd.as_fd(), *number).map_err(Failure::errno("place a descriptor"))?;
    }
    fd::cloexec_from(first.unsigned_abs()).map_err(Failure::errno("close_range"))?;
    process::reset_signals();
    process::unblock_signals().map_err(Failure::errno("unblock signals"))?;
    let words = [c"criu", c"swrk", c"3"].map(CString::from);
    nix::unistd::execvp(&words[0], &words).map_err(|e| match e {
        Errno::ENOENT => Failure::new("exec: \"criu\": executable file not found in $PATH"),
        errno => Failure::errno("exec: \"criu\"")(errno),
    })
}

fn socket_pair() -> dhow_sys::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}

fn directory(path: &Path) -> std::result::Result<OwnedFd, Failure> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    nix::fcntl::open(path, flags, Mode::empty()).map_err(Failure::errno(path.display()))
}

/// Mounts the root at a directory, in a mount namespace that gets what is mounted on the host and gives nothing back.
fn mount_root(source: &RootfsSource, path: &Path, place: &Path) -> std::result::Result<(), Failure> {
    let change = Change { propagation: Some(Propagation::Slave), recursive: true, ..Change::default() };
    set_attr(directory(Path::new("/"))?.as_fd(), &change).map_err(Failure::errno("cut criu's mounts off"))?;
    let copied;
    let root = match source {
        RootfsSource::DetachedMount(mount) => mount.as_fd(),
        RootfsSource::Config => {
            let copy = c_path(path).and_then(|path| clone_tree(AT_FDCWD, &path, true));
            copied = copy.map_err(Failure::errno(path.display()))?;
            copied.as_fd()
        }
    };
    move_mount(root, directory(place)?.as_fd()).map_err(Failure::errno(place.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::wire::Writer;

    /// An answer as criu gives it.
    fn answer(kind: Kind, success: bool, fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut message = Writer::default();
        message.number(1, kind as i64);
        message.number(2, success.into());
        fill(&mut message);
        message.finish()
    }

    fn notification(script: &str, pid: i64) -> Vec<u8> {
        answer(Kind::Notify, true, |message| {
            message.message(5, |notify| {
                notify.text(1, script);
                notify.number(2, pid);
            });
        })
    }

    /// A criu that has said all it will ever say, and where to read what it was told.
    fn criu(answers: &[(Vec<u8>, &[BorrowedFd<'_>])]) -> (Criu, OwnedFd) {
        let (ours, theirs) = socket_pair().unwrap();
        for (answer, fds) in answers {
            fd::send(theirs.as_fd(), answer, fds).unwrap();
        }
        (Criu { child: None, socket: Some(ours) }, theirs)
    }

    fn told(theirs: &OwnedFd) -> Vec<u8> {
        let mut buffer = [0; 256];
        let (length, _) = fd::receive(theirs.as_fd(), &mut buffer).unwrap();
        buffer[..length].to_vec()
    }

    #[test]
    fn moments_are_answered_and_descriptors_arrive() {
        let null = std::fs::File::open("/dev/null").unwrap();
        let (criu, theirs) = criu(&[
            (notification("orphan-pts-master", 0), &[null.as_fd()]),
            (notification("post-restore", 17), &[]),
            (answer(Kind::Restore, true, |_| ()), &[]),
        ]);
        let mut seen = Vec::new();
        let done = criu.call(Kind::Restore, b"request", |notification, fd| {
            seen.push((notification.script.clone(), notification.pid, fd.is_some()));
            Ok(())
        });
        done.unwrap();
        assert_eq!(seen, [("orphan-pts-master".into(), 0, true), ("post-restore".into(), 17, false)]);
        assert_eq!([told(&theirs), told(&theirs), told(&theirs)], [b"request".to_vec(), noted(true), noted(true)]);
    }

    #[test]
    fn a_moment_that_fails_ends_it() {
        let (criu, theirs) = criu(&[(notification("setup-namespaces", 5), &[])]);
        let error = criu.call(Kind::Restore, b"request", |_, _| Err(Error::NotRunning)).unwrap_err();
        assert!(matches!(error, Error::NotRunning), "{error:?}");
        assert_eq!([told(&theirs), told(&theirs)], [b"request".to_vec(), noted(false)]);
    }

    #[test]
    fn refusals_say_what_was_refused() {
        let said = |answers: &[(Vec<u8>, &[BorrowedFd<'_>])]| {
            let (criu, theirs) = criu(answers);
            nix::sys::socket::shutdown(std::os::fd::AsRawFd::as_raw_fd(&theirs), nix::sys::socket::Shutdown::Write)
                .unwrap();
            criu.call(Kind::Dump, b"request", |_, _| Ok(())).unwrap_err().to_string()
        };
        let refused = answer(Kind::Dump, false, |message| {
            message.number(7, 52);
            message.text(9, "no such page\n");
        });
        assert_eq!(said(&[(refused, &[])]), "criu failed: type DUMP errno 52: no such page");
        assert_eq!(said(&[]), "criu failed: type DUMP it ended without an answer");
        assert_eq!(said(&[(vec![0xff], &[])]), "criu failed: type DUMP its answer makes no sense");
        let other = answer(Kind::Version, true, |_| ());
        assert_eq!(said(&[(other, &[])]), "criu failed: type VERSION errno 0");
    }
}
