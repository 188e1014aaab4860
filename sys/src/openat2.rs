//! openat2(2) (Linux 5.6): paths that a container may have bent, resolved inside a directory that they can't leave.
//!
//! [`Root`] is the handle for a tree whose content is not trusted: every path, absolute or with `..`, is resolved as
//! chroot(2) would, by the kernel in one call, without magic links. Missing directories are made one component at a
//! time, each by the handle of its parent, so that a swap of a component for a symlink leads nowhere else.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{OFlag, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, mkdirat, mknodat};

use crate::raw::owned;
use crate::{Errno, Result};

/// `RESOLVE_*`: restrictions of a resolution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolve(u64);

impl Resolve {
    /// No mount point is crossed.
    pub const NO_XDEV: Self = Self(0x01);
    /// No magic link of /proc is followed.
    pub const NO_MAGICLINKS: Self = Self(0x02);
    /// No symlink at all is followed.
    pub const NO_SYMLINKS: Self = Self(0x04);
    /// Leaving the directory is an error (`EXDEV`).
    pub const BENEATH: Self = Self(0x08);
    /// The directory is `/`.
    pub const IN_ROOT: Self = Self(0x10);

    /// Both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Opens `path` relative to `dir`; always close-on-exec.
///
/// # Errors
/// open(2)'s; besides `EXDEV` when the path leaves what it may not leave, `ELOOP` for a forbidden symlink.
pub fn open(dir: BorrowedFd<'_>, path: &Path, flags: OFlag, mode: Mode, resolve: Resolve) -> Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes()).or(Err(Errno::EINVAL))?;
    let how = [
        u64::from((flags | OFlag::O_CLOEXEC).bits().unsigned_abs()),
        if flags.intersects(OFlag::O_CREAT | OFlag::O_TMPFILE) { u64::from(mode.bits()) } else { 0 },
        resolve.0,
    ];
    // A rename anywhere on the machine while `..` is resolved under a root gives EAGAIN; the kernel asks for a retry.
    for _ in 0..128 {
        let fd = dir.as_raw_fd();
        // SAFETY: `path` is NUL-terminated, `how` has the layout of `struct open_how` (three u64) and the size is passed.
        let ret = unsafe { libc::syscall(libc::SYS_openat2, fd, path.as_ptr(), how.as_ptr(), size_of_val(&how)) };
        match owned(ret) {
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            other => return other,
        }
    }
    Err(Errno::EAGAIN)
}

/// A directory that paths can't leave.
#[derive(Debug)]
pub struct Root(OwnedFd);

impl Root {
    /// Paths will be resolved inside `dir`.
    #[must_use]
    pub fn new(dir: OwnedFd) -> Self {
        Self(dir)
    }

    /// Opens a directory of the caller's own name space as a root.
    ///
    /// # Errors
    /// open(2)'s.
    pub fn open_path(path: &Path) -> Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        nix::fcntl::open(path, flags, Mode::empty()).map(Self)
    }

