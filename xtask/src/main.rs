//! The project's own chores: `cargo xtask build|demo|test|ci|suite|vm-test|bench|gen`.
#![forbid(unsafe_code)]
#![expect(clippy::print_stderr, clippy::print_stdout, reason = "a command that talks to a person")]

mod bench;
mod checks;
mod codegen;
mod demo;
mod dist;
mod leftovers;
mod packages;
mod shell;
mod suite;
mod vm;

use std::process::ExitCode;

const USAGE: &str = "\
usage: cargo xtask CHORE

  demo                     build, and show the main job on an image made on the spot
  build                    the five binaries into target/dist
  test, ci                 format, lints, documentation, all tests, and a count of what they left behind
  bench [--runs N] [--peers] [--only WORD]
                           dhow beside crun, runc, podman, docker, containerd and the floor;
                           --peers also beside those of the command in DHOW_PEERS
  suite [--source DIR] [--cgroup v1|v2] [--peer PATH] [RUNTIME [FILE.bats...]]
                           runc's own integration tests against target/dist/dhow-runtime, or RUNTIME;
                           --source those of this tree of runc's, --peer only what that runtime passes
  vm-test [v2|v1|selinux]  what needs a whole machine, in a virtual one: Debian's kernel with systemd
  gen                      api/proto/*.proto -> api/src/generated/
";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words.as_slice() {
        ["demo"] => demo::run(),
        ["demo", "inside", rest @ ..] => demo::inside(rest),
        ["build"] => dist::build().map(|dir| println!("{}", dir.display())),
        ["test" | "ci"] => checks::test(),
        ["bench", rest @ ..] => bench::bench(rest),
        ["suite", rest @ ..] => match suite::Request::parse(rest) {
            Some(request) => suite::run(&request),
            None => return usage(),
        },
        ["vm-test"] => vm::run(None),
        ["vm-test", only @ ("v2" | "v1" | "selinux")] => vm::run(Some(only)),
        ["recvtty", rest @ ..] => suite::recvtty::serve(rest),
        ["gen"] => codegen::run().map_err(shell::file_error("generate", "api/src/generated".as_ref())),
        _ => return usage(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xtask: {error}");
            ExitCode::FAILURE
        }
    }
}

fn usage() -> ExitCode {
    eprint!("{USAGE}");
    ExitCode::from(2)
}
