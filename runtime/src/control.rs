//! What is done to a container that exists: signals, freezing, limits, its end.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use dhow_sys::pidfd;
use nix::unistd::{UnlinkatFlags, unlinkat};
use oci_spec::runtime::LinuxResources;

use crate::cgroup::{Cgroup, CgroupPlan, FreezerState, OomWatch, Stats};
use crate::config::{self, Process};
use crate::hooks::{self, StateDocument};
use crate::inspect::status;
use crate::intel_rdt::{self, Group, Shares};
use crate::plan::{IntelRdt, Plan};
use crate::state::{self, Known, Lock, State};
use crate::{CgroupDriver, Error, Result, Runtime, Status};

/// How long a killed process may take to end before deletion gives up.
const END: Duration = Duration::from_secs(10);

/// See [`Runtime::kill`].
pub(crate) fn kill(runtime: &Runtime, id: &str, signal: i32, all: bool) -> Result<()> {
    let state = State::load(runtime.root(), id)?;
    let cgroup = Cgroup::open(&state.cgroup_paths)?;
    let sharing = signal == libc::SIGKILL && shares_pids(&state);
    let killed = sharing && !cgroup.pids()?.is_empty();
    if all || sharing {
        cgroup.kill_all(signal)?;
    }
    let init = init(&state)?;
    match &init {
        Some(pidfd) => match pidfd::send_signal(pidfd.as_fd(), signal) {
            Err(dhow_sys::Errno::ESRCH) if killed => {}
            Err(dhow_sys::Errno::ESRCH) => return Err(Error::NotRunning),
            other => other.map_err(Error::sys("send the signal"))?,
        },
        // The others of a shared pid namespace outlive the first one.
        None if all || killed => return Ok(()),
        None => return Err(Error::NotRunning),
    }
    if signal == libc::SIGKILL && matches!(cgroup.freezer_state(), Ok(FreezerState::Frozen)) {
        // On v1 a frozen process does not even die.
        cgroup.thaw()?;
    }
    Ok(())
}

/// See [`Runtime::delete`].
pub(crate) fn delete(runtime: &Runtime, id: &str, force: bool, known: Option<Known>) -> Result<()> {
    let dir = runtime.root().join(id);
    let lock = match lock_to_delete(runtime.root(), id, force) {
        Err(Error::NotFound { .. }) if force => return Ok(()),
        other => other?,
    };
    let loaded = match known {
        Some(known) => State::load_anew(runtime.root(), id, known),
        None => State::load(runtime.root(), id),
    };
    let state = match loaded {
        Err(Error::NotFound { .. }) if force => return Ok(()),
        // Nothing can be learned from it, so nothing else can be cleaned up.
        Err(Error::BadState { .. }) if force => {
            return std::fs::remove_dir_all(&dir).map_err(Error::file("remove", &dir));
        }
        other => other?,
    };
    if !force {
        match status(runtime.root(), &state) {
            Status::Stopped | Status::Created | Status::Creating => {}
            status => return Err(Error::NotStopped { id: id.into(), status }),
        }
    }
    let (buses, rootless) = runtime.systemd();
    // A runtime that was killed has not written down what it has made; where it would be is known.
    let recorded = state.init_process_pid != 0;
    let cgroup = if recorded { Cgroup::open(&state.cgroup_paths)? } else { planned(runtime, &state)? };
    // As good as always no process is left.
    let gone = state.unit.is_none() && cgroup.remove_empty();
    if !gone {
        cgroup.kill_all(libc::SIGKILL)?;
    }
    end(&state, &cgroup)?;
    let removed = match &state.unit {
        Some(unit) => cgroup.remove_unit(unit, buses, rootless),
        None if gone => Ok(()),
        None => cgroup.remove(),
    };
    let mut first = removed.err().map(Error::from);
    if state.intel_rdt || state.may_have("intelRdt") {
        first = first.or(leave_resctrl(&state).err());
    }
    if state.may_have("poststop") {
        first = first.or(poststop(&state).err());
    }
    if matches!(first, Some(Error::Cgroup(_))) {
        // The state stays as long as there is something to clean up by it.
        return first.map_or(Ok(()), Err);
    }
    remove_directory(&lock, &dir)?;
    first.map_or(Ok(()), Err)
}

