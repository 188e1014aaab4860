//! `cargo xtask test` (and `ci`, the same): everything that must hold before a change is taken.

use std::time::{Duration, Instant};

use crate::dist;
use crate::leftovers::{self, Census};
use crate::packages;
use crate::shell::{Error, Result, cargo, run, target, which};
use crate::suite;

/// Runs all checks, goes on past a failed one where the next still tells something, and names all that failed.
pub(crate) fn test() -> Result<()> {
    let start = Instant::now();
    let mut report = Report::default();
    report.step("packages", || packages::install(&[packages::DEMO, packages::TEST, packages::SUITE]));
    let before = Census::take();
    report.step("format", || run(&mut cargo(["fmt", "--all", "--check"])));
    report.step("clippy", || {
        run(&mut cargo(["clippy", "--locked", "--workspace", "--all-targets", "--quiet", "--", "-D", "warnings"]))
    });
    report.step("documentation", || {
        run(cargo(["doc", "--locked", "--workspace", "--no-deps", "--quiet"]).env("RUSTDOCFLAGS", "-D warnings"))
    });
    if which("cargo-deny").is_some() {
        report.step("licences and advisories", || run(&mut cargo(["deny", "--offline", "check", "licenses", "bans"])));
    } else {
        report.skip("licences and advisories", "cargo-deny is not installed");
    }
    report.step("programs", dist::build_for_tests);
    report.step("tests", || {
        // Properties are tested on the same values each time: another run tells of the change and not of its luck.
        let mut tests = cargo(["test", "--locked", "--workspace", "--quiet", "--no-fail-fast"]);
        run(tests.env("RUST_BACKTRACE", "1").env("PROPTEST_RNG_SEED", "7"))
    });
    report.step("runc's own suite", || suite::run(&suite::Request::of(&target().join("debug/dhow-runtime"))));
    report.step("nothing left behind", || {
        let (compared, left) = leftovers::since(&before);
        println!("    {compared} mounts, cgroups, interfaces, tables, processes, sockets and files compared");
        if left.is_empty() { Ok(()) } else { Err(Error::Check(left.join("\n"))) }
    });
    report.close(start.elapsed())
}

#[derive(Default)]
struct Report {
    lines: Vec<(String, &'static str, Duration)>,
    failed: Vec<String>,
}

impl Report {
    fn step(&mut self, name: &str, work: impl FnOnce() -> Result<()>) {
        println!("==> {name}");
        let start = Instant::now();
        let word = match work() {
            Ok(()) => "ok",
            Err(error) => {
                println!("    {error}");
                self.failed.push(name.to_owned());
                "FAILED"
            }
        };
        self.lines.push((name.to_owned(), word, start.elapsed()));
    }

    fn skip(&mut self, name: &str, reason: &str) {
        println!("==> {name}: left out: {reason}");
        self.lines.push((format!("{name} ({reason})"), "left out", Duration::ZERO));
    }

    fn close(self, took: Duration) -> Result<()> {
        println!("\n==> summary");
        for (name, word, took) in &self.lines {
            println!("    {word:8} {:>6.1} s  {name}", took.as_secs_f64());
        }
        println!(
            "    {} in {:.1} minutes",
            if self.failed.is_empty() { "all ok" } else { "FAILED" },
            took.as_secs_f64() / 60.0
        );
        if self.failed.is_empty() { Ok(()) } else { Err(Error::Check(format!("failed: {}", self.failed.join(", ")))) }
    }
}
