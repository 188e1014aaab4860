//! `containerd-shim-dhow-v2`: parses, calls, prints.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use dhow_shim::args::{Action, Args};
use dhow_shim::{Error, bootstrap, init, serve};

fn main() -> ExitCode {
    let mut words = std::env::args_os();
    if init::is_called(words.next().as_ref()) {
        return as_init(words);
    }
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(error) => return fail(&error.to_string()),
    };
    let level = if args.debug { log::LevelFilter::Debug } else { log::LevelFilter::Info };
    // Fails only when there is a logger already.
    let _set = log::set_logger(&Stderr).map(|()| log::set_max_level(level));
    let output = match args.action {
        Action::Version => Ok(version()),
        Action::Info => bootstrap::info(),
        Action::Start => bootstrap::start(&args),
        Action::Delete => bootstrap::delete(&args),
        Action::Serve => serve::run(&args).map(|()| Vec::new()),
    };
    match output {
        Ok(output) => match std::io::stdout().write_all(&output) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&format!("write the answer: {error}")),
        },
        Err(error) => fail(&Error::chain(&error)),
    }
}

fn as_init(words: std::env::ArgsOs) -> ExitCode {
    match init::run(words) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            let _written = writeln!(std::io::stderr(), "{}: {}", init::PATH, dhow_api::error::chain(&error));
            ExitCode::from(error.exit_code())
        }
    }
}

fn version() -> Vec<u8> {
    format!("containerd-shim-dhow-v2:\n  Version:  {}\n", env!("CARGO_PKG_VERSION")).into_bytes()
}

fn fail(message: &str) -> ExitCode {
    // There is nobody else to tell.
    let _written = writeln!(std::io::stderr(), "containerd-shim-dhow-v2: {message}");
    ExitCode::FAILURE
}

/// Messages to stderr: a log file under our own command line, a fifo that containerd reads under it. Not locked and not
/// buffered; a message that cannot be written at once is dropped.
struct Stderr;

impl log::Log for Stderr {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        // ttrpc reports every connection that ends.
        if record.target().starts_with("ttrpc") && record.level() > log::Level::Error {
            return;
        }
        let line = format!("{} {}: {}\n", dhow_api::Timestamp::now(), record.level(), record.args());
        let _written = std::io::stderr().write_all(line.as_bytes());
    }

    fn flush(&self) {}
}