/// Removes the container's directory, in which there is mostly nothing but its state.
fn remove_directory(lock: &Lock, dir: &Path) -> Result<()> {
    unlinkat(lock.dir(), state::FILE, UnlinkatFlags::NoRemoveDir).ok();
    if std::fs::remove_dir(dir).is_ok() {
        return Ok(());
    }
    std::fs::remove_dir_all(dir).map_err(Error::file("remove", dir))
}

fn lock_to_delete(root: &Path, id: &str, force: bool) -> Result<Lock> {
    if force {
        if let Some(lock) = Lock::try_take(root, id)? {
            return Ok(lock);
        }
        if let Ok(state) = State::load(root, id) {
            // Whoever holds the lock may be waiting for it.
            kill_init(&state)?;
        }
    }
    Lock::take(root, id)
}

/// The container is gone.
fn poststop(state: &State) -> Result<()> {
    let spec = state.spec()?;
    let Some(hooks) = &spec.hooks else { return Ok(()) };
    let document = StateDocument::new(&state.id, &state.bundle, &spec.annotations);
    hooks::run("poststop", &hooks.poststop, &document.render("stopped", 0))
}

/// Removes what the container has in resctrl, if that is still mounted.
fn leave_resctrl(state: &State) -> Result<()> {
    let given = state.spec()?.linux.and_then(|linux| linux.intel_rdt);
    let Some(given) = given.or_else(|| state.intel_rdt.then(Default::default)) else { return Ok(()) };
    intel_rdt::root().map_or(Ok(()), |root| Group::new(&root, &IntelRdt::new(&given)?, &state.id).remove())
}

/// The cgroup of a container whose state does not name one.
fn planned(runtime: &Runtime, state: &State) -> Result<Cgroup> {
    let spec = state.spec()?;
    let plan = Plan::new(&spec, &state.bundle)?;
    let mut request = runtime.cgroup_request(&plan, &state.id, &spec.annotations);
    if state.unit.is_some() {
        request.driver = CgroupDriver::Systemd;
    }
    Ok(CgroupPlan::new(&request)?.open()?)
}

/// Kills the first process and waits for its end.
fn end(state: &State, cgroup: &Cgroup) -> Result<()> {
    let Some(init) = kill_init(state)? else { return Ok(()) };
    if matches!(cgroup.freezer_state(), Ok(FreezerState::Frozen)) {
        cgroup.thaw()?;
    }
    if pidfd::wait_ended(init.as_fd(), Some(END)).map_err(Error::sys("wait for the first process"))? {
        Ok(())
    } else {
        Err(Error::Status { verb: "end", status: Status::Running })
    }
}

/// Kills the first process, if it still is that one.
fn kill_init(state: &State) -> Result<Option<OwnedFd>> {
    let Some(init) = init(state)? else { return Ok(None) };
    match pidfd::send_signal(init.as_fd(), libc::SIGKILL) {
        Ok(()) | Err(dhow_sys::Errno::ESRCH) => Ok(Some(init)),
        Err(e) => Err(Error::Sys { step: "kill the first process", source: e }),
    }
}

/// See [`Runtime::pause`].
pub(crate) fn pause(runtime: &Runtime, id: &str) -> Result<()> {
    let state = State::load(runtime.root(), id)?;
    match status(runtime.root(), &state) {
        Status::Running | Status::Created => Ok(Cgroup::open(&state.cgroup_paths)?.freeze()?),
        status => Err(Error::Status { verb: "pause", status }),
    }
}

/// See [`Runtime::resume`].
pub(crate) fn resume(runtime: &Runtime, id: &str) -> Result<()> {
    let state = State::load(runtime.root(), id)?;
    let cgroup = Cgroup::open(&state.cgroup_paths)?;
    match (status(runtime.root(), &state), cgroup.freezer_state()) {
        (Status::Paused, _) | (Status::Created, Ok(FreezerState::Frozen)) => Ok(cgroup.thaw()?),
        (status, _) => Err(Error::Status { verb: "resume", status }),
    }
}

/// See [`Runtime::pids`].
pub(crate) fn pids(runtime: &Runtime, id: &str) -> Result<Vec<i32>> {
    let state = State::load(runtime.root(), id)?;
    if state.cgroup_paths.is_empty() && state.is_alive() {
        return Ok(vec![state.init_process_pid]);
    }
    Ok(Cgroup::open(&state.cgroup_paths)?.pids()?)
}

