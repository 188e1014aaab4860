//! `dhow image prune`

use std::collections::BTreeSet;

use clap::Args;
use dhow_image::Removed;

use super::{confirm, rmi};
use crate::app::Run;
use crate::context::Context;
use crate::error::Result;
use crate::leftovers;
use crate::output::human;

/// Remove images without a name (with -a: all that no container uses)
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// Those with names too
    #[arg(short = 'a', long)]
    all: bool,
    /// Don't ask
    #[arg(short = 'f', long)]
    force: bool,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let what = if self.all { "all images without at least one container" } else { "all dangling images" };
        if !self.force && !confirm(ctx, &format!("This will remove {what}."))? {
            return Ok(0);
        }
        let (removed, bytes) = prune(ctx, self.all)?;
        if !removed.is_empty() {
            ctx.say("Deleted Images:")?;
            for one in &removed {
                rmi::report(ctx, one)?;
            }
            ctx.say("")?;
        }
        ctx.say(&format!("Total reclaimed space: {}", human::size(bytes)))?;
        Ok(0)
    }
}

/// Removes images that no container was made from. Returns what was done and how much it held.
pub(crate) fn prune(ctx: &Context, all: bool) -> Result<(Vec<Removed>, u64)> {
    let used: BTreeSet<String> = ctx.containers().list()?.into_iter().map(|c| c.record.image).collect();
    let store = ctx.store()?;
    let (mut done, mut bytes) = (Vec::new(), 0);
    for image in store.list()? {
        if used.contains(image.id.as_str()) || (!all && !image.names.is_empty()) {
            continue;
        }
        let removed = store.remove(&image.id)?;
        bytes += image.layers.iter().filter(|l| removed.blobs.contains(&l.digest)).map(|l| l.size).sum::<u64>();
        rmi::remove_snapshots(ctx, &removed.chains)?;
        done.push(removed);
    }
    leftovers::await_deletion(ctx)?;
    Ok((done, bytes))
}
