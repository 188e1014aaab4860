//! Entry point.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    dhow_cli::run(std::env::args_os())
}
