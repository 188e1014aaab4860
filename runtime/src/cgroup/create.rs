//! Making a container's cgroup.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use dhow_sys::{Errno, process};
use nix::unistd::geteuid;
use oci_spec::runtime::LinuxResources;

use super::devices::{DeviceRules, program};
use super::dir::Dir;
use super::error::{CgroupError, Result};
use super::layout::{Hierarchy, Layout};
use super::limits;
use super::path::CgroupPath;
use super::systemd::{Scope, Unit};
use super::{Buses, Cgroup, Member};
use crate::CgroupDriver;

/// What is known before anything is made.
#[derive(Debug, Clone)]
pub struct CgroupRequest<'a> {
    /// `linux.cgroupsPath`; empty when there is none.
    pub cgroups_path: &'a str,
    /// The container's id.
    pub id: &'a str,
    /// Who makes the cgroup.
    pub driver: CgroupDriver,
    /// A cgroup that can't be made for want of permission is done without, as long as neither a path nor a limit asks for it.
    pub rootless: bool,
    /// The container's annotations: some are properties of its scope.
    pub annotations: &'a BTreeMap<String, String>,
    /// Where systemd answers.
    pub buses: &'a Buses,
}

impl CgroupRequest<'_> {
    /// The name of the unit that the cgroup will be of, with the systemd driver.
    ///
    /// # Errors
    /// A `cgroupsPath` that this driver can't take.
    pub fn unit(&self) -> Result<Option<String>> {
        match self.driver {
            CgroupDriver::Systemd => Ok(Some(Unit::new(self.cgroups_path, self.id, self.rootless)?.name().to_owned())),
            CgroupDriver::Cgroupfs | CgroupDriver::Disabled => Ok(None),
        }
    }
}

/// Where a container's cgroup will be: found out once, before anything is made.
#[derive(Debug)]
pub struct CgroupPlan {
    /// `None` for a container without cgroup.
    place: Option<(Layout, CgroupPath)>,
    /// Whether lack of permission is forgiven: rootless, and nobody asked for a certain place.
    forgiving: bool,
    /// The scope to be asked for, with the systemd driver.
    scope: Option<Scope>,
}

impl CgroupPlan {
    /// Decides where the cgroup goes. Makes nothing.
    ///
    /// # Errors
    /// A `cgroupsPath` that the driver can't take; no usable cgroup file system.
    pub fn new(request: &CgroupRequest<'_>) -> Result<Self> {
        let forgiving = request.rootless && request.cgroups_path.is_empty();
        match request.driver {
            CgroupDriver::Disabled => return Ok(Self { place: None, forgiving, scope: None }),
            CgroupDriver::Cgroupfs => {}
            CgroupDriver::Systemd => return Self::with_systemd(request),
        }
        let path = CgroupPath::new(request.cgroups_path, request.id)?;
        match Layout::detect(path.is_relative()) {
            Ok(layout) => Ok(Self { place: Some((layout, path)), forgiving, scope: None }),
            Err(CgroupError::NotMounted) if forgiving => Ok(Self { place: None, forgiving, scope: None }),
            Err(error) => Err(error),
        }
    }

    fn with_systemd(request: &CgroupRequest<'_>) -> Result<Self> {
        let unit = Unit::new(request.cgroups_path, request.id, request.rootless)?;
        let layout = Layout::detect(false)?;
        if request.rootless && matches!(layout, Layout::Legacy(_)) {
            return Err(CgroupError::RootlessLegacy);
        }
        let scope = Scope::new(unit, request.annotations, request.buses, request.rootless)?;
        let path = CgroupPath::Absolute(scope.place());
        Ok(Self { place: Some((layout, path)), forgiving: false, scope: Some(scope) })
    }

    /// Whether the cgroup can only be made around a process that exists.
    pub fn needs_process(&self) -> bool {
        self.scope.is_some()
    }

    /// Checks resources without making or changing anything.
    ///
    /// # Errors
    /// The first field that makes no sense here.
    pub fn check(&self, resources: &LinuxResources) -> Result<()> {
        DeviceRules::new(resources.devices().as_deref().unwrap_or_default())?;
        match &self.place {
            None => Ok(()),
            Some((Layout::Unified(_), _)) => limits::v2::settings(resources).map(drop),
            Some((Layout::Legacy(_), _)) => limits::v1::settings(resources).map(drop),
        }
    }

