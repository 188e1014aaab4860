//! `dhow rm`

use clap::Args;

use super::for_each;
use crate::app::Run;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::remove::{self, Options};

/// Remove containers
///
/// With its log, its files and its addresses. One that runs is refused unless -f is given.
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// Kill what runs; say nothing about what is not there
    #[arg(short = 'f', long)]
    force: bool,
    /// Remove anonymous volumes too
    #[arg(short = 'v', long)]
    volumes: bool,
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let options = Options { force: self.force, volumes: self.volumes };
        let outcome = for_each(&self.containers, |name| {
            match ctx.containers().find(name) {
                Ok(container) => remove::container(ctx, &container, options)?,
                Err(Error::NoSuchContainer(_)) if half_made(ctx, name)? => {}
                Err(Error::NoSuchContainer(_)) if self.force => return Ok(()),
                Err(error) => return Err(error),
            }
            ctx.say(name)
        });
        // What killed commands left behind goes with the opportunity.
        remove::abandoned(ctx)?;
        outcome
    }
}

/// Whether the name or id was that of a half-made container, which is gone now.
fn half_made(ctx: &Context, name: &str) -> Result<bool> {
    let holder = if crate::names::check(name).is_ok() { ctx.containers().names().holder(name)? } else { None };
    let gone = remove::abandoned(ctx)?;
    Ok(gone.iter().any(|id| holder.as_deref() == Some(id) || (name.len() >= 12 && id.starts_with(name))))
}
