//! `dhow rmi`

use clap::Args;
use dhow_image::{Digest, Image, Reference, Removed};

use super::for_each;
use crate::app::Run;
use crate::container::Container;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::{events, leftovers, names, snapshot};

/// Remove images
///
/// A name is taken away; with its last name goes the image itself. What a container uses stays, unless -f.
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// Remove it even if a stopped container uses it or it has several names
    #[arg(short = 'f', long)]
    force: bool,
    /// Accepted for scripts written for docker
    #[arg(long)]
    no_prune: bool,
    /// The images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let mut some = false;
        let outcome = for_each(&self.images, |name| {
            let image = match ctx.store()?.resolve(name) {
                Err(dhow_image::Error::NoSuchImage { .. }) if self.force => return Ok(()),
                other => other?,
            };
            let removed = self.remove(ctx, name, &image)?;
            some = true;
            report(ctx, &removed)?;
            remove_snapshots(ctx, &removed.chains)
        });
        if some {
            leftovers::await_deletion(ctx)?;
        }
        outcome
    }
}

impl Command {
    fn remove(&self, ctx: &Context, name: &str, image: &Image) -> Result<Removed> {
        let store = ctx.store()?;
        let named = image.names.iter().find(|n| Reference::parse(name).is_ok_and(|r| r == n.reference));
        match named {
            Some(found) if image.names.len() > 1 => Ok(store.untag(&found.reference)?),
            Some(found) => {
                self.refuse_used(ctx, name, &image.id, "remove repository reference")?;
                Ok(store.untag(&found.reference)?)
            }
            None => {
                if image.names.len() > 1 && !self.force {
                    return Err(Error::ImageInUse {
                        operation: "delete",
                        image: image.id.short().to_owned(),
                        why: "image is referenced in multiple repositories (use -f to remove all its names)".into(),
                    });
                }
                self.refuse_used(ctx, name, &image.id, "delete")?;
                Ok(store.remove(&image.id)?)
            }
        }
    }

    /// Refuses what a container needs: one that runs always, one that does not unless forced.
    fn refuse_used(&self, ctx: &Context, name: &str, id: &Digest, operation: &'static str) -> Result<()> {
        for container in users(ctx, id)? {
            let running = container.state().is_up();
            if running || !self.force {
                let (kind, how) = if running { ("running", "cannot be forced") } else { ("stopped", "must be forced") };
                let why = format!("({how}) - container {} is using it; it is {kind}", names::short(container.id()));
                return Err(Error::ImageInUse { operation, image: name.to_owned(), why });
            }
        }
        Ok(())
    }
}

/// The containers that were made from an image.
pub(crate) fn users(ctx: &Context, id: &Digest) -> Result<Vec<Container>> {
    Ok(ctx.containers().list()?.into_iter().filter(|c| c.record.image == id.as_str()).collect())
}

/// Prints docker's lines, and tells the event log.
pub(crate) fn report(ctx: &Context, removed: &Removed) -> Result<()> {
    for reference in &removed.untagged {
        let name = reference.familiar();
        events::image(ctx, "untag", removed.deleted.as_ref().map_or(&name, |id| id.as_str()), &name);
    }
    if let Some(id) = &removed.deleted {
        events::image(ctx, "delete", id.as_str(), id.as_str());
    }
    ctx.print(|out| {
        for reference in &removed.untagged {
            writeln!(out, "Untagged: {}", reference.familiar()).map_err(Error::output)?;
        }
        if let Some(id) = &removed.deleted {
            writeln!(out, "Deleted: {id}").map_err(Error::output)?;
        }
        if removed.deleted.is_some() {
            for chain in &removed.chains {
                writeln!(out, "Deleted: {chain}").map_err(Error::output)?;
            }
        }
        Ok(())
    })
}

/// Removes the snapshots of layers that no image has any more, and what killed pulls left. A layer that a container still
/// stands on stays until a prune; so do all while somebody pulls, who may count on them.
pub(crate) fn remove_snapshots(ctx: &Context, chains: &[Digest]) -> Result<()> {
    if chains.is_empty() {
        return Ok(());
    }
    let Some(quiet) = ctx.store()?.try_quiet()? else { return Ok(()) };
    leftovers::sweep_in(ctx, &quiet)?;
    // Another image may have come to need them since.
    let live = quiet.live_chains()?;
    let chains = chains.iter().filter(|chain| !live.contains(*chain));
    for chain in chains {
        match snapshot::remove(ctx, chain.as_str()) {
            Err(Error::Service(error)) if error.is(dhow_api::Kind::FailedPrecondition) => {
                log::debug!("the layer {chain} is still in use");
            }
            other => other?,
        }
    }
    Ok(())
}
