//! `--help`, `--version` and the command `help`.

use std::ffi::OsString;
use std::fmt::Write;
use std::path::PathBuf;

use super::args::{Flag, Parsed};
use super::{COMMANDS, Command, Context, Failure, GLOBAL, say};

pub(crate) const COMMAND: Command = Command {
    name: "help",
    usage: "help [COMMAND]",
    about: "print help for this program or a command",
    flags: &[],
    literal_after: None,
    run,
};

/// Version of the runtime specification that is followed.
pub(crate) const SPEC_VERSION: &str = "1.3.0";

fn run(_: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let text = match parsed.positional.first() {
        None => overview(&COMMANDS, &GLOBAL),
        Some(name) => COMMANDS.iter().find(|command| command.name == name).map(of).ok_or_else(|| no_topic(name))?,
    };
    say(&text).map(|()| 0)
}

/// There is no such command; the exit code is runc's.
pub(crate) fn no_topic(name: &str) -> Failure {
    Failure { code: 3, ..Failure::new(format!("No help topic for '{name}'")) }
}

/// What this program was called as: people who put it in another's place read that one's name.
pub(crate) fn program() -> String {
    let path = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    path.file_name().map_or_else(|| "dhow-runtime".into(), |name| name.to_string_lossy().into_owned())
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
    format!(
        "{} version {}\ncommit: {}\nspec: {SPEC_VERSION}\n",
        program(),
        env!("CARGO_PKG_VERSION"),
        option_env!("DHOW_COMMIT").unwrap_or("unknown")
    )
}

/// All commands and global flags.
pub(crate) fn overview(commands: &[Command], global: &[Flag]) -> String {
    let program = program();
    let mut text = format!(
        "NAME:\n   {program} - Open Container Initiative runtime\n\n\
         A bundle is a directory with a config.json and, as a rule, a root file system. `{program} spec` writes a\n\
         config.json to start from, and `{program} run -b BUNDLE ID` runs it.\n\n\
         USAGE:\n   {program} [global options] command [command options] [arguments...]\n\nCOMMANDS:\n",
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
    let program = program();
    let mut text =
        format!("NAME:\n   {program} {} - {}\n\nUSAGE:\n   {program} {}\n", command.name, command.about, command.usage);
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
