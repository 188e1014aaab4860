//! `dhow commit`

use clap::{ArgAction, Args};
use dhow_api::task::{PauseRequest, ResumeRequest};
use dhow_image::{Cancel, CommitRequest, LayerCompression, Reference};

use crate::app::Run;
use crate::container::Status;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::shims::Services;
use crate::signals::Interrupt;
use crate::snapshot::{self, Layers};
use crate::{events, plan};

/// Make an image of a container's changes, and print its id
///
/// The container is paused meanwhile. Volumes and other mounts are not part of the image.
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// Who made it
    #[arg(short = 'a', long, value_name = "TEXT", default_value = "")]
    author: String,
    /// Change the image's configuration by a Dockerfile instruction: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, …
    #[arg(short = 'c', long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// What it is
    #[arg(short = 'm', long, value_name = "TEXT", default_value = "")]
    message: String,
    /// Pause the container while its files are read
    #[arg(short = 'p', long, value_name = "BOOL", default_value = "true", num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    pause: bool,
    /// Leave it running
    #[arg(long)]
    no_pause: bool,
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// The image's name
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let container = ctx.containers().find(&self.container)?;
        let reference = self.name.as_deref().map(Reference::parse).transpose().map_err(dhow_image::Error::from)?;
        if reference.as_ref().is_some_and(|r| r.digest().is_some()) {
            return Err(Error::Usage("an image cannot be given a name with a digest".into()));
        }
        let record = &container.record;
        let store = ctx.store()?;
        let parent = store.resolve(&record.image)?;
        let layers = Layers::of(&snapshot::mounts(ctx, &record.id)?);
        let upper = layers.upper.ok_or_else(|| Error::Usage("the container has no writable layer".into()))?;
        let cancel = Cancel::new();
        let _interrupt = Interrupt::watch(&cancel)?;
        let pause = self.pause && !self.no_pause && container.state().status == Status::Running;
        let _paused = if pause { Some(Paused::new(ctx, container.id())?) } else { None };
        let request = CommitRequest {
            upper,
            lowers: layers.lowers,
            parent: Some(&parent),
            config: Some(plan::image_config(record, &parent.config)),
            changes: self.change,
            message: self.message,
            author: self.author,
            created_by: record.command.join(" "),
            reference,
            compression: LayerCompression::default(),
            threads: 0,
            cancel,
        };
        let committed = dhow_image::commit(&request, store)?;
        events::container(ctx, record, "commit", &[("imageID", committed.id.as_str())]);
        ctx.say(committed.id.as_str())?;
        Ok(0)
    }
}

/// A container that is paused until this is dropped.
struct Paused {
    services: Services,
    id: String,
}

impl Paused {
    fn new(ctx: &Context, id: &str) -> Result<Self> {
        let services = Services::of(ctx, id);
        services.task.pause(&PauseRequest { id: id.to_owned(), ..Default::default() })?;
        Ok(Self { services, id: id.to_owned() })
    }
}

impl Drop for Paused {
    fn drop(&mut self) {
        if let Err(error) = self.services.task.resume(&ResumeRequest { id: self.id.clone(), ..Default::default() }) {
            log::warn!("resuming the container: {}", dhow_api::error::chain(&error));
        }
    }
}
