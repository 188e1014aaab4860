//! A directory of a cgroup file system, held by a handle.
//!
//! The files are the kernel's: reading and writing them never blocks on another process, and a write is one write(2) with
//! the whole value. There are no symlinks in a cgroup file system.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use dhow_sys::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Uid, fchownat};

use super::error::{CgroupError, Result};

/// A cgroup directory.
#[derive(Debug)]
pub(super) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
}

impl Dir {
    /// Opens a cgroup that exists.
    pub(super) fn open(path: &Path) -> std::result::Result<Self, Errno> {
        Self::open_at(AT_FDCWD, path, path.to_owned())
    }

    fn open_at(at: BorrowedFd<'_>, name: &Path, path: PathBuf) -> std::result::Result<Self, Errno> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(Self { fd: openat(at, name, flags, Mode::empty())?, path })
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a cgroup below this one; `false` when it was there already.
    pub(super) fn make_child(&self, name: &Path) -> std::result::Result<(Self, bool), Errno> {
        let made = match mkdirat(&self.fd, name, Mode::from_bits_truncate(0o755)) {
            Ok(()) => true,
            Err(Errno::EEXIST) => false,
            Err(error) => return Err(error),
        };
        Ok((self.child(name)?, made))
    }

    /// Opens a cgroup below this one.
    pub(super) fn child(&self, name: &Path) -> std::result::Result<Self, Errno> {
        Self::open_at(self.fd.as_fd(), name, self.path.join(name))
    }

    /// Changes its own owner.
    pub(super) fn give_to(&self, uid: u32) -> std::result::Result<(), Errno> {
        fchownat(&self.fd, "", Some(Uid::from_raw(uid)), None, AtFlags::AT_EMPTY_PATH)
    }

    /// Changes a file's owner.
    pub(super) fn give_file_to(&self, file: &str, uid: u32) -> std::result::Result<(), Errno> {
        fchownat(&self.fd, file, Some(Uid::from_raw(uid)), None, AtFlags::AT_SYMLINK_NOFOLLOW)
    }

    /// Reads a file.
    pub(super) fn read(&self, file: &str) -> std::result::Result<String, Errno> {
        let fd = openat(&self.fd, file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?;
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            match nix::unistd::read(&fd, &mut buffer) {
                Ok(0) => break,
                Ok(read) => bytes.extend_from_slice(&buffer[..read]),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Reads a file that has to be there.
    pub(super) fn read_file(&self, file: &str) -> Result<String> {
        self.read(file).map_err(|source| self.error("read", file, source))
    }

    /// Reads a number; `max` and what is no number are `None`.
    pub(super) fn number(&self, file: &str) -> Option<u64> {
        self.read(file).ok()?.trim().parse().ok()
    }

    /// Writes a file, in one call.
    pub(super) fn write(&self, file: &str, value: &str) -> std::result::Result<(), Errno> {
        self.writer(file)?.write(value)
    }

    /// Writes a file that has to be there.
    pub(super) fn write_file(&self, file: &str, value: &str) -> Result<()> {
        self.write(file, value).map_err(|source| self.error("write", file, source))
    }

    /// A file to write several values to.
    pub(super) fn writer(&self, file: &str) -> std::result::Result<Writer, Errno> {
        openat(&self.fd, file, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty()).map(Writer)
    }

    /// A file to poll.
    pub(super) fn open_file(&self, file: &str) -> std::result::Result<OwnedFd, Errno> {
        openat(&self.fd, file, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
    }

    /// The names of the cgroups below this one. A cgroup that is gone has none.
    pub(super) fn children(&self) -> std::result::Result<Vec<PathBuf>, Errno> {
        // Read through the handle: by its path it could meanwhile be another one.
        let fd = openat(&self.fd, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
        let mut dir = match fd.and_then(nix::dir::Dir::from_fd) {
            Ok(dir) => dir,
            Err(Errno::ENOENT) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut children = Vec::new();
        for entry in dir.iter() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(Errno::ENOENT) => break,
                Err(error) => return Err(error),
            };
            let name = entry.file_name().to_bytes();
            if entry.file_type() == Some(nix::dir::Type::Directory) && name != b"." && name != b".." {
                // A container names them with any bytes.
                children.push(PathBuf::from(OsStr::from_bytes(name)));
            }
        }
        Ok(children)
    }

    /// An error about a file in it.
    pub(super) fn error(&self, verb: &'static str, file: &str, source: Errno) -> CgroupError {
        CgroupError::File { verb, path: self.path.join(file), source }
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// An open control file.
#[derive(Debug)]
pub(super) struct Writer(OwnedFd);

impl Writer {
    /// Writes one value.
    pub(super) fn write(&self, value: &str) -> std::result::Result<(), Errno> {
        loop {
            match nix::unistd::write(&self.0, value.as_bytes()) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
