//! `dhow-snapshotter --root DIR --runroot DIR [--idle SECONDS]`: the Snapshots service on `RUNROOT/snapshotter.sock`.
#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use dhow_api::server::{self, Options};
use dhow_snapshotter::{Snapshotter, services};
use lexopt::prelude::*;

const HELP: &str = "usage: dhow-snapshotter --root DIR --runroot DIR [--idle SECONDS]

Serves overlay snapshots of ROOT/snapshots on RUNROOT/snapshotter.sock (ttrpc).
A listening socket may come as descriptor 3 with LISTEN_FDS=1.
Leaves after SECONDS (60; 0: never) without a call.
";

fn main() -> ExitCode {
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(log::LevelFilter::Warn);
    }
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("dhow-snapshotter: {}", dhow_api::error::chain(error.as_ref())));
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let Some(arguments) = Arguments::parse(lexopt::Parser::from_env())? else {
        std::io::stdout().write_all(HELP.as_bytes())?;
        return Ok(());
    };
    let root = dhow_api::paths::Root::new(std::path::absolute(&arguments.root)?).snapshots();
    let snapshotter = Arc::new(Snapshotter::open(&root)?);
    let options = Options {
        socket: arguments.runroot.join("snapshotter.sock"),
        idle: Some(arguments.idle).filter(|idle| !idle.is_zero()),
    };
    server::run(&options, || services(snapshotter))?;
    Ok(())
}

struct Arguments {
    root: PathBuf,
    runroot: PathBuf,
    idle: Duration,
}

impl Arguments {
    /// `None` when help was asked for.
    fn parse(mut parser: lexopt::Parser) -> Result<Option<Self>, lexopt::Error> {
        let (mut root, mut runroot, mut idle) = (None::<OsString>, None::<OsString>, 60);
        while let Some(argument) = parser.next()? {
            match argument {
                Long("root") => root = Some(parser.value()?),
                Long("runroot") => runroot = Some(parser.value()?),
                Long("idle") => idle = parser.value()?.parse()?,
                Long("help") | Short('h') => return Ok(None),
                other => return Err(other.unexpected()),
            }
        }
        let needed = |value: Option<OsString>, name| value.ok_or_else(|| format!("{name} is missing; see --help"));
        Ok(Some(Self {
            root: needed(root, "--root")?.into(),
            runroot: needed(runroot, "--runroot")?.into(),
            idle: Duration::from_secs(idle),
        }))
    }
}

/// Warnings and errors go to stderr, which is the service's log file.
struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            say(&format!("dhow-snapshotter: {}", record.args()));
        }
    }

    fn flush(&self) {}
}

fn say(line: &str) {
    // Nobody is left to tell when stderr is gone.
    std::io::stderr().write_all(format!("{line}\n").as_bytes()).unwrap_or_default();
}
