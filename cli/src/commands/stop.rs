//! `dhow stop`

use std::time::Duration;

use clap::Args;
use dhow_api::clients::Task;
use dhow_api::task::{KillRequest, WaitRequest, WaitResponse};
use dhow_api::{Error as ApiError, Kind};
use nix::libc;

use super::for_each;
use crate::app::Run;
use crate::container::{Container, Status};
use crate::context::Context;
use crate::error::Result;
use crate::events;
use crate::parse::signal;
use crate::remove;
use crate::shims::Services;

/// Stop containers: ask them to end, and kill those that don't
///
/// A container gets its stop signal (of its image or of --stop-signal, else SIGTERM) and, if it still runs after ten
/// seconds (-t), SIGKILL.
#[derive(Debug, Args)]
pub(crate) struct Command {
    #[command(flatten)]
    how: How,
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// How to stop.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct How {
    /// The signal to send
    #[arg(short = 's', long, value_name = "SIGNAL")]
    signal: Option<String>,
    /// Seconds to wait before SIGKILL; -1 waits for ever
    #[arg(short = 't', long, visible_alias = "timeout", value_name = "SECONDS", allow_hyphen_values = true)]
    time: Option<i64>,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        for_each(&self.containers, |name| {
            let container = ctx.containers().find(name)?;
            stop(ctx, &container, &self.how)?;
            ctx.say(name)
        })
    }
}

const TIMEOUT: i64 = 10;

/// Stops one container; one that does not run is stopped already.
pub(crate) fn stop(ctx: &Context, container: &Container, how: &How) -> Result<()> {
    let config = &container.record.config;
    let text =
        how.signal.as_deref().unwrap_or(if config.stop_signal.is_empty() { "SIGTERM" } else { &config.stop_signal });
    let signal = signal::parse(text)?;
    let seconds = how.time.or(config.stop_timeout).unwrap_or(TIMEOUT);
    let state = container.state();
    if !state.is_up() && state.status != Status::Restarting {
        return Ok(());
    }
    let services = Services::of(ctx, container.id());
    if state.status == Status::Paused {
        // A frozen process would not see the signal.
        services.task.resume(&dhow_api::task::ResumeRequest { id: container.id().to_owned(), ..Default::default() })?;
    }
    if !send(&services, container, signal)? {
        return Ok(());
    }
    let patience = u64::try_from(seconds).ok().map(Duration::from_secs);
    if !wait(&services, container, patience)? {
        send(&services, container, libc::SIGKILL)?;
        wait(&services, container, None)?;
    }
    // A shim stays for as long as somebody is connected to it.
    drop(services);
    remove::await_shim(ctx, container.id())?;
    events::container(ctx, &container.record, "stop", &[]);
    Ok(())
}

/// Sends a signal; false when nobody is there any more.
fn send(services: &Services, container: &Container, signal: i32) -> Result<bool> {
    let request = KillRequest { id: container.id().to_owned(), signal: signal.cast_unsigned(), ..Default::default() };
    match services.task.kill(&request) {
        Ok(_) => Ok(true),
        Err(error) if remove::is_gone(&error) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Waits for the end; false when it did not come in time.
fn wait(services: &Services, container: &Container, patience: Option<Duration>) -> Result<bool> {
    let request = WaitRequest { id: container.id().to_owned(), ..Default::default() };
    if patience == Some(Duration::ZERO) {
        return Ok(false);
    }
    match services.task.client().call::<_, WaitResponse>(Task::SERVICE, "Wait", &request, patience) {
        Ok(_) => Ok(true),
        Err(error) if error.is(Kind::DeadlineExceeded) => Ok(false),
        Err(error) if remove::is_gone(&error) => Ok(true),
        // The shim had no reason to stay once the container was gone.
        Err(ApiError::Lost { .. } | ApiError::Connect { .. } | ApiError::Died { .. }) if !container.state().is_up() => {
            Ok(true)
        }
        Err(error) => Err(error.into()),
    }
}
