//! An overlay upper directory into a layer's tar.
//!
//! The walk is in the order of bytes, a directory before what it holds, and nothing of the machine or the moment goes in, so
//! that one directory gives one sequence of bytes. What an upper directory has only because overlayfs copied it up (a
//! directory on the way to a change, a file opened and not changed) is left out, and so are opaque marks and whiteouts with
//! nothing below them to hide.

mod header;

use std::collections::HashMap;
use std::ffi::CStr;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;

use dhow_sys::tree::{Next, Visit, WalkError, walk};
use dhow_sys::xattr::{self, Target};
use nix::errno::Errno;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

use crate::extract::{OPAQUE_NAME, WHITEOUT_PREFIX};
use crate::overlay::{DIRECTORY, Found, Layers, Resolved, Stack, is_type, is_whiteout, os};
use crate::{Error, LayerPath, OverlayXattrs, Result, copy};
use header::{Kind, Record, TarWriter};

/// How to write a layer.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct DiffOptions {
    /// Where overlayfs keeps its marks.
    pub overlay_xattrs: OverlayXattrs,
}

/// What went into a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Diffed {
    /// Entries written.
    pub entries: u64,
    /// Bytes of the tar.
    pub bytes: u64,
}

/// Writes what `upper` changes over `lowers` (nearest first) as a tar, ended but not compressed. The bytes depend on the
/// directories alone. Does not flush or finish `writer`.
///
/// # Errors
/// See [`crate::Error`]: among them [`Error::Changed`] when the directory is written to meanwhile.
pub fn diff(
    upper: BorrowedFd<'_>,
    lowers: &[BorrowedFd<'_>],
    writer: impl Write,
    options: &DiffOptions,
) -> Result<Diffed> {
    let mut differ = Differ {
        lowers: Layers::new(lowers, options.overlay_xattrs),
        xattrs: options.overlay_xattrs,
        tar: TarWriter::new(writer),
        pending: Vec::new(),
        below: Below { dir: LayerPath::root(), stack: Stack::new() },
        hidden: None,
        inodes: HashMap::new(),
        buffer: vec![0; COPY_BUFFER],
    };
    differ.root(upper)?;
    walk(upper, |visit| differ.visit(visit)).map_err(|failure| match failure {
        Failure::Layer(error) => error,
        Failure::Walk(WalkError { path, source: Errno::ESTALE, .. }) => {
            Error::Changed { path: LayerPath::lossy(&path) }
        }
        Failure::Walk(WalkError { op, path, source }) => Error::Os { op, path: LayerPath::lossy(&path), source },
    })?;
    differ.tar.finish()
}

/// What makes a walk end early.
enum Failure {
    Walk(WalkError),
    Layer(Error),
}

impl From<WalkError> for Failure {
    fn from(error: WalkError) -> Self {
        Self::Walk(error)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Layer(error)
    }
}

struct Differ<'a, W: Write> {
    lowers: Layers<'a>,
    xattrs: OverlayXattrs,
    tar: TarWriter<W>,
    /// Directories on the way to the current file that are written only if something in them is.
    pending: Vec<Record>,
    below: Below,
    /// The topmost new or opaque directory that is being walked.
    hidden: Option<LayerPath>,
    /// Where a file of several links was written first.
    inodes: HashMap<(u64, u64), LayerPath>,
    buffer: Vec<u8>,
}

/// The merged directories below the upper directory that is being walked.
struct Below {
    dir: LayerPath,
    stack: Stack,
}

