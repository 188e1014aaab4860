//! `tmpcopyup`: a new tmpfs gets what the image has in the directory that it covers.
//!
//! Content, owners, modes and modification times; symlinks as they are, device nodes not at all. By handles only: the
//! directory is the image's.

use std::ffi::CStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};

use dhow_sys::openat2::{is_dir, is_symlink};
use dhow_sys::{Errno, Result};
use nix::dir::Dir;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FchmodatFlags, utimensat};
use nix::sys::stat::{FileStat, Mode, SFlag, UtimensatFlags, fchmod, fchmodat, fstat, fstatat, futimens, mkdirat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchown, fchownat, symlinkat};

/// Copies everything in `from` to `to`, and `from`'s own owner. `to` has the mode that it was mounted with.
///
/// # Errors
/// The first call that failed.
pub(super) fn tree(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    let from = openat(from, c".", flags, Mode::empty())?;
    let to = openat(to, c".", flags, Mode::empty())?;
    let stat = fstat(&from)?;
    content(&from, &to)?;
    fchown(&to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    futimens(&to, &times(&stat).0, &times(&stat).1)
}

fn directory(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let stat = fstat(from)?;
    content(from, to)?;
    fchown(to, Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))?;
    fchmod(to, mode(&stat))?;
    futimens(to, &times(&stat).0, &times(&stat).1)
}

fn content(from: &OwnedFd, to: &OwnedFd) -> Result<()> {
    let mut entries = Dir::from_fd(from.try_clone().or(Err(Errno::EMFILE))?)?;
    for entry in entries.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            one(from, to, name)?;
        }
    }
    Ok(())
}

fn one(from: &OwnedFd, to: &OwnedFd, name: &CStr) -> Result<()> {
    let stat = fstatat(from, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if is_dir(&stat) {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        mkdirat(to, name, Mode::S_IRWXU)?;
        let below = openat(to, name, flags, Mode::empty())?;
        return directory(&openat(from, name, flags, Mode::empty())?, &below);
    }
    let (uid, gid) = (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)));
    if is_symlink(&stat) {
        symlinkat(readlinkat(from, name)?.as_os_str(), to, name)?;
    } else if stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFREG.bits() {
        file(from, to, name)?;
    } else {
        return Ok(());
    }
    fchownat(to, name, uid, gid, AtFlags::AT_SYMLINK_NOFOLLOW)?;
    if !is_symlink(&stat) {
        fchmodat(to, name, mode(&stat), FchmodatFlags::FollowSymlink)?;
    }
    let (access, change) = times(&stat);
    utimensat(to, name, &access, &change, UtimensatFlags::NoFollowSymlink)
}

fn file(from: &OwnedFd, to: &OwnedFd, name: &CStr) -> Result<()> {
    let input = openat(from, name, OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let output = openat(to, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?;
    let copied = io::copy(&mut std::fs::File::from(input), &mut std::fs::File::from(output));
    copied.map(drop).map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))
}

fn mode(stat: &FileStat) -> Mode {
    Mode::from_bits_truncate(stat.st_mode)
}

fn times(stat: &FileStat) -> (TimeSpec, TimeSpec) {
    (TimeSpec::new(stat.st_atime, stat.st_atime_nsec), TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::fd::AsFd;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    #[test]
    fn copies() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        fs::create_dir_all(a.join("sub/deep")).unwrap();
        fs::create_dir(&b).unwrap();
        fs::write(a.join("sub/file"), "text").unwrap();
        fs::set_permissions(a.join("sub/file"), fs::Permissions::from_mode(0o4711)).unwrap();
        fs::set_permissions(a.join("sub"), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::set_permissions(&b, fs::Permissions::from_mode(0o710)).unwrap();
        symlink("/nowhere", a.join("link")).unwrap();
        let (from, to) = (fs::File::open(&a).unwrap(), fs::File::open(&b).unwrap());
        tree(from.as_fd(), to.as_fd()).unwrap();
        assert_eq!(fs::read_to_string(b.join("sub/file")).unwrap(), "text");
        assert_eq!(fs::metadata(b.join("sub/file")).unwrap().mode() & 0o7777, 0o4711);
        assert_eq!(fs::metadata(b.join("sub")).unwrap().mode() & 0o7777, 0o1777);
        assert_eq!(fs::metadata(&b).unwrap().mode() & 0o7777, 0o710);
        assert_eq!(fs::read_link(b.join("link")).unwrap().to_str(), Some("/nowhere"));
        assert!(b.join("sub/deep").is_dir());
    }
}
