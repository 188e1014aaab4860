//! The snapshots' directories and records on disk. Knows nothing of names being taken or of who may do what.

use std::fs::{self, File, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::Duration;

use dhow_layer::{OverlayXattrs, Settle};

use crate::flush::Flusher;
use crate::record::{Kind, Record, Usage};
use crate::trash::Trash;
use crate::{Error, Result};

/// A snapshots directory that this process alone works on.
#[derive(Debug)]
pub(crate) struct Disk {
    root: PathBuf,
    xattrs: OverlayXattrs,
    flusher: Flusher,
    trash: Trash,
    /// Held, and so locked, until the end.
    _lock: File,
}

impl Disk {
    /// Makes what is missing of the directory, locks it and clears what a killed process left half-made.
    pub(crate) fn open(root: PathBuf, xattrs: OverlayXattrs) -> Result<Self> {
        let make = |path: PathBuf| make_dir(&path).map_err(disk("make", &path)).map(|()| path);
        let root = make(root)?;
        let lock = lock(&root)?;
        make(root.join("empty"))?;
        let trash_dir = root.join("trash");
        let trash = Trash::open(trash_dir.clone()).map_err(disk("open", &trash_dir))?;
        let tmp = make(root.join("tmp"))?;
        for left in fs::read_dir(&tmp).map_err(disk("list", &tmp))?.flatten() {
            trash.throw(&left.path()).map_err(disk("remove", &left.path()))?;
        }
        let flusher = Flusher::new(File::open(&root).map_err(disk("open", &root))?);
        Ok(Self { root, xattrs, flusher, trash, _lock: lock })
    }

    /// All snapshots, and a number above all of theirs. A record that cannot be read is reported and left out.
    pub(crate) fn load(&self) -> Result<(Vec<(u64, Record)>, u64)> {
        let mut records = Vec::new();
        let mut next = 1;
        for entry in fs::read_dir(&self.root).map_err(disk("list", &self.root))?.flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse::<u64>().ok()) else { continue };
            next = next.max(id + 1);
            match read_record(&self.record_path(id)) {
                Ok(Some(record)) => records.push((id, record)),
                // Made, but never flushed, when the machine lost power: nobody was promised anything.
                Ok(None) => self.throw(id)?,
                Err(error) => log::error!("snapshot left out: {}", dhow_api::error::chain(&error)),
            }
        }
        Ok((records, next))
    }

    /// The directory that holds a snapshot's files.
    pub(crate) fn fs(&self, id: u64) -> PathBuf {
        self.root.join(id.to_string()).join("fs")
    }

    /// overlayfs's work directory.
    pub(crate) fn work(&self, id: u64) -> PathBuf {
        self.root.join(id.to_string()).join("work")
    }

    /// A directory that is and stays empty.
    pub(crate) fn empty(&self) -> PathBuf {
        self.root.join("empty")
    }

    /// Where overlayfs keeps its marks here.
    pub(crate) fn xattrs(&self) -> OverlayXattrs {
        self.xattrs
    }

    /// Makes a snapshot appear, with the directories its kind needs. The root of its files is as its parent's.
    pub(crate) fn create(&self, id: u64, record: &Record, parent: Option<u64>) -> Result<()> {
        let tmp = self.root.join("tmp").join(id.to_string());
        let guard = Unmade { path: &tmp, trash: &self.trash };
        make_dir(&tmp).map_err(disk("make", &tmp))?;
        // A view over layers is made of them alone.
        if record.kind == Kind::Active || parent.is_none() {
            let files = tmp.join("fs");
            make_dir(&files).map_err(disk("make", &files))?;
            fs::set_permissions(&files, fs::Permissions::from_mode(0o755))
                .map_err(disk("change the mode of", &files))?;
            if let Some(parent) = parent {
                let (from, to) = (self.fs(parent), File::open(&files).map_err(disk("open", &files))?);
                let from = File::open(&from).map_err(disk("open", &from))?;
                dhow_layer::copy_directory_attributes(from.as_fd(), to.as_fd())
                    .map_err(|source| Error::Settle { name: record.name.clone(), source })?;
            }
        }
        if record.kind == Kind::Active {
            let work = tmp.join("work");
            make_dir(&work).map_err(disk("make", &work))?;
        }
        let path = tmp.join(RECORD);
        write_record(&path, record).map_err(disk("write", &path))?;
        let path = self.root.join(id.to_string());
        fs::rename(&tmp, &path).map_err(disk("make", &path))?;
        std::mem::forget(guard);
        Ok(())
    }

    /// Replaces a record; durable only if `flush`.
    pub(crate) fn replace(&self, id: u64, record: &Record, flush: bool) -> Result<()> {
        let dir = self.root.join(id.to_string());
        let (new, path) = (dir.join("snapshot.json.new"), dir.join(RECORD));
        let file = write_record(&new, record).map_err(disk("write", &new))?;
        if flush {
            file.sync_all().map_err(disk("flush", &new))?;
        }
        fs::rename(&new, &path).map_err(disk("write", &path))?;
        if flush {
            File::open(&dir).and_then(|dir| dir.sync_all()).map_err(disk("flush", &dir))?;
        }
        Ok(())
    }

    /// Fits an unpacked layer to its parents (nearest first) and gets it onto the disk. Gives whether its root is opaque.
    pub(crate) fn settle(&self, id: u64, name: &str, parents: &[u64]) -> Result<bool> {
        let files = self.fs(id);
        let settled = |source| Error::Settle { name: name.to_owned(), source };
        let handle = File::open(&files).map_err(disk("open", &files))?;
        if let Some(settle) = Settle::load_beside(&files).map_err(settled)? {
            let mut lowers = Vec::new();
            for parent in parents {
                let path = self.fs(*parent);
                lowers.push(File::open(&path).map_err(disk("open", &path))?);
            }
            let lowers: Vec<BorrowedFd<'_>> = lowers.iter().map(AsFd::as_fd).collect();
            dhow_layer::settle(handle.as_fd(), &lowers, &settle).map_err(settled)?;
        }
        let opaque = dhow_layer::is_opaque(handle.as_fd(), self.xattrs).map_err(settled)?;
        self.flusher.flush().map_err(|errno| disk("flush", &files)(errno.into()))?;
        Ok(opaque)
    }

    /// Removes what only an active snapshot needs. Failing costs nothing but a few bytes.
    pub(crate) fn tidy(&self, id: u64) {
        let dir = self.root.join(id.to_string());
        for result in [fs::remove_file(dir.join("settle.json")), self.trash.throw(&dir.join("work"))] {
            match result {
                Err(error) if error.kind() != io::ErrorKind::NotFound => log::warn!("tidy {}: {error}", dir.display()),
                _ => {}
            }
        }
    }

    /// Takes away the mark by which overlayfs refuses a second mount of what was mounted `volatile` once.
    pub(crate) fn forgive_volatile(&self, id: u64) {
        let mark = self.work(id).join("work/incompat");
        match fs::remove_dir_all(&mark) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => log::warn!("remove {}: {error}", mark.display()),
            _ => {}
        }
    }

    /// Makes a snapshot disappear; its data follows.
    pub(crate) fn throw(&self, id: u64) -> Result<()> {
        let path = self.root.join(id.to_string());
        self.trash.throw(&path).map_err(disk("remove", &path))
    }

    /// Waits until everything removed is deleted.
    pub(crate) fn wait_deleted(&self) -> Result<()> {
        self.trash.wait_empty().map_err(|(path, errno)| disk("delete", &path)(errno.into()))
    }

    /// Walks a snapshot's files.
    pub(crate) fn measure(&self, id: u64) -> Result<Usage> {
        use dhow_sys::tree::{Next, WalkError, walk};
        let path = self.fs(id);
        let handle = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Usage::default()),
            handle => handle.map_err(disk("open", &path))?,
        };
        let own = handle.metadata().map_err(disk("stat", &path))?;
        let blocks = std::os::unix::fs::MetadataExt::blocks(&own);
        let mut usage = Usage { size: blocks * BLOCK, inodes: 1 };
        let mut seen = std::collections::HashSet::new();
        walk::<WalkError>(handle.as_fd(), |visit| {
            if visit.stat.st_nlink < 2 || seen.insert(visit.stat.st_ino) {
                usage.inodes += 1;
                usage.size += u64::try_from(visit.stat.st_blocks).unwrap_or_default() * BLOCK;
            }
            Ok(Next::Descend)
        })
        .map_err(|source| Error::Measure { path, source })?;
        Ok(usage)
    }

    fn record_path(&self, id: u64) -> PathBuf {
        self.root.join(id.to_string()).join(RECORD)
    }
}

