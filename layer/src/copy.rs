//! Copies between layers, as overlayfs copies up: the file alone, with everything that `stat` and attributes say of it.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use dhow_sys::xattr::{self, Target};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{
    FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstat, futimens, mknodat, utimensat,
};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, symlinkat};

use crate::overlay::{is_foreign_xattr, is_type, os, set_xattr};
use crate::{LayerPath, Result};

/// Gives the open directory `to` the owner, mode, attributes and times of the open directory `from`.
pub(crate) fn directory_attributes(from: BorrowedFd<'_>, to: BorrowedFd<'_>, path: &LayerPath) -> Result<()> {
    let stat = fstat(from).map_err(os("stat", path))?;
    let (uid, gid) = owner(&stat);
    fchown(to, uid, gid).map_err(os("change the owner of", path))?;
    fchmod(to, mode(&stat)).map_err(os("change the mode of", path))?;
    copy_xattrs(Target::File(from), Target::File(to), path)?;
    let (atime, mtime) = times(&stat);
    futimens(to, &atime, &mtime).map_err(os("set the times of", path))
}

/// Copies the file `name` (anything but a directory) from one directory to another, where nothing has that name.
pub(crate) fn file(
    from: BorrowedFd<'_>,
    to: BorrowedFd<'_>,
    name: &CStr,
    stat: &FileStat,
    path: &LayerPath,
) -> Result<()> {
    if is_type(stat, SFlag::S_IFREG) {
        return regular(from, to, name, path);
    }
    if is_type(stat, SFlag::S_IFLNK) {
        let target = readlinkat(from, name).map_err(os("read the link", path))?;
        symlinkat(target.as_os_str(), to, name).map_err(os("make the symbolic link", path))?;
    } else {
        let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
        mknodat(to, name, kind, Mode::empty(), stat.st_rdev).map_err(os("make the node", path))?;
    }
    let (uid, gid) = owner(stat);
    fchownat(to, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(os("change the owner of", path))?;
    if !is_type(stat, SFlag::S_IFLNK) {
        fchmodat(to, name, mode(stat), FchmodatFlags::NoFollowSymlink).map_err(os("change the mode of", path))?;
    }
    copy_xattrs(Target::Entry(from, name), Target::Entry(to, name), path)?;
    let (atime, mtime) = times(stat);
    utimensat(to, name, &atime, &mtime, UtimensatFlags::NoFollowSymlink).map_err(os("set the times of", path))
}

/// The attributes a layer carries, sorted by name.
pub(crate) fn xattrs(target: Target<'_>, path: &LayerPath) -> Result<Vec<(CString, Vec<u8>)>> {
    let mut kept = Vec::new();
    for name in xattr::list(target).map_err(os("list the attributes of", path))? {
        if is_foreign_xattr(name.as_bytes()) {
            continue;
        }
        // Between list and get it may have gone.
        if let Some(value) = xattr::get(target, &name).map_err(os("read an attribute of", path))? {
            kept.push((name, value));
        }
    }
    Ok(kept)
}

pub(crate) fn times(stat: &FileStat) -> (TimeSpec, TimeSpec) {
    (TimeSpec::new(stat.st_atime, stat.st_atime_nsec), TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec))
}

fn regular(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &CStr, path: &LayerPath) -> Result<()> {
    let read = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
    let source = openat(from, name, read, Mode::empty()).map_err(os("open", path))?;
    let make = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let target = openat(to, name, make, Mode::S_IRUSR | Mode::S_IWUSR).map_err(os("create", path))?;
    // copy_file_range under the hood: a reflink where the file system can.
    let (mut source, mut target) = (File::from(source), File::from(target));
    io::copy(&mut source, &mut target)
        .map_err(|error| os("copy", path)(Errno::from_raw(error.raw_os_error().unwrap_or_default())))?;
    let stat = fstat(&source).map_err(os("stat", path))?;
    let (uid, gid) = owner(&stat);
    fchown(&target, uid, gid).map_err(os("change the owner of", path))?;
    fchmod(&target, mode(&stat)).map_err(os("change the mode of", path))?;
    copy_xattrs(Target::File(source.as_fd()), Target::File(target.as_fd()), path)?;
    let (atime, mtime) = times(&stat);
    futimens(&target, &atime, &mtime).map_err(os("set the times of", path))
}

fn copy_xattrs(from: Target<'_>, to: Target<'_>, path: &LayerPath) -> Result<()> {
    for (name, value) in xattrs(from, path)? {
        set_xattr(to, &name, &value, path)?;
    }
    Ok(())
}

fn owner(stat: &FileStat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

fn mode(stat: &FileStat) -> Mode {
    Mode::from_bits_truncate(stat.st_mode & 0o7777)
}
