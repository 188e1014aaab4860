//! `dhow pause`, `dhow unpause`

use clap::Args;
use dhow_api::task::{PauseRequest, ResumeRequest};

use super::for_each;
use crate::app::Run;
use crate::container::{Container, Status};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::shims::Services;

/// Freeze all processes of containers
#[derive(Debug, Args)]
pub(crate) struct Pause {
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

/// Let frozen containers go on
#[derive(Debug, Args)]
pub(crate) struct Unpause {
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Run for Pause {
    fn run(self, ctx: &Context) -> Result<u8> {
        for_each(&self.containers, |name| {
            let container = in_state(ctx, name, Status::Running, "only a running container can be paused")?;
            let request = PauseRequest { id: container.id().to_owned(), ..Default::default() };
            Services::of(ctx, container.id()).task.pause(&request)?;
            ctx.say(name)
        })
    }
}

impl Run for Unpause {
    fn run(self, ctx: &Context) -> Result<u8> {
        for_each(&self.containers, |name| {
            let container = in_state(ctx, name, Status::Paused, "it is not paused")?;
            let request = ResumeRequest { id: container.id().to_owned(), ..Default::default() };
            Services::of(ctx, container.id()).task.resume(&request)?;
            ctx.say(name)
        })
    }
}

fn in_state(ctx: &Context, name: &str, wanted: Status, why: &'static str) -> Result<Container> {
    let container = ctx.containers().find(name)?;
    let status = container.state().status;
    if status == wanted {
        Ok(container)
    } else {
        Err(Error::State { name: name.to_owned(), state: status.name(), why })
    }
}