/// A snapshot in the making, thrown away unless it gets its place.
struct Unmade<'a> {
    path: &'a Path,
    trash: &'a Trash,
}

impl Drop for Unmade<'_> {
    fn drop(&mut self) {
        // What stays is swept by the next start.
        self.trash.throw(self.path).unwrap_or_default();
    }
}

/// Makes a directory of mode 0700 with its parents; one that exists is as good.
pub(crate) fn make_dir(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Takes the lock; waits a while for a process that is just ending.
fn lock(root: &Path) -> Result<File> {
    let path = root.join("lock");
    let open = || File::options().read(true).write(true).create(true).truncate(false).open(&path);
    let file = open().map_err(disk("open", &path))?;
    match file.try_lock() {
        Ok(()) => return Ok(file),
        Err(TryLockError::Error(error)) => return Err(disk("lock", &path)(error)),
        Err(TryLockError::WouldBlock) => {}
    }
    // Only a thread can wait for a lock and a clock. If the clock wins, the thread ends with the process, which the error ends.
    let (done, waited) = mpsc::channel();
    std::thread::spawn(move || {
        let result = file.lock().map(|()| file);
        done.send(result).unwrap_or_default();
    });
    match waited.recv_timeout(LOCK_WAIT) {
        Ok(result) => result.map_err(disk("lock", &path)),
        Err(_timeout) => Err(Error::InUse { path: root.to_owned() }),
    }
}

/// `None` when there is nothing in it.
fn read_record(path: &Path) -> Result<Option<Record>> {
    let read = || -> io::Result<Option<Record>> {
        let mut bytes = Vec::new();
        match File::open(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?.take(RECORD_MAX).read_to_end(&mut bytes)?,
        };
        if bytes.is_empty() {
            return Ok(None);
        }
        Ok(Some(serde_json::from_slice(&bytes)?))
    };
    read().map_err(disk("read", path))
}

fn write_record(path: &Path, record: &Record) -> io::Result<File> {
    let mut file = File::create(path)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    Ok(file)
}

fn disk<'p>(op: &'static str, path: &'p Path) -> impl Fn(io::Error) -> Error + use<'p> {
    move |source| Error::Disk { op, path: path.to_owned(), source }
}

const RECORD: &str = "snapshot.json";
/// Labels are what makes a record long.
const RECORD_MAX: u64 = 16 << 20;
const LOCK_WAIT: Duration = Duration::from_secs(10);
/// The unit of `st_blocks`.
const BLOCK: u64 = 512;
