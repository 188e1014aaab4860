//! `dhow container prune`

use clap::Args;

use super::confirm;
use crate::app::Run;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::output::human;
use crate::remove::{self, Options};
use crate::snapshot;

/// Remove all containers that do not run
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// Don't ask
    #[arg(short = 'f', long)]
    force: bool,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        if !self.force && !confirm(ctx, "This will remove all stopped containers.")? {
            return Ok(0);
        }
        let (removed, bytes) = prune(ctx)?;
        if !removed.is_empty() {
            ctx.say("Deleted Containers:")?;
            for id in &removed {
                ctx.say(id)?;
            }
            ctx.say("")?;
        }
        ctx.say(&format!("Total reclaimed space: {}", human::size(bytes)))?;
        Ok(0)
    }
}

/// Removes every container that does not run, and what is half made. Returns their ids and how much they held.
pub(crate) fn prune(ctx: &Context) -> Result<(Vec<String>, u64)> {
    let (mut removed, mut bytes, mut errors) = (remove::abandoned(ctx)?, 0, Vec::new());
    for container in ctx.containers().list()? {
        let state = container.state();
        if state.is_up() || state.status == crate::container::Status::Restarting {
            continue;
        }
        let held = snapshot::usage(ctx, container.id()).unwrap_or(0);
        match remove::container(ctx, &container, Options::default()) {
            Ok(()) => {
                removed.push(container.record.id);
                bytes += held;
            }
            // Started meanwhile.
            Err(Error::State { .. }) => {}
            Err(error) => errors.push(error),
        }
    }
    ctx.containers().names().sweep()?;
    Error::of_all(errors).map(|()| (removed, bytes))
}