    /// The directory.
    #[must_use]
    pub fn dir(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Opens `path`, following symlinks inside the root.
    ///
    /// # Errors
    /// open(2)'s.
    pub fn open(&self, path: &Path, flags: OFlag) -> Result<OwnedFd> {
        open(self.dir(), path, flags, Mode::empty(), Resolve::IN_ROOT.and(Resolve::NO_MAGICLINKS))
    }

    /// A handle (`O_PATH`) for `path`, following symlinks inside the root.
    ///
    /// # Errors
    /// open(2)'s.
    pub fn find(&self, path: &Path) -> Result<OwnedFd> {
        self.open(path, OFlag::O_PATH)
    }

    /// A handle for the directory `path`; what is missing is made with `mode`. A dangling symlink's target is made.
    ///
    /// # Errors
    /// mkdir(2)'s and open(2)'s; `ENOTDIR` when something else is there.
    pub fn create_dir_all(&self, path: &Path, mode: Mode) -> Result<OwnedFd> {
        match self.open(path, OFlag::O_PATH | OFlag::O_DIRECTORY) {
            Err(Errno::ENOENT) => {}
            other => return other,
        }
        if let Some(made) = self.create_last(path, mode) {
            Ok(made)
        } else {
            Walk::new(self)?.run(path, Leaf::Directory, mode)
        }
    }

    /// The most frequent case in few calls: of `path` only the last component is missing, and it is no dangling symlink.
    fn create_last(&self, path: &Path, mode: Mode) -> Option<OwnedFd> {
        let Some(Component::Normal(name)) = path.components().next_back() else { return None };
        let parent = self.open(path.parent()?, OFlag::O_PATH | OFlag::O_DIRECTORY).ok()?;
        mkdirat(&parent, name, mode).ok()?;
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
        open(parent.as_fd(), Path::new(name), flags, Mode::empty(), Resolve::NO_MAGICLINKS).ok()
    }

    /// A handle for the file `path` of any type but directory; when missing an empty file is made, its parents with
    /// mode 0755. A dangling symlink's target is made.
    ///
    /// # Errors
    /// mknod(2)'s, mkdir(2)'s and open(2)'s; `EISDIR` when a directory is there.
    pub fn create_file(&self, path: &Path, mode: Mode) -> Result<OwnedFd> {
        let found = match self.find(path) {
            Err(Errno::ENOENT) => Walk::new(self)?.run(path, Leaf::File(mode), Mode::from_bits_truncate(0o755))?,
            other => other?,
        };
        if is_dir(&fstat(&found)?) { Err(Errno::EISDIR) } else { Ok(found) }
    }

    /// A handle for the directory that `path` lies in (made where missing, with `mode`), and the last component, for a
    /// call that makes the entry itself. The last component is not resolved.
    ///
    /// # Errors
    /// As [`Self::create_dir_all`]; `EINVAL` when the path has no last component.
    pub fn parent_of<'p>(&self, path: &'p Path, mode: Mode) -> Result<(OwnedFd, &'p OsStr)> {
        let name = path.file_name().ok_or(Errno::EINVAL)?;
        let parent = path.parent().ok_or(Errno::EINVAL)?;
        let parent = if parent.as_os_str().is_empty() { Path::new("/") } else { parent };
        Ok((self.create_dir_all(parent, mode)?, name))
    }
}

/// Whether a `stat` result is a directory's.
#[must_use]
pub fn is_dir(stat: &FileStat) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits()
}

/// Whether a `stat` result is a symlink's.
#[must_use]
pub fn is_symlink(stat: &FileStat) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFLNK.bits()
}

#[derive(Clone, Copy)]
enum Leaf {
    Directory,
    File(Mode),
}

/// A resolution by hand that makes what is missing. The stack holds a handle for every directory from the root to the
/// current one, so `..` needs no lookup and can't be bent by a rename.
struct Walk {
    stack: Vec<OwnedFd>,
    /// Components still to go, the next one last.
    todo: Vec<PathBuf>,
    links: u32,
}

impl Walk {
    fn new(root: &Root) -> Result<Self> {
        Ok(Self { stack: vec![root.0.try_clone().or(Err(Errno::EMFILE))?], todo: Vec::new(), links: 0 })
    }

    fn run(mut self, path: &Path, leaf: Leaf, mode: Mode) -> Result<OwnedFd> {
        self.push(path);
        while let Some(part) = self.todo.pop() {
            match part.components().next() {
                Some(Component::ParentDir) => self.stack.truncate((self.stack.len() - 1).max(1)),
                Some(Component::RootDir) => self.stack.truncate(1),
                Some(Component::Normal(name)) => {
                    let last = self.todo.is_empty();
                    let next = self.enter(name, if last { leaf } else { Leaf::Directory }, mode)?;
                    let stat = fstat(&next)?;
                    if is_symlink(&stat) {
                        self.links += 1;
                        if self.links > 40 {
                            return Err(Errno::ELOOP);
                        }
                        let target = readlinkat(&next, c"")?;
                        self.push(Path::new(&target));
                    } else if last && !is_dir(&stat) && matches!(leaf, Leaf::File(_)) {
                        return Ok(next);
                    } else if is_dir(&stat) {
                        self.stack.push(next);
                    } else {
                        return Err(Errno::ENOTDIR);
                    }
                }
                _ => {}
            }
        }
        self.stack.pop().ok_or(Errno::ENOENT)
    }

    fn push(&mut self, path: &Path) {
        let parts = path.components().map(|c| PathBuf::from(c.as_os_str()));
        let at = self.todo.len();
        self.todo.extend(parts);
        self.todo[at..].reverse();
    }

