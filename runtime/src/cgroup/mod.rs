//! The container's cgroup: where it lies, its limits, its device filter, its processes, its end.
//!
//! cgroup v2 is what this is made for; v1, with or without an empty v2 beside it, works as well: there a container has a
//! cgroup in every hierarchy. [`CgroupPlan`] finds the place, [`CgroupPlan::create`] makes a [`Cgroup`], and
//! [`Cgroup::open`] finds it again from what state.json kept ([`Cgroup::paths`]).
//!
//! * `layout`, `path`: what hierarchies there are, and where in them; `dir`: a directory by its handle
//! * `limits`: from `linux.resources` to files and values; `devices`: the device filter
//! * `systemd`: asking systemd for the cgroup
//! * `below`: cgroups in the container's own, for exec; `delegate`: a cgroup that the container owns
//! * `create`, `processes`, `remove`, `oom`, `stats`: a cgroup's life
//!
//! Invariants: no cgroup path leads out of its hierarchy; resources are checked before anything is made; a container that could
//! not be frozen runs; the cgroup that a container is made in has no process and does not stand still.
//! Of cgroups-rs this uses the statistics of v1; see `limits` and `stats` for why not more.

mod below;
mod create;
mod delegate;
mod devices;
mod dir;
mod error;
mod layout;
mod limits;
mod oom;
mod path;
mod processes;
mod remove;
pub mod stats;
mod systemd;

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use dhow_sys::{Errno, process};
use oci_spec::runtime::LinuxResources;

pub use create::{CgroupPlan, CgroupRequest};
pub use error::CgroupError;
pub use layout::is_unified;
pub use oom::OomWatch;
pub use stats::Stats;
pub use systemd::Buses;

use dir::Dir;
use error::Result;
use limits::Settings;

/// The cgroup of a container (on v1: one in each hierarchy), held by directory handles.
#[derive(Debug)]
pub struct Cgroup {
    members: Vec<Member>,
    paths: BTreeMap<String, PathBuf>,
    unfiltered: Option<create::Unfiltered>,
}

/// The container's cgroup in one hierarchy.
#[derive(Debug)]
struct Member {
    /// As in [`layout::Hierarchy`]: the empty name is v2.
    controllers: Vec<String>,
    dir: Dir,
}

/// Whether the processes of a cgroup run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreezerState {
    /// They run.
    Thawed,
    /// They stand still, or are about to.
    Frozen,
}

impl Cgroup {
    /// A container without cgroup: nothing can be asked of it, and nothing has to be removed.
    pub fn none() -> Self {
        Self::new(Vec::new())
    }

    fn new(members: Vec<Member>) -> Self {
        let paths = members.iter().flat_map(|member| {
            member.controllers.iter().map(|controller| (controller.clone(), member.dir.path().to_owned()))
        });
        Self { paths: paths.collect(), members, unfiltered: None }
    }

    /// Opens the cgroup whose [`Self::paths`] were kept in state.json. Hierarchies that are gone are left out.
    ///
    /// # Errors
    /// What the kernel says other than "no such directory".
    pub fn open(paths: &BTreeMap<String, PathBuf>) -> Result<Self> {
        let mut members: Vec<Member> = Vec::new();
        for (controller, path) in paths {
            // Controllers that are mounted together.
            if let Some(member) = members.iter_mut().find(|member| member.dir.path() == path) {
                member.controllers.push(controller.clone());
                continue;
            }
            match Dir::open(path) {
                Ok(dir) => members.push(Member { controllers: vec![controller.clone()], dir }),
                Err(Errno::ENOENT) => {}
                Err(source) => return Err(CgroupError::File { verb: "open", path: path.clone(), source }),
            }
        }
        // As when it was made: v2 beside v1 comes last.
        members.sort_by_key(|member| member.controllers.iter().all(String::is_empty));
        let cgroup = Self::new(members);
        Ok(Self { paths: paths.clone(), ..cgroup })
    }

