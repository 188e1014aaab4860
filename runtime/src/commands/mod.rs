//! The commands, one file each, and what they share: global flags, the log, exit codes, help.
//!
//! Exit codes are runc's: 0; the process's own for a foreground `run` and `exec`; 255 when `exec` fails; 1 when anything
//! else does. Success prints nothing but what was asked for.

mod args;
mod checkpoint;
mod create;
mod events;
mod exec;
mod features;
mod foreground;
mod help;
mod lifecycle;
mod list;
mod log;
mod notify;
mod process;
mod ps;
mod spec;
mod update;

use std::ffi::OsString;
use std::io::Write;
use std::path::{Path, PathBuf};

use dhow_runtime::{Buses, CgroupDriver, Error, Rootless, Runtime};

use args::{Flag, Parsed};
use log::{Level, Log};

/// Flags that stand before the command.
const GLOBAL: [Flag; 11] = [
    Flag::value("root", "directory with the containers' state"),
    Flag::value("log", "file for errors and warnings (default: stderr)"),
    Flag::value("log-format", "text or json (default: text)"),
    Flag::switch("debug", "log more; as --log-level debug"),
    Flag::value("log-level", "error, warning or debug (default: warning)"),
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

const COMMANDS: [Command; 18] = [
    checkpoint::CHECKPOINT,
    create::CREATE,
    lifecycle::DELETE,
    events::COMMAND,
    exec::COMMAND,
    features::COMMAND,
    lifecycle::KILL,
    list::COMMAND,
    lifecycle::PAUSE,
    ps::COMMAND,
    checkpoint::RESTORE,
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
    /// How many descriptors from 3 on the caller has left open, without a gap.
    pub(crate) inherited: u32,
}

impl Context {
    /// Tells of a step that was taken, to those who asked for it.
    pub(crate) fn debug(&self, step: std::fmt::Arguments<'_>) {
        self.log.line(Level::Debug, &step.to_string());
    }

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
    fault: Fault,
}

/// Where a failure lies: a wrong command line is answered with the command's help as well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// A flag that is not known or lacks its value.
    Flag,
    /// Too few or too many arguments.
    Arguments,
    /// The line is well formed.
    Elsewhere,
    /// The kernel does not execute the container's program.
    Program,
}

impl Failure {
    /// What was asked for makes no sense, or something outside the library failed.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), code: 1, fault: Fault::Elsewhere }
    }

    /// A flag that is not known or lacks its value.
    pub(crate) fn flag(message: impl Into<String>) -> Self {
        Self { fault: Fault::Flag, ..Self::new(message) }
    }

    /// Too few or too many arguments.
    pub(crate) fn arguments(command: &str, wanted: std::fmt::Arguments<'_>) -> Self {
        let message = format!("{}: \"{command}\" requires {wanted} argument(s)", help::program());
        Self { fault: Fault::Arguments, ..Self::new(message) }
    }

    /// The kernel does not execute the container's program: said as the container itself would say it.
    pub(crate) fn program(message: impl Into<String>) -> Self {
        Self { code: 255, fault: Fault::Program, ..Self::new(message) }
    }

    /// `doing: why`.
    pub(crate) fn because(doing: impl std::fmt::Display, why: impl std::error::Error + 'static) -> Self {
        Self::new(format!("{doing}: {}", dhow_runtime::plain(&why)))
    }

    /// Says what failed in front, as runc does for `run` and `exec`; a wrong command line has not come that far.
    pub(crate) fn during(mut self, what: &str, code: u8) -> Self {
        if self.fault == Fault::Elsewhere {
            self.message = format!("{what}: {}", self.message);
            self.code = code;
        }
        self
    }

    /// What goes to stdout before the error: `help` with the complaint above it, for a wrong command line.
    fn lesson(&self, help: impl FnOnce() -> String) -> Option<String> {
        match self.fault {
            Fault::Flag => Some(format!("Incorrect Usage: {}\n\n{}", self.message, help())),
            Fault::Arguments => Some(format!("Incorrect Usage.\n\n{}", help())),
            Fault::Elsewhere | Fault::Program => None,
        }
    }

    #[cfg(test)]
    pub(crate) fn message(self) -> String {
        self.message
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::new(error.chain())
    }
}

