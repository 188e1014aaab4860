//! Mounts that the parent opens for a container's first process, the mapping of their ids, and the device nodes that it makes
//! for one in a user namespace.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use dhow_sys::Errno;
use dhow_sys::clone::Namespaces;
use dhow_sys::mountfd::{Change, Context, Propagation, attr, clone_tree, set_attr};
use dhow_sys::openat2::c_path;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat, mknodat};
use nix::unistd::{Gid, Uid, fchownat, geteuid};

use crate::child::bind_source;
use crate::config::IdMapping;
use crate::plan::{Device, Mount, MountKind, Plan};
use crate::request::RootfsSource;
use crate::{Error, Result, idmap};

/// What only this process can open for a child in a user namespace of its own: it may not be able to reach the paths,
/// and mapping a mount's ids is a privilege over the file system. `user` is the user namespace that the container joins.
pub(crate) fn prepared(
    rootfs: &RootfsSource,
    plan: &Plan,
    user: Option<BorrowedFd<'_>>,
) -> Result<(Option<OwnedFd>, Vec<Option<OwnedFd>>)> {
    let foreign = plan.namespaces.has(Namespaces::USER) && geteuid().is_root();
    let root = match rootfs {
        RootfsSource::Config if foreign => Some(cut_off(&plan.rootfs.path, true, plan)?),
        _ => None,
    };
    if !foreign && plan.mounts.iter().all(|m| m.idmap.is_none()) {
        return Ok((root, Vec::new()));
    }
    let one = |mount: &Mount| {
        if mount.kind != MountKind::Bind || mount.within.is_some() || !(foreign || mount.idmap.is_some()) {
            return Ok(None);
        }
        let error = |e: Errno| {
            Error::config(
                format!("{}.source", mount.field),
                format!("{}: {}", mount.source, crate::error::errno_text(e)),
            )
        };
        let made = bind_source(mount).map_err(error)?;
        let change = Change { propagation: Some(below(plan)), recursive: true, ..Change::default() };
        set_attr(made.as_fd(), &change).map_err(error)?;
        map_ids(mount, plan, &made, user)?;
        Ok(Some(made))
    };
    let sources = plan.mounts.iter().map(one).collect::<Result<_>>()?;
    Ok((root, sources))
}

/// Makes a detached mount an id-mapped one, if it is to be. `user` is the container's user namespace if there is one already: then
/// its mappings are what the kernel has, whatever the configuration repeats of them.
pub(crate) fn map_ids(mount: &Mount, plan: &Plan, made: &OwnedFd, user: Option<BorrowedFd<'_>>) -> Result<()> {
    let Some(map) = &mount.idmap else { return Ok(()) };
    let own;
    let namespace = match user {
        Some(user) if map.uid.is_empty() => user,
        _ => {
            let container = (&plan.namespaces.uid_mappings, &plan.namespaces.gid_mappings);
            let (uid, gid) = if map.uid.is_empty() { container } else { (&map.uid, &map.gid) };
            own = idmap::namespace(uid, gid)?;
            own.as_fd()
        }
    };
    let change = Change { idmap: Some(namespace), recursive: map.recursive, ..Change::default() };
    let field = format!("{}.uidMappings", mount.field);
    set_attr(made.as_fd(), &change).map_err(|e| Error::config(field, crate::error::errno_text(e)))
}

/// A mount copied here is in the host's peer group; what the container's namespace would do to it as a whole has to be
/// done at once.
fn below(plan: &Plan) -> Propagation {
    plan.rootfs.propagation.0
}

fn cut_off(path: &Path, recursive: bool, plan: &Plan) -> Result<OwnedFd> {
    let error = |e: Errno| Error::config("root.path", format!("{}: {}", path.display(), crate::error::errno_text(e)));
    let mount = c_path(path).and_then(|name| clone_tree(AT_FDCWD, &name, recursive)).map_err(error)?;
    let change = Change { propagation: Some(below(plan)), recursive: true, ..Change::default() };
    set_attr(mount.as_fd(), &change).map_err(error)?;
    Ok(mount)
}

/// The nodes of `linux.devices` for a child in a user namespace, in which none can be made. None where this process can't
/// make them either, or does not know the container's ids: then the child takes the host's nodes.
pub(crate) fn device_nodes(plan: &Plan) -> Result<Option<OwnedFd>> {
    let namespaces = &plan.namespaces;
    let known = !namespaces.uid_mappings.is_empty() && !namespaces.gid_mappings.is_empty();
    let apart = namespaces.has(Namespaces::USER) && namespaces.has(Namespaces::MOUNT);
    if !(apart && known && geteuid().is_root() && plan.devices.iter().any(Device::is_prepared)) {
        return Ok(None);
    }
    match nodes(plan) {
        Ok(made) => Ok(Some(made)),
        Err(Errno::EPERM) => Ok(None),
        Err(e) => Err(Error::config("linux.devices", format!("make their nodes: {}", crate::error::errno_text(e)))),
    }
}

fn nodes(plan: &Plan) -> dhow_sys::Result<OwnedFd> {
    let context = Context::open(c"tmpfs")?;
    context.set_string(c"source", c"tmpfs")?;
    // The child, to which this is somebody else's, has to find the nodes.
    context.set_string(c"mode", c"755")?;
    context.create()?;
    let made = context.mount(attr::NOSUID | attr::NOEXEC)?;
    for (index, device) in plan.devices.iter().enumerate().filter(|(_, device)| device.is_prepared()) {
        let (name, mode) = (index.to_string(), Mode::from_bits_truncate(device.mode));
        mknodat(&made, name.as_str(), device.kind.flag(), mode, device.number())?;
        let uid = on_host(&plan.namespaces.uid_mappings, device.uid).map(Uid::from_raw);
        let gid = on_host(&plan.namespaces.gid_mappings, device.gid).map(Gid::from_raw);
        fchownat(&made, name.as_str(), uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        // The umask is not ours to change.
        fchmodat(&made, name.as_str(), mode, FchmodatFlags::FollowSymlink)?;
    }
    Ok(made)
}

/// An id of the container's as the host has it. What is not mapped stays the host's root's, as the host's own nodes are.
fn on_host(map: &[IdMapping], id: u32) -> Option<u32> {
    let range = map.iter().find(|m| id.checked_sub(m.container_id).is_some_and(|offset| offset < m.size))?;
    range.host_id.checked_add(id - range.container_id)
}
