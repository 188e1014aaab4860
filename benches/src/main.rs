//! `dhow-bench`, started by `cargo xtask bench` in namespaces of its own.
#![forbid(unsafe_code)]
#![expect(clippy::print_stderr, clippy::print_stdout, reason = "a command that talks to a person")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use dhow_benches::measure::{Series, keep};
use dhow_benches::suite::{Options, all};
use dhow_tests::{Sandbox, tool};
use serde_json::json;

const USAGE: &str = "\
usage: cargo xtask bench [--runs N] [--only WORD] [--peers]

  --runs N     runs of the quick commands (default 40; pulls and the like take a tenth of it)
  --only WORD  only series whose name contains WORD: runtime, run, exec, pull, commit, push
  --peers      in the root of the command in DHOW_PEERS, with the engines that are there
";

fn main() -> ExitCode {
    let mut options = Options { runs: 40, only: None };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.next()) {
            ("--prepare", None) => {
                // Needs the machine's network, which the namespaces to come have not.
                println!("{}", dhow_tests::fixtures::debian_tar().display());
                return ExitCode::SUCCESS;
            }
            ("--runs", Some(number)) if number.parse::<usize>().is_ok_and(|runs| runs > 0) => {
                options.runs = number.parse().unwrap_or(1);
            }
            ("--only", Some(word)) => options.only = Some(word),
            _ => {
                eprint!("{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    let scratch = match tempdir() {
        Ok(scratch) => scratch,
        Err(why) => {
            eprintln!("dhow-bench: {why}");
            return ExitCode::FAILURE;
        }
    };
    tool("busybox", ["ip", "link", "set", "lo", "up"]).run().ok();
    tool("mount", ["-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"]).run().ok();
    let series = all(&Sandbox::at(&scratch), &options, &|text| println!("{text}"));
    drop(tool("rm", ["-rf"]).arg(&scratch).run());
    finish(&series)
}

fn tempdir() -> Result<PathBuf, String> {
    let made = tool("mktemp", ["-d", "/var/tmp/dhow-bench-XXXXXX"]).run();
    if made.code == 0 { Ok(made.out().into()) } else { Err(made.stderr) }
}

fn finish(series: &[Series]) -> ExitCode {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let target = std::env::var_os("DHOW_TARGET").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let file = target.join("bench").join(format!("{seconds}.json"));
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let about = json!({"seconds": seconds, "kernel": text("/proc/sys/kernel/osrelease"), "processors": processors});
    if let Err(error) = keep(series, &about, &file) {
        eprintln!("dhow-bench: {}: {error}", file.display());
        return ExitCode::FAILURE;
    }
    println!("\nraw runs: {}", file.display());
    ExitCode::SUCCESS
}
