//! A container's first process.

use std::ffi::CString;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

use dhow_sys::clone::{InChild, Namespaces};
use dhow_sys::openat2::Root;

use super::{Common, Result, Step, console, devices, hide, isolate, labels, mounts, paths, place_stdio, program, root};
use super::{become_root, new_session, run, scheduling, start};
use crate::birth::HasChannel;
use crate::handshake::{Channel, Failure, Message};
use crate::hooks::{self, StateDocument};
use crate::plan::{NamespacePlan, Plan};

/// Everything the first process is made from, and what it has made so far.
#[derive(Debug)]
pub(crate) struct Init<'a> {
    pub(crate) common: Common<'a>,
    pub(crate) plan: &'a Plan,
    /// Where it waits to be started; none: its creator tells it over the channel.
    pub(crate) listener: Option<OwnedFd>,
    /// Namespaces to join, in order.
    pub(crate) join: Vec<(Namespaces, &'a str, OwnedFd)>,
    /// The root as a detached mount; none: it is made from the path.
    pub(crate) root_mount: Option<OwnedFd>,
    /// Sources of mounts that only the parent could open, by the mount's index.
    pub(crate) sources: Vec<Option<OwnedFd>>,
    /// A tmpfs with the device nodes that only the parent could make, named by the device's index.
    pub(crate) device_nodes: Option<OwnedFd>,
    /// Mounts that become read-only when everything in them is made.
    pub(crate) readonly_later: Vec<OwnedFd>,
    pub(crate) no_pivot: bool,
    /// The host has only cgroup v2.
    pub(crate) unified: bool,
    /// The state for hooks.
    pub(crate) state: &'a StateDocument,
    /// The root directory, once it is mounted.
    pub(crate) root: Option<Root>,
    pub(crate) cgroup_namespace_done: bool,
}

/// The order of things. Each function says why it is where it is.
fn steps<'a>() -> [Step<Init<'a>>; 22] {
    [
        |token, job| isolate(token, &mut job.descriptors()),
        |_, job| namespaces(job),
        |_, _| hide(),
        |_, job| labels::keys(&job.common),
        |_, job| new_session(&job.common),
        |_, job| loopback(job),
        |_, job| root::attach(job),
        |_, job| mounts::all(job),
        |_, job| devices::all(job),
        |token, job| console::for_init(token, job),
        |_, job| early_hooks(job),
        |_, job| root::enter(job),
        |_, job| names(job),
        |_, job| paths::sysctl(job),
        |_, job| paths::protect(job),
        |token, job| place_stdio(token, &job.common),
        |token, job| devices::own_null(token, job),
        |_, job| scheduling(&mut job.common),
        |_, job| program::look(&mut job.common),
        |_, job| job.cgroup_namespace(),
        |_, job| start::wait(job),
        |token, job| {
            let Init { common, plan, state, .. } = job;
            program::run(token, common, |common, env| last_hooks(common, plan, state, env))
        },
    ]
}

/// Runs all of it. Returns only when it failed: the exit code.
pub(crate) fn main(token: &InChild, mut job: Init<'_>) -> u8 {
    let failure = match run(token, &steps(), &mut job) {
        Ok(()) => Failure::new("the program was not executed"),
        Err(failure) => failure,
    };
    root::give_up(&job);
    // Nobody may be there to hear it.
    job.common.channel.send(&Message::Failed(failure)).ok();
    1
}

impl HasChannel for Init<'_> {
    fn channel(&self) -> &Channel {
        &self.common.channel
    }
}

impl Init<'_> {
    fn descriptors(&self) -> Vec<RawFd> {
        let mut keep = self.common.descriptors();
        keep.extend(self.listener.as_ref().map(AsRawFd::as_raw_fd));
        keep.extend(self.join.iter().map(|(_, _, fd)| fd.as_raw_fd()));
        let mounts = self.root_mount.iter().chain(self.sources.iter().flatten()).chain(&self.device_nodes);
        keep.extend(mounts.map(AsRawFd::as_raw_fd));
        keep
    }

    /// The root directory.
    pub(super) fn root(&self) -> Result<&Root> {
        self.root.as_ref().ok_or_else(|| Failure::new("the root is not mounted yet"))
    }

    /// The state document with this status.
    pub(super) fn state(&mut self, status: &str) -> Result<String> {
        let pid = self.common.attached()?;
        Ok(self.state.render(status, pid))
    }

    /// A cgroup namespace, once this process is in its cgroup, which becomes the namespace's root. Cloned into it the
    /// kernel would have taken the parent's cgroup.
    pub(super) fn cgroup_namespace(&mut self) -> Result<()> {
        self.common.attached()?;
        if !self.cgroup_namespace_done && self.plan.namespaces.new.contains(Namespaces::CGROUP) {
            nix::sched::unshare(Namespaces::CGROUP.flags()).map_err(Failure::errno("make a cgroup namespace"))?;
        }
        self.cgroup_namespace_done = true;
        Ok(())
    }
}

