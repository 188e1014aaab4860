//! `dhow logout`

use clap::Args;
use dhow_image::DEFAULT_REGISTRY;
use dhow_image::auth::{AuthFile, storage_key};

use super::login::host;
use crate::app::Run;
use crate::context::{Context, docker_config};
use crate::error::Result;

/// Log out from a registry: forget its credentials
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// The registry (default docker.io)
    #[arg(value_name = "REGISTRY")]
    registry: Option<String>,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let registry = host(self.registry.as_deref().unwrap_or(DEFAULT_REGISTRY));
        if AuthFile::open(&docker_config())?.remove(storage_key(registry))? {
            ctx.say(&format!("Removing login credentials for {registry}"))?;
        } else {
            ctx.say(&format!("Not logged in to {registry}"))?;
        }
        Ok(0)
    }
}
