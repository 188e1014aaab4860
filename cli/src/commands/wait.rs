//! `dhow wait`

use clap::Args;
use dhow_api::documents::{Document, ExitRecord};
use dhow_api::task::WaitRequest;

use super::for_each;
use crate::app::Run;
use crate::container::Container;
use crate::context::Context;
use crate::error::Result;
use crate::shims::Services;

/// Wait until containers end, and print their exit codes
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        for_each(&self.containers, |name| {
            let container = ctx.containers().find(name)?;
            let state = container.state();
            let code = if state.is_up() {
                exit_code(ctx, &container, &Services::of(ctx, container.id()))?
            } else {
                u8::try_from(state.exit_code()).unwrap_or(u8::MAX)
            };
            ctx.say(&code.to_string())
        })
    }
}

/// Waits for the end of a container and returns its code. Where the shim dies meanwhile, another one is asked, and at
/// last the files.
pub(crate) fn exit_code(ctx: &Context, container: &Container, services: &Services) -> Result<u8> {
    let request = WaitRequest { id: container.id().to_owned(), ..Default::default() };
    let mut failures = 0;
    loop {
        let error = match services.task.wait(&request) {
            Ok(answer) => return Ok(u8::try_from(answer.exit_status).unwrap_or(u8::MAX)),
            Err(error) => error,
        };
        failures += 1;
        if let Ok(exit) = ExitRecord::load(&container.bundle.exit()) {
            return Ok(u8::try_from(exit.exit_code).unwrap_or(u8::MAX));
        }
        if failures > MOST_FAILURES || !container.state().is_up() {
            return Err(error.into());
        }
        log::debug!("waiting for {}: {}", ctx.root.path().display(), dhow_api::error::chain(&error));
    }
}

const MOST_FAILURES: u32 = 3;
