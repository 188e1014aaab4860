//! The JSON documents that two parts share, in a container's directory.
//!
//! A document is written to a temporary file and renamed: a reader sees the old one, the new one or none. They are not
//! flushed; what they tell (a running container, its end) is not true any more after a power loss.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::{Error, Timestamp};

/// No document of ours is longer.
const LONGEST: u64 = 16 << 20;

/// A JSON file that two parts share.
pub trait Document: Serialize + DeserializeOwned {
    /// Its name in messages.
    const NAME: &'static str;

    /// Reads and parses the file.
    ///
    /// # Errors
    ///
    /// [`Error::File`] (kind `NotFound` when there is none), [`Error::Document`].
    fn load(path: &Path) -> Result<Self, Error> {
        let mut bytes = Vec::new();
        File::open(path).and_then(|file| file.take(LONGEST).read_to_end(&mut bytes)).map_err(|source| Error::File {
            action: "read",
            path: path.to_owned(),
            source,
        })?;
        serde_json::from_slice(&bytes).map_err(|source| Error::Document {
            document: Self::NAME,
            path: path.to_owned(),
            source,
        })
    }

    /// Writes the file, atomically.
    ///
    /// # Errors
    ///
    /// [`Error::File`], and [`Error::Document`] for what JSON cannot say (a path that is not UTF-8).
    fn store(&self, path: &Path) -> Result<(), Error> {
        let mut bytes = serde_json::to_vec_pretty(self).map_err(|source| Error::Document {
            document: Self::NAME,
            path: path.to_owned(),
            source,
        })?;
        bytes.push(b'\n');
        replace(path, &bytes).map_err(|source| Error::File { action: "write", path: path.to_owned(), source })
    }
}

/// `shim.json`: what a shim of ours is to do beyond what the Task service tells it. Written by the command line before
/// the shim starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShimConfig {
    /// The instance's ROOT.
    pub root: PathBuf,
    /// The instance's RUNROOT.
    pub runroot: PathBuf,
    /// Where stdout and stderr go.
    #[serde(default)]
    pub log: LogConfig,
    /// What the first process's stdin is when it is no terminal.
    #[serde(default)]
    pub stdin: Stdin,
    /// Remove the container with all it has when it ends (`--rm`).
    #[serde(default)]
    pub auto_remove: bool,
    /// With `auto_remove`: files and directories outside of the container's own directory that go with it (the claim of its
    /// name, its anonymous volumes).
    #[serde(default)]
    pub also_remove: Vec<PathBuf>,
    /// The key of the snapshot to remove with it.
    #[serde(default)]
    pub snapshot: Option<String>,
    /// Whether netplug attached it and must detach it when it ends.
    #[serde(default)]
    pub network: bool,
    /// What to do when the first process ends by itself.
    #[serde(default)]
    pub restart: RestartPolicy,
    /// The signal that asks the process to stop; a container that was sent it (or SIGKILL) is not restarted.
    #[serde(default = "sigterm")]
    pub stop_signal: i32,
    /// Seconds from the stop signal to SIGKILL.
    #[serde(default = "ten")]
    pub stop_timeout: u32,
    /// The command that tells whether the container is healthy.
    #[serde(default)]
    pub health: Option<HealthCheck>,
    /// What the instance's event log tells of the container with every event: its name, image and labels.
    #[serde(default)]
    pub event_attributes: BTreeMap<String, String>,
    /// The names of the networks that it is attached to, for the same log.
    #[serde(default)]
    pub networks: Vec<String>,
}

impl Document for ShimConfig {
    const NAME: &'static str = "shim configuration";
}

impl ShimConfig {
    /// The defaults for a container of this instance.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>, runroot: impl Into<PathBuf>) -> Self {
        Self {
            root: root.into(),
            runroot: runroot.into(),
            log: LogConfig::default(),
            stdin: Stdin::default(),
            auto_remove: false,
            also_remove: Vec::new(),
            snapshot: None,
            network: false,
            restart: RestartPolicy::default(),
            stop_signal: sigterm(),
            stop_timeout: ten(),
            health: None,
            event_attributes: BTreeMap::new(),
            networks: Vec::new(),
        }
    }
}

fn sigterm() -> i32 {
    libc::SIGTERM
}

fn ten() -> u32 {
    10
}

/// What becomes of the output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "driver", rename_all = "kebab-case")]
pub enum LogConfig {
    /// docker's json-file: one JSON object per line of output.
    JsonFile {
        /// The current file; `None` is `log` in the container's directory.
        #[serde(default)]
        path: Option<PathBuf>,
        /// Bytes after which a new file is begun.
        max_size: u64,
        /// Files kept, the current one included; at least 1.
        max_files: u32,
    },
    /// Nothing is kept.
    None,
}

impl Default for LogConfig {
    /// json-file, three files of 10 MiB.
    fn default() -> Self {
        Self::JsonFile { path: None, max_size: 10 << 20, max_files: 3 }
    }
}

/// What a process reads on stdin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stdin {
    /// End of file.
    #[default]
    Closed,
    /// What attached clients send; it stays open when they leave (docker's OpenStdin).
    Open,
    /// What the first attached client sends; it ends when that one leaves (docker's StdinOnce).
    Once,
}

/// Whether and how often a container that ended is started again. As text: `no`, `on-failure`, `on-failure:3`,
/// `always`, `unless-stopped`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// When it ended with another code than 0, at most that often in a row.
    OnFailure {
        /// `None`: without limit.
        max: Option<u32>,
    },
    /// Whenever it ends, unless it was told to stop.
    Always,
    /// As `Always`; differs after a boot only.
    UnlessStopped,
}

