//! `dhow load`

use std::path::PathBuf;

use clap::Args;
use dhow_image::Cancel;

use crate::app::Run;
use crate::context::Context;
use crate::error::Result;
use crate::signals::Interrupt;
use crate::{archive, events, images};

/// Read images from an archive, from standard input unless -i
///
/// It reads what `dhow save`, `docker save`, `podman save` and skopeo write: OCI and docker archives, compressed or not.
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// Read from this file
    #[arg(short = 'i', long, value_name = "FILE")]
    input: Option<PathBuf>,
    /// Take the image of this platform: OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Print nothing but the names
    #[arg(short = 'q', long)]
    quiet: bool,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let reader = archive::read(self.input.as_deref())?;
        let platform = self.platform.as_deref().map(images::platform).transpose()?;
        ctx.make_roots()?;
        let store = ctx.store()?;
        let loaded = {
            let cancel = Cancel::new();
            let _interrupt = Interrupt::watch(&cancel)?;
            dhow_image::archive::load(reader, platform.as_ref(), store, &cancel)?
        };
        for image in loaded {
            images::ensure_unpacked(ctx, &image)?;
            events::image(ctx, "load", image.id.as_str(), image.id.as_str());
            if image.names.is_empty() {
                ctx.say(&format!("Loaded image ID: {}", image.id))?;
            }
            for name in &image.names {
                ctx.say(&format!("Loaded image: {}", name.reference.familiar()))?;
            }
        }
        Ok(0)
    }
}
