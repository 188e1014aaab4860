//! `dhow kill`

use clap::Args;
use dhow_api::task::KillRequest;
use nix::libc;

use super::for_each;
use crate::app::Run;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::shims::Services;
use crate::{parse, remove};

/// Send a signal to running containers (SIGKILL unless said otherwise)
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// The signal, by name or number
    #[arg(short = 's', long, value_name = "SIGNAL", default_value = "KILL")]
    signal: String,
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let signal = parse::signal::parse(&self.signal)?;
        for_each(&self.containers, |name| {
            let container = ctx.containers().find(name)?;
            let state = container.state();
            let not_running =
                || Error::State { name: name.to_owned(), state: state.status.name(), why: "it is not running" };
            if !state.is_up() {
                return Err(not_running());
            }
            if signal == libc::SIGKILL {
                // Works whatever has become of the shim.
                remove::kill(ctx, &container, &state)?;
                return ctx.say(name);
            }
            let request =
                KillRequest { id: container.id().to_owned(), signal: signal.cast_unsigned(), ..Default::default() };
            match Services::of(ctx, container.id()).task.kill(&request) {
                Ok(_) => ctx.say(name),
                Err(error) if remove::is_gone(&error) => Err(not_running()),
                Err(error) => Err(error.into()),
            }
        })
    }
}
