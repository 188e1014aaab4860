//! `dhow import`

use std::path::PathBuf;

use clap::Args;
use dhow_image::archive::ImportRequest;
use dhow_image::{Cancel, LayerCompression, Reference};

use crate::app::Run;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::signals::Interrupt;
use crate::{archive, events, images};

/// Make an image of the tar of a root directory, and print its id
///
/// The tar may be compressed. `dhow export` writes one of a container.
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// Change the image's configuration by a Dockerfile instruction: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, …
    #[arg(short = 'c', long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// What it is
    #[arg(short = 'm', long, value_name = "TEXT")]
    message: Option<String>,
    /// For which platform it is: OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// The tar: a file, or - for standard input
    #[arg(value_name = "FILE|-")]
    source: String,
    /// The image's name
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        if self.source.starts_with("http://") || self.source.starts_with("https://") {
            let why = "fetch it with a program of your choice and pipe it in: curl -sSL URL | dhow import -";
            return Err(Error::Unsupported { flag: "importing from a URL".into(), why });
        }
        let reference = self.name.as_deref().map(Reference::parse).transpose().map_err(dhow_image::Error::from)?;
        if reference.as_ref().is_some_and(|r| r.digest().is_some()) {
            return Err(Error::Usage("an image cannot be given a name with a digest".into()));
        }
        let reader = archive::read(Some(&PathBuf::from(&self.source)))?;
        let platform = self.platform.as_deref().map(images::platform).transpose()?;
        ctx.make_roots()?;
        let committed = {
            let cancel = Cancel::new();
            let _interrupt = Interrupt::watch(&cancel)?;
            let request = ImportRequest {
                reference,
                message: self.message.unwrap_or_else(|| format!("Imported from {}", self.source)),
                changes: self.change,
                platform,
                compression: LayerCompression::default(),
                cancel,
            };
            dhow_image::archive::import(reader, &request, ctx.store()?)?
        };
        events::image(ctx, "import", committed.id.as_str(), self.name.as_deref().unwrap_or_default());
        ctx.say(committed.id.as_str())?;
        Ok(0)
    }
}
