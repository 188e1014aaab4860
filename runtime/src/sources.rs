//! Mounts that the parent opens for a container's first process, and the mapping of their ids.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use dhow_sys::clone::Namespaces;
use dhow_sys::mountfd::{Change, Propagation, clone_tree, set_attr};
use dhow_sys::openat2::c_path;
use nix::fcntl::AT_FDCWD;
use nix::unistd::geteuid;

use crate::child::bind_source;
use crate::plan::{Mount, MountKind, Plan};
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
        let error = |e: dhow_sys::Errno| {
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
    let error =
        |e: dhow_sys::Errno| Error::config("root.path", format!("{}: {}", path.display(), crate::error::errno_text(e)));
    let mount = c_path(path).and_then(|name| clone_tree(AT_FDCWD, &name, recursive)).map_err(error)?;
    let change = Change { propagation: Some(below(plan)), recursive: true, ..Change::default() };
    set_attr(mount.as_fd(), &change).map_err(error)?;
    Ok(mount)
}
