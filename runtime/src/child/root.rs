//! The root file system: mounted, and entered.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use dhow_sys::Errno;
use dhow_sys::clone::Namespaces;
use dhow_sys::mountfd::{Change, Propagation, attr, clone_tree, is_mount_root, mount_id, move_mount, set_attr};
use dhow_sys::openat2::{EMPTY, Root, c_path};
use nix::fcntl::{AT_FDCWD, OFlag, open};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::Mode;

use super::init::Init;
use super::{Result, paths};
use crate::handshake::Failure;
use crate::mountinfo::{self, Mount};

/// Cuts the mount namespace off the host's as far as the plan says, and mounts the root in it. Before every other mount.
///
/// The root is attached by descriptor on top of this namespace's `/`: its path on the host need not be reachable for the
/// user of a user namespace, nobody can swap a component of it, and its own directory stays as it is. Only for hooks, which
/// look for it there, it is attached at its path.
pub(super) fn attach(job: &mut Init<'_>) -> Result<()> {
    if !job.plan.namespaces.has(Namespaces::MOUNT) {
        return attach_on_host(job);
    }
    let (propagation, recursive) = job.plan.rootfs.propagation;
    let top = handle(Path::new("/"))?;
    if propagation == Propagation::Unbindable && job.root_mount.is_none() {
        // Afterwards nothing could be copied any more.
        let root = clone(job)?;
        let change = Change { propagation: Some(Propagation::Private), recursive: true, ..Change::default() };
        set_attr(root.as_fd(), &change).map_err(Failure::errno("make the root private"))?;
        job.root_mount = Some(root);
    }
    let change = Change { propagation: Some(propagation), recursive, ..Change::default() };
    set_attr(top.as_fd(), &change).map_err(Failure::errno("linux.rootfsPropagation"))?;
    let root = match job.root_mount.take() {
        Some(mount) => mount,
        None => clone(job)?,
    };
    if propagation == Propagation::Shared {
        // pivot_root refuses a shared root; it becomes shared again when all is done.
        let change = Change { propagation: Some(Propagation::Private), ..Change::default() };
        set_attr(root.as_fd(), &change).map_err(Failure::errno("make the root private"))?;
    }
    // A shared parent would show the root to the host, and pivot_root refuses it.
    let wanted = wanted_by_hooks(job).then(|| at_its_path(job));
    let place = match (wanted, propagation) {
        (Some(Ok(place)), _) => place,
        (Some(Err(failure)), _) if !job.common.user_namespace => return Err(failure),
        // The root of a user namespace may not get to the path, where hooks would not find it for that reason either.
        // /proc is a mount of its own that no volume is taken from, so making it private loses nothing.
        (_, Propagation::Shared) if !job.no_pivot => private(Path::new("/proc"))?,
        (_, Propagation::Shared) => private(Path::new("/"))?,
        _ if !recursive => private(Path::new("/"))?,
        _ => top,
    };
    move_mount(root.as_fd(), place.as_fd()).map_err(Failure::errno("attach the root"))?;
    job.root = Some(Root::new(root));
    Ok(())
}

/// Without a mount namespace the root is mounted on the host, at its path, and stays there: as with runc it is whoever asked
/// for this who unmounts it. Private, or what is mounted in it would show in the directory that it was copied from.
fn attach_on_host(job: &mut Init<'_>) -> Result<()> {
    let root = job.root_mount.take().map_or_else(|| clone(job), Ok)?;
    let change = Change { propagation: Some(Propagation::Private), recursive: true, ..Change::default() };
    set_attr(root.as_fd(), &change).map_err(Failure::errno("make the root private"))?;
    let place = handle(&job.plan.rootfs.path)?;
    move_mount(root.as_fd(), place.as_fd()).map_err(Failure::errno("attach the root"))?;
    job.root = Some(Root::new(root));
    Ok(())
}

/// Takes a root off the host again, whose container did not come to be.
pub(super) fn give_up(job: &Init<'_>) {
    if let (false, Some(root)) = (job.plan.namespaces.has(Namespaces::MOUNT), &job.root) {
        // This process has failed already, and ends with what it failed at.
        if nix::unistd::fchdir(root.dir()).is_ok() {
            umount2(".", MntFlags::MNT_DETACH).ok();
        }
    }
}

/// Whether programs of the engine's are to see the root before it is entered: by its path on the host.
fn wanted_by_hooks(job: &Init<'_>) -> bool {
    let hooks = &job.plan.hooks;
    [&hooks.prestart, &hooks.create_runtime, &hooks.create_container].into_iter().any(|list| !list.is_empty())
}

/// The directory that config.json names, on a mount that is not shared.
fn at_its_path(job: &Init<'_>) -> Result<OwnedFd> {
    let path = &job.plan.rootfs.path;
    let place = handle(path)?;
    let error = || Failure::errno(path.display());
    let id = mount_id(place.as_fd()).map_err(error())?;
    let mounts = mount_table()?;
    let under = mounts.iter().find(|m| m.id == id).ok_or_else(|| Failure::new("the root lies on no known mount"))?;
    if under.shared {
        private(&under.path)?;
    }
    Ok(place)
}

fn mount_table() -> Result<Vec<Mount>> {
    mountinfo::own().map_err(|e| Failure::new(format!("read the mount table: {e}")))
}

