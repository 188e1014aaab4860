//! `dhow image inspect`

use clap::Args;

use crate::app::Run;
use crate::context::Context;
use crate::error::Result;
use crate::inspect;

/// Show all about images, as JSON
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// A Go template for each image instead, such as '{{.Config.Cmd}}'; json is one line each
    #[arg(short = 'f', long, value_name = "FORMAT")]
    format: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "IMAGE")]
    names: Vec<String>,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let store = ctx.store()?;
        super::inspect::show(ctx, &self.names, self.format.as_deref(), |name| {
            Ok(inspect::image(ctx, &store.resolve(name)?))
        })
    }
}
