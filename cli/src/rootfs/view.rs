//! Reads an overlay without mounting it: layers are directories, topmost first; whiteouts hide, opaque directories
//! stop the search, symbolic links are followed inside the union only.
//!
//! Every step goes through a directory handle and one name (`openat` with `O_NOFOLLOW`), so nothing a container wrote
//! can lead outside. Regular files are opened only after the handle is known to be one, so a fifo cannot block us.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use dhow_sys::xattr::Target;
use nix::dir::Dir as DirStream;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat, fstatat};

/// As many symbolic links are followed in one path as the kernel follows.
const MOST_LINKS: usize = 40;

/// The union of some directories.
#[derive(Debug)]
pub(crate) struct View {
    root: Directory,
}

/// A directory of the union: its parts, topmost first.
#[derive(Debug)]
pub(crate) struct Directory {
    parts: Vec<OwnedFd>,
}

/// Something found in the union.
#[derive(Debug)]
pub(crate) struct Entry {
    /// What stat(2) says of it (of the topmost part, for a directory).
    pub stat: FileStat,
    /// What it is.
    pub node: Node,
}

/// What an entry is.
#[derive(Debug)]
pub(crate) enum Node {
    /// A directory.
    Directory(Directory),
    /// A symbolic link and its text.
    Link(PathBuf),
    /// Anything else: an `O_PATH` handle.
    Other(OwnedFd),
}

impl View {
    /// A view of `layers`, topmost first.
    pub(crate) fn open(layers: &[PathBuf]) -> io::Result<Self> {
        let parts = layers
            .iter()
            .map(|path| {
                let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
                Ok(nix::fcntl::open(path, flags, Mode::empty())?)
            })
            .collect::<io::Result<Vec<_>>>()?;
        Ok(Self { root: Directory { parts } })
    }

    /// A view of one directory that is open already.
    pub(crate) fn of(directory: OwnedFd) -> Self {
        Self { root: Directory { parts: vec![directory] } }
    }

    /// The root directory.
    #[cfg(test)]
    pub(crate) fn root(&self) -> io::Result<Directory> {
        self.root.try_clone()
    }

    /// What `path` names; a final symbolic link is followed where `follow` says so.
    pub(crate) fn lookup(&self, path: &Path, follow: bool) -> io::Result<Entry> {
        self.walk(path, follow)
    }

    /// The content of a regular file of at most `limit` bytes.
    pub(crate) fn read(&self, path: &Path, limit: u64) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = self.lookup(path, true)?.open()?;
        if file.take(limit + 1).read_to_end(&mut bytes)? as u64 > limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(bytes)
    }

    fn walk(&self, path: &Path, follow: bool) -> io::Result<Entry> {
        let mut todo = components(path);
        let must_be_dir = path.as_os_str().as_bytes().ends_with(b"/");
        let mut trail: Vec<Directory> = Vec::new();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == ".." {
                trail.pop();
                continue;
            }
            let here = trail.last().unwrap_or(&self.root);
            let entry = here.entry(&name)?.ok_or(io::ErrorKind::NotFound)?;
            let last = todo.is_empty();
            match entry.node {
                Node::Directory(directory) => trail.push(directory),
                Node::Link(ref target) if !last || follow || must_be_dir => {
                    links += 1;
                    if links > MOST_LINKS {
                        return Err(Errno::ELOOP.into());
                    }
                    if target.has_root() {
                        trail.clear();
                    }
                    todo.extend(components(target));
                }
                _ if last && !must_be_dir => {
                    return Ok(entry);
                }
                _ => return Err(io::ErrorKind::NotADirectory.into()),
            }
        }
        let directory = match trail.pop() {
            Some(directory) => directory,
            None => self.root.try_clone()?,
        };
        let stat = directory.stat()?;
        Ok(Entry { stat, node: Node::Directory(directory) })
    }
}