fn clone(job: &Init<'_>) -> Result<OwnedFd> {
    let path = &job.plan.rootfs.path;
    let what = || format!("root.path {}", path.display());
    let name = c_path(path).map_err(Failure::errno(what()))?;
    clone_tree(AT_FDCWD, &name, true).map_err(Failure::errno(what()))
}

fn handle(path: &Path) -> Result<OwnedFd> {
    open(path, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
        .map_err(Failure::errno(path.display()))
}

fn private(path: &Path) -> Result<OwnedFd> {
    let place = handle(path)?;
    if !is_mount_root(place.as_fd()).map_err(Failure::errno(path.display()))? {
        return Err(Failure::new(format!("{} is no mount point, so nothing can be attached there", path.display())));
    }
    let change = Change { propagation: Some(Propagation::Private), ..Change::default() };
    set_attr(place.as_fd(), &change).map_err(Failure::errno("make the root's parent private"))?;
    Ok(place)
}

/// Makes the root this process's root, and the host's tree unreachable. After all mounts, whose sources are the host's.
pub(super) fn enter(job: &mut Init<'_>) -> Result<()> {
    let root = job.root()?;
    if !job.plan.namespaces.has(Namespaces::MOUNT) {
        return change(root.dir());
    }
    nix::unistd::fchdir(root.dir()).map_err(Failure::errno("enter the root"))?;
    if job.no_pivot {
        hide_pseudo(root.dir())?;
        return move_over(root.dir());
    }
    let old = handle(Path::new("/"))?;
    nix::unistd::pivot_root(".", ".").map_err(Failure::errno("pivot_root"))?;
    // Now the old root lies on top of the new one. What is unmounted below must not be unmounted on the host.
    nix::unistd::fchdir(&old).map_err(Failure::errno("enter the old root"))?;
    let slave = Change { propagation: Some(Propagation::Slave), recursive: true, ..Change::default() };
    set_attr(old.as_fd(), &slave).map_err(Failure::errno("cut the old root off"))?;
    umount2(".", MntFlags::MNT_DETACH).map_err(Failure::errno("unmount the old root"))?;
    nix::unistd::chdir("/").map_err(Failure::errno("enter the new root"))
}

/// Makes the directory this process's root, and nothing else.
pub(super) fn change(root: BorrowedFd<'_>) -> Result<()> {
    nix::unistd::fchdir(root).map_err(Failure::errno("enter the root"))?;
    nix::unistd::chroot(".").map_err(Failure::errno("chroot"))?;
    nix::unistd::chdir("/").map_err(Failure::errno("enter the new root"))
}

/// Takes the host's proc and sysfs away, whose tree stays mounted when the root is not pivoted to: a user namespace made in
/// the container may mount proc anew as long as one is mounted anywhere that has nothing covered.
fn hide_pseudo(root: BorrowedFd<'_>) -> Result<()> {
    let error = || Failure::errno("hide the host's /proc and /sys");
    let mounts = mount_table()?;
    let own = mountinfo::below(&mounts, mount_id(root).map_err(error())?);
    let full = |m: &&Mount| ["proc", "sysfs"].contains(&&*m.kind) && m.root == Path::new("/");
    let mut hidden: Vec<&Mount> = mounts.iter().filter(full).filter(|m| !own.contains(&m.id)).collect();
    // One that lies inside another first.
    hidden.sort_by_key(|m| std::cmp::Reverse(m.path.as_os_str().len()));
    for mount in hidden {
        match umount2(&mount.path, MntFlags::MNT_DETACH) {
            // Locked, in a user namespace: then it is covered.
            Err(Errno::EINVAL | Errno::EPERM) => {
                let cover = paths::empty_directory(None)?;
                let place = handle(&mount.path)?;
                move_mount(cover.as_fd(), place.as_fd()).map_err(error())?;
            }
            other => other.map_err(error())?,
        }
    }
    Ok(())
}

/// For a root that can't be pivoted away from (initramfs). The host's tree stays mounted below.
fn move_over(root: BorrowedFd<'_>) -> Result<()> {
    // Were it shared, the host would see the root there.
    let top = private(Path::new("/"))?;
    // Attached on top of `/` it may be there already.
    move_mount(root, top.as_fd()).ok();
    nix::unistd::chroot(".").map_err(Failure::errno("chroot"))?;
    nix::unistd::chdir("/").map_err(Failure::errno("enter the new root"))
}

/// The last two attributes of the root: after everything in it has been made.
pub(super) fn finish(job: &Init<'_>) -> Result<()> {
    let rootfs = &job.plan.rootfs;
    let root = job.root()?.dir();
    if rootfs.readonly {
        let change = Change { set: attr::RDONLY, ..Change::default() };
        set_attr(root, &change).map_err(Failure::errno("root.readonly"))?;
    }
    if rootfs.propagation_given {
        let (propagation, recursive) = rootfs.propagation;
        let change = Change { propagation: Some(propagation), recursive, ..Change::default() };
        set_attr(root, &change).map_err(Failure::errno("linux.rootfsPropagation"))?;
    }
    Ok(())
}

/// A copy of the mount that `fd` lies on, from `fd` on.
pub(super) fn copy(fd: BorrowedFd<'_>, recursive: bool) -> dhow_sys::Result<OwnedFd> {
    clone_tree(fd, EMPTY, recursive)
}
