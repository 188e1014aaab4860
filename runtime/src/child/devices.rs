//! Device nodes and the symlinks of /dev.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use dhow_sys::clone::InChild;
use dhow_sys::mountfd::{clone_tree, move_mount};
use dhow_sys::openat2::{EMPTY, Resolve, c_path, open};
use dhow_sys::{Errno, fd};
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::{Mode, SFlag, fstat, makedev, mknodat};
use nix::unistd::{Gid, Uid, fchownat, symlinkat};

use super::init::Init;
use super::{Failure, Result};
use crate::error::errno_text;
use crate::plan::{Device, NodeKind};

const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];

/// Makes them all. After the mounts, which bring /dev; before the root may become read-only.
pub(super) fn all(job: &mut Init<'_>) -> Result<()> {
    let mut prepared = prepared(job)?;
    let mut last: Option<(&Path, OwnedFd)> = None;
    for (i, device) in job.plan.devices.iter().enumerate() {
        let failure = |text: &str| Failure::new(format!("device {}: {text}", device.path.display()));
        let parent = device.path.parent().ok_or_else(|| failure("it has no directory"))?;
        // Nearly all of them lie in /dev: it is looked up once.
        let dir = match last.take() {
            Some((path, dir)) if path == parent => dir,
            _ => {
                let made = job.root()?.create_dir_all(parent, Mode::from_bits_truncate(0o755));
                made.map_err(|e| failure(&errno_text(e)))?
            }
        };
        one(job, &dir, device, prepared.get_mut(i).and_then(Option::take)).map_err(|f| failure(&f.text))?;
        last = Some((parent, dir));
    }
    if job.plan.dev_links {
        links(job)?;
    }
    Ok(())
}

/// A mount of each node that the parent has prepared, by the device's index.
///
/// Before Linux 6.15 only what is attached in one's own namespace can be copied, so their tmpfs lies on the root for a moment.
fn prepared(job: &mut Init<'_>) -> Result<Vec<Option<OwnedFd>>> {
    let Some(nodes) = job.device_nodes.take() else { return Ok(Vec::new()) };
    let error = |what: &'static str| Failure::errno(format!("linux.devices: {what}"));
    move_mount(nodes.as_fd(), job.root()?.dir()).map_err(error("attach their nodes"))?;
    let copy = |(index, device): (usize, &Device)| {
        let name = CString::new(index.to_string()).ok().filter(|_| device.is_prepared());
        name.map(|name| clone_tree(nodes.as_fd(), &name, false)).transpose()
    };
    let copies = job.plan.devices.iter().enumerate().map(copy).collect::<dhow_sys::Result<_>>();
    let copies = copies.map_err(error("copy a node"))?;
    nix::unistd::fchdir(&nodes)
        .and_then(|()| umount2(".", MntFlags::MNT_DETACH))
        .map_err(error("detach their nodes"))?;
    Ok(copies)
}

