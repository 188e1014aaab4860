//! flock on a file of the store. Held by an open file: released when dropped, also by death.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use crate::cancel::Cancel;
use crate::error::Error;

/// A held lock.
#[derive(Debug)]
pub(crate) struct Lock {
    file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing would not do while a process that another thread has just forked has a copy of the descriptor. It can't fail.
        self.file.unlock().ok();
    }
}

/// With whom a lock is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    Shared,
    Exclusive,
}

impl Lock {
    /// Waits for the lock. A wait that `cancel` ends is an error.
    pub(crate) fn acquire(path: &Path, mode: Mode, cancel: &Cancel) -> Result<Self, Error> {
        let file = open(path)?;
        let mut pause = Duration::from_millis(1);
        while !try_lock(&file, path, mode)? {
            cancel.sleep(pause)?;
            pause = (pause * 2).min(Duration::from_millis(50));
        }
        Ok(Self { file })
    }

    /// Takes the lock if nobody else has it.
    pub(crate) fn try_acquire(path: &Path, mode: Mode) -> Result<Option<Self>, Error> {
        let file = open(path)?;
        Ok(try_lock(&file, path, mode)?.then_some(Self { file }))
    }
}

/// Tries to lock `file` itself; `false`: somebody else has it.
pub(crate) fn try_lock(file: &File, path: &Path, mode: Mode) -> Result<bool, Error> {
    let tried = match mode {
        Mode::Shared => file.try_lock_shared(),
        Mode::Exclusive => file.try_lock(),
    };
    match tried {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(source)) => Err(Error::File { operation: "lock", path: path.to_owned(), source }),
    }
}

fn open(path: &Path) -> Result<File, Error> {
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path);
    opened.map_err(Error::file("open", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_of_the_descriptor_does_not_hold_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        for mode in [Mode::Shared, Mode::Exclusive] {
            let lock = Lock::acquire(&path, mode, &Cancel::new()).unwrap();
            // As a process has it that was forked and has not executed anything yet.
            let copy = lock.file.try_clone().unwrap();
            assert!(Lock::try_acquire(&path, Mode::Exclusive).unwrap().is_none());
            drop(lock);
            assert!(Lock::try_acquire(&path, Mode::Exclusive).unwrap().is_some(), "{mode:?}");
            drop(copy);
        }
    }
}
