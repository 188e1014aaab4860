//! Removing a container with all it has, whatever state its shim is in.

use std::path::Path;
use std::time::Duration;

use dhow_api::clients::Task;
use dhow_api::network::DetachRequest;
use dhow_api::task::{ConnectRequest, ConnectResponse, KillRequest, ShutdownRequest, WaitRequest};
use dhow_api::{Error as ApiError, Kind};
use nix::libc;

use crate::container::state::shim_pid;
use crate::container::{Container, State, Status};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::shims::Services;
use crate::{events, files, names, snapshot, volumes};

/// How long a process may take to die of SIGKILL, and a shim to clean up after it.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is removed besides the container.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Options {
    /// Kill it if it runs.
    pub force: bool,
    /// Remove its anonymous volumes.
    pub volumes: bool,
}

/// Removes one container.
pub(crate) fn container(ctx: &Context, container: &Container, options: Options) -> Result<()> {
    let state = container.state();
    if state.is_up() || state.status == Status::Restarting {
        if !options.force {
            let why = "stop the container before removing it, or force its removal with -f";
            return Err(Error::State { name: container.record.name.clone(), state: state.status.name(), why });
        }
        kill(ctx, container, &state)?;
    } else {
        dismiss_shim(ctx, container.id());
    }
    await_shim(ctx, container.id())?;
    // What a killed command had asked of the shim may have been done after we looked.
    kill_process(container, &container.state())?;
    everything(ctx, container, options)
}

/// Tells the shim of a container that does not run to go. It may have been started only now, by a command that was
/// killed since: then it has no pid file yet, but its socket listened before it was born, and it answers once it can be
/// found.
fn dismiss_shim(ctx: &Context, id: &str) {
    if !ctx.runroot.shim(id).socket().exists() {
        return;
    }
    let task = Task::new(ctx.runroot.path(), id);
    let request = ConnectRequest { id: id.to_owned(), ..Default::default() };
    let answer = task.client().call::<_, ConnectResponse>(Task::SERVICE, "Connect", &request, Some(PATIENCE));
    let told = match answer {
        // A container that waits for its start; its end is the shim's.
        Ok(answer) if answer.task_pid != 0 => {
            let signal = libc::SIGKILL.cast_unsigned();
            task.kill(&KillRequest { id: id.to_owned(), signal, ..Default::default() }).map(drop)
        }
        Ok(_no_container) => {
            task.shutdown(&ShutdownRequest { id: id.to_owned(), now: true, ..Default::default() }).map(drop)
        }
        Err(error) => Err(error),
    };
    if let Err(error) = told {
        log::debug!("the shim is on its way out: {}", dhow_api::error::chain(&error));
    }
}

/// Kills a container for good: through its shim, a new one that adopts it, or without any.
pub(crate) fn kill(ctx: &Context, container: &Container, state: &State) -> Result<()> {
    let services = Services::of(ctx, container.id());
    let request =
        KillRequest { id: container.id().to_owned(), signal: libc::SIGKILL.cast_unsigned(), ..Default::default() };
    let outcome = services.task.kill(&request).and_then(|_| {
        let wait = WaitRequest { id: container.id().to_owned(), ..Default::default() };
        let client = services.task.client();
        client.call::<_, dhow_api::task::WaitResponse>(Task::SERVICE, "Wait", &wait, Some(PATIENCE))
    });
    match outcome {
        Ok(_) => return Ok(()),
        Err(error) if error.is(Kind::NotFound) => return Ok(()),
        Err(error) => log::debug!("the shim could not kill the container: {}", dhow_api::error::chain(&error)),
    }
    kill_process(container, state)
}

/// Kills a container without its shim: the first process's death takes the whole PID namespace along.
fn kill_process(container: &Container, state: &State) -> Result<()> {
    if state.pid <= 0 {
        return Ok(());
    }
    let fail = |action| move |errno: nix::errno::Errno| Error::System { action, source: errno.into() };
    let opened =
        dhow_sys::pidfd::open_checked(state.pid, state.start_time).map_err(fail("open the container's process"))?;
    let Some(pidfd) = opened else { return Ok(()) };
    use std::os::fd::AsFd;
    match dhow_sys::pidfd::send_signal(pidfd.as_fd(), libc::SIGKILL) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
        Err(errno) => return Err(fail("kill the container's process")(errno)),
    }
    if dhow_sys::pidfd::wait_ended(pidfd.as_fd(), Some(PATIENCE)).map_err(fail("wait for the container's process"))? {
        Ok(())
    } else {
        Err(Error::State { name: container.record.name.clone(), state: "running", why: "its process does not die" })
    }
}

