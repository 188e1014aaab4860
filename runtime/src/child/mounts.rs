//! `mounts`: each is built detached and then moved to its place, which is found inside the root.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use dhow_sys::mountfd::{Context, clone_tree, is_mount_root, move_mount, set_attr};
use dhow_sys::openat2::{EMPTY, Resolve, Root, c_path, is_dir, open};
use dhow_sys::{Errno, mountfd};
use nix::fcntl::{AT_FDCWD, OFlag};
use nix::sys::stat::{Mode, fstat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::init::Init;
use super::{Result, cgroupfs, copy_up, labels};
use crate::handshake::{Failure, Message};
use crate::plan::{Mount, MountKind, Plan};

const DIRECTORY: Mode = Mode::from_bits_truncate(0o755);

/// All of them, in their order. After the root is attached; before it is entered, as bind mounts come from the host.
pub(super) fn all(job: &mut Init<'_>) -> Result<()> {
    let plan: &Plan = job.plan;
    for (i, mount) in plan.mounts.iter().enumerate() {
        if mount.kind == MountKind::Cgroup {
            // What is mounted depends on the namespace, whose root is the cgroup this process is in by now.
            job.cgroup_namespace()?;
        }
        let made = match job.sources.get_mut(i).and_then(Option::take) {
            None => within_root(job, i, mount),
            opened => Ok(opened),
        }
        .and_then(|source| one(job, mount, source));
        let made =
            made.map_err(|f| Failure::new(format!("{} ({}): {}", mount.field, mount.destination.display(), f.text)))?;
        job.readonly_later.extend(made);
    }
    // Engines expect a missing working directory to be made. Whether it is usable shows when it is entered.
    job.root()?.create_dir_all(&plan.process.cwd, DIRECTORY).ok();
    Ok(())
}

/// Returns the mount if it has to become read-only when everything in it is made.
fn one(job: &Init<'_>, mount: &Mount, source: Option<OwnedFd>) -> Result<Option<OwnedFd>> {
    let root = job.root()?;
    match &mount.kind {
        MountKind::Tmpfs => return tmpfs(root, mount),
        MountKind::Bind => bind(root, mount, source),
        MountKind::Remount => remount(root, mount),
        MountKind::Cgroup => {
            let target = directory(root, mount)?;
            cgroupfs::mount(mount, &target, job)
        }
        MountKind::Pseudo(kind) => {
            let target = ordinary_directory(root, kind, &mount.destination)?;
            let made = make(kind, mount)?;
            place(mount, &made, &target)
        }
        MountKind::Other(kind) => {
            let target = directory(root, mount)?;
            let made = match job.plan.mount_label.as_deref().filter(|_| kind == "mqueue") {
                Some(label) => labels::mqueue(mount, label)?,
                None => make(kind, mount)?,
            };
            place(mount, &made, &target)
        }
    }
    .map(|()| None)
}

/// A copy of a part of the host's tree.
fn bind(root: &Root, mount: &Mount, source: Option<OwnedFd>) -> Result<()> {
    let made = match source {
        Some(fd) => fd,
        None => bind_source(mount).map_err(Failure::errno(&mount.source))?,
    };
    let stat = fstat(&made).map_err(Failure::errno(&mount.source))?;
    let target = if is_dir(&stat) {
        root.create_dir_all(&mount.destination, DIRECTORY)
    } else {
        root.create_file(&mount.destination, Mode::from_bits_truncate(0o644))
    };
    let target = target.map_err(Failure::errno("make the mount point"))?;
    not_inside_proc(&mount.destination, &target, Some(&made))?;
    mount.options.change_attributes(&made).map_err(Failure::errno("set its attributes"))?;
    place(mount, &made, &target)
}

/// The source of a bind mount that lies in the root, with what is mounted there by now. Mapping its ids is the parent's
/// privilege if this process is in a user namespace.
fn within_root(job: &mut Init<'_>, index: usize, mount: &Mount) -> Result<Option<OwnedFd>> {
    let Some(path) = &mount.within else { return Ok(None) };
    let found = job.root()?.find(path).map_err(Failure::errno(&mount.source))?;
    let recursive = mount.options.bind.unwrap_or(false);
    let made = clone_tree(found.as_fd(), EMPTY, recursive).map_err(Failure::errno(&mount.source))?;
    if mount.idmap.is_some() {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        let channel = &job.common.channel;
        channel.send_with(&Message::MapMount { index }, made.as_fd()).map_err(Failure::errno("hand the mount over"))?;
        job.common.expect(&Message::MountMapped)?;
    }
    Ok(Some(made))
}

/// Opens a bind mount's source as a detached mount: in the child, or in the parent where the child could not.
pub(crate) fn bind_source(mount: &Mount) -> dhow_sys::Result<OwnedFd> {
    clone_tree(AT_FDCWD, &c_path(Path::new(&mount.source))?, mount.options.bind.unwrap_or(false))
}

/// A new file system of the type, detached.
pub(super) fn make(kind: &str, mount: &Mount) -> Result<OwnedFd> {
    let c = |text: &str| CString::new(text).map_err(|_nul| Failure::new(format!("{text:?} has a NUL in it")));
    let context = Context::open(&c(kind)?).map_err(Failure::errno(kind))?;
    if !mount.source.is_empty() {
        context.set_string(c"source", &c(&mount.source)?).map_err(Failure::errno("source"))?;
    }
    mount.options.configure(&context).map_err(|(option, errno)| said(&context, &format!("option {option}"), errno))?;
    finish(&context, mount)
}

/// Creates what a context describes.
pub(super) fn finish(context: &Context, mount: &Mount) -> Result<OwnedFd> {
    context.create().map_err(|e| said(context, "mount it", e))?;
    let made = context.mount(mount.options.new_mount()).map_err(|e| said(context, "mount it", e))?;
    mount.options.change_recursive(&made).map_err(Failure::errno("set its attributes"))?;
    Ok(made)
}

/// The errno, and what the file system itself had to say.
fn said(context: &Context, what: &str, errno: Errno) -> Failure {
    let log = context.log();
    let what = if log.is_empty() { what.to_owned() } else { format!("{what} ({log})") };
    Failure::errno(what)(errno)
}

/// Moves a finished mount to its place.
pub(super) fn place(mount: &Mount, made: &OwnedFd, target: &OwnedFd) -> Result<()> {
    move_mount(made.as_fd(), target.as_fd()).map_err(Failure::errno("move it to its place"))?;
    // In its place, because a detached mount that is made shared would not belong to the group it came from.
    mount.options.change_propagation(made).map_err(Failure::errno("set its propagation"))
}

fn directory(root: &Root, mount: &Mount) -> Result<OwnedFd> {
    let target = root.create_dir_all(&mount.destination, DIRECTORY).map_err(Failure::errno("make the mount point"))?;
    not_inside_proc(&mount.destination, &target, None)?;
    Ok(target)
}

/// Where proc and sysfs go no symlink is followed: an image that has one there wants to see them somewhere else, with
/// the masks that are meant for them at the old place.
fn ordinary_directory(root: &Root, kind: &str, path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY;
    let resolve = Resolve::IN_ROOT.and(Resolve::NO_SYMLINKS);
    match open(root.dir(), path, flags, Mode::empty(), resolve) {
        Ok(fd) => Ok(fd),
        Err(Errno::ENOENT) => root.create_dir_all(path, DIRECTORY).map_err(Failure::errno("make the mount point")),
        Err(Errno::ELOOP | Errno::ENOTDIR) => {
            Err(Failure::new(format!("filesystem {kind:?} must be mounted on ordinary directory")))
        }
        Err(e) => Err(Failure::errno("find the mount point")(e)),
    }
}

/// Files that may be covered in /proc: what virtual machines and lxcfs give containers a view of their own of.
const PROC_FILES: [&str; 9] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/net/dev",
];