impl<W: Write> Differ<'_, W> {
    fn root(&mut self, upper: BorrowedFd<'_>) -> Result<()> {
        let path = LayerPath::root();
        let stat = fstat(upper).map_err(os("stat", &path))?;
        let record = Record::new(path.clone(), Kind::Directory, &stat, copy::xattrs(Target::File(upper), &path)?);
        let opaque = self.lowers_hidden(upper, &path)?;
        self.below.stack = if opaque { Stack::new() } else { self.lowers.root()? };
        let same = match self.below.stack.first() {
            None => false,
            // Its time changes with every file made in it and says nothing.
            Some((_, lower)) => {
                let lower_stat = fstat(lower).map_err(os("stat", &path))?;
                let lower = Record::new(
                    path.clone(),
                    Kind::Directory,
                    &lower_stat,
                    copy::xattrs(Target::File(lower.as_fd()), &path)?,
                );
                record.equals_but_time(&lower)
            }
        };
        if !same {
            self.tar.entry(&record)?;
        }
        if opaque {
            self.hide_below(&path);
            self.tar.entry(&Record::mark(&path.join(OPAQUE_NAME)))?;
        }
        Ok(())
    }

    fn visit(&mut self, visit: &Visit<'_>) -> std::result::Result<Next, Failure> {
        let path = LayerPath::lossy(visit.path);
        if visit.name.to_bytes().starts_with(WHITEOUT_PREFIX) {
            let why = "its name would read as a deletion";
            return Err(Error::Inexpressible { path, why }.into());
        }
        self.go_below(&path)?;
        self.pending.retain(|directory| path.is_within(&directory.path));
        if is_type(visit.stat, SFlag::S_IFDIR) {
            self.directory(visit, &path)?;
        } else if is_whiteout(visit.stat) {
            self.whiteout(visit.name, &path)?;
        } else if !is_type(visit.stat, SFlag::S_IFSOCK) {
            self.file(visit, path)?;
        }
        Ok(Next::Descend)
    }

    /// Looks up the merged directory below the one that holds `path`, unless it is the same as before.
    fn go_below(&mut self, path: &LayerPath) -> Result<()> {
        let Some((dir, _)) = path.split() else { return Ok(()) };
        if dir == self.below.dir {
            return Ok(());
        }
        self.below.stack = self.visible_below(&dir)?;
        self.below.dir = dir;
        Ok(())
    }

    fn visible_below(&self, dir: &LayerPath) -> Result<Stack> {
        if self.hidden.as_ref().is_some_and(|hidden| dir.is_within(hidden)) {
            return Ok(Stack::new());
        }
        Ok(match self.lowers.resolve(dir, false)? {
            Resolved::Directory { stack, real } if real == *dir => stack,
            _ => Stack::new(),
        })
    }

    /// Takes note that nothing in this directory has anything below it.
    fn hide_below(&mut self, dir: &LayerPath) {
        if !self.hidden.as_ref().is_some_and(|hidden| dir.is_within(hidden)) {
            self.hidden = Some(dir.clone());
        }
    }

    fn lowers_hidden(&self, dir: BorrowedFd<'_>, path: &LayerPath) -> Result<bool> {
        self.lowers.is_opaque(dir).map_err(os("read the attributes of", path))
    }

    fn find_below(&self, name: &CStr, path: &LayerPath) -> Result<Found> {
        self.lowers.find(&self.below.stack, name.to_bytes(), path)
    }

    fn whiteout(&mut self, name: &CStr, path: &LayerPath) -> Result<()> {
        if matches!(self.find_below(name, path)?, Found::Nothing | Found::WhitedOut) {
            return Ok(());
        }
        self.flush_pending()?;
        let Some((dir, name)) = path.split() else { return Ok(()) };
        self.tar.entry(&Record::mark(&dir.join(&[WHITEOUT_PREFIX, name].concat())))
    }

    fn directory(&mut self, visit: &Visit<'_>, path: &LayerPath) -> Result<()> {
        let fd = openat(visit.dir, visit.name, DIRECTORY, Mode::empty()).map_err(os("open", path))?;
        self.refuse_redirects(Target::File(fd.as_fd()), path)?;
        let record =
            Record::new(path.clone(), Kind::Directory, visit.stat, copy::xattrs(Target::File(fd.as_fd()), path)?);
        let opaque = self.lowers_hidden(fd.as_fd(), path)?;
        match self.find_below(visit.name, path)? {
            Found::Directory(stack) if opaque => {
                let empty = stack.is_empty();
                self.hide_below(path);
                self.flush_pending()?;
                self.tar.entry(&record)?;
                if !empty {
                    self.tar.entry(&Record::mark(&path.join(OPAQUE_NAME)))?;
                }
                Ok(())
            }
            Found::Directory(stack) => {
                let Some((_, lower)) = stack.first() else { return Ok(()) };
                let stat = fstat(lower).map_err(os("stat", path))?;
                let below =
                    Record::new(path.clone(), Kind::Directory, &stat, copy::xattrs(Target::File(lower.as_fd()), path)?);
                if record == below {
                    self.pending.push(record);
                    return Ok(());
                }
                self.flush_pending()?;
                self.tar.entry(&record)
            }
            Found::Nothing | Found::WhitedOut | Found::File { .. } => {
                self.hide_below(path);
                self.flush_pending()?;
                self.tar.entry(&record)
            }
        }
    }

    fn file(&mut self, visit: &Visit<'_>, path: LayerPath) -> Result<()> {
        let key = (visit.stat.st_dev, visit.stat.st_ino);
        if visit.stat.st_nlink > 1
            && let Some(first) = self.inodes.get(&key)
        {
            let record = Record::new(path, Kind::HardLink(first.clone()), visit.stat, Vec::new());
            self.flush_pending()?;
            return self.tar.entry(&record);
        }
        let (record, contents) = self.read_file(visit.dir, visit.name, visit.stat, &path)?;
        if visit.stat.st_nlink > 1 {
            // Kept whole even when unchanged: its other names are new and must have a file to link to.
            self.inodes.insert(key, path.clone());
        } else if self.is_unchanged(visit.name, &path, &record, contents.as_ref())? {
            return Ok(());
        }
        self.flush_pending()?;
        self.tar.entry(&record)?;
        match contents {
            Some(file) => self.contents(&file, &record),
            None => Ok(()),
        }
    }

    /// What the tar says of a file, and its contents opened when it has any.
    fn read_file(
        &self,
        dir: BorrowedFd<'_>,
        name: &CStr,
        stat: &FileStat,
        path: &LayerPath,
    ) -> Result<(Record, Option<File>)> {
        if is_type(stat, SFlag::S_IFREG) {
            let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
            let file = File::from(openat(dir, name, flags, Mode::empty()).map_err(os("open", path))?);
            let stat = fstat(&file).map_err(os("stat", path))?;
            if !is_type(&stat, SFlag::S_IFREG) {
                return Err(Error::Changed { path: path.clone() });
            }
            let target = Target::File(file.as_fd());
            self.refuse_redirects(target, path)?;
            let record = Record::new(path.clone(), Kind::File, &stat, copy::xattrs(target, path)?);
            return Ok((record, Some(file)));
        }
        let kind = if is_type(stat, SFlag::S_IFLNK) {
            Kind::Symlink(readlinkat(dir, name).map_err(os("read the link", path))?.into_vec())
        } else if is_type(stat, SFlag::S_IFIFO) {
            Kind::Fifo
        } else {
            Kind::Device { block: is_type(stat, SFlag::S_IFBLK), number: stat.st_rdev }
        };
        Ok((Record::new(path.clone(), kind, stat, copy::xattrs(Target::Entry(dir, name), path)?), None))
    }

    /// Whether the file below is the same in everything, contents included.
    fn is_unchanged(&self, name: &CStr, path: &LayerPath, record: &Record, contents: Option<&File>) -> Result<bool> {
        let Found::File { layer, stat } = self.find_below(name, path)? else { return Ok(false) };
        let Some((_, dir)) = self.below.stack.iter().find(|(number, _)| *number == layer) else { return Ok(false) };
        if is_type(&stat, SFlag::S_IFSOCK) {
            return Ok(false);
        }
        let (below, below_contents) = self.read_file(dir.as_fd(), name, &stat, path)?;
        if *record != below {
            return Ok(false);
        }
        match (contents, below_contents) {
            (Some(file), Some(below)) => same_contents(file, &below)
                .map_err(|error| os("read", path)(Errno::from_raw(error.raw_os_error().unwrap_or_default()))),
            _ => Ok(true),
        }
    }

    fn contents(&mut self, mut file: &File, record: &Record) -> Result<()> {
        let mut left = record.size;
        while left > 0 {
            let room = usize::try_from(left).unwrap_or(usize::MAX).min(self.buffer.len());
            let count = file
                .read(&mut self.buffer[..room])
                .map_err(|error| os("read", &record.path)(Errno::from_raw(error.raw_os_error().unwrap_or_default())))?;
            if count == 0 {
                return Err(Error::Changed { path: record.path.clone() });
            }
            self.tar.data(&self.buffer[..count])?;
            left -= count as u64;
        }
        self.tar.pad(record.size)
    }

    fn flush_pending(&mut self) -> Result<()> {
        for record in self.pending.drain(..) {
            self.tar.entry(&record)?;
        }
        Ok(())
    }

    /// Our mounts turn these features off; an upper directory that has them is another mount's and would be read wrongly.
    fn refuse_redirects(&self, target: Target<'_>, path: &LayerPath) -> Result<()> {
        let marks = match self.xattrs {
            OverlayXattrs::Trusted => [c"trusted.overlay.redirect", c"trusted.overlay.metacopy"],
            OverlayXattrs::User => [c"user.overlay.redirect", c"user.overlay.metacopy"],
        };
        for mark in marks {
            if xattr::get(target, mark).map_err(os("read an attribute of", path))?.is_some() {
                return Err(Error::Inexpressible {
                    path: path.clone(),
                    why: "overlayfs made it refer to another file",
                });
            }
        }
        Ok(())
    }
}

fn same_contents(a: &File, b: &File) -> std::io::Result<bool> {
    let (mut left, mut right) = (vec![0; COPY_BUFFER / 4], vec![0; COPY_BUFFER / 4]);
    let mut offset = 0;
    loop {
        let count = a.read_at(&mut left, offset)?;
        if count == 0 {
            return Ok(b.read_at(&mut right[..1], offset)? == 0);
        }
        match b.read_exact_at(&mut right[..count], offset) {
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => return Ok(false),
            result => result?,
        }
        if left[..count] != right[..count] {
            return Ok(false);
        }
        offset += count as u64;
    }
}

const COPY_BUFFER: usize = 512 << 10;

#[cfg(test)]
mod tests;
