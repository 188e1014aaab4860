//! `dhow run`

use clap::{ArgAction, Args};

use super::create;
use crate::app::Run;
use crate::container::Container;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::flags::CreateFlags;
use crate::launch::{Launch, Launched};
use crate::make;
use crate::signals::Proxy;
use crate::stdio::{Attachment, Ended};
use crate::{events, stdio, terminal};

/// Create and start a container from an image
///
/// In the foreground (the default) its output is yours, signals are passed on, and dhow ends with the container's exit
/// code; 125 means that dhow itself failed, 126 that the command cannot be executed, 127 that it is not there. With -d
/// only the container's id is printed. `dhow run --rm -it IMAGE sh` gives you a shell in a fresh container.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Command {
    #[command(flatten)]
    flags: CreateFlags,
    /// Run in the background and print the container's id
    #[arg(short = 'd', long)]
    detach: bool,
    /// Attach to stdin, stdout or stderr only
    #[arg(short = 'a', long, value_name = "STREAM")]
    attach: Vec<String>,
    /// The keys that detach you from the container (default ctrl-p,ctrl-q)
    #[arg(long, value_name = "KEYS", default_value = "")]
    detach_keys: String,
    /// Pass signals on to the container
    #[arg(long, value_name = "BOOL", default_value = "true", num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    sig_proxy: bool,
    /// Print this text
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// The image, and the command to run in it with its arguments
    #[arg(value_name = "IMAGE [COMMAND]", required = true, trailing_var_arg = true)]
    words: Vec<String>,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let flags = self.flags;
        if self.detach && !self.attach.is_empty() {
            return Err(Error::Usage("conflicting options: -a and -d".into()));
        }
        detach_keys(&self.detach_keys)?;
        let streams = Streams::of(&self.attach, flags.interactive)?;
        if !self.detach && streams.stdin && flags.tty && !terminal::stdin_is_terminal() {
            return Err(Error::Usage("the input device is not a TTY".into()));
        }
        let what = create::image_and_command(self.words)?;
        let made = make::make(ctx, &flags, &what, true)?;
        if self.detach {
            let container = launch(ctx, made, None)?.0;
            ctx.say(container.id())?;
            return Ok(0);
        }
        // From here on signals are the container's; until it runs they wait.
        let signals = Proxy::block()?;
        let attachment = Attachment {
            id: made.container.id().to_owned(),
            exec_id: String::new(),
            stdin: streams.stdin,
            stdout: streams.stdout,
            stderr: streams.stderr,
            tty: flags.tty,
            detach_keys: self.detach_keys,
            sig_proxy: self.sig_proxy,
        };
        events::container(ctx, &made.container.record, "attach", &[]);
        let (container, launched) = launch(ctx, made, Some(attachment))?;
        foreground(ctx, &container, launched, &signals)
    }
}

/// Starts what was made; whatever fails takes the container back altogether, so that the next try can have its name.
fn launch(ctx: &Context, mut made: make::Made<'_>, attachment: Option<Attachment>) -> Result<(Container, Launched)> {
    if let Some(attachment) = &attachment {
        let config = &mut made.container.record.config;
        config.attach_stdin = attachment.stdin;
        config.attach_stdout = attachment.stdout;
        config.attach_stderr = attachment.stderr;
        config.stdin_once = config.open_stdin && attachment.stdin;
    }
    let mounts = std::mem::take(&mut made.mounts);
    let mut launch = Launch::new(ctx, &mut made.container, &mounts);
    launch.attachment = attachment;
    let launched = launch.start()?;
    Ok((made.keep(), launched))
}

/// Shows the container's output until it ends or the user detaches. The exit code is the container's.
pub(crate) fn foreground(ctx: &Context, container: &Container, launched: Launched, signals: &Proxy) -> Result<u8> {
    let Launched { services, session } = launched;
    let Some(mut session) = session else { return Ok(0) };
    if container.record.config.tty {
        // The size in config.json may be old by now; that the process has ended already is no failure.
        if let Err(error) = stdio::resize(&services, container.id(), "") {
            log::debug!("setting the terminal's size: {}", dhow_api::error::chain(&error));
        }
    }
    let ended = session.run(&services, Some(signals))?;
    match ended {
        Ended::Detached => Ok(0),
        // The shim stays while we are connected, so that the code can still be asked for.
        Ended::Exited | Ended::Lost => super::wait::exit_code(ctx, container, &services),
    }
}

/// Which streams are attached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Streams {
    stdin: bool,
    stdout: bool,
    stderr: bool,
}

impl Streams {
    fn of(attach: &[String], interactive: bool) -> Result<Self> {
        if attach.is_empty() {
            return Ok(Self { stdin: interactive, stdout: true, stderr: true });
        }
        let mut streams = Self { stdin: false, stdout: false, stderr: false };
        for name in attach {
            match name.to_ascii_lowercase().as_str() {
                "stdin" => streams.stdin = true,
                "stdout" => streams.stdout = true,
                "stderr" => streams.stderr = true,
                _ => {
                    return Err(
                        crate::parse::Invalid::new("--attach", name, "it is none of stdin, stdout, stderr").into()
                    );
                }
            }
        }
        Ok(streams)
    }
}

/// Refuses a notation that the shim would refuse later.
pub(crate) fn detach_keys(text: &str) -> Result<()> {
    let parsed: std::result::Result<dhow_api::attach::DetachKeys, _> = text.parse();
    parsed.map(drop).map_err(|bad| crate::parse::Invalid::new("--detach-keys", text, bad.to_string()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams() {
        let of = |list: &[&str], interactive| {
            Streams::of(&list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(), interactive)
        };
        assert_eq!(of(&[], false).unwrap(), Streams { stdin: false, stdout: true, stderr: true });
        assert_eq!(of(&["STDERR"], true).unwrap(), Streams { stdin: false, stdout: false, stderr: true });
        assert!(of(&["all"], false).is_err());
        assert!(detach_keys("ctrl-x").is_ok());
        assert!(detach_keys("ctrl-").is_err());
    }
}
