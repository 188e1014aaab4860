//! The container's view of its cgroup, at the place where config.json mounts one.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use dhow_sys::Errno;
use dhow_sys::clone::Namespaces;
use dhow_sys::mountfd::{Context, attr, clone_tree, move_mount};
use dhow_sys::openat2::{Root, c_path};
use nix::fcntl::AT_FDCWD;
use nix::sys::stat::Mode;

use super::init::Init;
use super::mounts::{finish, make, place};
use super::procfs::Proc;
use super::{Failure, Result};
use crate::mountinfo;
use crate::plan::Mount;

/// Mounts it. After the cgroup namespace is made: in it the container's cgroup is the root.
pub(super) fn mount(mount: &Mount, target: &OwnedFd, job: &Init<'_>) -> Result<()> {
    let own = job.plan.namespaces.has(Namespaces::CGROUP);
    if job.unified {
        version2(mount, target, own)
    } else {
        version1(mount, target, own, job.plan.mount_label.as_deref())
    }
}

fn version2(mount: &Mount, target: &OwnedFd, own: bool) -> Result<()> {
    // The source and any option of a v1 mount mean nothing here.
    let mut plain = mount.clone();
    plain.options.data.clear();
    plain.source = "cgroup".into();
    // Outside of a cgroup namespace the host's mount shows the same. One more would give the host's cgroups its own mount options
    // (nsdelegate, favordynmods) and wait for an RCU grace period; a user namespace may not even make it.
    let made = match own {
        true => make("cgroup2", &plain).or_else(|failure| host_cgroups(&plain).map_err(|_errno| failure))?,
        false => host_cgroups(&plain).map_err(Failure::errno("copy the host's mount"))?,
    };
    place(mount, &made, target)
}

fn host_cgroups(mount: &Mount) -> std::result::Result<OwnedFd, Errno> {
    let copy = clone_tree(AT_FDCWD, c"/sys/fs/cgroup", true)?;
    mount.options.change_attributes(&copy)?;
    Ok(copy)
}

/// A tmpfs with one directory per hierarchy, and symlinks for controllers that share one.
fn version1(mount: &Mount, target: &OwnedFd, own: bool, label: Option<&str>) -> Result<()> {
    // By a handle: the root may be attached on top of the host's /proc.
    let proc = Proc::open()?;
    let text = proc.read(Path::new("self/cgroup")).map_err(Failure::errno("read /proc/self/cgroup"))?;
    let mut top = mount.clone();
    top.options.data = vec![("mode".into(), Some("755".into()))];
    top.options.data.extend(label.map(|label| ("context".into(), Some(label.into()))));
    top.options.attributes.set &= !attr::RDONLY;
    top.source = "tmpfs".into();
    let tmpfs = make("tmpfs", &top)?;
    let step = Failure::errno("make a hierarchy's directory");
    move_mount(tmpfs.as_fd(), target.as_fd()).map_err(Failure::errno("move it to its place"))?;
    let inside = Root::new(tmpfs.try_clone().or(Err(Errno::EMFILE)).map_err(step)?);
    let mounted = if own {
        BTreeMap::new()
    } else {
        mounted(&proc.read(Path::new("self/mountinfo")).map_err(Failure::errno("read /proc/self/mountinfo"))?)
    };
    for hierarchy in hierarchies(&text) {
        let made = if own { hierarchy.mount(mount)? } else { hierarchy.copy(mount, &mounted)? };
        let Some(made) = made else { continue };
        let place = inside.create_dir_all(Path::new(&hierarchy.name), Mode::from_bits_truncate(0o755));
        let place = place.map_err(Failure::errno(&hierarchy.name))?;
        move_mount(made.as_fd(), place.as_fd()).map_err(Failure::errno(&hierarchy.name))?;
        for part in hierarchy.controllers.iter().filter(|_| hierarchy.controllers.len() > 1) {
            nix::unistd::symlinkat(hierarchy.name.as_str(), inside.dir(), part.as_str())
                .map_err(Failure::errno(part))?;
        }
    }
    mount.options.change_attributes(&tmpfs).map_err(Failure::errno("set its attributes"))?;
    mount.options.change_propagation(&tmpfs).map_err(Failure::errno("set its propagation"))
}

/// A v1 hierarchy.
#[derive(Debug, PartialEq, Eq)]
struct Hierarchy {
    /// Of its directory: `cpu,cpuacct`, `systemd`.
    name: String,
    /// Empty for a named one.
    controllers: Vec<String>,
    /// This process's cgroup in it.
    path: String,
}

/// The lines of /proc/self/cgroup: `number:controllers:path`.
fn hierarchies(text: &str) -> Vec<Hierarchy> {
    let line = |line: &str| {
        let mut parts = line.splitn(3, ':');
        let (_, list, path) = (parts.next()?, parts.next()?, parts.next()?);
        let path = path.to_owned();
        match list.strip_prefix("name=") {
            Some(name) => Some(Hierarchy { name: name.to_owned(), controllers: Vec::new(), path }),
            None if list.is_empty() => None,
            None => {
                let controllers = list.split(',').map(str::to_owned).collect();
                Some(Hierarchy { name: list.to_owned(), controllers, path })
            }
        }
    };
    text.lines().filter_map(line).collect()
}

impl Hierarchy {
    /// In a cgroup namespace: a mount whose root is this process's cgroup.
    fn mount(&self, mount: &Mount) -> Result<Option<OwnedFd>> {
        let error = || Failure::errno(&self.name);
        let context = Context::open(c"cgroup").map_err(error())?;
        let c = |text: &str| CString::new(text).or(Err(Errno::EINVAL));
        context.set_string(c"source", c"cgroup").map_err(error())?;
        for controller in &self.controllers {
            context.set_flag(&c(controller).map_err(error())?).map_err(error())?;
        }
        if self.controllers.is_empty() {
            context.set_flag(c"none").map_err(error())?;
            context.set_string(c"name", &c(&self.name).map_err(error())?).map_err(error())?;
        }
        finish(&context, mount).map(Some)
    }

    /// Without one: the host's mount, from this process's cgroup on. None when the host has not mounted it.
    fn copy(&self, mount: &Mount, mounted: &BTreeMap<String, PathBuf>) -> Result<Option<OwnedFd>> {
        let key = self.controllers.first().cloned().unwrap_or_else(|| format!("name={}", self.name));
        let Some(at) = mounted.get(&key) else { return Ok(None) };
        let path = at.join(self.path.trim_start_matches('/'));
        let copy = c_path(&path).and_then(|path| clone_tree(AT_FDCWD, &path, false));
        let copy = copy.map_err(Failure::errno(path.display()))?;
        mount.options.change_attributes(&copy).map_err(Failure::errno("set its attributes"))?;
        Ok(Some(copy))
    }
}

/// Where the host has mounted which controller.
fn mounted(text: &str) -> BTreeMap<String, PathBuf> {
    let mounts = mountinfo::parse(text.as_bytes()).into_iter().filter(|mount| mount.kind == "cgroup");
    mounts.flat_map(|mount| mount.options.into_iter().map(move |option| (option, mount.path.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines() {
        let text = "12:cpu,cpuacct:/a\n2:name=systemd:/b:c\n0::/\n";
        let found = hierarchies(text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].controllers, ["cpu", "cpuacct"]);
        let systemd = Hierarchy { name: "systemd".into(), controllers: Vec::new(), path: "/b:c".into() };
        assert_eq!(found[1], systemd);
    }
}
