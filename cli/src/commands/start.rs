//! `dhow start`

use clap::{ArgAction, Args};

use super::for_each;
use super::run::{detach_keys, foreground};
use crate::app::Run;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::events;
use crate::launch;
use crate::signals::Proxy;
use crate::stdio::Attachment;
use crate::terminal;

/// Start containers that were created or have ended
///
/// A container keeps its files and its log. With -a you are attached to its output, with -i also to its input.
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// Show the output and pass signals on
    #[arg(short = 'a', long)]
    attach: bool,
    /// Forward standard input
    #[arg(short = 'i', long)]
    interactive: bool,
    /// The keys that detach you (default ctrl-p,ctrl-q)
    #[arg(long, value_name = "KEYS", default_value = "")]
    detach_keys: String,
    /// Pass signals on to the container
    #[arg(long, value_name = "BOOL", default_value = "true", num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    sig_proxy: bool,
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        detach_keys(&self.detach_keys)?;
        if !self.attach && !self.interactive {
            return for_each(&self.containers, |name| {
                let mut container = ctx.containers().find(name)?;
                match launch::again(ctx, &mut container, None) {
                    // As docker: what runs already is started.
                    Ok(_) | Err(Error::State { state: "running", .. }) => ctx.say(name),
                    Err(error) => Err(error),
                }
            });
        }
        let [name] = self.containers.as_slice() else {
            return Err(Error::Usage("you cannot start and attach multiple containers at once".into()));
        };
        let mut container = ctx.containers().find(name)?;
        let config = &container.record.config;
        let stdin = self.interactive && config.open_stdin;
        if stdin && config.tty && !terminal::stdin_is_terminal() {
            return Err(Error::Usage("the input device is not a TTY".into()));
        }
        let attachment = Attachment {
            id: container.id().to_owned(),
            exec_id: String::new(),
            stdin,
            stdout: true,
            stderr: true,
            tty: config.tty,
            detach_keys: self.detach_keys,
            sig_proxy: self.sig_proxy,
        };
        if container.state().is_up() {
            return super::attach::attach(ctx, &container, attachment);
        }
        let signals = Proxy::block()?;
        events::container(ctx, &container.record, "attach", &[]);
        let launched = launch::again(ctx, &mut container, Some(attachment))?;
        foreground(ctx, &container, launched, &signals)
    }
}
