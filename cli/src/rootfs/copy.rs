//! Copies files from a [`View`](super::view::View) into a directory: the content an image has where a volume is mounted,
//! and `cp` between host and container.
//!
//! The target is a directory handle and single names below it, never a path, so that a link that lies there already
//! cannot lead the copy elsewhere.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use dhow_sys::xattr;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, UtimensatFlags, fchmodat, mkdirat, mknodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, symlinkat};

use super::view::{Directory, Entry, Node, kind};

/// What of a file's metadata is kept besides mode and times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// Owner and extended attributes too.
    All,
    /// Whoever copies owns the copies.
    Mode,
}

/// Copies `entry` to `name` in `target`. Directories are merged; anything else that has the name is replaced.
pub(crate) fn entry(entry: &Entry, target: BorrowedFd<'_>, name: &OsStr, keep: Keep) -> io::Result<()> {
    match &entry.node {
        Node::Directory(directory) => {
            let made = match mkdirat(target, name, Mode::S_IRWXU) {
                Ok(()) => true,
                Err(Errno::EEXIST) => false,
                Err(errno) => return Err(errno.into()),
            };
            let into = open_dir(target, name)?;
            contents(directory, into.as_fd(), keep)?;
            if made {
                metadata(&entry.stat, target, name, keep)?;
                if let Some(top) = directory.top().filter(|_| keep == Keep::All) {
                    copy_xattrs(top.as_fd(), into.as_fd())?;
                }
            }
            return Ok(());
        }
        Node::Link(text) => {
            remove(target, name)?;
            symlinkat(text, target, name)?;
        }
        Node::Other(_) if entry.is_file() => {
            remove(target, name)?;
            return file(entry, target, name, keep);
        }
        Node::Other(_) => {
            remove(target, name)?;
            let mode = Mode::from_bits_truncate(entry.stat.st_mode);
            // A socket without its server is nothing.
            if kind(&entry.stat) != SFlag::S_IFSOCK {
                mknodat(target, name, kind(&entry.stat), mode, entry.stat.st_rdev)?;
            }
        }
    }
    if kind(&entry.stat) == SFlag::S_IFSOCK { Ok(()) } else { metadata(&entry.stat, target, name, keep) }
}

/// Copies all that is in `directory` into `target`.
pub(crate) fn contents(directory: &Directory, target: BorrowedFd<'_>, keep: Keep) -> io::Result<()> {
    for name in directory.names()? {
        // What went away meanwhile is not there to be copied.
        if let Some(found) = directory.entry(&name)? {
            entry(&found, target, &name, keep)?;
        }
    }
    Ok(())
}

/// Gives a directory the mode, owner and times of another.
pub(crate) fn directory_metadata(from: &Directory, target: BorrowedFd<'_>) -> io::Result<()> {
    metadata(&from.stat()?, target, OsStr::new("."), Keep::All)
}

fn file(from: &Entry, target: BorrowedFd<'_>, name: &OsStr, keep: Keep) -> io::Result<()> {
    let mut source = from.open()?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let mut copy = File::from(openat(target, name, flags, Mode::S_IRUSR | Mode::S_IWUSR)?);
    // The kernel copies within itself, or shares the blocks where the file system can.
    io::copy(&mut source, &mut copy)?;
    metadata(&from.stat, target, name, keep)?;
    if keep == Keep::All {
        // After the owner: a change of owner drops file capabilities.
        copy_xattrs(source.as_fd(), copy.as_fd())?;
        times(&from.stat, target, name)?;
    }
    Ok(())
}

fn metadata(stat: &FileStat, target: BorrowedFd<'_>, name: &OsStr, keep: Keep) -> io::Result<()> {
    if keep == Keep::All {
        let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
        fchownat(target, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    }
    if kind(stat) != SFlag::S_IFLNK {
        fchmodat(target, name, Mode::from_bits_truncate(stat.st_mode & 0o7777), FchmodatFlags::FollowSymlink)?;
    }
    times(stat, target, name)
}

fn times(stat: &FileStat, target: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    let accessed = TimeSpec::new(stat.st_atime, stat.st_atime_nsec);
    let modified = TimeSpec::new(stat.st_mtime, stat.st_mtime_nsec);
    utimensat(target, name, &accessed, &modified, UtimensatFlags::NoFollowSymlink)?;
    Ok(())
}

fn copy_xattrs(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    for name in xattr::list(xattr::Target::File(from))? {
        // The overlay's own marks are no part of the content.
        if name.to_bytes().starts_with(b"trusted.overlay.") || name.to_bytes().starts_with(b"user.overlay.") {
            continue;
        }
        if let Some(value) = xattr::get(xattr::Target::File(from), &name)? {
            match xattr::set(xattr::Target::File(to), &name, &value) {
                // A file system without attributes cannot keep them.
                Ok(()) | Err(Errno::EOPNOTSUPP) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
    Ok(())
}

/// Removes what has the name, unless it is a directory.
fn remove(target: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match nix::unistd::unlinkat(target, name, nix::unistd::UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn open_dir(target: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(target, name, flags, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
    use std::path::Path;

    use super::*;
    use crate::rootfs::view::View;

    #[test]
    fn trees_are_copied_and_links_are_not_followed() {
        assert!(nix::unistd::geteuid().is_root(), "owners need root");
        let dir = tempfile::tempdir().unwrap();
        let (from, to, outside) = (dir.path().join("from"), dir.path().join("to"), dir.path().join("outside"));
        fs::create_dir_all(from.join("d")).unwrap();
        fs::create_dir_all(&to).unwrap();
        fs::write(from.join("d/f"), "text").unwrap();
        std::os::unix::fs::chown(from.join("d/f"), Some(7), Some(8)).unwrap();
        fs::set_permissions(from.join("d/f"), fs::Permissions::from_mode(0o4711)).unwrap();
        symlink("/nowhere", from.join("l")).unwrap();
        nix::unistd::mkfifo(&from.join("p"), Mode::S_IRWXU).unwrap();
        // What is in the way is a link that leads out.
        symlink(&outside, to.join("l")).unwrap();
        let view = View::open(std::slice::from_ref(&from)).unwrap();
        let target = File::open(&to).unwrap();
        contents(&view.root().unwrap(), target.as_fd(), Keep::All).unwrap();
        let file = fs::metadata(to.join("d/f")).unwrap();
        assert_eq!((file.mode() & 0o7777, file.uid(), file.gid()), (0o4711, 7, 8));
        assert_eq!(fs::read(to.join("d/f")).unwrap(), b"text");
        assert_eq!(fs::read_link(to.join("l")).unwrap(), Path::new("/nowhere"));
        assert!(!outside.exists());
        // Where a link takes the place of a directory the copy fails.
        fs::remove_dir_all(to.join("d")).unwrap();
        fs::create_dir(&outside).unwrap();
        symlink(&outside, to.join("d")).unwrap();
        assert!(contents(&view.root().unwrap(), target.as_fd(), Keep::All).is_err());
        assert_eq!(fs::read_dir(&outside).unwrap().count(), 0);
    }
}
