//! All containers of an instance: listing, finding by name, id or unique prefix, and the making of a new directory.
//!
//! A directory without `container.json` is half made. Its maker holds a lock on it as long as it lives, so that the next
//! command can tell a container in the making from what a killed command left behind, and clears the latter away.

use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

use dhow_api::paths::{Bundle, Root, RunRoot};
use nix::fcntl::{Flock, FlockArg};

use super::names::Names;
use super::record::Record;
use super::state::State;
use crate::error::{Error, Result};
use crate::files;

/// The containers of one instance.
#[derive(Debug)]
pub(crate) struct Containers {
    root: Root,
    runroot: RunRoot,
    names: Names,
}

/// One container.
#[derive(Debug, Clone)]
pub(crate) struct Container {
    /// What was asked for.
    pub record: Record,
    /// Its directory.
    pub bundle: Bundle,
    runroot: RunRoot,
}

/// A directory that is being made into a container; the lock says that somebody is at it.
#[derive(Debug)]
pub(crate) struct Claim {
    /// The directory.
    pub bundle: Bundle,
    _lock: Flock<File>,
}

impl Containers {
    /// The containers under these roots.
    pub(crate) fn new(root: &Root, runroot: &RunRoot) -> Self {
        Self { root: root.clone(), runroot: runroot.clone(), names: Names::new(root.path()) }
    }

    /// Who has which name.
    pub(crate) fn names(&self) -> &Names {
        &self.names
    }

    /// All ids that have a directory.
    pub(crate) fn ids(&self) -> Result<Vec<String>> {
        let path = self.root.containers();
        let list = match fs::read_dir(&path) {
            Ok(list) => list,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(Error::File { action: "list", path, source }),
        };
        let names = list.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        Ok(names.filter(|name| name.len() == ID_LENGTH && name.bytes().all(|b| b.is_ascii_hexdigit())).collect())
    }

    /// All containers, newest first. One that does not read is left out with a warning: it must not break the list.
    pub(crate) fn list(&self) -> Result<Vec<Container>> {
        let mut list = Vec::new();
        for id in self.ids()? {
            match self.load(&id) {
                Ok(container) => list.extend(container),
                Err(error) => log::warn!("skipping container {id}: {}", dhow_api::error::chain(&error)),
            }
        }
        list.sort_by(|a: &Container, b: &Container| b.record.created.cmp(&a.record.created));
        Ok(list)
    }

    /// The container that `text` means: a full id, a name, or a unique prefix of an id.
    pub(crate) fn find(&self, text: &str) -> Result<Container> {
        self.find_maybe(text)?.ok_or_else(|| Error::NoSuchContainer(text.to_owned()))
    }

    /// As [`Containers::find`], where there may be none.
    pub(crate) fn find_maybe(&self, text: &str) -> Result<Option<Container>> {
        let text = text.strip_prefix('/').unwrap_or(text);
        if text.is_empty() || text.contains('/') {
            return Ok(None);
        }
        if text.len() == ID_LENGTH && text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return self.load(text);
        }
        if !text.starts_with('.')
            && let Some(id) = self.names.holder(text)?
        {
            // A record under another name is an interrupted rename: the record is right.
            return Ok(self.load(&id)?.filter(|c| c.record.name == text));
        }
        if !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Ok(None);
        }
        let lower = text.to_ascii_lowercase();
        let mut found: Vec<String> = self.ids()?.into_iter().filter(|id| id.starts_with(&lower)).collect();
        found.retain(|id| self.root.container(id).record().exists());
        match found.as_slice() {
            [] => Ok(None),
            [id] => self.load(id),
            many => Err(Error::Ambiguous { prefix: text.to_owned(), count: many.len() }),
        }
    }

    /// The container with this id; `None` when there is none or it is half made.
    pub(crate) fn load(&self, id: &str) -> Result<Option<Container>> {
        let bundle = self.root.container(id);
        let record = files::read_json::<Record>(&bundle.record(), "container record")?;
        let own = |record: Record| Container { record, bundle, runroot: self.runroot.clone() };
        Ok(record.filter(|record| record.id == id).map(own))
    }

    /// Makes the directory for a new container.
    pub(crate) fn claim(&self, id: &str) -> Result<Claim> {
        let bundle = self.root.container(id);
        files::make_dir(bundle.path())?;
        let lock = lock(bundle.path(), FlockArg::LockExclusive)?.ok_or_else(|| Error::File {
            action: "lock",
            path: bundle.path().into(),
            source: io::ErrorKind::NotFound.into(),
        })?;
        Ok(Claim { bundle, _lock: lock })
    }

    /// The ids of directories that a killed command left half made.
    pub(crate) fn abandoned(&self) -> Result<Vec<(String, Claim)>> {
        let mut list = Vec::new();
        for id in self.ids()? {
            let bundle = self.root.container(&id);
            if bundle.record().exists() {
                continue;
            }
            if let Some(lock) = lock(bundle.path(), FlockArg::LockExclusiveNonblock)? {
                // Its maker may have finished between the two looks.
                if !bundle.record().exists() {
                    list.push((id, Claim { bundle, _lock: lock }));
                }
            }
        }
        Ok(list)
    }
}

