//! `dhow restart`

use clap::Args;

use super::{for_each, stop};
use crate::app::Run;
use crate::context::Context;
use crate::error::Result;
use crate::{events, launch};

/// Stop containers and start them again
#[derive(Debug, Args)]
pub(crate) struct Command {
    #[command(flatten)]
    how: stop::How,
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        for_each(&self.containers, |name| {
            let mut container = ctx.containers().find(name)?;
            stop::stop(ctx, &container, &self.how)?;
            launch::again(ctx, &mut container, None)?;
            events::container(ctx, &container.record, "restart", &[]);
            ctx.say(name)
        })
    }
}
