//! `--help`, `--version` and the command `help`.

use std::ffi::OsString;
use std::fmt::Write;

use super::args::{Flag, Parsed};
use super::{COMMANDS, Command, Context, Failure, GLOBAL};

pub(crate) const COMMAND: Command = Command {
    name: "help",
    usage: "help [COMMAND]",
    about: "print help for dhow-runtime or a command",
    flags: &[],
    literal_after: None,
    run,
};

/// Version of the runtime specification that is followed.
pub(crate) const SPEC_VERSION: &str = "1.3.0";

fn run(_: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let text = match parsed.positional.first() {
        None => overview(&COMMANDS, &GLOBAL),
        Some(name) => COMMANDS
            .iter()
            .find(|command| command.name == name)
            .map(of)
            .ok_or_else(|| Failure::usage(format!("No help topic for '{name}'")))?,
    };
    print!("{text}");
    Ok(0)
}

/// Whether the words ask for help and not for the command: before the program that it may have to run.
pub(crate) fn asked_for(words: &[OsString], command: &Command) -> bool {
    let own = command.literal_after.map_or(words.len(), |limit| {
        let mut positional = 0;
        words
            .iter()
            .position(|word| {
                positional += usize::from(!word.to_string_lossy().starts_with('-'));
                positional > limit
            })
            .unwrap_or(words.len())
    });
    words[..own].iter().take_while(|word| *word != "--").any(|word| word == "--help" || word == "-h")
}

/// What `--version` prints.
pub(crate) fn version() -> String {
    format!("dhow-runtime version {}\nspec: {SPEC_VERSION}\n", env!("CARGO_PKG_VERSION"))
}

/// All commands and global flags.
pub(crate) fn overview(commands: &[Command], global: &[Flag]) -> String {
    let mut text = String::from(
        "NAME:\n   dhow-runtime - run containers by the Open Container Initiative's runtime specification\n\n\
         A bundle is a directory with a config.json and, as a rule, a root file system. `dhow-runtime spec` writes a\n\
         config.json to start from, and `dhow-runtime run -b BUNDLE ID` runs it.\n\n\
         USAGE:\n   dhow-runtime [global options] command [command options] [arguments...]\n\nCOMMANDS:\n",
    );
    for command in commands {
        _ = writeln!(text, "   {:<10} {}", command.name, command.about);
    }
    text.push_str("\nGLOBAL OPTIONS:\n");
    flags(&mut text, global);
    text
}

/// One command.
pub(crate) fn of(command: &Command) -> String {
    let mut text = format!(
        "NAME:\n   dhow-runtime {} - {}\n\nUSAGE:\n   dhow-runtime {}\n",
        command.name, command.about, command.usage
    );
    if !command.flags.is_empty() {
        text.push_str("\nOPTIONS:\n");
        flags(&mut text, command.flags);
    }
    text
}

fn flags(text: &mut String, flags: &[Flag]) {
    for flag in flags {
        let mut names = format!("--{}", flag.long);
        if let Some(short) = flag.short {
            _ = write!(names, ", -{short}");
        }
        if flag.takes_value {
            names.push_str(" value");
        }
        _ = writeln!(text, "   {names:<32} {}", flag.help);
    }
}