/// A text that is no restart policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid restart policy {0:?}: use no, on-failure[:max-retries], always or unless-stopped")]
pub struct BadPolicy(String);

impl FromStr for RestartPolicy {
    type Err = BadPolicy;

    fn from_str(text: &str) -> Result<Self, BadPolicy> {
        match text.split_once(':') {
            None => match text {
                "" | "no" => Ok(Self::No),
                "on-failure" => Ok(Self::OnFailure { max: None }),
                "always" => Ok(Self::Always),
                "unless-stopped" => Ok(Self::UnlessStopped),
                _ => Err(BadPolicy(text.to_owned())),
            },
            // docker takes on-failure:0 for no limit.
            Some(("on-failure", max)) => match max.parse() {
                Ok(0) => Ok(Self::OnFailure { max: None }),
                Ok(max) => Ok(Self::OnFailure { max: Some(max) }),
                Err(_not_a_number) => Err(BadPolicy(text.to_owned())),
            },
            Some(_) => Err(BadPolicy(text.to_owned())),
        }
    }
}

impl fmt::Display for RestartPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::No => f.write_str("no"),
            Self::OnFailure { max: None } => f.write_str("on-failure"),
            Self::OnFailure { max: Some(max) } => write!(f, "on-failure:{max}"),
            Self::Always => f.write_str("always"),
            Self::UnlessStopped => f.write_str("unless-stopped"),
        }
    }
}

impl TryFrom<String> for RestartPolicy {
    type Error = BadPolicy;

    fn try_from(text: String) -> Result<Self, BadPolicy> {
        text.parse()
    }
}

impl From<RestartPolicy> for String {
    fn from(policy: RestartPolicy) -> Self {
        policy.to_string()
    }
}

/// A health check, as an image or the command line gives it. Times are nanoseconds, as in an image's configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// The command and its arguments.
    pub command: Vec<String>,
    /// From the end of one check to the begin of the next.
    pub interval: u64,
    /// A check that takes longer has failed.
    pub timeout: u64,
    /// Failures in this time after the start don't count.
    pub start_period: u64,
    /// Failures in a row that make the container unhealthy.
    pub retries: u32,
}

/// `exit.json`: how the container's first process ended. Written by the shim before it tells anyone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitRecord {
    /// As a shell counts: the code, or 128 and the signal's number. 255 when nobody knows.
    pub exit_code: u32,
    /// The signal that ended it.
    #[serde(default)]
    pub signal: Option<i32>,
    /// Whether the kernel killed a process of the container for want of memory.
    #[serde(default)]
    pub oom_killed: bool,
    /// When the process was started; `None` when it never was.
    #[serde(default)]
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Why it did not start, or what went wrong in cleaning up.
    #[serde(default)]
    pub error: Option<String>,
    /// How often the restart policy has started it again.
    #[serde(default)]
    pub restarts: u32,
}

impl Document for ExitRecord {
    const NAME: &'static str = "exit record";
}

/// Writes a file so that a reader sees all of it or none, without flushing.
///
/// # Errors
///
/// Those of making, writing and renaming the temporary file, which lies beside it.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidFilename.into());
    };
    let mut temporary = std::ffi::OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}", std::process::id()));
    let temporary = parent.join(temporary);
    let write = || {
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
        file.write_all(bytes)?;
        std::fs::rename(&temporary, path)
    };
    write().inspect_err(|_| {
        // The write failed already; a temporary file that cannot be removed either adds nothing to say.
        let _removed = std::fs::remove_file(&temporary);
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;

    #[test]
    fn documents_round_trip() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shim.json");
        let mut config = ShimConfig::new("/r", "/run/r");
        config.restart = RestartPolicy::OnFailure { max: Some(3) };
        config.log = LogConfig::None;
        config.store(&path).unwrap();
        assert_eq!(ShimConfig::load(&path).unwrap(), config);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        let record = ExitRecord {
            exit_code: 137,
            signal: Some(9),
            oom_killed: true,
            started_at: Some(Timestamp::new(5, 6)),
            finished_at: Timestamp::now(),
            error: None,
            restarts: 0,
        };
        let path = dir.path().join("exit.json");
        record.store(&path).unwrap();
        assert_eq!(ExitRecord::load(&path).unwrap(), record);
    }

    #[test]
    fn a_short_shim_json_gets_the_defaults() {
        let config: ShimConfig = serde_json::from_str(r#"{"root": "/r", "runroot": "/q"}"#).unwrap();
        assert_eq!(config, ShimConfig::new("/r", "/q"));
    }

    #[test]
    fn missing_and_broken_documents_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("exit.json");
        assert_eq!(ExitRecord::load(&path).unwrap_err().kind(), Kind::NotFound);
        std::fs::write(&path, "{").unwrap();
        assert_eq!(ExitRecord::load(&path).unwrap_err().kind(), Kind::DataLoss);
    }

    #[test]
    fn restart_policies() {
        for text in ["no", "on-failure", "on-failure:7", "always", "unless-stopped"] {
            assert_eq!(text.parse::<RestartPolicy>().unwrap().to_string(), text);
        }
        for text in ["never", "always:3", "on-failure:", "on-failure:-1", ":"] {
            assert!(text.parse::<RestartPolicy>().is_err(), "{text}");
        }
    }
}