/// Removes what is left of a container that does not run. Goes on past failures and tells them all.
fn everything(ctx: &Context, container: &Container, options: Options) -> Result<()> {
    let (id, record) = (container.id(), &container.record);
    let mut errors = Vec::new();
    let mut step = |outcome: Result<()>| errors.extend(outcome.err());
    step(runtime_leftovers(ctx, id));
    if needs_detach(ctx, container) {
        step(detach(ctx, id));
    }
    step(snapshot::remove(ctx, id));
    if !errors.is_empty() {
        // The record stays, so that the next rm can try again.
        return Error::of_all(errors);
    }
    // With --rm the shim has removed it and told so.
    if container.bundle.path().exists() {
        events::container(ctx, record, "destroy", &[]);
    }
    files::remove_dir_if_there(container.bundle.path())?;
    ctx.containers().names().release(&record.name, id)?;
    if options.volumes || record.host.auto_remove {
        volumes::remove_anonymous(ctx, record)?;
    }
    Ok(())
}

/// The shim detaches when the container ends; only where it had no chance to, or something is left, we have to.
fn needs_detach(ctx: &Context, container: &Container) -> bool {
    let ended_well = container.bundle.exit().exists() || container.record.started.is_none();
    !ended_well || ctx.runroot.netns(container.id()).exists()
}

/// Gives up the container's network; that it has none is fine.
pub(crate) fn detach(ctx: &Context, id: &str) -> Result<()> {
    ctx.network().detach(&DetachRequest { container_id: id.to_owned(), ..Default::default() })?;
    Ok(())
}

/// Waits until the shim of a container that does not run has finished its cleaning up.
pub(crate) fn await_shim(ctx: &Context, id: &str) -> Result<()> {
    use std::os::fd::AsFd;
    let Some(pid) = shim_pid(&ctx.runroot, id) else { return Ok(()) };
    let Ok(pidfd) = dhow_sys::pidfd::open(pid) else { return Ok(()) };
    // The number may have been taken by another process between the two looks.
    if shim_pid(&ctx.runroot, id) != Some(pid) {
        return Ok(());
    }
    if dhow_sys::pidfd::wait_ended(pidfd.as_fd(), Some(PATIENCE)).map_err(Error::system("wait for the shim"))? {
        return Ok(());
    }
    log::debug!("the shim {pid} does not end by itself");
    match dhow_sys::pidfd::send_signal(pidfd.as_fd(), libc::SIGKILL) {
        Ok(()) | Err(nix::errno::Errno::ESRCH) => {}
        Err(errno) => return Err(Error::system("kill the shim")(errno)),
    }
    dhow_sys::pidfd::wait_ended(pidfd.as_fd(), Some(PATIENCE)).map(drop).map_err(Error::system("wait for the shim"))
}

/// Removes what runtime and shim of a dead container left in RUNROOT, and its cgroups.
pub(crate) fn runtime_leftovers(ctx: &Context, id: &str) -> Result<()> {
    let runtime = ctx.runroot.runtime().join(id);
    for cgroup in crate::container::state::cgroups(&runtime) {
        remove_cgroup(Path::new(&cgroup));
    }
    files::remove_dir_if_there(&runtime)?;
    files::remove_dir_if_there(ctx.runroot.shim(id).path())
}

/// Removes an empty cgroup and its empty children. One that is gone or in use is left alone.
fn remove_cgroup(path: &Path) {
    if let Ok(entries) = std::fs::read_dir(path) {
        for entry in entries.flatten().filter(|e| e.file_type().is_ok_and(|t| t.is_dir())) {
            remove_cgroup(&entry.path());
        }
    }
    if let Err(error) = std::fs::remove_dir(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        log::debug!("removing the cgroup {}: {error}", path.display());
    }
}

/// Clears away what killed commands left half made.
pub(crate) fn abandoned(ctx: &Context) -> Result<Vec<String>> {
    let mut ids = Vec::new();
    for (id, claim) in ctx.containers().abandoned()? {
        log::info!("clearing away the half-made container {}", names::short(&id));
        runtime_leftovers(ctx, &id)?;
        detach(ctx, &id)?;
        snapshot::remove(ctx, &id)?;
        volumes::remove_claimed(ctx, &claim.bundle)?;
        files::remove_dir_if_there(claim.bundle.path())?;
        ids.push(id);
    }
    if !ids.is_empty() {
        ctx.containers().names().sweep()?;
    }
    Ok(ids)
}

/// Whether an error says that the process a signal was meant for is not there any more.
pub(crate) fn is_gone(error: &ApiError) -> bool {
    error.is(Kind::NotFound) || (error.is(Kind::FailedPrecondition) && error.to_string().contains("stopped"))
}
