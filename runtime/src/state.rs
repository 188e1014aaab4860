//! What is known of a container, on disk: `ROOT/<id>/state.json`.
//!
//! The file is replaced by rename, never changed in place. It is written twice in a container's life: before anything is
//! made, with what is needed to clean up (`init_process_pid` 0), and when its first process exists. Names are runc's
//! where it has the same thing. What changes by itself (running, paused, stopped) is not in it: it is asked of the kernel.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use dhow_sys::{Errno, process};
use memchr::memmem;
use nix::fcntl::{Flock, FlockArg};
use oci_spec::runtime::LinuxResources;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::config::Spec;
use crate::{Error, Result};

/// Where in its life a container is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// Being made (or left by a runtime that was killed while it made it).
    Creating,
    /// Its first process waits to be started.
    Created,
    /// Its first process runs.
    Running,
    /// All its processes are frozen.
    Paused,
    /// Its first process has ended.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Creating => "creating",
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopped => "stopped",
        })
    }
}

/// state.json.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct State {
    /// The container's name.
    pub(crate) id: String,
    /// The first process; 0 while there is none yet.
    pub(crate) init_process_pid: i32,
    /// Its start time in clock ticks since boot: together they name a process for ever.
    pub(crate) init_process_start: u64,
    /// RFC 3339, UTC.
    pub(crate) created: String,
    /// Absolute path.
    pub(crate) bundle: PathBuf,
    /// Absolute path.
    pub(crate) rootfs: PathBuf,
    /// The cgroup, as [`crate::cgroup`] wants it back.
    pub(crate) cgroup_paths: BTreeMap<String, PathBuf>,
    /// The unit of systemd's that the cgroup is of, with the systemd driver.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) unit: Option<String>,
    /// Namespaces of the first process by runc's names (`NEWNET`, …); for people and tools, not read again.
    pub(crate) namespace_paths: BTreeMap<String, PathBuf>,
    /// What the first process's 0, 1 and 2 were.
    #[serde(default)]
    pub(crate) external_descriptors: Vec<String>,
    /// It was brought back from a checkpoint.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) restored: bool,
    /// The uid that made it.
    pub(crate) owner: u32,
    /// What `update` has changed since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) resources: Option<LinuxResources>,
    /// `update` has given it a class in resctrl that its configuration does not ask for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) intel_rdt: bool,
    /// The name of its session keyring; none when it has the caller's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) keyring: Option<String>,
    /// config.json as it was.
    pub(crate) config: Box<RawValue>,
}

impl State {
    /// Reads `ROOT/<id>/state.json`.
    ///
    /// # Errors
    /// [`Error::InvalidId`]; [`Error::NotFound`] when there is no such container, [`Error::BadState`] when it can't be understood.
    pub(crate) fn load(root: &Path, id: &str) -> Result<Self> {
        valid_id(id)?;
        let path = root.join(id).join(FILE);
        let bytes = match std::fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => {
                return Err(if root.join(id).is_dir() {
                    Error::BadState { id: id.into(), problem: "it has no state.json".into() }
                } else {
                    Error::NotFound { id: id.into() }
                });
            }
            Err(e) => return Err(Error::file("read", &path)(e)),
        };
        serde_json::from_slice(&bytes).map_err(|e| Error::BadState { id: id.into(), problem: e.to_string() })
    }

    /// The state that was `known`, if its file is still that one; else as [`State::load`].
    ///
    /// # Errors
    /// As there.
    pub(crate) fn load_anew(root: &Path, id: &str, known: Known) -> Result<Self> {
        let same = std::fs::metadata(root.join(id).join(FILE)).is_ok_and(|file| Stamp::of(&file) == known.stamp);
        if same { Ok(known.state) } else { Self::load(root, id) }
    }

    /// Writes it.
    ///
    /// # Errors
    /// [`Error::File`]; then what was there before is still there.
    pub(crate) fn store(&self, dir: &Path) -> Result<()> {
        self.write(dir)?;
        put(dir)
    }

    /// Writes it beside the one that is there; [`put`] puts it in its place.
    ///
    /// # Errors
    /// [`Error::File`].
    pub(crate) fn write(&self, dir: &Path) -> Result<Stamp> {
        let fresh = dir.join(FRESH);
        let bytes =
            serde_json::to_vec(self).map_err(|e| Error::BadState { id: self.id.clone(), problem: e.to_string() })?;
        let written = File::create(&fresh).and_then(|mut file| {
            file.write_all(&bytes)?;
            file.metadata()
        });
        written.map(|file| Stamp::of(&file)).map_err(Error::file("write", &fresh))
    }

    /// The configuration it was made from.
    ///
    /// # Errors
    /// [`Error::Config`].
    pub(crate) fn spec(&self) -> Result<Spec> {
        Spec::from_json(self.config.get().as_bytes())
    }

    /// Whether the configuration may have a field of this name: reading the whole of it is wasted on those that have not.
    pub(crate) fn may_have(&self, field: &str) -> bool {
        may_mention(self.config.get(), field)
    }

    /// The first process, if it still runs: that very one, and not as a zombie.
    #[must_use]
    pub(crate) fn living(&self) -> Option<process::Stat> {
        let found = (self.init_process_pid > 0).then(|| process::stat(self.init_process_pid)).flatten();
        found.filter(|stat| stat.start_time == self.init_process_start && !stat.is_dead())
    }

    /// Whether it does.
    #[must_use]
    pub(crate) fn is_alive(&self) -> bool {
        self.living().is_some()
    }
}

