//! The commands, one file each, and what they share: global flags, the log, exit codes, help.
//!
//! Exit codes are runc's: 0; the process's own for a foreground `run` and `exec`; 255 when `exec` fails; 1 when anything
//! else does. Success prints nothing but what was asked for.
#![expect(clippy::print_stdout, reason = "printing is what these are for")]

mod args;
mod create;
mod events;
mod exec;
mod features;
mod foreground;
mod help;
mod lifecycle;
mod list;
mod log;
mod process;
mod ps;
mod spec;
mod update;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use dhow_runtime::{CgroupDriver, Error, Rootless, Runtime};

use args::{Flag, Parsed};
use log::{Level, Log};

/// Flags that stand before the command.
const GLOBAL: [Flag; 10] = [
    Flag::value("root", "directory with the containers' state"),
    Flag::value("log", "file for errors and warnings (default: stderr)"),
    Flag::value("log-format", "text or json (default: text)"),
    Flag::switch("debug", "log more"),
    Flag::switch("systemd-cgroup", "let systemd make the cgroups; cgroupsPath is then \"slice:prefix:name\""),
    Flag::value("cgroup-manager", "cgroupfs, systemd or disabled"),
    Flag::value("rootless", "true, false or auto: forgive that cgroups can't be changed"),
    Flag::value("criu", "ignored"),
    Flag::switch("version", "print the version").short('v'),
    Flag::switch("help", "print this help").short('h'),
];

/// A command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Command {
    name: &'static str,
    usage: &'static str,
    about: &'static str,
    flags: &'static [Flag],
    /// After how many positional arguments a program with arguments of its own follows.
    literal_after: Option<usize>,
    run: fn(&Context, &Parsed) -> Result<u8, Failure>,
}

const COMMANDS: [Command; 16] = [
    create::CREATE,
    lifecycle::DELETE,
    events::COMMAND,
    exec::COMMAND,
    features::COMMAND,
    lifecycle::KILL,
    list::COMMAND,
    lifecycle::PAUSE,
    ps::COMMAND,
    lifecycle::RESUME,
    create::RUN,
    spec::COMMAND,
    lifecycle::START,
    lifecycle::STATE,
    update::COMMAND,
    help::COMMAND,
];

/// What every command has at hand.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) runtime: Runtime,
    pub(crate) log: Log,
}

impl Context {
    /// Tells of what could not be done but stops nothing.
    pub(crate) fn warn(&self, warnings: &[String]) {
        for warning in warnings {
            self.log.line(Level::Warning, warning);
        }
    }
}

/// A command that failed: what to say and which code to exit with.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    code: u8,
}

impl Failure {
    /// The command line is wrong, or something outside the library failed.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1 }
    }

    /// `doing: why`.
    pub(crate) fn because(doing: impl std::fmt::Display, why: impl std::fmt::Display) -> Self {
        Self::usage(format!("{doing}: {why}"))
    }

    /// Says what failed in front, as runc does for `run` and `exec`.
    pub(crate) fn during(mut self, what: &str, code: u8) -> Self {
        self.message = format!("{what}: {}", self.message);
        self.code = code;
        self
    }

    #[cfg(test)]
    pub(crate) fn message(self) -> String {
        self.message
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::usage(error.chain())
    }
}

/// Runs the command line `words`, without the program's own name.
pub(crate) fn main(words: Vec<OsString>) -> ExitCode {
    let (global, rest) = args::split_global(words, &GLOBAL);
    let mut log = Log::stderr();
    match dispatch(global, rest, &mut log) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            log.fatal(&failure.message);
            ExitCode::from(failure.code)
        }
    }
}

fn dispatch(global: Vec<OsString>, rest: Vec<OsString>, log: &mut Log) -> Result<u8, Failure> {
    let global = Parsed::parse(global, &GLOBAL, None)?;
    if global.on("version") {
        print!("{}", help::version());
        return Ok(0);
    }
    let mut rest = rest.into_iter();
    let Some(name) = rest.next().filter(|_| !global.on("help")) else {
        print!("{}", help::overview(&COMMANDS, &GLOBAL));
        return Ok(0);
    };
    *log = Log::open(
        global.value("log").map(Path::new),
        global.value("log-format").unwrap_or("text"),
        global.on("debug"),
    )?;
    let Some(command) = COMMANDS.iter().find(|command| *command.name == *name) else {
        if name == "checkpoint" || name == "restore" {
            return Err(Failure::usage(format!("{}: not supported", name.display())));
        }
        return Err(Failure::usage(format!("No help topic for '{}'", name.display())));
    };
    let words: Vec<OsString> = rest.collect();
    if help::asked_for(&words, command) {
        print!("{}", help::of(command));
        return Ok(0);
    }
    let parsed = Parsed::parse(words, command.flags, command.literal_after)
        .map_err(|f| Failure { message: format!("Incorrect Usage: {}", f.message), code: f.code })?;
    let context = Context { runtime: runtime(&global)?, log: std::mem::replace(log, Log::stderr()) };
    let outcome = (command.run)(&context, &parsed);
    *log = context.log;
    outcome
}

fn runtime(global: &Parsed) -> Result<Runtime, Failure> {
    let root = match global.value("root") {
        Some(root) => absolute(Path::new(root))?,
        None => default_root(),
    };
    let driver = match (global.on("systemd-cgroup"), global.value("cgroup-manager")) {
        (true, None | Some("systemd")) | (false, Some("systemd")) => CgroupDriver::Systemd,
        (false, None | Some("cgroupfs")) => CgroupDriver::Cgroupfs,
        (false, Some("disabled")) => CgroupDriver::Disabled,
        (_, Some(other)) => return Err(Failure::usage(format!("invalid cgroup-manager {other:?}"))),
    };
    let rootless = match global.value("rootless") {
        None | Some("auto" | "") => Rootless::Auto,
        Some("true" | "1") => Rootless::Yes,
        Some("false" | "0") => Rootless::No,
        Some(other) => return Err(Failure::usage(format!("invalid value {other:?} for flag -rootless"))),
    };
    Ok(Runtime::new(&root).cgroup_driver(driver).rootless(rootless))
}

/// `/run/dhow-runtime`, or for others than root a directory of the user's session.
fn default_root() -> PathBuf {
    let session = std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    match session {
        Some(dir) if !nix::unistd::geteuid().is_root() => PathBuf::from(dir).join("dhow-runtime"),
        _ => PathBuf::from("/run/dhow-runtime"),
    }
}

/// Relative paths are relative to the caller's directory.
pub(crate) fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|e| Failure::because(path.display(), e))
}
