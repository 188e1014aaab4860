//! Deleting what was removed, off everybody's path.
//!
//! Removing is one rename into the trash directory; a thread deletes what it finds there, also what a process before left.

use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

/// The trash directory and the thread that empties it.
#[derive(Debug)]
pub(crate) struct Trash {
    dir: PathBuf,
    next: AtomicU64,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Something was thrown in since the thread last looked.
    more: bool,
    working: bool,
    stop: bool,
    /// What could not be deleted the last time.
    failure: Option<(PathBuf, nix::errno::Errno)>,
}

impl Trash {
    /// Opens (makes) the trash directory and begins to delete what lies there.
    pub(crate) fn open(dir: PathBuf) -> io::Result<Self> {
        super::disk::make_dir(&dir)?;
        let handle = File::open(&dir)?;
        let shared = Arc::new(Shared::default());
        shared.lock().more = true;
        let thread = {
            let (shared, dir) = (Arc::clone(&shared), dir.clone());
            std::thread::Builder::new().name("trash".to_owned()).spawn(move || shared.empty(&dir, &handle))?
        };
        // Unique among what a process before may have left.
        let start = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let next = AtomicU64::new(u64::try_from(start.as_nanos()).unwrap_or_default());
        Ok(Self { dir, next, shared, thread: Some(thread) })
    }

    /// Takes `path` away at once; its deletion follows.
    pub(crate) fn throw(&self, path: &Path) -> io::Result<()> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        std::fs::rename(path, self.dir.join(number.to_string()))?;
        self.shared.lock().more = true;
        self.shared.changed.notify_all();
        Ok(())
    }

    /// Waits until the trash is empty.
    ///
    /// # Errors
    /// What could not be deleted.
    pub(crate) fn wait_empty(&self) -> Result<(), (PathBuf, nix::errno::Errno)> {
        let mut state = self.shared.lock();
        // A failed deletion is tried again by everyone who asks.
        if state.failure.is_some() {
            state.more = true;
            self.shared.changed.notify_all();
        }
        while state.more || state.working {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.failure.clone().map_or(Ok(()), Err)
    }
}

impl Drop for Trash {
    /// Stops after the tree that is being deleted; the next process goes on.
    fn drop(&mut self) {
        self.shared.lock().stop = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap_or_default();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn empty(&self, dir: &Path, handle: &File) {
        let mut state = self.lock();
        loop {
            while !state.more && !state.stop {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.stop {
                return;
            }
            (state.more, state.working) = (false, true);
            drop(state);
            let failure = self.sweep(dir, handle);
            state = self.lock();
            state.working = false;
            if let Some((path, errno)) = &failure {
                log::error!("delete {}: {errno}", path.display());
            }
            state.failure = failure;
            self.changed.notify_all();
        }
    }

    /// Deletes everything; goes on past failures and gives the last one.
    fn sweep(&self, dir: &Path, handle: &File) -> Option<(PathBuf, nix::errno::Errno)> {
        let names = match std::fs::read_dir(dir) {
            Ok(names) => names,
            Err(error) => return Some((dir.to_owned(), errno(&error))),
        };
        let mut failure = None;
        for name in names.flatten() {
            if self.lock().stop {
                return failure;
            }
            if let Err(errno) = remove(handle, &name.file_name()) {
                failure = Some((name.path(), errno));
            }
        }
        failure
    }
}

fn remove(dir: &File, name: &OsStr) -> nix::Result<()> {
    let name = CString::new(name.as_bytes()).map_err(|_nul| nix::errno::Errno::EINVAL)?;
    dhow_sys::tree::remove(dir.as_fd(), &name)
}

fn errno(error: &io::Error) -> nix::errno::Errno {
    nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn what_is_thrown_in_is_deleted_and_what_lay_there_before_too() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("trash/left/a/b")).unwrap();
        fs::create_dir_all(root.path().join("x/y")).unwrap();
        let trash = Trash::open(root.path().join("trash")).unwrap();
        trash.throw(&root.path().join("x")).unwrap();
        assert!(!root.path().join("x").exists());
        trash.wait_empty().unwrap();
        assert_eq!(fs::read_dir(root.path().join("trash")).unwrap().count(), 0);
        assert!(trash.throw(&root.path().join("absent")).is_err());
    }
}