fn one(job: &Init<'_>, dir: &OwnedFd, device: &Device, prepared: Option<OwnedFd>) -> Result<()> {
    let name = device.path.file_name().ok_or_else(|| Failure::new("it has no name"))?;
    let (kind, number) = (device.kind.flag(), device.number());
    // The umask is 0, so the node has its mode from the beginning.
    match mknodat(dir, name, kind, Mode::from_bits_truncate(device.mode), number) {
        Ok(()) if device.uid == 0 && device.gid == 0 => Ok(()),
        Ok(()) => {
            let (uid, gid) = (Uid::from_raw(device.uid), Gid::from_raw(device.gid));
            fchownat(dir, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(Failure::errno("chown"))
        }
        Err(Errno::EEXIST) => existing(dir, Path::new(name), kind, number),
        // A user namespace can't make device nodes, so one from outside of it is bound over a file.
        Err(Errno::EPERM) if device.kind != NodeKind::Fifo => {
            let node = prepared.map_or_else(|| of_the_host(device), Ok)?;
            let target = job.root()?.create_file(&device.path, Mode::from_bits_truncate(0o666));
            let target = target.map_err(Failure::errno("make a file for it"))?;
            move_mount(node.as_fd(), target.as_fd()).map_err(Failure::errno("bind it"))
        }
        Err(e) => Err(Failure::errno("mknod")(e)),
    }
}

/// The image may bring the node itself, but not another one in its place.
fn existing(dir: &OwnedFd, name: &Path, kind: SFlag, number: u64) -> Result<()> {
    let fd = open(dir.as_fd(), name, OFlag::O_PATH | OFlag::O_NOFOLLOW, Mode::empty(), Resolve::NO_SYMLINKS);
    let stat = fd.and_then(fstat).map_err(Failure::errno("look at what is there"))?;
    if stat.st_mode & SFlag::S_IFMT.bits() == kind.bits() && (kind == SFlag::S_IFIFO || stat.st_rdev == number) {
        Ok(())
    } else {
        Err(Failure::new("something else is there already"))
    }
}

/// The host's node of the same name, if it is the same device.
fn of_the_host(device: &Device) -> Result<OwnedFd> {
    let source = c_path(&device.path).and_then(|path| clone_tree(AT_FDCWD, &path, false));
    let source = source.map_err(Failure::errno("bind the host's"))?;
    let stat = fstat(&source).map_err(Failure::errno("look at the host's"))?;
    if stat.st_mode & SFlag::S_IFMT.bits() != device.kind.flag().bits() || stat.st_rdev != device.number() {
        return Err(Failure::new("the host's is another device, and a user namespace can't make one"));
    }
    Ok(source)
}

fn links(job: &Init<'_>) -> Result<()> {
    let dir = job.root()?.create_dir_all(Path::new("/dev"), Mode::from_bits_truncate(0o755));
    let dir = dir.map_err(Failure::errno("/dev"))?;
    for (target, name) in LINKS {
        match symlinkat(target, &dir, name) {
            Err(Errno::EEXIST) if name == "ptmx" => relink(&dir, target, name)?,
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Err(Failure::errno(format_args!("/dev/{name}"))(e)),
        }
    }
    Ok(())
}

/// A ptmx of the image's own would open terminals of some other devpts.
fn relink(dir: &OwnedFd, target: &str, name: &str) -> Result<()> {
    let error = || Failure::errno(format!("/dev/{name}"));
    nix::unistd::unlinkat(dir, name, nix::unistd::UnlinkatFlags::NoRemoveDir).map_err(error())?;
    symlinkat(target, dir, name).map_err(error())
}

/// Where stdin, stdout or stderr is the host's null device, it becomes the container's: no file of the host's stays open,
/// which could not be restored from a checkpoint either. After [`super::place_stdio`].
pub(super) fn own_null(token: &InChild, job: &Init<'_>) -> Result<()> {
    let standard = fd::standard().map(is_null);
    if standard == [false; 3] {
        return Ok(());
    }
    let (root, path) = (job.root()?, Path::new("/dev/null"));
    // An image may do without the device, or have something there whose opening would wait.
    if !root.find(path).is_ok_and(|found| is_null(found.as_fd())) {
        return Ok(());
    }
    let own = root.open(path, OFlag::O_RDWR).map_err(Failure::errno("/dev/null"))?;
    for (target, _) in (0..).zip(standard).filter(|(_, null)| *null) {
        fd::place(token, own.as_fd(), target).map_err(Failure::errno("place /dev/null"))?;
    }
    Ok(())
}

/// A copy of the mount with the container's /dev/null, verified to be that device (CVE-2025-31133): an image or a
/// process in a shared volume could have put anything there.
pub(super) fn null(job: &Init<'_>) -> Result<OwnedFd> {
    let found = job.root()?.find(Path::new("/dev/null")).map_err(Failure::errno("/dev/null"))?;
    let copy = clone_tree(found.as_fd(), EMPTY, false).map_err(Failure::errno("/dev/null"))?;
    if is_null(copy.as_fd()) { Ok(copy) } else { Err(Failure::new("the container's /dev/null is not the null device")) }
}

fn is_null(fd: BorrowedFd<'_>) -> bool {
    fstat(fd)
        .is_ok_and(|stat| stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits() && stat.st_rdev == makedev(1, 3))
}
