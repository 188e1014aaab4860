//! The executable of this process, kept from being overwritten by a container (CVE-2019-5736).
//!
//! A process that enters a container is for a moment both: ours by its program, the container's by its place. Whoever gets
//! hold of its /proc/PID/exe there, or makes it execute /proc/self/exe, could open the host's file for writing. So the
//! program executes itself anew, once, through a copy of its mount that is detached and read-only: whatever leads to the
//! file from then on leads through that mount, and gives EROFS to everyone. The page cache is shared, nothing is copied.

#[cfg(target_arch = "x86_64")]
mod entry;

use std::ffi::{CStr, CString, OsString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::mountfd::{Change, attr, clone_tree, set_attr};
use crate::{Errno, Result, process};

/// Executes this program again from behind a read-only mount, with the same arguments and environment; returns at once
/// when that is already so, or when the privilege for it is missing (then the file is no better protected than by its
/// mode, as in a rootless container, whose root is the file's own user at most).
///
/// To be called first in `main`: the process starts over. On x86-64 a program linked with `-e dhow_entry` has done it before that,
/// when one of its arguments is `create`, `exec`, `restore` or `run`: docs/performance.md says what that is worth.
///
/// # Errors
/// When the kernel can't do it; then this process is as it was.
pub fn protect() -> Result<()> {
    let own = process::executable()?;
    if fstatvfs(&own)?.flags().contains(FsFlags::ST_RDONLY) {
        return Ok(());
    }
    let Some(copy) = behind_read_only_mount(AT_FDCWD, c"/proc/self/exe")? else { return Ok(()) };
    let c = |text: OsString| CString::new(text.into_vec()).or(Err(Errno::EINVAL));
    // The link /proc/self/exe tells no path through a detached mount: the program's own name does from here on.
    let name = std::env::current_exe().map(PathBuf::into_os_string).ok().or_else(|| std::env::args_os().next());
    let args: Vec<CString> = name.into_iter().chain(std::env::args_os().skip(1)).map(c).collect::<Result<_>>()?;
    let pair = |(mut key, value): (OsString, OsString)| {
        key.push("=");
        key.push(value);
        c(key)
    };
    let env: Vec<CString> = std::env::vars_os().map(pair).collect::<Result<_>>()?;
    // Returns only when it has failed.
    nix::unistd::execveat(&copy, c"", &args, &env, AtFlags::AT_EMPTY_PATH).map(drop)
}

/// The file at `path`, from `dir`, through a mount of its own that is read-only and has no place in the file tree;
/// `None` without the privilege for it.
pub(crate) fn behind_read_only_mount(dir: BorrowedFd<'_>, path: &CStr) -> Result<Option<OwnedFd>> {
    let copy = match clone_tree(dir, path, false) {
        Err(Errno::EPERM) => return Ok(None),
        other => other?,
    };
    set_attr(copy.as_fd(), &Change { set: attr::RDONLY, ..Change::default() })?;
    Ok(Some(copy))
}

/// The path of this process's executable, also when it was executed by [`protect`].
///
/// # Errors
/// When /proc is not there, or the executable has no path.
pub fn path() -> std::io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    if path.file_name().is_some() {
        return Ok(path);
    }
    // Only `protect` executes a file that is the root of a mount, and it hands the path on in the program's name.
    let name = std::env::args_os().next().map(PathBuf::from).filter(|name| name.is_absolute());
    name.ok_or_else(|| std::io::Error::new(std::io::ErrorKind::NotFound, "the executable has no path"))
}
