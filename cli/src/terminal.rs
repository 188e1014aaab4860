//! The user's terminal: raw while a container has it, restored on every way out, its size.

use std::fs::File;
use std::io::{self, IsTerminal};
use std::os::fd::{AsFd, BorrowedFd};

use dhow_sys::tty::{self, Size};
use nix::sys::termios::{SetArg, Termios, cfmakeraw, tcgetattr, tcsetattr};

use crate::error::{Error, Result};

/// A terminal in raw mode; dropping it restores what was.
#[derive(Debug)]
pub(crate) struct Raw {
    terminal: File,
    before: Termios,
}

impl Raw {
    /// Makes the terminal at standard input raw.
    pub(crate) fn enter() -> Result<Self> {
        let terminal = io::stdin().as_fd().try_clone_to_owned().map(File::from);
        let terminal = terminal.map_err(|source| Error::System { action: "open the terminal", source })?;
        let before = tcgetattr(&terminal).map_err(Error::system("read the terminal's settings"))?;
        let mut raw = before.clone();
        cfmakeraw(&mut raw);
        tcsetattr(&terminal, SetArg::TCSANOW, &raw).map_err(Error::system("make the terminal raw"))?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // Nothing is left to do where the terminal itself is gone.
        if let Err(errno) = tcsetattr(&self.terminal, SetArg::TCSANOW, &self.before) {
            log::debug!("restoring the terminal: {errno}");
        }
    }
}

/// The size of the terminal at standard input, output or error.
pub(crate) fn size() -> Option<Size> {
    let of = |fd: BorrowedFd<'_>| tty::size(fd).ok();
    of(io::stdin().as_fd()).or_else(|| of(io::stdout().as_fd())).or_else(|| of(io::stderr().as_fd()))
}

/// Whether standard input is a terminal.
pub(crate) fn stdin_is_terminal() -> bool {
    io::stdin().is_terminal()
}