    /// Opens the cgroup as far as it exists, for a container whose state does not say yet where it is. Makes nothing.
    ///
    /// # Errors
    /// What the kernel says other than "no such directory".
    pub fn open(&self) -> Result<Cgroup> {
        let Some((layout, path)) = &self.place else { return Ok(Cgroup::none()) };
        let paths = layout.hierarchies().iter().flat_map(|hierarchy| {
            let target = path.within(hierarchy);
            hierarchy.controllers.iter().map(move |controller| (controller.clone(), target.clone()))
        });
        Cgroup::open(&paths.collect())
    }

    /// Makes the cgroup with its limits and device filter. On failure what was made is removed again. systemd makes it around
    /// a process, `pid`; with another driver the cgroup is empty.
    ///
    /// # Errors
    /// A limit that makes no sense, named by its field; a cgroup that exists and is not empty or is frozen; what the kernel
    /// says.
    pub fn create(&mut self, resources: Option<&LinuxResources>, pid: Option<i32>) -> Result<Cgroup> {
        let mut cgroup = self.create_unfiltered(resources, pid)?;
        let filtered = cgroup.filter_devices(resources);
        if filtered.is_err() {
            self.scope.as_mut().map_or_else(|| drop(cgroup.remove()), Scope::abandon);
        }
        filtered.map(|()| cgroup)
    }

    /// As [`Self::create`], but on v2 [`Cgroup::filter_devices`] is left to be called.
    pub(crate) fn create_unfiltered(&mut self, resources: Option<&LinuxResources>, pid: Option<i32>) -> Result<Cgroup> {
        let none = LinuxResources::default();
        let resources = resources.unwrap_or(&none);
        if self.needs_process() {
            self.open()?.members.iter().try_for_each(Member::refuse_occupied)?;
        }
        if let (Some(scope), Some(pid), Some((layout, _))) = (&mut self.scope, pid, &self.place) {
            scope.start(pid, resources, matches!(layout, Layout::Unified(_)))?;
        }
        let made = self.make(resources);
        if let (Some(scope), Err(_)) = (&mut self.scope, &made) {
            scope.abandon();
        }
        made
    }

    fn make(&self, resources: &LinuxResources) -> Result<Cgroup> {
        let Some((layout, path)) = &self.place else { return Ok(Cgroup::none()) };
        let mut made = Made { members: Vec::new(), new: Vec::new() };
        match layout {
            Layout::Unified(hierarchy) => {
                let settings = limits::v2::settings(resources)?;
                self.make_v2(hierarchy, path, &mut made)?;
                // systemd's own filter is in force beside ours.
                let new = !made.new.is_empty() || self.needs_process();
                let mut cgroup = made.finish(|cgroup| cgroup.write(&settings))?;
                cgroup.unfiltered = Some(Unfiltered { new });
                Ok(cgroup)
            }
            Layout::Legacy(hierarchies) => {
                let rules = DeviceRules::new(resources.devices().as_deref().unwrap_or_default())?;
                let settings = limits::v1::settings(resources)?;
                for hierarchy in hierarchies {
                    self.make_v1(hierarchy, path, &mut made)?;
                }
                made.finish(|cgroup| {
                    cgroup.write(&settings)?;
                    cgroup.dir("devices").map_or(Ok(()), |dir| tolerate(rules.install_v1(dir)))
                })
            }
        }
    }

    fn make_v2(&self, hierarchy: &Hierarchy, path: &CgroupPath, made: &mut Made) -> Result<()> {
        let target = path.within(hierarchy);
        let prepare = |_: &Dir, _: &Dir| Ok(());
        let ready = |parent: &Dir| enable_controllers(&hierarchy.mount, parent);
        let Some((_, dir, new)) = self.forgive(make_path(&hierarchy.mount, &target, prepare, ready))? else {
            return Ok(());
        };
        self.add(made, hierarchy, dir, new)
    }

    fn make_v1(&self, hierarchy: &Hierarchy, path: &CgroupPath, made: &mut Made) -> Result<()> {
        let target = path.within(hierarchy);
        let has = |name: &str| hierarchy.controllers.iter().any(|controller| controller == name);
        // A cpuset that has no processors can't have processes.
        let inherit = |parent: &Dir, child: &Dir| match has("cpuset") {
            true => inherit_cpuset(&hierarchy.mount, parent, child),
            false => Ok(()),
        };
        let Some((parent, dir, new)) = self.forgive(make_path(&hierarchy.mount, &target, inherit, |_| ()))? else {
            return Ok(());
        };
        self.add(made, hierarchy, dir, new)?;
        made.members.last().map_or(Ok(()), |member| inherit(&parent, &member.dir))
    }

