//! `dhow pull`

use clap::{ArgAction, Args};
use dhow_image::{PullPolicy, Reference};

use crate::app::Run;
use crate::context::Context;
use crate::error::Result;
use crate::images::{self, Request};
use crate::output::progress::Target;

/// Download an image from a registry
///
/// The name is [REGISTRY/]REPOSITORY[:TAG|@DIGEST]; without a registry it is docker.io's, without a tag latest. A pull that
/// was interrupted goes on where it stopped.
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// Take the image of this platform: OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    platform: Option<String>,
    /// Print the name only
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Check TLS certificates, and refuse plain http except on loopback
    #[arg(long, value_name = "BOOL", default_value = "true", num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    tls_verify: bool,
    /// The image
    #[arg(value_name = "NAME")]
    name: String,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let reference = Reference::parse(&self.name).map_err(dhow_image::Error::from)?;
        let request = Request {
            name: &self.name,
            policy: PullPolicy::Always,
            platform: self.platform.as_deref(),
            quiet: self.quiet,
            tls_verify: self.tls_verify,
        };
        let target = if self.quiet { Target::Nowhere } else { Target::Stdout };
        images::pull(ctx, &reference, &request, target)?;
        ctx.say(&reference.to_string())?;
        Ok(0)
    }
}
