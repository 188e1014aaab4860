//! The project's own chores: `cargo xtask gen`.
#![forbid(unsafe_code)]
#![expect(clippy::print_stderr, reason = "a command that talks to a person")]

mod codegen;

fn main() -> std::process::ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some("gen") => match codegen::run() {
            Ok(()) => std::process::ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("xtask gen: {error}");
                std::process::ExitCode::FAILURE
            }
        },
        _ => {
            eprintln!("usage: cargo xtask gen");
            std::process::ExitCode::from(2)
        }
    }
}