    fn add(&self, made: &mut Made, hierarchy: &Hierarchy, dir: Dir, new: bool) -> Result<()> {
        let path = new.then(|| dir.path().to_owned());
        let member = Member { controllers: hierarchy.controllers.clone(), dir };
        // What systemd has made has the container's own process in it.
        if !new && !self.needs_process() {
            member.refuse_occupied()?;
        }
        made.new.extend(path);
        made.members.push(member);
        Ok(())
    }

    /// Lack of permission becomes `None` where that is forgiven.
    fn forgive<T>(&self, result: Result<T>) -> Result<Option<T>> {
        match result {
            Err(CgroupError::File { source: Errno::EACCES | Errno::EPERM | Errno::EROFS, .. }) if self.forgiving => {
                Ok(None)
            }
            result => result.map(Some),
        }
    }
}

impl Cgroup {
    /// Puts the device filter in force that [`CgroupPlan::create_unfiltered`] has left out.
    pub(crate) fn filter_devices(&mut self, resources: Option<&LinuxResources>) -> Result<()> {
        let (Some(Unfiltered { new }), Some(dir)) = (self.unfiltered.take(), self.unified_dir()) else { return Ok(()) };
        let rules = resources.and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
        tolerate(program::install(&DeviceRules::new(rules)?, dir, new))
    }
}

/// A cgroup whose device filter is still to come.
#[derive(Debug)]
pub(super) struct Unfiltered {
    /// It did not exist before.
    new: bool,
}

/// What has been made; removed again unless it is finished.
struct Made {
    members: Vec<Member>,
    new: Vec<PathBuf>,
}

impl Made {
    /// Does the rest, and keeps the cgroup when that succeeds.
    fn finish(mut self, rest: impl FnOnce(&Cgroup) -> Result<()>) -> Result<Cgroup> {
        let cgroup = Cgroup::new(std::mem::take(&mut self.members));
        rest(&cgroup)?;
        self.new.clear();
        Ok(cgroup)
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in &self.new {
            // Nothing runs in it yet; if it can't be removed there is nobody to tell.
            std::fs::remove_dir(path).ok();
        }
    }
}

/// Makes a cgroup with what it lies in, and says whether it is new. `prepare` gets each that had to be made on the way, with the
/// one above it; `ready` gets the last one before the target.
fn make_path(
    mount: &Path,
    target: &Path,
    prepare: impl Fn(&Dir, &Dir) -> Result<()>,
    ready: impl Fn(&Dir),
) -> Result<(Dir, Dir, bool)> {
    const TRIES: u32 = 10;
    let mut tries = 0;
    loop {
        match try_make_path(mount, target, &prepare, &ready) {
            // Somebody tidies up and has just removed the empty cgroup above.
            Err(CgroupError::File { source: Errno::ENOENT | Errno::ENODEV, .. }) if tries < TRIES => tries += 1,
            result => return result,
        }
    }
}

fn try_make_path(
    mount: &Path,
    target: &Path,
    prepare: impl Fn(&Dir, &Dir) -> Result<()>,
    ready: impl Fn(&Dir),
) -> Result<(Dir, Dir, bool)> {
    let parent = open_parent(mount, target.parent().unwrap_or(mount), prepare)?;
    ready(&parent);
    let (dir, new) = parent
        .make_child(target.file_name().map_or(Path::new("."), Path::new))
        .map_err(|source| CgroupError::File { verb: "make", path: target.to_owned(), source })?;
    Ok((parent, dir, new))
}

/// Opens a cgroup for others to lie in, and makes what is missing on the way.
fn open_parent(mount: &Path, parent: &Path, prepare: impl Fn(&Dir, &Dir) -> Result<()>) -> Result<Dir> {
    let error = |verb, path: &Path, source| CgroupError::File { verb, path: path.to_owned(), source };
    match Dir::open(parent) {
        Ok(dir) => return Ok(dir),
        Err(Errno::ENOENT) => {}
        Err(source) => return Err(error("open", parent, source)),
    }
    let mut dir = Dir::open(mount).map_err(|source| error("open", mount, source))?;
    for name in parent.strip_prefix(mount).unwrap_or(Path::new("")) {
        let (child, new) =
            dir.make_child(Path::new(name)).map_err(|source| error("make", &dir.path().join(name), source))?;
        if new {
            prepare(&dir, &child)?;
        }
        dir = child;
    }
    Ok(dir)
}

