//! The tree of commands, and what happens around one: parsing, dispatch, errors, exit codes.
//!
//! Only the command that is called is built in full: the others are names with a line of text (`Command::defer`), which
//! keeps the start cheap.

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, value_parser};

use crate::commands;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::logger;

/// A command that can be parsed and run.
pub(crate) trait Run: Args {
    /// Does it. The number is the exit code.
    fn run(self, ctx: &Context) -> Result<u8>;
}

/// A command or group in the tree.
#[derive(Debug)]
pub(crate) struct Entry {
    name: &'static str,
    aliases: &'static [&'static str],
    about: &'static str,
    /// The exit code of dhow's own failures.
    failure: u8,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Command { build: fn(Command) -> Command, run: fn(&Context, &ArgMatches) -> Result<u8> },
    Group(fn() -> Vec<Entry>),
}

/// The entry of a command.
pub(crate) fn command<C: Run>(name: &'static str, about: &'static str) -> Entry {
    Entry {
        name,
        aliases: &[],
        about,
        failure: 1,
        kind: Kind::Command { build: C::augment_args, run: parse_and_run::<C> },
    }
}

/// The entry of a group.
pub(crate) fn group(name: &'static str, about: &'static str, entries: fn() -> Vec<Entry>) -> Entry {
    Entry { name, aliases: &[], about, failure: 1, kind: Kind::Group(entries) }
}

impl Entry {
    /// Further names of it.
    pub(crate) fn aliases(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    /// The exit code for failures that are not the container's.
    pub(crate) fn failure(mut self, code: u8) -> Self {
        self.failure = code;
        self
    }

    fn build(&self) -> Command {
        let command = Command::new(self.name).about(self.about).visible_aliases(self.aliases);
        match self.kind {
            Kind::Command { build, .. } => command.defer(build),
            Kind::Group(entries) => command
                .subcommand_required(true)
                .arg_required_else_help(true)
                .subcommands(entries().iter().map(Self::build)),
        }
    }

    fn is(&self, name: &str) -> bool {
        self.name == name || self.aliases.contains(&name)
    }
}

fn parse_and_run<C: Run>(ctx: &Context, matches: &ArgMatches) -> Result<u8> {
    C::from_arg_matches(matches).map_err(|error| Error::Usage(one_line(&error)))?.run(ctx)
}

/// Runs the command line `args`, program name first.
pub fn run(args: impl Iterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.collect();
    ExitCode::from(execute(&args))
}

fn execute(args: &[OsString]) -> u8 {
    let entries = commands::all();
    let matches = match tree(&entries).try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => return refuse(&error, failure_code(&entries, args)),
    };
    let (entry, sub) = match find(entries, &matches) {
        Some(found) => found,
        None => return 1,
    };
    let Kind::Command { run, .. } = entry.kind else { return 1 };
    let outcome = level(&matches).and_then(|level| {
        logger::init(level);
        let path = |name: &str| matches.get_one::<PathBuf>(name).cloned();
        let ctx = Context::new(path("root"), path("runroot"))?;
        run(&ctx, &sub)
    });
    match outcome {
        Ok(code) => code,
        Err(error) => {
            let mut stderr = std::io::stderr();
            for line in error.lines() {
                // Standard error is the last resort; when it is closed the exit code has to do.
                drop(writeln!(stderr, "dhow: {line}"));
            }
            error.exit_code(entry.failure)
        }
    }
}

/// The entry that was called, through groups, and its arguments.
fn find(entries: Vec<Entry>, matches: &ArgMatches) -> Option<(Entry, ArgMatches)> {
    let (name, sub) = matches.subcommand()?;
    let entry = entries.into_iter().find(|entry| entry.is(name))?;
    match entry.kind {
        Kind::Group(inner) => find(inner(), sub),
        Kind::Command { .. } => Some((entry, sub.clone())),
    }
}

fn tree(entries: &[Entry]) -> Command {
    Command::new("dhow")
        .about("Run containers: pull images, run, commit and push them. No daemon.")
        .version(env!("CARGO_PKG_VERSION"))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .disable_help_subcommand(true)
        .arg(
            Arg::new("root")
                .long("root")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .help("Where images, containers and volumes lie (DHOW_ROOT; default /var/lib/dhow)"),
        )
        .arg(
            Arg::new("runroot")
                .long("runroot")
                .value_name("DIR")
                .value_parser(value_parser!(PathBuf))
                .help("Where sockets and running state lie (DHOW_RUNROOT; default /run/dhow)"),
        )
        .arg(
            Arg::new("debug").long("debug").short('D').action(ArgAction::SetTrue).help("The same as --log-level debug"),
        )
        .arg(
            Arg::new("log-level")
                .long("log-level")
                .value_name("LEVEL")
                .default_value("warn")
                .help("What to tell on standard error: error, warn, info, debug or trace"),
        )
        .subcommands(entries.iter().map(Entry::build))
}

