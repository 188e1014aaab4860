//! `cargo xtask suite`: the integration tests that Debian's source package of runc carries, against `dhow-runtime`.
//!
//! What can't pass here is listed in `tests/runc-suite-exclusions.txt`, each with its reason: `FILE | TEST | REASON`, and
//! `*` as TEST for a file that is not even run. Every other test has to pass, or to skip itself.
//!
//! By hand the same can be done with a newer source tree of runc's (`--source`), on either version of cgroups (`--cgroup`),
//! and beside another runtime (`--peer`): then only what that one passes is asked for.

pub(crate) mod recvtty;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::demo::debian_tar;
use crate::dist::place;
use crate::packages;
use crate::shell::{Error, Result, command, file_error, output, target, workspace};

/// Seconds for the whole suite, and for one file of it: for what hangs, and never for what is slow (Debian's takes one
/// minute in all, a newer version's some five).
const LIMITS: (&str, &str) = ("3000", "600");

/// What is run, against what.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Request<'a> {
    /// None: the one that was built.
    runtime: Option<&'a Path>,
    /// None: all that are not excluded.
    files: Vec<&'a str>,
    /// None: Debian's source package.
    source: Option<&'a Path>,
    /// Whether the machine has cgroup v2 alone.
    v2: bool,
    /// Who has to pass what is asked for.
    peer: Option<&'a Path>,
}

impl<'a> Request<'a> {
    /// Debian's suite against this runtime.
    pub(crate) fn of(runtime: &'a Path) -> Self {
        Self { runtime: Some(runtime), ..Self::default() }
    }

    /// Reads the command line; `None` when it is wrong.
    pub(crate) fn parse(words: &[&'a str]) -> Option<Self> {
        let mut request = Self::default();
        let mut words = words.iter().copied();
        while let Some(word) = words.next() {
            match word {
                "--source" => request.source = Some(Path::new(words.next()?)),
                "--peer" => request.peer = Some(Path::new(words.next()?)),
                "--cgroup" => {
                    request.v2 = match words.next()? {
                        "v1" => false,
                        "v2" => true,
                        _ => return None,
                    }
                }
                flag if flag.starts_with('-') => return None,
                runtime if request.runtime.is_none() => request.runtime = Some(Path::new(runtime)),
                file => request.files.push(file),
            }
        }
        Some(request)
    }
}

/// Fetches the suite when it is not there, and runs it.
pub(crate) fn run(request: &Request<'_>) -> Result<()> {
    packages::install(&[packages::DEMO, packages::TEST, packages::SUITE])?;
    let source = fetch(request.source)?;
    let exclusions = Exclusions::load(&workspace().join("tests/runc-suite-exclusions.txt"))?;
    let files = if request.files.is_empty() {
        exclusions.wanted(&source.join("tests/integration"))?
    } else {
        request.files.iter().map(|file| (*file).to_owned()).collect()
    };
    let against = |runtime: &Path| {
        let (limit, file) = LIMITS;
        let mut bats = command("bash", ["-c", include_str!("run.sh"), "run.sh"]);
        bats.arg(runtime).arg(&source).args(&files).env("CG", if request.v2 { "v2" } else { "v1" });
        bats.env("LIMIT", limit).env("FILE_LIMIT", file);
        let outcome = Outcome::read(&output(&mut bats)?, &exclusions);
        println!("    {}: {outcome}", runtime.display());
        Ok(outcome)
    };
    let built = target().join("dist/dhow-runtime");
    let ours = against(request.runtime.unwrap_or(&built))?;
    ours.judge(request.peer.map(against).transpose()?.as_ref())
}

/// The directory of the unpacked source, with what the tests need.
fn fetch(tree: Option<&Path>) -> Result<PathBuf> {
    let home = target().join("runc-suite");
    let debian = debian_tar()?;
    // A copy, for who builds the workspace may have replaced this program while it runs.
    let xtask = home.join("xtask");
    std::fs::create_dir_all(&home).map_err(file_error("create", &home))?;
    place(Path::new("/proc/self/exe"), &xtask)?;
    let mut fetch = command("timeout", ["600", "bash", "-c", include_str!("fetch.sh"), "fetch.sh"]);
    output(fetch.arg(&home).arg(debian).arg(xtask).args(tree))
        .map_err(|error| Error::Check(format!("runc's tests can't be had: {error}")))?;
    Ok(home.join(if tree.is_some() { "given" } else { "source" }))
}

/// What is left out, and why.
struct Exclusions(BTreeMap<(String, String), String>);

impl Exclusions {
    fn load(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).map_err(file_error("read", path))?;
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let entry = |line: &str| {
            let mut fields = line.splitn(3, " | ").map(str::to_owned);
            Some(((fields.next()?, fields.next()?), fields.next()?))
        };
        let wrong = |line: &str| Error::Check(format!("{}: no FILE | TEST | REASON: {line}", path.display()));
        lines.map(|line| entry(line).ok_or_else(|| wrong(line))).collect::<Result<_>>().map(Self)
    }

