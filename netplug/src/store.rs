//! What is on disk: networks, attachments, leases, and claims on ports, under one lock.
//!
//! ```text
//! ROOT/networks/
//!     lock                        flock: one change at a time, whatever process makes it
//!     boot                        the boot that attachments, leases and ports belong to
//!     <name>.json                 a network
//!     attachments/<id>.pending    what an Attach is about to make; found under the lock, it was cut off and is undone
//!     attachments/<id>.json       what an Attach has made
//!     attachments/<id>.shared     others use the container's namespace
//!     leases/<network>/<address>  symbolic link whose target is the container that has the address
//!     leases/<network>/.last      the address that was given last
//!     ports/<protocol>-<port>/<host address>   symbolic link whose target is the container
//! ```
//!
//! A claim is a symbolic link because making one is atomic and exclusive: it is whole or not there, and the second to claim
//! learns who was first. Nothing is flushed: after a power loss nothing that these files describe exists any more.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result, file};

/// The files of an instance's networks.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    directory: PathBuf,
}

/// The lock, held until dropped (or until the process dies).
#[derive(Debug)]
pub(crate) struct Lock {
    _held: Flock<File>,
}

impl Store {
    /// The files below `ROOT/networks`.
    pub(crate) fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// Waits for the lock, making the directories if they are not there.
    pub(crate) fn lock(&self) -> Result<Lock> {
        let path = self.directory.join("lock");
        let open = || OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let opened = match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create_dir(&self.directory)?;
                open()
            }
            outcome => outcome,
        }
        .map_err(file("open", &path))?;
        let held = Flock::lock(opened, FlockArg::LockExclusive).map_err(|(_file, errno)| Error::File {
            operation: "lock",
            path,
            source: errno.into(),
        })?;
        Ok(Lock { _held: held })
    }

    /// The path of something of ours.
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.directory.join(relative)
    }
}

/// Makes a directory of ours, and those above it.
pub(crate) fn create_dir(path: &Path) -> Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(file("create directory", path))
}

/// Reads a record; none if there is no such file.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read(path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map(Some).map_err(|source| Error::Record { path: path.to_owned(), source })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file("read", path)(error)),
    }
}

/// Writes a record so that it is seen whole or not at all, making its directory if it is not there.
pub(crate) fn write<T: Serialize>(path: &Path, record: &T) -> Result<()> {
    let bytes = serde_json::to_vec(record).map_err(|source| Error::Serialize { path: path.to_owned(), source })?;
    replace(path, &bytes, 0o600)
}

/// Puts bytes in the place of a file, by a rename.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    // One name per file will do: writers hold the lock, and what a crash left is overwritten.
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let temporary = path.with_file_name(format!(".{name}.new"));
    let open = || OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary);
    let mut opened = match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                create_dir(parent)?;
            }
            open()
        }
        outcome => outcome,
    }
    .map_err(file("create", &temporary))?;
    opened.write_all(bytes).map_err(file("write", &temporary))?;
    fs::rename(&temporary, path).map_err(file("rename", path))
}

/// Removes a file; none there is no error.
pub(crate) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome.map_err(file("remove", path)),
    }
}

/// Removes a directory if it is empty.
pub(crate) fn remove_if_empty(path: &Path) -> Result<()> {
    match fs::remove_dir(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => Ok(()),
        outcome => outcome.map_err(file("remove directory", path)),
    }
}

/// The names in a directory, sorted; none if there is no such directory.
pub(crate) fn names(path: &Path) -> Result<Vec<String>> {
    let entries = match fs::read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        outcome => outcome.map_err(file("list", path))?,
    };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry.map_err(file("list", path))?.file_name();
        names.extend(name.into_string().ok());
    }
    names.sort_unstable();
    Ok(names)
}

/// Claims a name for an owner. Returns who has it already, if somebody has.
pub(crate) fn claim(path: &Path, owner: &str) -> Result<Option<String>> {
    match symlink(owner, path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            if let Some(parent) = path.parent() {
                create_dir(parent)?;
            }
            symlink(owner, path).map_err(file("claim", path))?;
            Ok(None)
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => owner_of(path),
        outcome => outcome.map(|()| None).map_err(file("claim", path)),
    }
}

/// Who has claimed a name.
pub(crate) fn owner_of(path: &Path) -> Result<Option<String>> {
    match fs::read_link(path) {
        Ok(target) => Ok(Some(target.to_string_lossy().into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file("read", path)(error)),
    }
}

/// Gives a claim up if it is this owner's.
pub(crate) fn give_up(path: &Path, owner: &str) -> Result<()> {
    if owner_of(path)?.as_deref() == Some(owner) { remove(path) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_claim_has_one_owner() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/er/10.0.0.2");
        assert_eq!(claim(&path, "one").unwrap(), None);
        assert_eq!(claim(&path, "two").unwrap().as_deref(), Some("one"));
        give_up(&path, "two").unwrap();
        assert_eq!(owner_of(&path).unwrap().as_deref(), Some("one"));
        give_up(&path, "one").unwrap();
        give_up(&path, "one").unwrap();
        assert_eq!(owner_of(&path).unwrap(), None);
    }

    #[test]
    fn records_are_whole_or_reported() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a/b.json");
        assert_eq!(read::<Vec<u8>>(&path).unwrap(), None);
        write(&path, &vec![1_u8, 2]).unwrap();
        assert_eq!(read::<Vec<u8>>(&path).unwrap(), Some(vec![1, 2]));
        assert_eq!(names(path.parent().unwrap()).unwrap(), ["b.json"]);
        fs::write(&path, "[1,").unwrap();
        assert!(matches!(read::<Vec<u8>>(&path), Err(Error::Record { .. })));
    }

    #[test]
    fn the_lock_excludes() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path().join("networks"));
        let held = store.lock().unwrap();
        let again = File::open(store.path("lock")).unwrap();
        let (again, errno) = Flock::lock(again, FlockArg::LockExclusiveNonblock).unwrap_err();
        assert_eq!(errno, nix::errno::Errno::EWOULDBLOCK);
        drop(held);
        Flock::lock(again, FlockArg::LockExclusiveNonblock).unwrap();
    }
}
