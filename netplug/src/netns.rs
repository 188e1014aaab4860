//! Network namespaces: made on a thread of their own, kept by a bind mount under `RUNROOT/netns`.
//!
//! A [`Namespace`] is first held by a descriptor only, so it goes with the process however that ends; [`Namespace::pin`]
//! gives it its path. (A pool of ready ones would be a list of these.)
//!
//! `RUNROOT/netns` is a private mount of its own, so that no namespace is held by the copy of a mount in somebody else's
//! mount namespace. It is made by the first pin and taken away by [`Directory::release`].

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread;

use dhow_sys::netlink::Protocol;
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{NSFS_MAGIC, statfs};

use crate::error::{Error, Result, file};
use crate::netlink::{Socket, link};
use crate::sysctl;

/// A network namespace and a socket in it.
#[derive(Debug)]
pub(crate) struct Namespace {
    handle: OwnedFd,
    /// An rtnetlink socket that lives in the namespace.
    pub(crate) route: Socket,
}

/// The directory of pinned namespaces.
#[derive(Clone, Debug)]
pub(crate) struct Directory {
    path: PathBuf,
}

impl Namespace {
    /// Makes a namespace with its loopback up.
    pub(crate) fn create() -> Result<Self> {
        // The thread is not used again, so nobody ever runs in the wrong namespace.
        on_thread(|| {
            unshare(CloneFlags::CLONE_NEWNET)
                .map_err(|errno| Error::Namespace { operation: "create", source: errno.into() })?;
            let handle = own_namespace()?;
            sysctl::silence_ipv6_of_new_links()?;
            let mut route = Socket::open(Protocol::Route)?;
            route.execute(&[link::set_up(LOOPBACK, "")?])?;
            Ok(Self { handle, route })
        })
    }

    /// Opens a pinned namespace.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let handle: OwnedFd = File::open(path).map_err(file("open", path))?.into();
        on_thread(|| {
            setns(&handle, CloneFlags::CLONE_NEWNET)
                .map_err(|errno| Error::Namespace { operation: "enter", source: errno.into() })?;
            let route = Socket::open(Protocol::Route)?;
            Ok(Self { handle, route })
        })
    }

    /// The namespace's descriptor.
    pub(crate) fn handle(&self) -> BorrowedFd<'_> {
        self.handle.as_fd()
    }
}

impl Directory {
    /// The directory at this path, which need not exist yet.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// Where a container's namespace is, or would be.
    pub(crate) fn path_of(&self, container: &str) -> PathBuf {
        self.path.join(container)
    }

    /// Binds a namespace to the container's path. What was half made before has to be unpinned first.
    pub(crate) fn pin(&self, container: &str, namespace: &Namespace) -> Result<()> {
        self.prepare()?;
        let target = self.path_of(container);
        OpenOptions::new().write(true).create(true).truncate(false).open(&target).map_err(file("create", &target))?;
        let source = format!("/proc/self/fd/{}", namespace.handle.as_raw_fd());
        mount(Some(source.as_str()), &target, NOTHING, MsFlags::MS_BIND, NOTHING).map_err(failed("mount", &target))
    }

    /// Takes the path away again, whatever of it is there.
    pub(crate) fn unpin(&self, container: &str) -> Result<()> {
        let target = self.path_of(container);
        loop {
            match umount2(&target, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW) {
                Ok(()) => {}
                Err(Errno::EINVAL | Errno::ENOENT) => break,
                Err(errno) => return Err(failed("unmount", &target)(errno)),
            }
        }
        match fs::remove_file(&target) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome.map_err(file("remove", target)),
        }
    }

    /// Whether a namespace is bound to the container's path.
    pub(crate) fn is_pinned(&self, container: &str) -> bool {
        statfs(&self.path_of(container)).is_ok_and(|stat| stat.filesystem_type() == NSFS_MAGIC)
    }

    /// The names of everything in the directory.
    pub(crate) fn list(&self) -> Result<Vec<String>> {
        crate::store::names(&self.path)
    }

    /// Takes the directory away when nothing is in it.
    pub(crate) fn release(&self) -> Result<()> {
        if !self.list()?.is_empty() {
            return Ok(());
        }
        while umount2(&self.path, MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).is_ok() {}
        match fs::remove_dir(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            outcome => outcome.map_err(file("remove", &self.path)),
        }
    }

    /// Makes the directory a private mount, if it is not one.
    fn prepare(&self) -> Result<()> {
        match self.make_private() {
            Ok(()) => return Ok(()),
            // Not a mount point, or not there.
            Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(errno) => return Err(failed("make private", &self.path)(errno)),
        }
        crate::store::create_dir(&self.path)?;
        mount(Some(&self.path), &self.path, NOTHING, MsFlags::MS_BIND, NOTHING).map_err(failed("mount", &self.path))?;
        self.make_private().map_err(failed("make private", &self.path))
    }

    fn make_private(&self) -> nix::Result<()> {
        mount(NOTHING, &self.path, NOTHING, MsFlags::MS_PRIVATE, NOTHING)
    }
}

/// The calling thread's network namespace.
pub(crate) fn own_namespace() -> Result<OwnedFd> {
    let path = "/proc/thread-self/ns/net";
    Ok(File::open(path).map_err(file("open", path))?.into())
}

/// Runs something on a thread of its own and waits for it.
fn on_thread<T: Send>(run: impl FnOnce() -> Result<T> + Send) -> Result<T> {
    thread::scope(|scope| {
        let worker = thread::Builder::new()
            .name("netns".to_owned())
            .spawn_scoped(scope, run)
            .map_err(|source| Error::Namespace { operation: "start a thread for a", source })?;
        worker.join().unwrap_or_else(|_panic| {
            Err(Error::Namespace { operation: "finish the thread for a", source: io::Error::other("it panicked") })
        })
    })
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(Errno) -> Error {
    let path = path.to_owned();
    move |errno| Error::File { operation, path, source: errno.into() }
}

const NOTHING: Option<&str> = None;
/// The loopback is the first link of every namespace.
const LOOPBACK: u32 = 1;