    fn reason(&self, file: &str, test: &str) -> Option<&str> {
        self.0.get(&(file.to_owned(), test.to_owned())).map(String::as_str)
    }

    /// The files that are run.
    fn wanted(&self, folder: &Path) -> Result<Vec<String>> {
        let entries = std::fs::read_dir(folder).map_err(file_error("read", folder))?;
        let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut files: Vec<String> =
            names.filter(|name| name.ends_with(".bats") && self.reason(name, "*").is_none()).collect();
        files.sort();
        Ok(files)
    }
}

/// What bats has reported.
#[derive(Debug, Default)]
struct Outcome {
    passed: usize,
    skipped: usize,
    excluded: usize,
    /// Each with what was said about it.
    failed: BTreeMap<String, String>,
}

impl Outcome {
    /// Counts what is in a report (in TAP). That it was cut off is a failure.
    fn read(report: &str, exclusions: &Exclusions) -> Self {
        let mut outcome = Self::default();
        let (mut file, mut last) = ("", None);
        for line in report.lines().map(|line| line.trim_end_matches('\r')) {
            if let Some(name) = line.strip_prefix("## ") {
                (file, last) = (name, None);
            } else if let Some(test) = line.strip_prefix("not ok ") {
                let name = test.split_once(' ').map_or(test, |(_, name)| name);
                last = exclusions.reason(file, name).is_none().then(|| format!("{file}: {name}"));
                match &last {
                    Some(test) => drop(outcome.failed.insert(test.clone(), String::new())),
                    None => outcome.excluded += 1,
                }
            } else if let Some(test) = line.strip_prefix("ok ") {
                last = None;
                if test.contains(" # skip") { outcome.skipped += 1 } else { outcome.passed += 1 }
            } else if let Some(said) = last.as_ref().and_then(|test| outcome.failed.get_mut(test)) {
                said.push_str("\n    ");
                said.push_str(line);
            }
        }
        if file != "end" {
            outcome.failed.insert(format!("it did not come to its end, but to {file}"), String::new());
        }
        outcome
    }

    /// What failed is the error, but for what fails with the peer, too.
    fn judge(&self, peer: Option<&Self>) -> Result<()> {
        let with_both = |test: &String| peer.is_some_and(|peer| peer.failed.contains_key(test));
        let (both, ours): (Vec<_>, Vec<_>) = self.failed.iter().partition(|(test, _)| with_both(test));
        both.iter().for_each(|(test, _)| println!("    fails with the peer, too: {test}"));
        for test in peer.iter().flat_map(|peer| peer.failed.keys()).filter(|test| !self.failed.contains_key(*test)) {
            println!("    fails with the peer only: {test}");
        }
        let text: Vec<String> = ours.iter().map(|(test, said)| format!("{test}{said}")).collect();
        if text.is_empty() { Ok(()) } else { Err(Error::Check(text.join("\n"))) }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { passed, skipped, excluded, failed } = self;
        write!(f, "{passed} passed, {skipped} skipped by themselves, {excluded} excluded, {} failed", failed.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_excluded_may_fail() {
        let key = |test: &str| ("a.bats".to_owned(), test.to_owned());
        let exclusions = Exclusions(BTreeMap::from([(key("known"), "no camel here".into())]));
        let report =
            "## a.bats\r\n1..3\r\nok 1 fine\r\nnot ok 2 known\r\n# why\r\nok 3 other # skip no camel\r\n## end\r\n";
        let read = |report: &str| Outcome::read(report, &exclusions);
        assert!(read(report).judge(None).is_ok());
        let new = read(&report.replace("2 known", "2 new"));
        assert_eq!(new.to_string(), "1 passed, 1 skipped by themselves, 0 excluded, 1 failed");
        assert_eq!(new.judge(None).unwrap_err().to_string(), "a.bats: new\n    # why");
        assert!(new.judge(Some(&new)).is_ok(), "nobody passes it");
        assert!(new.judge(Some(&read(report))).is_err());
        assert!(read("## a.bats\nok 1 fine\n").judge(None).is_err(), "it was cut off");
    }
    #[test]
    fn command_lines() {
        assert_eq!(Request::parse(&[]), Some(Request::default()));
        let words = ["--source", "tree", "mine", "--cgroup", "v2", "a.bats", "--peer", "runc", "b.bats"];
        let expected = Request {
            runtime: Some("mine".as_ref()),
            files: vec!["a.bats", "b.bats"],
            source: Some("tree".as_ref()),
            v2: true,
            peer: Some("runc".as_ref()),
        };
        assert_eq!(Request::parse(&words), Some(expected));
        assert_eq!(Request::parse(&["--cgroup", "v1"]), Some(Request::default()));
        for wrong in [&["--cgroup"][..], &["--cgroup", "v3"], &["--source"], &["--what"]] {
            assert_eq!(Request::parse(wrong), None, "{wrong:?}");
        }
    }
}
