//! `dhow attach`

use clap::{ArgAction, Args};

use super::run::{detach_keys, foreground};
use crate::app::Run;
use crate::container::{Container, Status};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::launch::Launched;
use crate::shims::Services;
use crate::signals::Proxy;
use crate::stdio::{Attachment, Session};
use crate::{events, terminal};

/// Attach your terminal to a running container
///
/// You see what it writes from now on and it reads what you type. The detach keys leave it running.
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// Don't forward standard input
    #[arg(long)]
    no_stdin: bool,
    /// The keys that detach you (default ctrl-p,ctrl-q)
    #[arg(long, value_name = "KEYS", default_value = "")]
    detach_keys: String,
    /// Pass signals on to the container
    #[arg(long, value_name = "BOOL", default_value = "true", num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    sig_proxy: bool,
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        detach_keys(&self.detach_keys)?;
        let container = ctx.containers().find(&self.container)?;
        let config = &container.record.config;
        let attachment = Attachment {
            id: container.id().to_owned(),
            exec_id: String::new(),
            stdin: config.open_stdin && !self.no_stdin,
            stdout: true,
            stderr: true,
            tty: config.tty,
            detach_keys: self.detach_keys,
            sig_proxy: self.sig_proxy,
        };
        attach(ctx, &container, attachment)
    }
}

/// Attaches to a container that runs.
pub(crate) fn attach(ctx: &Context, container: &Container, attachment: Attachment) -> Result<u8> {
    let status = container.state().status;
    if status != Status::Running {
        let why = "only a running container can be attached to";
        return Err(Error::State { name: container.record.name.clone(), state: status.name(), why });
    }
    if attachment.stdin && attachment.tty && !terminal::stdin_is_terminal() {
        return Err(Error::Usage("the input device is not a TTY".into()));
    }
    let signals = Proxy::block()?;
    let services = Services::of(ctx, container.id());
    let session = Session::open(&services, attachment)?;
    events::container(ctx, &container.record, "attach", &[]);
    foreground(ctx, container, Launched { services, session: Some(session) }, &signals)
}
