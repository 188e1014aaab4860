//! Who has which name: `ROOT/names/<name>` holds a container's id.
//!
//! A claim counts as long as `ROOT/containers/<id>` exists; the shim that removes a `--rm` container need not know
//! about names. All changes happen under one lock, which is held for microseconds.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use crate::error::{Error, Result};
use crate::files;

/// The names of one instance.
#[derive(Debug)]
pub(crate) struct Names {
    names: PathBuf,
    containers: PathBuf,
}

impl Names {
    /// The names under `root`.
    pub(crate) fn new(root: &Path) -> Self {
        Self { names: root.join("names"), containers: root.join("containers") }
    }

    /// Gives `name` to the container `id`, whose directory exists already.
    pub(crate) fn claim(&self, name: &str, id: &str) -> Result<()> {
        let _lock = self.lock()?;
        match self.holder(name)? {
            Some(holder) if holder != id => Err(Error::NameTaken { name: name.to_owned(), holder }),
            _ => {
                let path = self.names.join(name);
                files::write(&path, id.as_bytes()).map_err(Error::file("write", path))
            }
        }
    }

    /// Gives `new` to `id` in exchange for `old`; `between` runs while nobody else can claim either.
    pub(crate) fn rename(&self, old: &str, new: &str, id: &str, between: impl FnOnce() -> Result<()>) -> Result<()> {
        self.claim(new, id)?;
        between().inspect_err(|_failed| drop(self.release(new, id)))?;
        self.release(old, id)
    }

    /// Takes `name` from `id`; nothing happens where another has it.
    pub(crate) fn release(&self, name: &str, id: &str) -> Result<()> {
        let _lock = self.lock()?;
        let path = self.names.join(name);
        match fs::read_to_string(&path) {
            Ok(holder) if holder == id => files::remove_if_there(&path),
            _ => Ok(()),
        }
    }

    /// The id of the living container that has `name`.
    pub(crate) fn holder(&self, name: &str) -> Result<Option<String>> {
        let path = self.names.join(name);
        match fs::read_to_string(&path) {
            Ok(id) if !id.is_empty() && self.containers.join(&id).is_dir() => Ok(Some(id)),
            Ok(_stale) => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::File { action: "read", path, source }),
        }
    }

    /// The file that holds the claim of a name.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.names.join(name)
    }

    /// Forgets names whose containers are gone.
    pub(crate) fn sweep(&self) -> Result<()> {
        let _lock = self.lock()?;
        let list = fs::read_dir(&self.names).map_err(Error::file("list", &self.names))?;
        for entry in list.flatten() {
            let name = entry.file_name();
            if name != LOCK && self.holder(&name.to_string_lossy())?.is_none() {
                files::remove_if_there(&entry.path())?;
            }
        }
        Ok(())
    }

    fn lock(&self) -> Result<Flock<File>> {
        let path = self.names.join(LOCK);
        let open = || OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                files::make_dir(&self.names)?;
                open()
            }
            other => other,
        };
        let file = file.map_err(Error::file("open", &path))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| Error::File {
            action: "lock",
            path,
            source: errno.into(),
        })
    }
}

/// No container name starts with a dot.
const LOCK: &str = ".lock";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims() {
        let dir = tempfile::tempdir().unwrap();
        let names = Names::new(dir.path());
        for id in ["one", "two"] {
            fs::create_dir_all(dir.path().join("containers").join(id)).unwrap();
        }
        names.claim("web", "one").unwrap();
        names.claim("web", "one").unwrap();
        let Err(Error::NameTaken { holder, .. }) = names.claim("web", "two") else { panic!("taken") };
        assert_eq!(holder, "one");
        names.rename("web", "www", "one", || Ok(())).unwrap();
        names.claim("web", "two").unwrap();
        assert!(names.rename("web", "www", "two", || Ok(())).is_err());
        names.release("www", "two").unwrap();
        assert_eq!(names.holder("www").unwrap().as_deref(), Some("one"));
        // The directory is gone: so is the claim.
        fs::remove_dir(dir.path().join("containers/one")).unwrap();
        names.claim("www", "two").unwrap();
        fs::remove_dir(dir.path().join("containers/two")).unwrap();
        names.sweep().unwrap();
        assert_eq!(fs::read_dir(dir.path().join("names")).unwrap().count(), 1);
    }
}