/// Nothing else is mounted inside proc: what this runtime and the container write there would go elsewhere
/// (CVE-2019-16884, CVE-2019-19921). Judged by where the target really is, not by its name.
fn not_inside_proc(path: &Path, target: &OwnedFd, made: Option<&OwnedFd>) -> Result<()> {
    let is_proc = |fd: &OwnedFd| fstatfs(fd).map(|s| s.filesystem_type() == PROC_SUPER_MAGIC);
    let inside = is_proc(target).map_err(Failure::errno("look at the mount point"))?;
    let at_top = inside && is_mount_root(target.as_fd()).map_err(Failure::errno("look at the mount point"))?;
    if path == Path::new("/proc") || at_top {
        return match made {
            Some(made) if is_proc(made).map_err(Failure::errno("look at the source"))? => Ok(()),
            _ => Err(Failure::new("only proc can be mounted at /proc")),
        };
    }
    if inside && !PROC_FILES.iter().any(|file| path == Path::new(file)) {
        return Err(Failure::new("it can't be mounted because it is inside /proc"));
    }
    Ok(())
}

/// A tmpfs takes the mode of the directory of the image that it covers, and with `tmpcopyup` its content. Read-only it is only made
/// when what else is mounted in it, and its devices, have their places.
fn tmpfs(root: &Root, mount: &Mount) -> Result<Option<OwnedFd>> {
    let given = mount.options.data.iter().any(|(key, _)| key == "mode");
    let covers = !given && root.find(&mount.destination).is_ok();
    let target = directory(root, mount)?;
    let mut described = mount.clone();
    let options = &mut described.options;
    let readonly = options.make_writable();
    if covers {
        let stat = fstat(&target).map_err(Failure::errno("look at the mount point"))?;
        options.data.push(("mode".into(), Some(format!("{:o}", stat.st_mode & 0o7777))));
    }
    let made = make("tmpfs", &described)?;
    if mount.options.copy_up {
        copy_up::tree(target.as_fd(), made.as_fd()).map_err(Failure::errno("tmpcopyup"))?;
    }
    place(mount, &made, &target)?;
    Ok(readonly.then_some(made))
}

/// Changes what is mounted there.
fn remount(root: &Root, mount: &Mount) -> Result<()> {
    let target = root.find(&mount.destination).map_err(Failure::errno("find the mount"))?;
    mount.options.change_attributes(&target).map_err(Failure::errno("set its attributes"))?;
    for &(propagation, recursive) in &mount.options.propagation {
        let change = mountfd::Change { propagation: Some(propagation), recursive, ..mountfd::Change::default() };
        set_attr(target.as_fd(), &change).map_err(Failure::errno("set its propagation"))?;
    }
    Ok(())
}
