//! What of a container lies outside of it, by the names that both directions use.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use dhow_sys::clone::Namespaces;
use dhow_sys::mountfd::{is_mount_root, mount_id};
use dhow_sys::openat2::{Root, describe, is_dir};
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fstat};

use super::message::{option, pair};
use super::wire::Writer;
use crate::mountinfo::{self, Mount};
use crate::plan::{MountKind, Plan};
use crate::request::Stdio;
use crate::{Error, Result};

/// What 0, 1 and 2 are, as `/proc/PID/fd` shows them. To be asked before a process is given them: afterwards they are its own.
pub(crate) fn descriptors(stdio: &Stdio) -> Vec<String> {
    let name = |fd: std::os::fd::BorrowedFd<'_>| describe(fd).to_string_lossy().into_owned();
    match stdio {
        Stdio::Inherit => dhow_sys::fd::standard().map(name).into(),
        Stdio::Fds { stdin, stdout, stderr } => {
            [stdin, stdout, stderr].into_iter().map(|fd| name(fd.as_fd())).collect()
        }
        // The first terminal of the container's own devpts.
        Stdio::Terminal | Stdio::RelayedTerminal => vec!["/dev/pts/0".to_owned(); 3],
    }
}

/// Tells criu of fifos of the host's that the container has as 0, 1 or 2. `names` are what they were when it was made; the
/// answer has in their places by what name they are in the image.
pub(super) fn name_fifos(pid: i32, names: &[String], options: &mut Writer) -> Vec<String> {
    let named = names.iter().zip(0..).map(|(name, number)| {
        let key = Some(name).filter(|name| name.starts_with('/')).and_then(|name| fifo(pid, number, name));
        key.inspect(|key| options.text(option::EXTERNAL, key)).unwrap_or_else(|| name.clone())
    });
    named.collect()
}

/// criu's name of a descriptor, if it still is the fifo of this path.
fn fifo(pid: i32, number: i32, path: &str) -> Option<String> {
    let link = format!("/proc/{pid}/fd/{number}");
    let (now, then) = (std::fs::metadata(link).ok()?, std::fs::metadata(path).ok()?);
    if !now.file_type().is_fifo() || (now.dev(), now.ino()) != (then.dev(), then.ino()) {
        return None;
    }
    let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{number}")).ok()?;
    let mount: u32 = info.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()?;
    Some(format!("file[{mount:x}:{:x}]", now.ino()))
}

/// A container as it runs: its tree and its mounts.
pub(super) struct Inside {
    root: Root,
    mounts: Vec<Mount>,
}

impl Inside {
    /// Looks at a container by its first process.
    pub(super) fn of(pid: i32) -> Result<Self> {
        let path = PathBuf::from(format!("/proc/{pid}/root"));
        let root = Root::open_path(&path).map_err(|e| Error::file("open", &path)(e.into()))?;
        let path = PathBuf::from(format!("/proc/{pid}/mountinfo"));
        let table = std::fs::read(&path).map_err(Error::file("read", &path))?;
        Ok(Self { root, mounts: mountinfo::parse(&table) })
    }

    /// Tells criu of the mounts that it is not to save.
    pub(super) fn name_mounts(&self, plan: &Plan, cgroups: &str, options: &mut Writer) {
        let binds = plan.mounts.iter().filter(|mount| mount.kind == MountKind::Bind).map(|mount| &mount.destination);
        for path in binds.chain(plan.devices.iter().map(|device| &device.path)) {
            if let Some(place) = self.mount_at(path) {
                pair(options, option::EXT_MNT, &place, &place);
            }
        }
        for path in &plan.masked_paths {
            if let Some(place) = self.mount_at(path).filter(|_| !self.is_directory(path)) {
                pair(options, option::EXT_MNT, &place, NULL);
            }
        }
        for hierarchy in hierarchies(plan, cgroups) {
            pair(options, option::EXT_MNT, &hierarchy.place, &hierarchy.place);
        }
    }

    /// Where the mount really is that has this path; `None` when nothing is mounted there.
    fn mount_at(&self, path: &Path) -> Option<String> {
        let found = self.root.find(path).ok()?;
        if !is_mount_root(found.as_fd()).ok()? {
            return None;
        }
        let id = mount_id(found.as_fd()).ok()?;
        let mount = self.mounts.iter().find(|mount| mount.id == id)?;
        Some(mount.path.to_string_lossy().into_owned())
    }

    fn is_directory(&self, path: &Path) -> bool {
        self.root.find(path).and_then(|found| Ok(is_dir(&fstat(&found)?))).unwrap_or(false)
    }
}

/// Gives criu what the mounts' names stand for. `root` is the container's root as it lies on the host, `cgroups` the content of
/// /proc/PID/cgroup of criu, `paths` the container's cgroup.
pub(super) fn hand_in_mounts(
    plan: &Plan,
    root: &Root,
    cgroups: &str,
    paths: &BTreeMap<String, PathBuf>,
    options: &mut Writer,
) {
    for mount in plan.mounts.iter().filter(|mount| mount.kind == MountKind::Bind) {
        pair(options, option::EXT_MNT, &resolved(root, &mount.destination), &mount.source);
    }
    for device in &plan.devices {
        let path = device.path.to_string_lossy();
        pair(options, option::EXT_MNT, &path, &path);
    }
    if !plan.masked_paths.is_empty() {
        pair(options, option::EXT_MNT, NULL, NULL);
    }
    for hierarchy in hierarchies(plan, cgroups) {
        if let Some(path) = paths.get(&hierarchy.controller) {
            pair(options, option::EXT_MNT, &hierarchy.place, &path.to_string_lossy());
        }
    }
}