/// Puts the state that was written last in the place of the one before.
///
/// # Errors
/// [`Error::File`]; then the one before is still there.
pub(crate) fn put(dir: &Path) -> Result<()> {
    let path = dir.join(FILE);
    std::fs::rename(dir.join(FRESH), &path).map_err(Error::file("write", &path))
}

/// Which file a state was written to. Each time it is another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    place: (u64, u64),
    written: (i64, i64),
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self { place: (file.dev(), file.ino()), written: (file.mtime(), file.mtime_nsec()) }
    }
}

/// A state, and the file that has it.
#[derive(Debug, Clone)]
pub(crate) struct Known {
    pub(crate) state: State,
    pub(crate) stamp: Stamp,
}

/// JSON may spell any letter of a name as an escape.
fn may_mention(json: &str, field: &str) -> bool {
    let json = json.as_bytes();
    memmem::find(json, format!("\"{field}\"").as_bytes()).is_some() || memmem::find(json, b"\\u").is_some()
}

/// A container's directory, held by whoever creates, starts, updates or deletes it. The kernel lets go of it with the
/// process, so a runtime that was killed blocks nobody.
#[derive(Debug)]
pub(crate) struct Lock(Flock<File>);

impl Lock {
    /// Waits for it.
    ///
    /// # Errors
    /// [`Error::InvalidId`]; [`Error::NotFound`] when there is no such container.
    pub(crate) fn take(root: &Path, id: &str) -> Result<Self> {
        loop {
            if let Some(lock) = Self::on(root, id, FlockArg::LockExclusive)? {
                return Ok(lock);
            }
        }
    }

    /// The same without waiting; `None` when somebody has it.
    ///
    /// # Errors
    /// As [`Lock::take`].
    pub(crate) fn try_take(root: &Path, id: &str) -> Result<Option<Self>> {
        Self::on(root, id, FlockArg::LockExclusiveNonblock)
    }

    /// `None` too when the lock turned out to be on a directory that is not the container's any more.
    fn on(root: &Path, id: &str, how: FlockArg) -> Result<Option<Self>> {
        valid_id(id)?;
        let path = root.join(id);
        let missing = |e: io::Error, verb| match e.kind() {
            ErrorKind::NotFound => Error::NotFound { id: id.into() },
            _ => Error::file(verb, &path)(e),
        };
        let dir = File::open(&path).map_err(|e| missing(e, "open"))?;
        let lock = match Flock::lock(dir, how) {
            Err((_, Errno::EWOULDBLOCK)) => return Ok(None),
            other => other.map_err(|(_, e)| Error::file("lock", &path)(e.into()))?,
        };
        let held = lock.metadata().map_err(Error::file("look at", &path))?;
        let named = std::fs::metadata(&path).map_err(|e| missing(e, "look at"))?;
        // While this one waited the container may have been deleted, and another one made by the same name.
        Ok(((held.dev(), held.ino()) == (named.dev(), named.ino())).then_some(Self(lock)))
    }

    /// Whether anybody has it now.
    pub(crate) fn is_held(root: &Path, id: &str) -> bool {
        let Ok(dir) = File::open(root.join(id)) else { return false };
        matches!(Flock::lock(dir, FlockArg::LockSharedNonblock), Err((_, Errno::EWOULDBLOCK)))
    }

    /// The directory.
    pub(crate) fn dir(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A container's name becomes a path component, and part of a cgroup's name: nothing is looked up by one that is neither.
pub(crate) fn valid_id(id: &str) -> Result<()> {
    let error = |problem| Err(Error::InvalidId { id: id.to_owned(), problem });
    if id.is_empty() {
        return error("container id cannot be empty");
    }
    if id.len() > 1024 || matches!(id, "." | "..") {
        return error("it is no file name");
    }
    if !id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+-.".contains(&b)) {
        return error("only letters, digits and _+-. are allowed");
    }
    Ok(())
}

/// The name of the state file.
pub(crate) const FILE: &str = "state.json";
const FRESH: &str = ".state.json";
/// The name of the socket that a created container listens on.
pub(crate) const START: &str = "start.sock";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_found_however_it_is_spelt() {
        assert!(may_mention(r#"{"hooks":{"poststop":[]}}"#, "poststop"));
        assert!(may_mention(r#"{"hooks":{"\u0070oststop":[]}}"#, "poststop"));
        assert!(!may_mention(r#"{"process":{"args":["poststop"]}}"#, "poststart"));
    }
}