/// See [`Runtime::stats`].
pub(crate) fn stats(runtime: &Runtime, id: &str) -> Result<Stats> {
    let state = State::load(runtime.root(), id)?;
    if !state.is_alive() {
        return Err(Error::NotRunning);
    }
    Ok(Cgroup::open(&state.cgroup_paths)?.stats()?)
}

/// See [`Runtime::oom_kills`].
pub(crate) fn oom_kills(runtime: &Runtime, id: &str) -> Result<u64> {
    let state = State::load(runtime.root(), id)?;
    Ok(Cgroup::open(&state.cgroup_paths)?.oom_kills()?)
}

/// See [`Runtime::watch_oom`].
pub(crate) fn watch_oom(runtime: &Runtime, id: &str) -> Result<OomWatch> {
    let state = State::load(runtime.root(), id)?;
    Ok(Cgroup::open(&state.cgroup_paths)?.watch_oom()?)
}

/// See [`Runtime::update`].
pub(crate) fn update(runtime: &Runtime, id: &str, resources: &LinuxResources) -> Result<()> {
    let _lock = Lock::take(runtime.root(), id)?;
    let mut state = State::load(runtime.root(), id)?;
    if !state.is_alive() {
        return Err(Error::NotRunning);
    }
    let cgroup = Cgroup::open(&state.cgroup_paths)?;
    match &state.unit {
        Some(unit) => cgroup.apply_to_unit(unit, resources, runtime.systemd())?,
        None => cgroup.apply(resources)?,
    }
    state.resources = Some(resources.clone());
    state.store(&runtime.root().join(id))
}

/// See [`Runtime::update_shares`].
pub(crate) fn update_shares(runtime: &Runtime, id: &str, l3_cache: &str, bandwidth: &str) -> Result<()> {
    let _lock = Lock::take(runtime.root(), id)?;
    let mut state = State::load(runtime.root(), id)?;
    if !state.is_alive() {
        return Err(Error::NotRunning);
    }
    let given = state.spec()?.linux.and_then(|linux| linux.intel_rdt);
    let own = given.is_none();
    let plan = IntelRdt::new(&config::IntelRdt {
        l3_cache_schema: l3_cache.to_owned(),
        mem_bw_schema: bandwidth.to_owned(),
        schemata: Vec::new(),
        ..given.unwrap_or_default()
    })?;
    let group = Group::new(&intel_rdt::root()?, &plan, id);
    if own && !state.intel_rdt {
        // Before it is made: `delete` removes it.
        state.intel_rdt = true;
        state.store(&runtime.root().join(id))?;
    }
    group.change(&plan)?;
    if own { group.attach(state.init_process_pid) } else { Ok(()) }
}

/// See [`Runtime::shares`].
pub(crate) fn shares(runtime: &Runtime, id: &str) -> Result<Shares> {
    let state = State::load(runtime.root(), id)?;
    let Ok(root) = intel_rdt::root() else { return Ok(Shares::default()) };
    let given = if state.may_have("intelRdt") { state.spec()?.linux.and_then(|linux| linux.intel_rdt) } else { None };
    if given.is_none() && !state.intel_rdt {
        return Ok(Shares::default());
    }
    Ok(Shares::read(&root, &Group::new(&root, &IntelRdt::new(&given.unwrap_or_default())?, id)))
}

/// See [`Runtime::process`].
pub(crate) fn process(runtime: &Runtime, id: &str) -> Result<Process> {
    let spec = State::load(runtime.root(), id)?.spec()?;
    spec.process.ok_or_else(|| Error::config("process", "is missing"))
}

/// See [`Runtime::init`].
pub(crate) fn running(runtime: &Runtime, id: &str) -> Result<OwnedFd> {
    init(&State::load(runtime.root(), id)?)?.ok_or(Error::NotRunning)
}

/// The first process, if it still is that one.
fn init(state: &State) -> Result<Option<OwnedFd>> {
    if state.init_process_pid == 0 {
        return Ok(None);
    }
    pidfd::open_checked(state.init_process_pid, state.init_process_start).map_err(Error::sys("open a pidfd"))
}

/// Whether the death of the first process does not end the others.
fn shares_pids(state: &State) -> bool {
    let Ok(spec) = state.spec() else { return true };
    let Some(linux) = spec.linux else { return true };
    let own = linux.namespaces.iter().any(|n| n.kind == "pid" && n.path.is_empty());
    !own
}
