//! sysctl, masked paths and read-only paths.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use dhow_sys::Errno;
use dhow_sys::mountfd::{Change, Context, attr, clone_tree, move_mount, set_attr};
use dhow_sys::openat2::{EMPTY, is_dir};
use nix::sys::stat::fstat;

use super::init::Init;
use super::procfs::Proc;
use super::{Failure, Result, devices, root};

/// Writes the kernel parameters. Before /proc/sys may become read-only, after every namespace is there.
pub(super) fn sysctl(job: &Init<'_>) -> Result<()> {
    if job.plan.sysctl.is_empty() {
        return Ok(());
    }
    let proc = Proc::open()?;
    for sysctl in &job.plan.sysctl {
        let written = proc.write(&Path::new("sys").join(&sysctl.path), sysctl.value.as_bytes());
        written.map_err(Failure::errno(format_args!("linux.sysctl: {}", sysctl.path.display())))?;
    }
    Ok(())
}

/// Read-only mounts and paths, masked paths, the root's own attributes. The last work on the tree.
pub(super) fn protect(job: &Init<'_>) -> Result<()> {
    for mount in &job.readonly_later {
        let change = Change { set: attr::RDONLY, ..Change::default() };
        set_attr(mount.as_fd(), &change).map_err(Failure::errno("make a tmpfs read-only"))?;
    }
    for path in &job.plan.readonly_paths {
        readonly(job, path).map_err(Failure::errno(format_args!("linux.readonlyPaths: {}", path.display())))?;
    }
    let mut masks = Masks::default();
    for path in &job.plan.masked_paths {
        let text = |f: Failure| Failure::new(format!("linux.maskedPaths: {}: {}", path.display(), f.text));
        masks.cover(job, path).map_err(text)?;
    }
    root::finish(job)
}

fn readonly(job: &Init<'_>, path: &Path) -> dhow_sys::Result<()> {
    let Some(root) = job.root.as_ref() else { return Err(Errno::ENOENT) };
    let target = match root.find(path) {
        Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
        other => other?,
    };
    let copy = root::copy(target.as_fd(), true)?;
    set_attr(copy.as_fd(), &Change { set: attr::RDONLY, recursive: true, ..Change::default() })?;
    move_mount(copy.as_fd(), target.as_fd())
}

/// What masked paths are covered with: the null device for files, one empty read-only directory for all directories.
#[derive(Default)]
struct Masks {
    null: Option<OwnedFd>,
    empty: Option<OwnedFd>,
}

impl Masks {
    fn cover(&mut self, job: &Init<'_>, path: &Path) -> Result<()> {
        let target = match job.root()?.find(path) {
            // Nothing there, nothing to hide.
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
            other => other.map_err(Failure::errno("find it"))?,
        };
        let stat = fstat(&target).map_err(Failure::errno("look at it"))?;
        let cover = if is_dir(&stat) { self.empty(job.plan.mount_label.as_deref())? } else { self.null(job)? };
        move_mount(cover.as_fd(), target.as_fd()).map_err(Failure::errno("cover it"))
    }

    fn null(&mut self, job: &Init<'_>) -> Result<OwnedFd> {
        let first = match self.null.take() {
            None => devices::null(job)?,
            // From the second on, from the one that is attached already and known to be right.
            Some(attached) => clone_tree(attached.as_fd(), EMPTY, false).map_err(Failure::errno("/dev/null"))?,
        };
        keep(&mut self.null, first)
    }

    fn empty(&mut self, label: Option<&str>) -> Result<OwnedFd> {
        let made = match self.empty.take() {
            Some(attached) => clone_tree(attached.as_fd(), EMPTY, false).map_err(Failure::errno("copy a mount"))?,
            None => empty_directory(label)?,
        };
        keep(&mut self.empty, made)
    }
}

/// A new file system with nothing in it and no room for anything; `label`: SELinux's.
pub(super) fn empty_directory(label: Option<&str>) -> Result<OwnedFd> {
    let error = || Failure::errno("make an empty directory");
    let context = Context::open(c"tmpfs").map_err(error())?;
    let options = [(c"source", c"tmpfs"), (c"mode", c"755"), (c"nr_blocks", c"1"), (c"nr_inodes", c"1")];
    for (key, value) in options {
        context.set_string(key, value).map_err(error())?;
    }
    if let Some(label) = label {
        let label = CString::new(label).map_err(|_nul| Failure::new("linux.mountLabel has a NUL in it"))?;
        context.set_string(c"context", &label).map_err(error())?;
    }
    context.set_flag(c"ro").map_err(error())?;
    context.create().map_err(error())?;
    context.mount(attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC).map_err(error())
}

/// Leaves a handle behind, for the next copy, which has to be made from an attached mount (before Linux 6.15).
fn keep(slot: &mut Option<OwnedFd>, mount: OwnedFd) -> Result<OwnedFd> {
    *slot = Some(mount.try_clone().or(Err(Errno::EMFILE)).map_err(Failure::errno("keep a handle"))?);
    Ok(mount)
}