impl Directory {
    /// The entry `name`; `None` when there is none.
    pub(crate) fn entry(&self, name: &OsStr) -> io::Result<Option<Entry>> {
        let mut found: Option<(FileStat, Vec<OwnedFd>)> = None;
        for part in &self.parts {
            let stat = match fstatat(part, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::ENOENT | Errno::ENOTDIR) => continue,
                Err(errno) => return Err(errno.into()),
            };
            let kind = kind(&stat);
            if kind != SFlag::S_IFDIR {
                if found.is_some() || is_whiteout(&stat) {
                    break;
                }
                return self.leaf(part, name, stat).map(Some);
            }
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            let directory = openat(part, name, flags, Mode::empty())?;
            let opaque = is_opaque(&directory)?;
            found.get_or_insert_with(|| (stat, Vec::new())).1.push(directory);
            if opaque {
                break;
            }
        }
        Ok(found.map(|(stat, parts)| Entry { stat, node: Node::Directory(Self { parts }) }))
    }

    /// The names in it, sorted, without whiteouts.
    pub(crate) fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names: BTreeMap<OsString, bool> = BTreeMap::new();
        for part in &self.parts {
            let copy = openat(part, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
            for entry in DirStream::from_fd(copy)?.iter() {
                let entry = entry?;
                let name = OsStr::from_bytes(entry.file_name().to_bytes());
                if name == "." || name == ".." || names.contains_key(name) {
                    continue;
                }
                // Only a character device can be a whiteout; most file systems tell the type for free.
                let maybe = matches!(entry.file_type(), None | Some(nix::dir::Type::CharacterDevice));
                let hidden = maybe && is_whiteout(&fstatat(part, name, AtFlags::AT_SYMLINK_NOFOLLOW)?);
                names.insert(name.to_owned(), !hidden);
            }
        }
        Ok(names.into_iter().filter_map(|(name, shown)| shown.then_some(name)).collect())
    }

    /// What stat(2) says of the topmost part.
    pub(crate) fn stat(&self) -> io::Result<FileStat> {
        let top = self.parts.first().ok_or(io::ErrorKind::NotFound)?;
        Ok(fstat(top)?)
    }

    /// A second handle.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { parts: self.parts.iter().map(OwnedFd::try_clone).collect::<io::Result<_>>()? })
    }

    /// The topmost part itself, for extended attributes and the like.
    pub(crate) fn top(&self) -> Option<&OwnedFd> {
        self.parts.first()
    }

    fn leaf(&self, part: &OwnedFd, name: &OsStr, stat: FileStat) -> io::Result<Entry> {
        if kind(&stat) == SFlag::S_IFLNK {
            return Ok(Entry { stat, node: Node::Link(readlinkat(part, name)?.into()) });
        }
        let handle = openat(part, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
        let stat = fstat(&handle)?;
        Ok(Entry { stat, node: Node::Other(handle) })
    }
}

impl Entry {
    /// Whether it is a directory.
    pub(crate) fn is_dir(&self) -> bool {
        matches!(self.node, Node::Directory(_))
    }

    /// Whether it is a regular file.
    pub(crate) fn is_file(&self) -> bool {
        kind(&self.stat) == SFlag::S_IFREG
    }

    /// Opens a regular file for reading; everything else is refused.
    pub(crate) fn open(&self) -> io::Result<File> {
        match &self.node {
            Node::Other(handle) if self.is_file() => reopen(handle).map(File::from),
            Node::Directory(_) => Err(io::ErrorKind::IsADirectory.into()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
        }
    }
}

/// The type bits of a mode.
pub(crate) fn kind(stat: &FileStat) -> SFlag {
    SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits())
}

fn is_whiteout(stat: &FileStat) -> bool {
    kind(stat) == SFlag::S_IFCHR && stat.st_rdev == 0
}

