//! Getting everything written so far onto the disk, once for all who ask at the same time.
//!
//! A flush of a file system takes what all wrote before it began. So whoever asks while one runs waits for the next, and all
//! who wait share it: five layers committed together cost two flushes, not five.

use std::fs::File;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use nix::errno::Errno;
use nix::unistd::syncfs;

/// The file system that holds a directory.
#[derive(Debug)]
pub(crate) struct Flusher {
    root: File,
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// How many flushes were begun and how many of them have ended.
    begun: u64,
    ended: u64,
    /// The last flush that failed.
    failed: Option<(u64, Errno)>,
}

impl Flusher {
    pub(crate) fn new(root: File) -> Self {
        Self { root, state: Mutex::default(), ended: Condvar::new() }
    }

    /// Returns when everything written before the call is on the disk.
    pub(crate) fn flush(&self) -> nix::Result<()> {
        let mut state = self.lock();
        // One that runs already may have passed our files.
        let wanted = state.begun + 1;
        while state.ended < wanted {
            if state.begun > state.ended {
                state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.begun += 1;
            let number = state.begun;
            drop(state);
            let result = syncfs(&self.root);
            state = self.lock();
            state.ended = number;
            if let Err(errno) = result {
                state.failed = Some((number, errno));
            }
            self.ended.notify_all();
        }
        match state.failed {
            Some((number, errno)) if number >= wanted => Err(errno),
            _ => Ok(()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_at_once_share() {
        let flusher = Flusher::new(File::open("/").unwrap());
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| flusher.flush().unwrap());
            }
        });
        let state = flusher.lock();
        assert_eq!(state.begun, state.ended);
        assert!((1..=16).contains(&state.begun));
    }
}