const ID_LENGTH: usize = 64;

/// Locks a directory; `None` when another has the lock or the directory is gone.
fn lock(path: &std::path::Path, how: FlockArg) -> Result<Option<Flock<File>>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::File { action: "open", path: path.to_owned(), source }),
    };
    match Flock::lock(file, how) {
        Ok(lock) => Ok(Some(lock)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Ok(None),
        Err((_, errno)) => Err(Error::File { action: "lock", path: path.to_owned(), source: errno.into() }),
    }
}

impl Container {
    /// A container whose record was just made.
    pub(crate) fn new(record: Record, bundle: Bundle, runroot: &RunRoot) -> Self {
        Self { record, bundle, runroot: runroot.clone() }
    }

    /// Its id.
    pub(crate) fn id(&self) -> &str {
        &self.record.id
    }

    /// What state it is in now.
    pub(crate) fn state(&self) -> State {
        State::of(&self.record, &self.bundle, &self.runroot)
    }

    /// Writes the record, by renaming.
    pub(crate) fn save(&self) -> Result<()> {
        files::write_json(&self.bundle.record(), "a container's record", &self.record)
    }

    /// Its current log.
    pub(crate) fn log(&self) -> PathBuf {
        self.bundle.log()
    }

    /// Waits until nobody else starts or removes this container, and keeps others from it until dropped.
    pub(crate) fn lock(&self) -> Result<Flock<File>> {
        lock(self.bundle.path(), FlockArg::LockExclusive)?
            .ok_or_else(|| Error::NoSuchContainer(self.record.name.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn containers(dir: &tempfile::TempDir) -> Containers {
        Containers::new(&Root::new(dir.path().join("root")), &RunRoot::new(dir.path().join("run")))
    }

    fn make(all: &Containers, id: &str, name: &str, created: &str) {
        let claim = all.claim(id).unwrap();
        let record = Record { id: id.into(), name: name.into(), created: created.into(), ..Record::default() };
        all.names().claim(name, id).unwrap();
        Container::new(record, claim.bundle, &all.runroot).save().unwrap();
    }

    #[test]
    fn finding() {
        let dir = tempfile::tempdir().unwrap();
        let all = containers(&dir);
        assert!(all.list().unwrap().is_empty());
        let (one, two) = (format!("aa{}", "0".repeat(62)), format!("ab{}", "0".repeat(62)));
        make(&all, &one, "web", "2026-01-01T00:00:00Z");
        make(&all, &two, "aa", "2026-01-02T00:00:00Z");
        let find = |text: &str| all.find(text).map(|c| c.record.name);
        assert_eq!(find("web").unwrap(), "web");
        assert_eq!(find("/web").unwrap(), "web");
        assert_eq!(find(&one).unwrap(), "web");
        assert_eq!(find("aa0").unwrap(), "web");
        // A name wins over a prefix.
        assert_eq!(find("aa").unwrap(), "aa");
        assert_eq!(find("ab").unwrap(), "aa");
        assert!(matches!(find("a"), Err(Error::Ambiguous { count: 2, .. })));
        for none in ["zz", "ff", "", "../x", "."] {
            assert!(matches!(find(none), Err(Error::NoSuchContainer(_))), "{none}");
        }
        let names: Vec<_> = all.list().unwrap().into_iter().map(|c| c.record.name).collect();
        assert_eq!(names, ["aa", "web"]);
    }

    #[test]
    fn half_made() {
        let dir = tempfile::tempdir().unwrap();
        let all = containers(&dir);
        let id = "c".repeat(64);
        let claim = all.claim(&id).unwrap();
        assert!(all.abandoned().unwrap().is_empty(), "its maker lives");
        assert!(all.list().unwrap().is_empty());
        drop(claim);
        assert_eq!(all.abandoned().unwrap().len(), 1);
        make(&all, &id, "x", "2026");
        assert!(all.abandoned().unwrap().is_empty());
    }
}
