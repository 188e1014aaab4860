//! Owner, mode, extended attributes and times of what is extracted.

use std::ffi::CString;
use std::os::fd::BorrowedFd;

use dhow_sys::xattr::Target;
use nix::errno::Errno;
use nix::fcntl::AtFlags;
use nix::sys::stat::{FchmodatFlags, Mode, UtimensatFlags, fchmod, fchmodat, futimens, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, getegid, geteuid};

use crate::archive::{Entry, Time};
use crate::overlay::{is_foreign_xattr, os, set_xattr};
use crate::{LayerPath, Result};

/// What an entry says about a file besides its contents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Attributes {
    pub(super) mode: u32,
    uid: u32,
    gid: u32,
    mtime: Time,
    atime: Option<Time>,
    xattrs: Vec<(CString, Vec<u8>)>,
}

/// What a file that this process makes gets by itself, so that nothing is set twice.
#[derive(Debug, Clone, Copy)]
pub(super) struct Creator {
    uid: u32,
    gid: u32,
    umask: u32,
}

impl Creator {
    pub(super) fn current() -> Self {
        Self { uid: geteuid().as_raw(), gid: getegid().as_raw(), umask: umask().unwrap_or(0o777) }
    }

    fn owner_differs(&self, attributes: &Attributes) -> bool {
        (self.uid, self.gid) != (attributes.uid, attributes.gid)
    }

    /// Whether `open`, `mkdir` or `mknod` with the permission bits left something to be set. Changing the owner takes the
    /// setuid and setgid bits away, and only root's `mknod` takes them at all.
    fn mode_differs(&self, attributes: &Attributes) -> bool {
        attributes.mode & !0o777 != 0 || attributes.mode & self.umask != 0
    }
}

impl Attributes {
    pub(super) fn new(entry: &Entry) -> Self {
        let xattrs = entry
            .xattrs
            .iter()
            .filter(|(name, _)| !is_foreign_xattr(name))
            .filter_map(|(name, value)| Some((CString::new(name.as_slice()).ok()?, value.clone())))
            .collect();
        Self { mode: entry.mode, uid: entry.uid, gid: entry.gid, mtime: entry.mtime, atime: entry.atime, xattrs }
    }

    /// What a directory has that no layer describes.
    pub(super) fn of_new_directory() -> Self {
        Self { mode: 0o755, uid: 0, gid: 0, mtime: Time::default(), atime: None, xattrs: Vec::new() }
    }

    /// The bits to make the file with.
    pub(super) fn creation_mode(&self) -> Mode {
        Mode::from_bits_truncate(self.mode & 0o777)
    }

    /// On a file just made with [`Attributes::creation_mode`] and written.
    pub(super) fn apply_to_new_file(&self, fd: BorrowedFd<'_>, path: &LayerPath, creator: &Creator) -> Result<()> {
        if creator.owner_differs(self) {
            self.chown(fd).map_err(os("change the owner of", path))?;
        }
        if creator.mode_differs(self) {
            self.chmod(fd).map_err(os("change the mode of", path))?;
        }
        self.apply_rest(fd, path)
    }

    /// On a directory whose mode is anything.
    pub(super) fn apply_to_directory(&self, fd: BorrowedFd<'_>, path: &LayerPath, creator: &Creator) -> Result<()> {
        if creator.owner_differs(self) {
            self.chown(fd).map_err(os("change the owner of", path))?;
        }
        self.chmod(fd).map_err(os("change the mode of", path))?;
        self.apply_rest(fd, path)
    }

    /// On a symbolic link, device or fifo just made, by its name in `dir`.
    pub(super) fn apply_to_entry(
        &self,
        dir: BorrowedFd<'_>,
        name: &[u8],
        path: &LayerPath,
        creator: &Creator,
        has_mode: bool,
    ) -> Result<()> {
        if creator.owner_differs(self) {
            let (uid, gid) = (Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)));
            fchownat(dir, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(os("change the owner of", path))?;
        }
        if has_mode && creator.mode_differs(self) {
            let mode = Mode::from_bits_truncate(self.mode);
            fchmodat(dir, name, mode, FchmodatFlags::NoFollowSymlink).map_err(os("change the mode of", path))?;
        }
        if !self.xattrs.is_empty() {
            let name = CString::new(name).map_err(|_nul| os("name", path)(Errno::EINVAL))?;
            for (attribute, value) in &self.xattrs {
                set_xattr(Target::Entry(dir, &name), attribute, value, path)?;
            }
        }
        let (atime, mtime) = self.times();
        utimensat(dir, name, &atime, &mtime, UtimensatFlags::NoFollowSymlink).map_err(os("set the times of", path))
    }

    fn apply_rest(&self, fd: BorrowedFd<'_>, path: &LayerPath) -> Result<()> {
        // After the owner: changing it drops security.capability.
        for (attribute, value) in &self.xattrs {
            set_xattr(Target::File(fd), attribute, value, path)?;
        }
        let (atime, mtime) = self.times();
        futimens(fd, &atime, &mtime).map_err(os("set the times of", path))
    }

    fn chown(&self, fd: BorrowedFd<'_>) -> nix::Result<()> {
        fchown(fd, Some(Uid::from_raw(self.uid)), Some(Gid::from_raw(self.gid)))
    }

    fn chmod(&self, fd: BorrowedFd<'_>) -> nix::Result<()> {
        fchmod(fd, Mode::from_bits_truncate(self.mode))
    }

    fn times(&self) -> (TimeSpec, TimeSpec) {
        let spec = |time: Time| TimeSpec::new(time.seconds, i64::from(time.nanoseconds));
        (spec(self.atime.unwrap_or(self.mtime)), spec(self.mtime))
    }
}

/// The process's file mode mask, read where reading does not change it for other threads.
fn umask() -> Option<u32> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(line.trim(), 8).ok()
}
