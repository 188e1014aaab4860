//! `dhow rename`

use clap::Args;

use crate::app::Run;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::names;

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
        Ok(0)
    }
}
