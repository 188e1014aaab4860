//! Whole directory trees from an open directory: walked in a fixed order, and removed.
//!
//! A tree may be hostile: as deep as its maker liked, with names of any bytes, far beyond what a path can say. So nothing
//! here builds a path for the kernel, recurses, or holds more than a bounded number of descriptors: beyond a depth the way
//! up is `..`, checked to lead where the way down came from. Symbolic links are never followed.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, SFlag, fchmodat, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, unlinkat};

/// One file met on a [`walk`].
#[derive(Debug)]
pub struct Visit<'a> {
    /// The directory that holds it.
    pub dir: BorrowedFd<'a>,
    /// Its name there.
    pub name: &'a CStr,
    /// The way from the walk's root: names joined by slashes.
    pub path: &'a [u8],
    /// Its `lstat`.
    pub stat: &'a FileStat,
}

/// Where a walk goes after a visit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Into the file when it is a directory, then on.
    Descend,
    /// On, without going into it.
    Skip,
}

/// A failed step of a [`walk`], with the path of the file it failed at.
#[derive(Debug, thiserror::Error)]
#[error("{op} {}", String::from_utf8_lossy(path))]
pub struct WalkError {
    /// The call, as a verb.
    pub op: &'static str,
    /// The way from the walk's root.
    pub path: Vec<u8>,
    /// The kernel's answer; `ESTALE` when the tree was rearranged meanwhile.
    pub source: Errno,
}

struct Level {
    /// Entries not yet visited, the next one last.
    names: Vec<CString>,
    /// `None` when too deep to keep.
    fd: Option<OwnedFd>,
    identity: (u64, u64),
    path_len: usize,
}

/// Visits everything below `root`: a directory before what it holds, entries of one directory in the order of their bytes.
/// A file that vanishes between listing and visit is left out.
///
/// # Errors
/// The visitor's, and [`WalkError`] turned into them.
pub fn walk<E: From<WalkError>>(
    root: BorrowedFd<'_>,
    mut visit: impl FnMut(&Visit<'_>) -> Result<Next, E>,
) -> Result<(), E> {
    let mut path = Vec::new();
    let fail = |op, path: &[u8], source| E::from(WalkError { op, path: path.to_vec(), source });
    let mut levels = vec![open_level(root, c".", 0).map_err(|errno| fail("open", b"", errno))?];
    while let Some(level) = levels.last_mut() {
        let Some(name) = level.names.pop() else {
            let left = levels.pop();
            if let (Some(left), Some(parent)) = (left, levels.last_mut()) {
                path.truncate(parent.path_len);
                climb(&left, parent).map_err(|errno| fail("return to", &path, errno))?;
            }
            continue;
        };
        let Some(fd) = level.fd.as_ref() else { return Err(fail("return to", &path, Errno::ESTALE)) };
        path.truncate(level.path_len);
        if !path.is_empty() {
            path.push(b'/');
        }
        path.extend_from_slice(name.to_bytes());
        let stat = match fstatat(fd, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::ENOENT) => continue,
            Err(errno) => return Err(fail("stat", &path, errno)),
        };
        let next = visit(&Visit { dir: fd.as_fd(), name: &name, path: &path, stat: &stat })?;
        if next == Next::Descend && is_dir(&stat) {
            let below = match open_level(fd.as_fd(), &name, path.len()) {
                Ok(below) => below,
                Err(Errno::ENOENT) => continue,
                Err(errno) => return Err(fail("open", &path, errno)),
            };
            if levels.len() > KEPT_OPEN
                && let Some(level) = levels.last_mut()
            {
                level.fd = None;
            }
            levels.push(below);
        }
    }
    Ok(())
}

/// Removes the entry `name` of `parent`, whatever it is, with everything below it. `Ok` when there is none.
///
/// # Errors
/// The first call that failed; what was removed until then stays removed.
pub fn remove(parent: BorrowedFd<'_>, name: &CStr) -> nix::Result<()> {
    match unlink(parent, name)? {
        Unlinked::Gone => return Ok(()),
        Unlinked::IsDirectory => {}
    }
    let mut levels = vec![clear_level(parent, name)?];
    while let Some(level) = levels.last_mut() {
        let Some(fd) = level.fd.as_ref() else { return Err(Errno::ESTALE) };
        if let Some(below) = level.names.pop() {
            let below_level = match clear_level(fd.as_fd(), &below) {
                Ok(below_level) => below_level,
                Err(Errno::ENOENT) => continue,
                Err(errno) => return Err(errno),
            };
            // Kept until the way back, to be removed then.
            level.names.push(below);
            if levels.len() > KEPT_OPEN
                && let Some(level) = levels.last_mut()
            {
                level.fd = None;
            }
            levels.push(below_level);
            continue;
        }
        let empty = levels.pop();
        match (empty, levels.last_mut()) {
            (Some(empty), Some(above)) => {
                climb(&empty, above)?;
                if let (Some(fd), Some(name)) = (above.fd.as_ref(), above.names.pop()) {
                    remove_dir(fd.as_fd(), &name)?;
                }
            }
            _ => return remove_dir(parent, name),
        }
    }
    Ok(())
}

enum Unlinked {
    Gone,
    IsDirectory,
}

fn unlink(dir: BorrowedFd<'_>, name: &CStr) -> nix::Result<Unlinked> {
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(Unlinked::Gone),
        Err(Errno::EISDIR) => Ok(Unlinked::IsDirectory),
        // POSIX lets unlink of a directory say EPERM, and some file systems do.
        Err(Errno::EPERM) => {
            let stat = fstatat(dir, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
            if is_dir(&stat) { Ok(Unlinked::IsDirectory) } else { Err(Errno::EPERM) }
        }
        Err(errno) => Err(errno),
    }
}

