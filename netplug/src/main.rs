//! `dhow-netplug --root DIR --runroot DIR [--idle SECONDS]`: serves one instance's networks on `RUNROOT/netplug.sock`, or on
//! the listening socket it was started with, and leaves after SECONDS (60) without a call.
#![forbid(unsafe_code)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use dhow_api::error::chain;
use dhow_netplug::{Netplug, service};

fn main() -> ExitCode {
    log::set_logger(&Stderr).map(|()| log::set_max_level(log::LevelFilter::Info)).unwrap_or_default();
    match arguments().and_then(|arguments| serve(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            print(&message);
            ExitCode::FAILURE
        }
    }
}

struct Arguments {
    root: PathBuf,
    runroot: PathBuf,
    idle: Duration,
}

fn arguments() -> Result<Arguments, String> {
    let (mut root, mut runroot, mut idle) = (None, None, Duration::from_secs(60));
    let mut parser = lexopt::Parser::from_env();
    let mut parse = || -> Result<(), lexopt::Error> {
        while let Some(argument) = parser.next()? {
            match argument {
                lexopt::Arg::Long("root") => root = Some(PathBuf::from(parser.value()?)),
                lexopt::Arg::Long("runroot") => runroot = Some(PathBuf::from(parser.value()?)),
                lexopt::Arg::Long("idle") => {
                    idle = Duration::from_secs(lexopt::ValueExt::parse(&parser.value()?)?);
                }
                other => return Err(other.unexpected()),
            }
        }
        Ok(())
    };
    parse().map_err(|error| format!("{error}; {USAGE}"))?;
    match (root, runroot) {
        (Some(root), Some(runroot)) => Ok(Arguments { root, runroot, idle }),
        _ => Err(USAGE.to_owned()),
    }
}

fn serve(arguments: &Arguments) -> Result<(), String> {
    let netplug = Netplug::new(&arguments.root, &arguments.runroot).map_err(|error| chain(&error))?;
    let socket = arguments.runroot.join("netplug.sock");
    service::serve(netplug, socket, arguments.idle).map_err(|error| chain(&error))
}

/// Messages go to where the service's starter has pointed stderr.
struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, _metadata: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        print(&record.args().to_string());
    }

    fn flush(&self) {}
}

fn print(message: &str) {
    #[expect(clippy::print_stderr, reason = "a program's own messages")]
    {
        eprintln!("dhow-netplug: {message}");
    }
}

const USAGE: &str = "usage: dhow-netplug --root DIR --runroot DIR [--idle SECONDS]";