/// New namespaces that clone does not make, because it would make them in its caller's name or as they can't be changed any more.
pub(crate) fn made_later(namespaces: &NamespacePlan) -> Namespaces {
    let later = Namespaces::TIME | Namespaces::CGROUP;
    // The root of message queues would belong to an id that is not mapped.
    if namespaces.has(Namespaces::USER) { later | Namespaces::IPC } else { later }
}

/// Joins what is joined (a user namespace first: it gives the right to the others) and makes what clone can't.
/// The parent's files in /proc about this process are written while it waits.
fn namespaces(job: &mut Init<'_>) -> Result<()> {
    for (kind, field, fd) in job.join.drain(..) {
        nix::sched::setns(fd, kind.flags()).map_err(Failure::errno(format_args!("{field}: join it")))?;
    }
    let plan = &job.plan.namespaces;
    let time = plan.new.contains(Namespaces::TIME);
    if time {
        // Not by clone: then the clocks could not be set any more.
        nix::sched::unshare(Namespaces::TIME.flags()).map_err(Failure::errno("make a time namespace"))?;
    }
    if time || plan.new.contains(Namespaces::USER) {
        job.common.channel.send(&Message::Unshared).map_err(Failure::errno("tell of the namespaces"))?;
        job.common.expect(&Message::Mapped)?;
    }
    if time {
        let path = "/proc/self/ns/time_for_children";
        let namespace = std::fs::File::open(path).map_err(|e| Failure::new(format!("open {path}: {e}")))?;
        nix::sched::setns(namespace, Namespaces::TIME.flags()).map_err(Failure::errno("enter the time namespace"))?;
    }
    if job.common.user_namespace {
        become_root(job.common.process)?;
        if plan.new.contains(Namespaces::IPC) {
            nix::sched::unshare(Namespaces::IPC.flags()).map_err(Failure::errno("make an ipc namespace"))?;
        }
    }
    Ok(())
}

fn loopback(job: &Init<'_>) -> Result<()> {
    if job.plan.namespaces.new.contains(Namespaces::NETWORK) {
        dhow_sys::net::loopback_up().map_err(Failure::errno("bring loopback up"))?;
    }
    Ok(())
}

/// prestart and createRuntime run in the parent, createContainer here; all when the mounts are there and the root is
/// not yet entered, so that they can still reach the host's programs. createContainer's working directory is the root.
fn early_hooks(job: &mut Init<'_>) -> Result<()> {
    let hooks = &job.plan.hooks;
    if !hooks.prestart.is_empty() || !hooks.create_runtime.is_empty() {
        job.common.channel.send(&Message::RootReady).map_err(Failure::errno("tell of the root"))?;
        job.common.expect(&Message::HooksDone)?;
    }
    if !hooks.create_container.is_empty() {
        let state = job.state("creating")?;
        nix::unistd::fchdir(job.root()?.dir()).map_err(Failure::errno("enter the root"))?;
        hooks::run("createContainer", &hooks.create_container, &state).map_err(|e| Failure::new(e.chain()))?;
    }
    Ok(())
}

fn names(job: &Init<'_>) -> Result<()> {
    if let Some(name) = &job.plan.hostname {
        nix::unistd::sethostname(name).map_err(Failure::errno("set the host name"))?;
    }
    match &job.plan.domainname {
        Some(name) => dhow_sys::process::set_domain_name(name).map_err(Failure::errno("set the domain name")),
        None => Ok(()),
    }
}

/// After the start, right before the program: as the container's user and under its filter, so that nothing which the
/// image brings along runs with the privileges of the runtime. `env` is the program's environment, and theirs unless they name
/// one: the runtime's is nothing for the container's eyes.
fn last_hooks(common: &mut Common<'_>, plan: &Plan, state: &StateDocument, env: &[CString]) -> Result<()> {
    if plan.hooks.start_container.is_empty() {
        return Ok(());
    }
    let state = state.render("created", common.attached()?);
    hooks::run_with("startContainer", &plan.hooks.start_container, &state, Some(env))
        .map_err(|e| Failure::new(e.chain()))
}
