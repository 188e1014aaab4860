//! The part of a request that both directions share, and what is done when criu fails.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

use dhow_sys::clone::Namespaces;

use super::message::option;
use super::wire::Writer;
use super::{CgroupMode, CriuOptions, service};
use crate::{Error, Result};

/// The directories that criu works in.
#[derive(Debug)]
pub(super) struct Directories {
    /// Its images.
    pub(super) images: PathBuf,
    /// Its log and statistics.
    pub(super) work: PathBuf,
    /// The log's name.
    log: &'static str,
}

impl Directories {
    /// That of the work is made when it is missing.
    pub(super) fn new(options: &CriuOptions, log: &'static str) -> Result<Self> {
        if let Some(work) = &options.work_path {
            make(work)?;
        }
        let find = |path: &Path| std::path::absolute(path).map_err(Error::file("find", path));
        let images = find(&options.image_path)?;
        let work = options.work_path.as_deref().map_or_else(|| Ok(images.clone()), find)?;
        Ok(Self { images, work, log })
    }

    /// Adds where the log is to what criu says, and the last error in it.
    pub(super) fn explain(&self, error: Error) -> Error {
        let Error::Criu { request, problem } = error else { return error };
        let log = self.work.join(self.log);
        let last = File::open(&log).ok().and_then(last_error);
        let said = last.map(|line| format!(": {line}")).unwrap_or_default();
        Error::Criu { request, problem: format!("{problem}{said} (log file: {})", log.display()) }
    }
}

/// Makes a directory, with those above it.
pub(super) fn make(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::file("make", path))
}

/// The last line with an error, without the time in front; the summary at the end tells nothing.
fn last_error(log: File) -> Option<String> {
    let lines = BufReader::new(log).split(b'\n').map_while(std::result::Result::ok);
    let last = lines.filter(|line| contains(line, b"Error") && !contains(line, b"FAILED")).last()?;
    let line = String::from_utf8_lossy(&last).trim().to_owned();
    Some(
        line.split_once(") ")
            .filter(|(time, _)| time.starts_with('('))
            .map_or(line.clone(), |(_, rest)| rest.to_owned()),
    )
}

fn contains(line: &[u8], word: &[u8]) -> bool {
    line.windows(word.len()).any(|part| part == word)
}

/// The common options.
pub(super) fn common(
    options: &CriuOptions,
    directories: &Directories,
    annotations: &BTreeMap<String, String>,
) -> Writer {
    let mut message = Writer::default();
    message.number(option::IMAGES_DIR_FD, service::IMAGES.into());
    message.number(option::WORK_DIR_FD, service::WORK.into());
    message.number(option::LOG_LEVEL, LOG_LEVEL);
    message.text(option::LOG_FILE, directories.log);
    message.flag(option::NOTIFY_SCRIPTS, true);
    message.flag(option::ORPHAN_PTS_MASTER, true);
    // For old versions; the mode is what counts.
    message.flag(option::MANAGE_CGROUPS, options.manage_cgroups != CgroupMode::Ignore);
    message.number(option::MANAGE_CGROUPS_MODE, options.manage_cgroups as i64);
    message.flag(option::SHELL_JOB, options.shell_job);
    message.flag(option::EXT_UNIX_SK, options.ext_unix_sk);
    message.flag(option::TCP_ESTABLISHED, options.tcp_established);
    message.flag(option::FILE_LOCKS, options.file_locks);
    message.flag(option::AUTO_DEDUP, options.auto_dedup);
    message.flag(option::LAZY_PAGES, options.lazy_pages);
    // Interfaces and addresses are the engine's business, as they were when the container was made.
    message.number(option::EMPTY_NS, Namespaces::NETWORK.bits().cast_signed());
    // An empty annotation is a wish for no file at all.
    let file = annotations.get(CONFIG_ANNOTATION).map_or(CONFIG_FILE, String::as_str);
    if !file.is_empty() {
        message.text(option::CONFIG_FILE, file);
    }
    message
}

/// The file with more options of criu's, named by the container.
const CONFIG_ANNOTATION: &str = "org.criu.config";
/// Without the annotation; criu does not mind when it is not there. The name is runc's, because administrators have it.
const CONFIG_FILE: &str = "/etc/criu/runc.conf";
/// Everything but criu's debugging.
const LOG_LEVEL: i64 = 4;

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_last_error_is_found() {
        let mut log = tempfile::NamedTempFile::new().unwrap();
        let text = b"(00.1) one\n(00.2) Error (a.c:1): first\n(00.3) Error (b.c:2): second\xff\n(00.4) Error (c.c:3): Dumping FAILED.\n(00.5) bye\n";
        log.write_all(text).unwrap();
        let last = last_error(File::open(log.path()).unwrap()).unwrap();
        assert!(last.starts_with("Error (b.c:2): second"), "{last}");
        assert_eq!(last_error(File::open("/dev/null").unwrap()), None);
    }
}