    /// The cgroup that a process is in now, on pure v2. A container that has made cgroups of its own lets nobody into the one that
    /// it was given; exec then joins the first process where that is.
    ///
    /// # Errors
    /// The process is gone; v1.
    pub fn of_process(pid: i32) -> Result<Self> {
        let layout::Layout::Unified(hierarchy) = layout::Layout::detect(false)? else {
            return Err(CgroupError::Without { what: "one hierarchy only" });
        };
        // A container names its cgroups with any bytes.
        let text = process::read_proc_bytes(format!("/proc/{pid}/cgroup"))
            .map_err(|source| CgroupError::Proc { path: "/proc/PID/cgroup", source })?;
        let own = text.split(|byte| *byte == b'\n').find_map(|line| line.strip_prefix(b"0::")).unwrap_or_default();
        let path = hierarchy.mount.join(path::clean(Path::new(OsStr::from_bytes(own))));
        Self::open(&BTreeMap::from([(String::new(), path)]))
    }

    /// The paths by controller for state.json; the empty name is the v2 hierarchy. Empty without a cgroup.
    pub fn paths(&self) -> &BTreeMap<String, PathBuf> {
        &self.paths
    }

    /// Whether there is none, or none any more.
    pub fn is_none(&self) -> bool {
        self.members.is_empty()
    }

    /// The directory for `clone3(CLONE_INTO_CGROUP)`: on pure v2 only, and then [`Self::attach`] is not needed. The cgroup namespace
    /// has to be unshared by the child itself afterwards: at clone time the kernel would take the parent's cgroup as its root.
    pub fn clone_target(&self) -> Option<BorrowedFd<'_>> {
        if self.is_v2() { self.members.first().map(|member| member.dir.as_fd()) } else { None }
    }

    /// Moves a process in by way of systemd, for those who may not cross over to the cgroup by themselves.
    ///
    /// # Errors
    /// No systemd answers, or it refuses.
    pub fn attach_to_unit(unit: &str, pid: i32, buses: &Buses, rootless: bool) -> Result<()> {
        systemd::connect(buses, rootless)?.attach(unit, pid)
    }

    /// Changes the limits of a cgroup that systemd has made, as [`Self::apply`] does, and tells systemd of them.
    ///
    /// # Errors
    /// As those of [`Self::apply`]; no systemd answers, or it refuses.
    pub fn apply_to_unit(
        &self,
        unit: &str,
        resources: &LinuxResources,
        (buses, rootless): (&Buses, bool),
    ) -> Result<()> {
        self.settings(resources)?.refuse(&|controller: &str| self.dir(controller))?;
        systemd::update(unit, resources, self, systemd::connect(buses, rootless)?)?;
        // systemd has just written what it rounded.
        self.apply(resources)
    }

    /// Removes a cgroup that systemd has made; see [`Self::remove`].
    ///
    /// # Errors
    /// As those of [`Self::remove`]; systemd refuses. That no systemd answers any more does not matter when the cgroup can be removed.
    pub fn remove_unit(&self, unit: &str, buses: &Buses, rootless: bool) -> Result<()> {
        // A process that is left would let systemd wait for its end.
        self.kill_all(libc::SIGKILL).and_then(|()| self.wait_empty(remove::TIMEOUT)).ok();
        let stopped = match systemd::connect(buses, rootless) {
            Ok(mut manager) => manager.stop(unit),
            Err(_) => Ok(()),
        };
        self.remove().and(stopped)
    }

    /// Changes the limits that are set in `resources` (`update`); what is absent and the devices are left alone. Of several limits
    /// those before one that is refused are changed.
    ///
    /// # Errors
    /// A limit that makes no sense, named by its field, before anything is changed; what the kernel says.
    pub fn apply(&self, resources: &LinuxResources) -> Result<()> {
        self.write(&self.settings(resources)?)
    }

    fn settings(&self, resources: &LinuxResources) -> Result<Settings> {
        if self.is_v2() { limits::v2::settings(resources) } else { limits::v1::settings(resources) }
    }

    fn write(&self, settings: &Settings) -> Result<()> {
        settings.apply(|controller| self.dir(controller))
    }

    /// Whether it is in one hierarchy for all controllers.
    fn is_v2(&self) -> bool {
        matches!(self.members.as_slice(), [member] if member.controllers.iter().all(String::is_empty))
    }

    /// The directory that has a controller's files.
    fn dir(&self, controller: &str) -> Option<&Dir> {
        if self.is_v2() {
            return self.members.first().map(|member| &member.dir);
        }
        let member = self.members.iter().find(|member| member.controllers.iter().any(|name| name == controller));
        member.map(|member| &member.dir)
    }

    /// The directory in the v2 hierarchy, pure or beside v1.
    fn unified_dir(&self) -> Option<&Dir> {
        self.dir("")
    }
}

#[cfg(test)]
mod tests;