fn remove_dir(parent: BorrowedFd<'_>, name: &CStr) -> nix::Result<()> {
    match unlinkat(parent, name, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Opens a directory and removes everything in it that is no directory; `names` are those left.
fn clear_level(parent: BorrowedFd<'_>, name: &CStr) -> nix::Result<Level> {
    let mut level = match open_level(parent, name, 0) {
        // Without privileges a directory may have to be made readable first.
        Err(Errno::EACCES) => {
            fchmodat(parent, name, Mode::S_IRWXU, FchmodatFlags::FollowSymlink)?;
            open_level(parent, name, 0)?
        }
        level => level?,
    };
    let Some(fd) = level.fd.as_ref() else { return Err(Errno::ESTALE) };
    let mut directories = Vec::new();
    for name in level.names {
        match unlink(fd.as_fd(), &name) {
            Ok(Unlinked::Gone) => {}
            Ok(Unlinked::IsDirectory) => directories.push(name),
            // A directory of another owner's leavings without write permission.
            Err(Errno::EACCES) => {
                nix::sys::stat::fchmod(fd, Mode::S_IRWXU)?;
                match unlink(fd.as_fd(), &name)? {
                    Unlinked::Gone => {}
                    Unlinked::IsDirectory => directories.push(name),
                }
            }
            Err(errno) => return Err(errno),
        }
    }
    level.names = directories;
    Ok(level)
}

fn open_level(parent: BorrowedFd<'_>, name: &CStr, path_len: usize) -> nix::Result<Level> {
    let mut dir = Dir::openat(parent, name, DIRECTORY, Mode::empty())?;
    let mut names = Vec::new();
    for entry in dir.iter() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    // Dir closes its descriptor with itself.
    let fd =
        dir.as_fd().try_clone_to_owned().map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or_default()))?;
    let stat = fstat(&fd)?;
    Ok(Level { names, fd: Some(fd), identity: (stat.st_dev, stat.st_ino), path_len })
}

/// Makes sure that `above`, the parent of `below`, is open.
fn climb(below: &Level, above: &mut Level) -> nix::Result<()> {
    if above.fd.is_some() {
        return Ok(());
    }
    let Some(fd) = below.fd.as_ref() else { return Err(Errno::ESTALE) };
    let parent = openat(fd, c"..", DIRECTORY, Mode::empty())?;
    let stat = fstat(&parent)?;
    if (stat.st_dev, stat.st_ino) != above.identity {
        return Err(Errno::ESTALE);
    }
    above.fd = Some(parent);
    Ok(())
}

fn is_dir(stat: &FileStat) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits()
}

const DIRECTORY: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// How many levels keep their descriptor.
const KEPT_OPEN: usize = 48;

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use nix::sys::stat::mkdirat;

    use super::*;

    fn deep(root: &File, depth: usize) {
        let mut fd = root.as_fd().try_clone_to_owned().unwrap();
        for _ in 0..depth {
            mkdirat(&fd, c"d", Mode::S_IRWXU).unwrap();
            openat(&fd, c"f", OFlag::O_CREAT | OFlag::O_CLOEXEC, Mode::S_IRWXU).unwrap();
            fd = openat(&fd, c"d", DIRECTORY, Mode::empty()).unwrap();
        }
    }

    fn paths(root: &File) -> Vec<String> {
        let mut seen = Vec::new();
        walk::<WalkError>(root.as_fd(), |visit| {
            seen.push(String::from_utf8_lossy(visit.path).into_owned());
            Ok(Next::Descend)
        })
        .unwrap();
        seen
    }

    #[test]
    fn walks_in_the_order_of_bytes() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("b/x")).unwrap();
        fs::create_dir_all(dir.path().join("a")).unwrap();
        for name in ["b/x/2", "b/x/1", "b.", "a/z"] {
            File::create(dir.path().join(name)).unwrap();
        }
        std::os::unix::fs::symlink("b", dir.path().join("c")).unwrap();
        let root = File::open(dir.path()).unwrap();
        assert_eq!(paths(&root), ["a", "a/z", "b", "b/x", "b/x/1", "b/x/2", "b.", "c"]);
    }

    #[test]
    fn skips_what_the_visitor_skips() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("a/b")).unwrap();
        let mut count = 0;
        walk::<WalkError>(File::open(dir.path()).unwrap().as_fd(), |_| {
            count += 1;
            Ok(Next::Skip)
        })
        .unwrap();
        assert_eq!(count, 1);
    }

    #[test]
    fn deeper_than_any_path_and_any_descriptor_table() {
        let dir = tempfile::tempdir().unwrap();
        let root = File::open(dir.path()).unwrap();
        mkdirat(&root, c"top", Mode::S_IRWXU).unwrap();
        deep(&File::open(dir.path().join("top")).unwrap(), 6000);
        assert_eq!(paths(&root).len(), 1 + 2 * 6000);
        remove(root.as_fd(), c"top").unwrap();
        assert!(paths(&root).is_empty());
    }

    #[test]
    fn removes_files_links_and_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let root = File::open(dir.path()).unwrap();
        fs::create_dir_all(dir.path().join("keep/sub")).unwrap();
        std::os::unix::fs::symlink("keep", dir.path().join("link")).unwrap();
        File::create(dir.path().join("file")).unwrap();
        for name in [c"link", c"file", c"absent"] {
            remove(root.as_fd(), name).unwrap();
        }
        assert_eq!(paths(&root), ["keep", "keep/sub"]);
    }
}
