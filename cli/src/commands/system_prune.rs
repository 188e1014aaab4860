//! `dhow system prune`

use clap::Args;
use dhow_api::network::GcRequest;

use super::{confirm, container_prune, image_prune, network, rmi, volume};
use crate::app::Run;
use crate::context::Context;
use crate::error::Result;
use crate::leftovers;
use crate::output::human;

/// Remove everything that is not in use
///
/// Containers that do not run, networks and anonymous volumes (--volumes) without containers, images without a name
/// (with -a: without a container), and what interrupted commands left behind. When it ends, the space is free.
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// All images that no container uses, not only those without a name
    #[arg(short = 'a', long)]
    all: bool,
    /// Don't ask
    #[arg(short = 'f', long)]
    force: bool,
    /// Anonymous volumes too
    #[arg(long)]
    volumes: bool,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let question = format!(
            "This will remove:\n  - all stopped containers\n  - all networks not used by at least one container{}\n  - all {}\n",
            if self.volumes { "\n  - all anonymous volumes not used by at least one container" } else { "" },
            if self.all { "images without at least one container" } else { "dangling images" },
        );
        if !self.force && !confirm(ctx, &question)? {
            return Ok(0);
        }
        ctx.make_roots()?;
        let (containers, mut bytes) = container_prune::prune(ctx)?;
        heading(ctx, "Deleted Containers:", &containers)?;
        heading(ctx, "Deleted Networks:", &network::prune(ctx)?)?;
        if self.volumes {
            let (volumes, held) = volume::prune(ctx, false)?;
            heading(ctx, "Deleted Volumes:", &volumes)?;
            bytes += held;
        }
        let (images, held) = image_prune::prune(ctx, self.all)?;
        bytes += held;
        if !images.is_empty() {
            ctx.say("Deleted Images:")?;
            for removed in &images {
                rmi::report(ctx, removed)?;
            }
            ctx.say("")?;
        }
        bytes += leftovers::prune(ctx)?;
        leftovers::cgroup_parents();
        let container_ids = ctx.containers().ids()?;
        ctx.network().gc(&GcRequest { container_ids, ..Default::default() })?;
        ctx.say(&format!("Total reclaimed space: {}", human::size(bytes)))?;
        Ok(0)
    }
}

fn heading(ctx: &Context, title: &str, names: &[String]) -> Result<()> {
    if names.is_empty() {
        return Ok(());
    }
    ctx.say(title)?;
    names.iter().try_for_each(|name| ctx.say(name))?;
    ctx.say("")
}