    /// A handle for the entry, not following it; made when it is missing.
    fn enter(&self, name: &OsStr, leaf: Leaf, mode: Mode) -> Result<OwnedFd> {
        let dir = self.stack.last().ok_or(Errno::ENOENT)?;
        let look = || {
            let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW;
            open(dir.as_fd(), Path::new(name), flags, Mode::empty(), Resolve::NO_MAGICLINKS)
        };
        match look() {
            Err(Errno::ENOENT) => {}
            other => return other,
        }
        let made = match leaf {
            Leaf::Directory => mkdirat(dir, name, mode),
            Leaf::File(mode) => mknodat(dir, name, SFlag::S_IFREG, mode, 0),
        };
        match made {
            Ok(()) | Err(Errno::EEXIST) => look(),
            Err(e) => Err(e),
        }
    }
}

/// The path that a descriptor shows in /proc/self/fd, for messages only: it may be stale or out of reach.
#[must_use]
pub fn describe(fd: BorrowedFd<'_>) -> PathBuf {
    let link = format!("/proc/self/fd/{}", fd.as_raw_fd());
    std::fs::read_link(&link).unwrap_or_else(|_| link.into())
}

/// A path as a C string.
///
/// # Errors
/// `EINVAL` when it has a NUL in it.
pub fn c_path(path: &Path) -> Result<CString> {
    CString::new(path.as_os_str().to_owned().into_vec()).or(Err(Errno::EINVAL))
}

/// The empty path: "the descriptor itself".
pub const EMPTY: &CStr = c"";

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn mode(bits: u32) -> Mode {
        Mode::from_bits_truncate(bits)
    }

    #[test]
    fn stays_inside() {
        let outside = tempfile::tempdir().unwrap();
        let dir = outside.path().join("root");
        fs::create_dir_all(dir.join("a")).unwrap();
        symlink("/../../..", dir.join("up")).unwrap();
        symlink("../../../evil", dir.join("a/dangling")).unwrap();
        symlink("/deep/er", dir.join("absolute")).unwrap();
        symlink("loop", dir.join("loop")).unwrap();
        let root = Root::open_path(&dir).unwrap();

        root.create_dir_all(Path::new("up/x/../y"), mode(0o755)).unwrap();
        assert!(dir.join("x").is_dir() && dir.join("y").is_dir());
        root.create_dir_all(Path::new("/a/dangling/sub"), mode(0o755)).unwrap();
        assert!(dir.join("evil/sub").is_dir());
        root.create_file(Path::new("absolute"), mode(0o600)).unwrap();
        assert!(dir.join("deep/er").is_file());
        assert_eq!(root.create_dir_all(Path::new("loop/x"), mode(0o755)).unwrap_err(), Errno::ELOOP);
        assert_eq!(root.create_dir_all(Path::new("absolute/x"), mode(0o755)).unwrap_err(), Errno::ENOTDIR);
        assert_eq!(root.create_file(Path::new("a"), mode(0o755)).unwrap_err(), Errno::EISDIR);
        let (parent, name) = root.parent_of(Path::new("/up/n/ew"), mode(0o700)).unwrap();
        assert_eq!(name, "ew");
        assert!(is_dir(&fstat(&parent).unwrap()) && dir.join("n").is_dir());
        let mut left: Vec<_> = fs::read_dir(outside.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["root"]);
    }

    #[test]
    fn restrictions() {
        let dir = tempfile::tempdir().unwrap();
        symlink("/etc", dir.path().join("link")).unwrap();
        let root = Root::open_path(dir.path()).unwrap();
        let look =
            |path: &str, resolve| open(root.dir(), Path::new(path), OFlag::O_PATH, Mode::empty(), resolve).map(drop);
        assert_eq!(look("..", Resolve::BENEATH), Err(Errno::EXDEV));
        assert_eq!(look("link", Resolve::BENEATH), Err(Errno::EXDEV));
        assert_eq!(look("link", Resolve::NO_SYMLINKS), Err(Errno::ELOOP));
        assert_eq!(look("..", Resolve::IN_ROOT), Ok(()));
        assert_eq!(look("link", Resolve::IN_ROOT), Err(Errno::ENOENT));
    }
}
