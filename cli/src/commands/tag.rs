//! `dhow tag`

use clap::Args;
use dhow_image::Reference;

use crate::app::Run;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::events;

/// Give an image a further name
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// The image
    #[arg(value_name = "IMAGE")]
    source: String,
    /// The name to give it
    #[arg(value_name = "NAME[:TAG]")]
    target: String,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let reference = Reference::parse(&self.target).map_err(dhow_image::Error::from)?;
        if reference.digest().is_some() {
            return Err(Error::Usage(format!("refusing to create a tag with a digest reference: {}", self.target)));
        }
        let store = ctx.store()?;
        let image = store.resolve(&self.source)?;
        store.tag(&image, &reference)?;
        events::image(ctx, "tag", image.id.as_str(), &reference.familiar());
        Ok(0)
    }
}
