//! `dhow-runtime`: runc's command line over the library. Parses, calls, prints, exits; everything else is the library's.
#![forbid(unsafe_code)]

mod commands;

use std::process::ExitCode;

fn main() -> ExitCode {
    commands::main(std::env::args_os().skip(1).collect())
}
