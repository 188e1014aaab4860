//! /proc by one handle that is known to be proc: nothing the container can mount or link changes where a write goes
//! (CVE-2025-52881).

use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use dhow_sys::mountfd::Context;
use dhow_sys::openat2::{Resolve, open};
use dhow_sys::{Errno, Result as Sys};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};

use super::{Failure, Result};

/// proc of this process's pid namespace.
#[derive(Debug)]
pub(super) struct Proc(OwnedFd);

impl Proc {
    /// A new instance that is mounted nowhere; where the kernel forbids one (a user namespace whose view of proc is
    /// partly covered), the one at /proc, if it is proc.
    pub(super) fn open() -> Result<Self> {
        let fresh = Context::open(c"proc").and_then(|context| {
            context.create()?;
            context.mount(0)
        });
        match fresh {
            Ok(fd) => Ok(Self(fd)),
            Err(_) => Self::mounted().map(Self).map_err(Failure::errno("/proc")),
        }
    }

    fn mounted() -> Sys<OwnedFd> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::open("/proc", flags, Mode::empty())?;
        if fstatfs(&fd)?.filesystem_type() == PROC_SUPER_MAGIC { Ok(fd) } else { Err(Errno::ENOTSUP) }
    }

    /// Writes a file below it in one call. No link is followed and no mount is crossed.
    pub(super) fn write(&self, path: &Path, bytes: &[u8]) -> Sys<()> {
        nix::unistd::write(&self.open_file(path, OFlag::O_WRONLY)?, bytes).map(drop)
    }

    /// Reads a file below it. No link is followed and no mount is crossed.
    pub(super) fn read(&self, path: &Path) -> Sys<String> {
        let mut text = String::new();
        let read = std::fs::File::from(self.open_file(path, OFlag::O_RDONLY)?).read_to_string(&mut text);
        read.map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
        Ok(text)
    }

    fn open_file(&self, path: &Path, flags: OFlag) -> Sys<OwnedFd> {
        // `self` is a symlink of proc's own; the number is what it stands for in this proc's pid namespace.
        let pid = nix::unistd::getpid().to_string();
        let path = path.strip_prefix("self").map_or_else(|_| path.to_owned(), |rest| Path::new(&pid).join(rest));
        let resolve = Resolve::BENEATH.and(Resolve::NO_XDEV).and(Resolve::NO_SYMLINKS);
        open(self.0.as_fd(), &path, flags, Mode::empty(), resolve)
    }
}