/// Prints what was asked for. A reader that has gone is an error like others, and no panic.
pub(crate) fn say(text: &str) -> Result<(), Failure> {
    let mut stdout = std::io::stdout();
    stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()).map_err(|e| Failure::because("write to stdout", e))
}

/// Runs the command line `words`, without the program's own name; the exit code.
pub(crate) fn main(words: Vec<OsString>) -> u8 {
    // Before anything is opened: nothing of ours must pass for the caller's.
    let inherited = process::inherited();
    let (global, rest) = args::split_global(words, &GLOBAL);
    let mut log = Log::stderr();
    match dispatch(global, rest, inherited, &mut log) {
        Ok(code) => code,
        Err(failure) => {
            log.fatal(&failure.message, failure.fault == Fault::Program);
            failure.code
        }
    }
}

fn dispatch(global: Vec<OsString>, rest: Vec<OsString>, inherited: u32, log: &mut Log) -> Result<u8, Failure> {
    let global = taught(Parsed::parse(global, &GLOBAL, None), || help::overview(&COMMANDS, &GLOBAL))?;
    if global.on("version") {
        return say(&help::version()).map(|()| 0);
    }
    let mut rest = rest.into_iter();
    let Some(name) = rest.next().filter(|_| !global.on("help")) else {
        return say(&help::overview(&COMMANDS, &GLOBAL)).map(|()| 0);
    };
    *log = Log::open(
        global.value("log").map(Path::new),
        global.value("log-format").unwrap_or("text"),
        if global.on("debug") { "debug" } else { global.value("log-level").unwrap_or("warning") },
    )?;
    let Some(command) = COMMANDS.iter().find(|command| *command.name == *name) else {
        return Err(help::no_topic(&name.to_string_lossy()));
    };
    let words: Vec<OsString> = rest.collect();
    if help::asked_for(&words, command) {
        return say(&help::of(command)).map(|()| 0);
    }
    let parsed = taught(Parsed::parse(words, command.flags, command.literal_after), || help::of(command))?;
    let context = Context { runtime: runtime(&global)?, log: std::mem::replace(log, Log::stderr()), inherited };
    let outcome = (command.run)(&context, &parsed);
    *log = context.log;
    taught(outcome, || help::of(command))
}

/// Answers a wrong command line with help.
fn taught<T>(outcome: Result<T, Failure>, help: impl FnOnce() -> String) -> Result<T, Failure> {
    if let Some(lesson) = outcome.as_ref().err().and_then(|failure| failure.lesson(help)) {
        // The failure itself is told all the same.
        drop(say(&lesson));
    }
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
        (_, Some(other)) => return Err(Failure::new(format!("invalid cgroup-manager {other:?}"))),
    };
    let rootless = match global.value("rootless") {
        None | Some("auto" | "") => Rootless::Auto,
        Some(other) => match args::boolean(other) {
            Some(true) => Rootless::Yes,
            Some(false) => Rootless::No,
            None => return Err(Failure::new(format!("invalid value {other:?} for flag -rootless"))),
        },
    };
    Ok(Runtime::new(&root).cgroup_driver(driver).rootless(rootless).buses(buses()))
}

/// Where the environment says that systemd answers.
fn buses() -> Buses {
    let given = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    let user = given("DBUS_SESSION_BUS_ADDRESS")
        .or_else(|| given("XDG_RUNTIME_DIR").map(|dir| format!("unix:path={dir}/bus")));
    Buses { system: given("DBUS_SYSTEM_BUS_ADDRESS"), user }
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
