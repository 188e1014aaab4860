//! `cargo xtask suite`: the integration tests that Debian's source package of runc carries, against `dhow-runtime`.
//!
//! What can't pass here is listed in `tests/runc-suite-exclusions.txt`, each with its reason: `FILE | TEST | REASON`, and
//! `*` as TEST for a file that is not even run. Every other test has to pass, or to skip itself.

pub(crate) mod recvtty;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::demo::debian_tar;
use crate::packages;
use crate::shell::{Error, Result, command, file_error, output, target, workspace};

/// Seconds for the whole suite; it takes about a third of them.
const LIMIT: &str = "270";

/// Fetches the suite when it is not there, and runs it, or only `files`, against `runtime`.
pub(crate) fn run(runtime: &Path, files: &[&str]) -> Result<()> {
    packages::install(&[packages::DEMO, packages::TEST, packages::SUITE])?;
    let source = fetch()?;
    let exclusions = Exclusions::load(&workspace().join("tests/runc-suite-exclusions.txt"))?;
    let files = if files.is_empty() {
        exclusions.wanted(&source.join("tests/integration"))?
    } else {
        files.iter().map(|file| (*file).to_owned()).collect()
    };
    let mut bats = command("timeout", ["-k", "20", LIMIT, "bash", "-c", include_str!("run.sh"), "run.sh"]);
    let report = output(bats.arg(runtime).arg(source).args(&files))?;
    judge(&report, &exclusions)
}

/// The directory of the unpacked source.
fn fetch() -> Result<PathBuf> {
    let home = target().join("runc-suite");
    let debian = debian_tar()?;
    let xtask = std::env::current_exe().map_err(file_error("find", Path::new("/proc/self/exe")))?;
    let mut fetch = command("timeout", ["90", "bash", "-c", include_str!("fetch.sh"), "fetch.sh"]);
    output(fetch.arg(&home).arg(debian).arg(xtask))
        .map_err(|error| Error::Check(format!("Debian's source package of runc can't be had: {error}")))?;
    Ok(home.join("source"))
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

/// Counts what bats reports (in TAP); what failed and is not excluded is the error.
fn judge(report: &str, exclusions: &Exclusions) -> Result<()> {
    let (mut passed, mut skipped, mut excluded) = (0, 0, 0);
    let mut failed: Vec<String> = Vec::new();
    let (mut file, mut unexpected) = ("", false);
    for line in report.lines().map(|line| line.trim_end_matches('\r')) {
        if let Some(name) = line.strip_prefix("## ") {
            (file, unexpected) = (name, false);
        } else if let Some(test) = line.strip_prefix("not ok ") {
            let name = test.split_once(' ').map_or(test, |(_, name)| name);
            unexpected = exclusions.reason(file, name).is_none();
            if unexpected {
                failed.push(format!("{file}: {name}"));
            } else {
                excluded += 1;
            }
        } else if let Some(test) = line.strip_prefix("ok ") {
            unexpected = false;
            if test.contains(" # skip") { skipped += 1 } else { passed += 1 }
        } else if let (true, Some(failure)) = (unexpected, failed.last_mut()) {
            failure.push_str("\n    ");
            failure.push_str(line);
        }
    }
    println!("    {passed} passed, {skipped} skipped by themselves, {excluded} excluded, {} failed", failed.len());
    if file != "end" {
        failed.push(format!("it did not come to its end, but to {file}"));
    }
    if failed.is_empty() { Ok(()) } else { Err(Error::Check(failed.join("\n"))) }
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
        assert!(judge(report, &exclusions).is_ok());
        let error = judge(&report.replace("2 known", "2 new"), &exclusions).unwrap_err().to_string();
        assert_eq!(error, "a.bats: new\n    # why");
        assert!(judge("## a.bats\nok 1 fine\n", &exclusions).is_err(), "it was cut off");
    }
}