impl Member {
    /// A process of somebody else's would be taken for the container's; one in a frozen cgroup would never start.
    fn refuse_occupied(&self) -> Result<()> {
        let path = || self.dir.path().to_owned();
        let processes = self.dir.read_file("cgroup.procs")?.lines().count();
        if processes > 0 {
            return Err(CgroupError::NotEmpty { path: path(), processes });
        }
        // Each file is there on its own version only.
        let stands = |file, running| self.dir.read(file).is_ok_and(|state| state.trim() != running);
        if stands("cgroup.freeze", "0") || stands("freezer.state", "THAWED") {
            return Err(CgroupError::Frozen { path: path() });
        }
        Ok(())
    }
}

/// Gives a cpuset that has none the processors and memory nodes of the one it lies in, and that of those above it.
fn inherit_cpuset(mount: &Path, parent: &Dir, child: &Dir) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let mut value = parent.read_file(file)?;
        if value.trim().is_empty() {
            // Made by somebody who did not care for this controller.
            value = fill_cpusets(mount, parent.path(), file)?;
        }
        if child.read_file(file)?.trim().is_empty() {
            child.write_file(file, value.trim())?;
        }
    }
    Ok(())
}

/// Gives every cpuset on the way down to `path` that has none what the one above it has; what the last one then has.
fn fill_cpusets(mount: &Path, path: &Path, file: &str) -> Result<String> {
    let error = |path: &Path, source| CgroupError::File { verb: "open", path: path.to_owned(), source };
    let mut dir = Dir::open(mount).map_err(|source| error(mount, source))?;
    let mut value = dir.read_file(file)?;
    for name in path.strip_prefix(mount).unwrap_or(Path::new("")) {
        let child = dir.child(Path::new(name)).map_err(|source| error(&dir.path().join(name), source))?;
        let own = child.read_file(file)?;
        if own.trim().is_empty() {
            child.write_file(file, value.trim())?;
        } else {
            value = own;
        }
        dir = child;
    }
    Ok(value)
}

/// Lets the cgroups below `parent` have every controller that there is.
///
/// Where that is so already it costs two reads. Else each level from the root on gets what it lacks in one write, or one by one
/// when the kernel refuses that (a cgroup with processes, a controller that is busy elsewhere). What can't be had is no error
/// here: a limit that needs it will say so.
fn enable_controllers(mount: &Path, parent: &Dir) {
    let Ok(root) = Dir::open(mount) else { return };
    let Ok(available) = root.read("cgroup.controllers") else { return };
    let lacking = |dir: &Dir| -> Vec<String> {
        let enabled = dir.read("cgroup.subtree_control").unwrap_or_default();
        let enabled: Vec<_> = enabled.split_whitespace().collect();
        available.split_whitespace().filter(|name| !enabled.contains(name)).map(|name| format!("+{name}")).collect()
    };
    if available.trim().is_empty() || lacking(parent).is_empty() {
        return;
    }
    let mut level = root;
    let names: Vec<_> = parent.path().strip_prefix(mount).unwrap_or(Path::new("")).iter().collect();
    for n in 0..=names.len() {
        let lacking = lacking(&level);
        if !lacking.is_empty() && level.write("cgroup.subtree_control", &lacking.join(" ")).is_err() {
            for controller in lacking {
                level.write("cgroup.subtree_control", &controller).ok();
            }
        }
        match names.get(n).map(|name| level.child(Path::new(name))) {
            Some(Ok(child)) => level = child,
            _ => return,
        }
    }
}

/// Only root of the first user namespace may filter devices. For others a container is in another one, where it can make no device
/// to open, so it needs no filter.
fn tolerate(result: Result<()>) -> Result<()> {
    match result {
        Err(CgroupError::Devices { source: Errno::EPERM | Errno::EACCES, .. })
            if process::in_first_user_namespace() != Some(true) || !geteuid().is_root() =>
        {
            Ok(())
        }
        result => result,
    }
}
