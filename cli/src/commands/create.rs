//! `dhow create`

use clap::{ArgAction, Args};

use crate::app::Run;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::flags::{CreateFlags, ImageAndCommand};
use crate::make;

/// Create a container without starting it, and print its id
///
/// `dhow start` starts it. The flags are those of `dhow run`.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Command {
    #[command(flatten)]
    flags: CreateFlags,
    /// Print this text
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    /// The image, and the command to run in it with its arguments
    #[arg(value_name = "IMAGE [COMMAND]", required = true, trailing_var_arg = true)]
    words: Vec<String>,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let what = image_and_command(self.words)?;
        let mut made = make::make(ctx, &self.flags, &what, false)?;
        let config = &mut made.container.record.config;
        (config.attach_stdout, config.attach_stderr, config.attach_stdin) = (true, true, config.open_stdin);
        config.stdin_once = config.open_stdin;
        let container = made.finish()?;
        ctx.say(container.id())?;
        Ok(0)
    }
}

/// Splits the words after the flags.
pub(crate) fn image_and_command(mut words: Vec<String>) -> Result<ImageAndCommand> {
    if words.first().is_none_or(String::is_empty) {
        return Err(Error::Usage("the image's name is empty".into()));
    }
    let image = words.remove(0);
    Ok(ImageAndCommand { image, command: words })
}
