//! `dhow rename`

use clap::Args;
use dhow_api::documents::{Document, ShimConfig};

use crate::app::Run;
use crate::container::Container;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::{events, names};

/// Give a container another name
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// Its new name
    #[arg(value_name = "NAME")]
    name: String,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let mut container = ctx.containers().find(&self.container)?;
        names::check(&self.name)?;
        let old = std::mem::replace(&mut container.record.name, self.name.clone());
        if old == self.name {
            return Err(Error::Usage("renaming a container with the same name as its current name".into()));
        }
        let id = container.id().to_owned();
        ctx.containers().names().rename(&old, &self.name, &id, || container.save())?;
        retell(&container);
        events::container(ctx, &container.record, "rename", &[("oldName", &format!("/{old}"))]);
        Ok(0)
    }
}

/// Lets the shim of a container that runs tell its events under the new name.
fn retell(container: &Container) {
    let path = container.bundle.shim_config();
    let Ok(mut config) = ShimConfig::load(&path) else { return };
    config.event_attributes = events::attributes(&container.record);
    if let Err(error) = config.store(&path) {
        log::debug!("{}", dhow_api::error::chain(&error));
    }
}