fn level(matches: &ArgMatches) -> Result<log::LevelFilter> {
    if matches.get_flag("debug") {
        return Ok(log::LevelFilter::Debug);
    }
    let text = matches.get_one::<String>("log-level").map_or("warn", String::as_str);
    let text = if text == "fatal" || text == "panic" { "error" } else { text };
    text.parse().map_err(|_bad| {
        crate::parse::Invalid::new("--log-level", text, "it is none of error, warn, info, debug, trace").into()
    })
}

/// Prints help where it was asked for, and one line about the mistake otherwise.
fn refuse(error: &clap::Error, code: u8) -> u8 {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => {
            drop(write!(std::io::stdout(), "{error}"));
            0
        }
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            drop(write!(std::io::stderr(), "{error}"));
            code
        }
        _ => {
            drop(writeln!(std::io::stderr(), "dhow: {}", one_line(error)));
            code
        }
    }
}

/// clap's message in one line, without its `error: ` and usage.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let text = text.strip_prefix("error: ").unwrap_or(&text);
    let mut lines = text.lines().map(str::trim).take_while(|line| !line.starts_with("Usage:"));
    let mut message = lines.next().unwrap_or_default().to_owned();
    for line in lines.filter(|line| !line.is_empty() && !line.starts_with("For more information")) {
        message.push_str(if message.ends_with(':') { " " } else { "; " });
        message.push_str(line);
    }
    message
}

/// Which exit code a usage mistake has: that of the first word that is a command.
fn failure_code(entries: &[Entry], args: &[OsString]) -> u8 {
    let words: Vec<&str> = args.iter().skip(1).filter_map(|arg| arg.to_str()).collect();
    let named = words.iter().find_map(|word| entries.iter().find(|entry| entry.is(word)));
    match named {
        Some(Entry { kind: Kind::Group(inner), .. }) => {
            let inner = inner();
            words.iter().find_map(|word| inner.iter().find(|entry| entry.is(word))).map_or(1, |entry| entry.failure)
        }
        Some(entry) => entry.failure,
        None => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> std::result::Result<ArgMatches, clap::Error> {
        tree(&commands::all()).try_get_matches_from(line.split(' '))
    }

    #[test]
    fn the_tree_is_sound() {
        fn whole(mut command: Command) -> Command {
            command.build();
            command
        }
        whole(tree(&commands::all())).debug_assert();
    }

    #[test]
    fn everything_after_the_image_is_the_containers() {
        let matches = parsed("dhow --root /r run --rm -it -e A=1 busybox sh -c -i --rm").unwrap();
        let (entry, sub) = find(commands::all(), &matches).unwrap();
        assert_eq!((entry.name, entry.failure), ("run", 125));
        let words: Vec<&String> = sub.get_many("words").unwrap().collect();
        assert_eq!(words, ["busybox", "sh", "-c", "-i", "--rm"]);
        let matches = parsed("dhow run busybox --rm").unwrap();
        let (_, sub) = find(commands::all(), &matches).unwrap();
        assert!(!sub.get_flag("rm"));
    }

    #[test]
    fn groups_reach_the_same_commands() {
        for (line, name) in [
            ("dhow container ls -a", "ls"),
            ("dhow container ps", "ls"),
            ("dhow image rm x", "rm"),
            ("dhow volume ls", "ls"),
            ("dhow system prune -f", "prune"),
        ] {
            assert_eq!(find(commands::all(), &parsed(line).unwrap()).unwrap().0.name, name, "{line}");
        }
    }

    #[test]
    fn mistakes_have_one_line_and_the_right_code() {
        for (line, code) in [
            ("dhow run --nope x", 125),
            ("dhow container exec --nope x", 125),
            ("dhow ps --nope", 1),
            ("dhow frobnicate", 1),
            ("dhow run", 125),
        ] {
            let error = parsed(line).unwrap_err();
            let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(failure_code(&commands::all(), &args), code, "{line}");
            assert!(!one_line(&error).contains('\n') && !one_line(&error).is_empty(), "{line}");
        }
    }
}