/// Where a path leads in a root, as far as it can be told from outside.
fn resolved(root: &Root, path: &Path) -> String {
    let top = describe(root.dir());
    let found = root.find(path).map(|found| describe(found.as_fd()));
    let inside = found.ok().and_then(|found| Some(Path::new("/").join(found.strip_prefix(&top).ok()?)));
    inside.as_deref().unwrap_or(path).to_string_lossy().into_owned()
}

/// Makes the places that mounts need, as they are made when a container is created. Those on a tmpfs are saved with it.
pub(super) fn make_places(plan: &Plan, root: &Root) -> Result<()> {
    let mode = Mode::from_bits_truncate(0o755);
    for (i, mount) in plan.mounts.iter().enumerate() {
        let above = plan.mounts[..i]
            .iter()
            .rev()
            .find(|other| other.destination != mount.destination && mount.destination.starts_with(&other.destination));
        let error = |e: dhow_sys::Errno| {
            let problem = format!("{}: {}", mount.destination.display(), crate::error::errno_text(e));
            Error::config(format!("{}.destination", mount.field), problem)
        };
        let opened;
        let (root, path) = match above {
            None => (root, mount.destination.as_path()),
            Some(above) if above.kind == MountKind::Bind => {
                opened = Root::open_path(Path::new(&above.source)).map_err(error)?;
                (&opened, mount.destination.strip_prefix(&above.destination).unwrap_or(&mount.destination))
            }
            Some(_) => continue,
        };
        let file = mount.kind == MountKind::Bind && !Path::new(&mount.source).is_dir();
        let made = if file {
            root.create_file(path, Mode::from_bits_truncate(0o644))
        } else {
            root.create_dir_all(path, mode)
        };
        made.map_err(error)?;
    }
    Ok(())
}

/// A v1 hierarchy that is bound into the container: without a cgroup namespace of its own it sees the host's mounts.
struct Hierarchy {
    /// The first of its controllers.
    controller: String,
    /// In the container.
    place: String,
}

fn hierarchies(plan: &Plan, cgroups: &str) -> Vec<Hierarchy> {
    let bound = !crate::cgroup::is_unified() && !plan.namespaces.has(Namespaces::CGROUP);
    let mounts = plan.mounts.iter().filter(|mount| bound && mount.kind == MountKind::Cgroup);
    let lines = || cgroups.lines().filter_map(|line| line.split(':').nth(1)).filter(|names| !names.is_empty());
    let one = |mount: &crate::plan::Mount, names: &str| Hierarchy {
        controller: names.split(',').next().unwrap_or_default().to_owned(),
        place: mount.destination.join(names.strip_prefix("name=").unwrap_or(names)).to_string_lossy().into_owned(),
    };
    mounts.flat_map(|mount| lines().map(move |names| one(mount, names))).collect()
}

/// Tells criu of the namespaces that the container was given.
pub(super) fn name_namespaces(plan: &Plan, options: &mut Writer) -> Result<()> {
    for (kind, name, key) in INHERITED {
        if let Some(joined) = plan.namespaces.joined(kind) {
            let stat = std::fs::metadata(&joined.path);
            let stat = stat.map_err(|e| Error::config(&joined.field, format!("{}: {e}", joined.path.display())))?;
            options.text(option::EXTERNAL, &format!("{name}[{}]:{key}", stat.ino()));
        }
    }
    Ok(())
}

/// Gives criu the namespaces that config.json names. Those to be passed get numbers from `first` on.
pub(super) fn hand_in_namespaces(plan: &Plan, first: i32, options: &mut Writer) -> Result<Vec<OwnedFd>> {
    let mut passed = Vec::new();
    for joined in &plan.namespaces.join {
        let error = |text: String| Error::config(&joined.field, format!("{}: {text}", joined.path.display()));
        if let Some((_, _, key)) = INHERITED.iter().find(|(kind, ..)| *kind == joined.kind) {
            let fd = nix::fcntl::open(&joined.path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
            let number = first + i32::try_from(passed.len()).unwrap_or(0);
            inherit(options, key, number);
            passed.push(fd.map_err(|e| error(crate::error::errno_text(e)))?);
            continue;
        }
        let name = match joined.kind {
            Namespaces::IPC => "ipc",
            Namespaces::UTS => "uts",
            Namespaces::USER => "user",
            Namespaces::MOUNT => "mnt",
            _ => return Err(error("criu can't restore a container into it".into())),
        };
        pair(options, option::JOIN_NS, name, &joined.path.to_string_lossy());
    }
    Ok(passed)
}

/// Gives criu a descriptor of its own for something by name.
pub(super) fn inherit(options: &mut Writer, key: &str, number: i32) {
    options.message(option::INHERIT_FD, |message| {
        message.text(1, key);
        message.number(2, number.into());
    });
}

/// Namespaces that criu takes as they are: kind, criu's name, the name in the image.
const INHERITED: [(Namespaces, &str, &str); 2] =
    [(Namespaces::NETWORK, "net", "extRootNetNS"), (Namespaces::PID, "pid", "extRootPidNS")];
const NULL: &str = "/dev/null";