/// The container's root may carry the mark under either name, depending on how the overlay is mounted.
fn is_opaque(directory: &OwnedFd) -> io::Result<bool> {
    for name in [c"trusted.overlay.opaque", c"user.overlay.opaque"] {
        match dhow_sys::xattr::get(Target::File(directory.as_fd()), name) {
            Ok(Some(value)) if value == b"y" => return Ok(true),
            Ok(_) | Err(Errno::EPERM | Errno::EOPNOTSUPP) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(false)
}

/// A readable handle from an `O_PATH` one.
fn reopen(handle: &OwnedFd) -> io::Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", handle.as_raw_fd());
    Ok(nix::fcntl::open(path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK, Mode::empty())?)
}

/// The names of a path, last first.
fn components(path: &Path) -> Vec<OsString> {
    let names = path.as_os_str().as_bytes().split(|b| *b == b'/').filter(|name| !name.is_empty() && *name != b".");
    names.rev().map(|name| OsStr::from_bytes(name).to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use nix::sys::stat::mknod;

    use super::*;

    /// Two layers: lower has a/, b, gone, old/x, dir/low; upper hides `gone`, makes `old` opaque, adds to `dir`.
    fn layers() -> (tempfile::TempDir, View) {
        assert!(nix::unistd::geteuid().is_root(), "whiteouts and trusted attributes need root");
        let dir = tempfile::tempdir().unwrap();
        let (upper, lower) = (dir.path().join("upper"), dir.path().join("lower"));
        for path in [upper.join("dir"), upper.join("old"), lower.join("a/deep"), lower.join("old"), lower.join("dir")] {
            fs::create_dir_all(path).unwrap();
        }
        fs::write(lower.join("b"), "lower b").unwrap();
        fs::write(upper.join("b"), "upper b").unwrap();
        fs::write(lower.join("gone"), "x").unwrap();
        mknod(&upper.join("gone"), SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
        fs::write(lower.join("old/x"), "x").unwrap();
        let old = File::open(upper.join("old")).unwrap();
        dhow_sys::xattr::set(Target::File(old.as_fd()), c"trusted.overlay.opaque", b"y").unwrap();
        fs::write(lower.join("dir/low"), "low").unwrap();
        fs::write(upper.join("dir/up"), "up").unwrap();
        fs::write(lower.join("a/deep/file"), "deep").unwrap();
        symlink("/a/deep", upper.join("abs")).unwrap();
        symlink("../../../../b", lower.join("a/up")).unwrap();
        symlink("loop", lower.join("loop")).unwrap();
        nix::unistd::mkfifo(&lower.join("fifo"), Mode::S_IRWXU).unwrap();
        let view = View::open(&[upper, lower]).unwrap();
        (dir, view)
    }

    #[test]
    fn the_union_is_read() {
        let (_dir, view) = layers();
        let read = |path: &str| view.read(Path::new(path), 100).map(|b| String::from_utf8(b).unwrap());
        assert_eq!(read("/b").unwrap(), "upper b");
        assert_eq!(read("/dir/low").unwrap(), "low");
        assert_eq!(read("dir/../dir/up").unwrap(), "up");
        assert_eq!(read("/abs/file").unwrap(), "deep");
        assert_eq!(read("/a/up").unwrap(), "upper b");
        assert_eq!(read("/gone").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(read("/old/x").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(read("/b/x").unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert_eq!(read("/b/").unwrap_err().kind(), io::ErrorKind::NotADirectory);
        assert_eq!(read("/fifo").unwrap_err().kind(), io::ErrorKind::InvalidInput);
        assert_eq!(read("/loop").unwrap_err().raw_os_error(), Some(Errno::ELOOP as i32));
        assert_eq!(view.read(Path::new("/b"), 3).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        // `..` goes up from where the link led, not from the link.
        assert_eq!(read("/abs/../b").unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(matches!(view.lookup(Path::new("/abs"), false).unwrap().node, Node::Link(_)));
        assert!(view.lookup(Path::new("/../.."), true).unwrap().is_dir());
    }

    #[test]
    fn listings_merge() {
        let (_dir, view) = layers();
        let names: Vec<_> = view.root().unwrap().names().unwrap();
        assert_eq!(names, ["a", "abs", "b", "dir", "fifo", "loop", "old"]);
        let Node::Directory(dir) = view.lookup(Path::new("/dir"), true).unwrap().node else { panic!("no directory") };
        assert_eq!(dir.names().unwrap(), ["low", "up"]);
    }
}
