//! Where in the target the extractor stands, and what it knows about the directories it made.
//!
//! A tar lists its files mostly directory by directory, so the handles from the root down to the current directory are kept
//! and the next entry reuses what its way has in common with them: most entries cost no resolution at all.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use dhow_sys::xattr::{self, Target};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag, fchmod, fstatat, futimens, mkdirat};
use nix::sys::time::TimeSpec;
use nix::unistd::{UnlinkatFlags, unlinkat};
use std::os::unix::ffi::OsStrExt;

use super::attributes::{Attributes, Creator};
use super::refused;
use crate::overlay::{DIRECTORY, is_type, is_whiteout, opaque_name, os};
use crate::{LayerPath, OverlayXattrs, Result};

/// What to do where the way to a directory ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// Make it, to be settled later.
    Create,
    /// Say so.
    Report,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Entered {
    There,
    Missing,
}

/// A directory of this layer.
#[derive(Debug, Default)]
pub(super) struct Record {
    /// `None` when no entry named it: it is only implied by one below it.
    pub(super) attributes: Option<Attributes>,
    /// Hides what the layers below have in it.
    pub(super) opaque: bool,
}

impl Record {
    /// The layers below lose the whole directory, so that this is another one of the same name: opaque, and with nothing to
    /// take over from below.
    pub(super) fn renew(&mut self) {
        self.opaque = true;
        self.attributes.get_or_insert_with(Attributes::of_new_directory);
    }
}

struct Level {
    /// `None` when too many are open; opened again when needed.
    fd: Option<OwnedFd>,
    /// Length of the real path to it.
    path_len: usize,
}

/// The way to the current directory and the records of all.
pub(super) struct Directories<'r> {
    root: BorrowedFd<'r>,
    levels: Vec<Level>,
    /// The current directory's path, free of symbolic links.
    real: LayerPath,
    /// What was asked for last, which may have led here through links; `None` when the tree changed since.
    asked: Option<Vec<u8>>,
    records: BTreeMap<LayerPath, Record>,
}

impl<'r> Directories<'r> {
    pub(super) fn new(root: BorrowedFd<'r>) -> Self {
        let records = BTreeMap::from([(LayerPath::root(), Record::default())]);
        Self { root, levels: Vec::new(), real: LayerPath::root(), asked: Some(Vec::new()), records }
    }

    /// The current directory.
    pub(super) fn current(&self) -> BorrowedFd<'_> {
        // The last level is always open: only levels above it are closed, and truncate() opens again.
        self.levels.last().and_then(|level| level.fd.as_ref()).map_or(self.root, AsFd::as_fd)
    }

    /// The real path of the current directory.
    pub(super) fn real(&self) -> &LayerPath {
        &self.real
    }

    /// The current directory's record.
    pub(super) fn record(&mut self) -> &mut Record {
        self.records.entry(self.real.clone()).or_default()
    }

    /// The record of a directory in the current one.
    pub(super) fn record_of(&mut self, name: &[u8]) -> &mut Record {
        self.records.entry(self.real.join(name)).or_default()
    }

    /// Makes the directory `path` (canonical) the current one. Where `path` ends in nothing, the way so far is kept.
    pub(super) fn enter(&mut self, path: &[u8], missing: Missing) -> Result<Entered> {
        if self.asked.as_deref() == Some(path) {
            return Ok(Entered::There);
        }
        self.asked = None;
        let common = self.common_levels(path);
        self.truncate(common)?;
        let skip = self.real.as_bytes().len();
        let mut way: VecDeque<Vec<u8>> = split_all(path.get(skip..).unwrap_or_default());
        let mut links = 0;
        while let Some(name) = way.pop_front() {
            if name == b".." {
                self.truncate(self.levels.len().saturating_sub(1))?;
                continue;
            }
            match self.step(&name, missing)? {
                Step::Entered => {}
                Step::Missing => return Ok(Entered::Missing),
                Step::Link(target) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(os("resolve", &LayerPath::lossy(path))(Errno::ELOOP));
                    }
                    if target.starts_with(b"/") {
                        self.truncate(0)?;
                    }
                    split_all(&target).into_iter().rev().for_each(|part| way.push_front(part));
                }
            }
        }
        self.asked = Some(path.to_vec());
        Ok(Entered::There)
    }

    /// Takes note that `name` in the current directory, with everything below it, was removed.
    pub(super) fn forget(&mut self, name: &[u8]) -> Result<LayerPath> {
        let gone = self.real.join(name);
        let below: Vec<LayerPath> = self.records.range(gone.range_below()).map(|(path, _)| path.clone()).collect();
        below.iter().for_each(|path| drop(self.records.remove(path)));
        self.records.remove(&gone);
        // Through a link the current directory may itself have been below what is gone.
        if self.real.is_within(&gone) {
            return Err(refused(&gone, "it would remove the directory it lies in"));
        }
        Ok(gone)
    }

    /// The directories that no entry named, parents first.
    pub(super) fn implied(&self) -> Vec<LayerPath> {
        let implied = self.records.iter().filter(|(_, record)| record.attributes.is_none());
        implied.map(|(path, _)| path.clone()).collect()
    }

    /// Gives every directory what its entry says; those below first, as a directory's own mode may lock them away.
    pub(super) fn finish(&mut self, creator: &Creator, overlay: OverlayXattrs) -> Result<()> {
        let records = std::mem::take(&mut self.records);
        for (path, record) in records.iter().rev() {
            if self.enter(path.as_bytes(), Missing::Report)? == Entered::Missing {
                return Err(os("open", path)(Errno::ENOENT));
            }
            let fd = self.current();
            if record.opaque {
                xattr::set(Target::File(fd), opaque_name(overlay), b"y").map_err(os("mark opaque", path))?;
            }
            match &record.attributes {
                Some(attributes) => attributes.apply_to_directory(fd, path, creator)?,
                None => {
                    fchmod(fd, IMPLIED_MODE).map_err(os("change the mode of", path))?;
                    let epoch = TimeSpec::new(0, 0);
                    futimens(fd, &epoch, &epoch).map_err(os("set the times of", path))?;
                }
            }
        }
        self.records = records;
        Ok(())
    }

    /// How many of the current levels `path` begins with.
    fn common_levels(&self, path: &[u8]) -> usize {
        let fits = |level: &&Level| {
            path.starts_with(&self.real.as_bytes()[..level.path_len])
                && matches!(path.get(level.path_len), None | Some(b'/'))
        };
        self.levels.iter().take_while(fits).count()
    }

    /// Goes up to the given number of levels below the root.
    fn truncate(&mut self, levels: usize) -> Result<()> {
        self.levels.truncate(levels);
        let len = self.levels.last().map_or(0, |level| level.path_len);
        while self.real.as_bytes().len() > len {
            self.real.pop();
        }
        if self.levels.last().is_some_and(|level| level.fd.is_none()) {
            let names = split_all(self.real.as_bytes());
            let mut fd: Option<OwnedFd> = None;
            for name in names {
                let at = fd.as_ref().map_or(self.root, AsFd::as_fd);
                fd = Some(openat(at, name.as_slice(), DIRECTORY, Mode::empty()).map_err(os("open", &self.real))?);
            }
            if let Some(level) = self.levels.last_mut() {
                level.fd = fd;
            }
        }
        Ok(())
    }

    fn step(&mut self, name: &[u8], missing: Missing) -> Result<Step> {
        match openat(self.current(), name, DIRECTORY, Mode::empty()) {
            Ok(fd) => {
                self.push(name, fd);
                Ok(Step::Entered)
            }
            Err(Errno::ENOENT) if missing == Missing::Report => Ok(Step::Missing),
            Err(Errno::ENOENT) => self.make(name, false),
            Err(Errno::ENOTDIR | Errno::ELOOP) => self.step_past_file(name, missing),
            Err(errno) => Err(os("open", &self.real.join(name))(errno)),
        }
    }

    fn step_past_file(&mut self, name: &[u8], missing: Missing) -> Result<Step> {
        let path = self.real.join(name);
        let stat = fstatat(self.current(), name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(os("stat", &path))?;
        if is_type(&stat, SFlag::S_IFLNK) {
            let target = readlinkat(self.current(), name).map_err(os("read the link", &path))?;
            return Ok(Step::Link(target.as_bytes().to_vec()));
        }
        if missing == Missing::Report {
            return Ok(Step::Missing);
        }
        if is_whiteout(&stat) {
            unlinkat(self.current(), name, UnlinkatFlags::NoRemoveDir).map_err(os("remove", &path))?;
            return self.make(name, true);
        }
        Err(refused(&path, "entries below it, and it is no directory"))
    }

    fn make(&mut self, name: &[u8], opaque: bool) -> Result<Step> {
        let path = self.real.join(name);
        mkdirat(self.current(), name, Mode::S_IRWXU).map_err(os("make the directory", &path))?;
        let fd = openat(self.current(), name, DIRECTORY, Mode::empty()).map_err(os("open", &path))?;
        self.push(name, fd);
        let record = self.record();
        if opaque {
            record.renew();
        }
        Ok(Step::Entered)
    }

    fn push(&mut self, name: &[u8], fd: OwnedFd) {
        self.real.push(name);
        self.levels.push(Level { fd: Some(fd), path_len: self.real.as_bytes().len() });
        if let Some(excess) = self.levels.len().checked_sub(KEPT_OPEN + 1) {
            self.levels[excess].fd = None;
        }
    }
}

enum Step {
    Entered,
    Missing,
    Link(Vec<u8>),
}

/// Parent and last component of a canonical path.
pub(super) fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

/// The components of any path, `.` and empty ones left out.
fn split_all(path: &[u8]) -> VecDeque<Vec<u8>> {
    path.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).map(<[u8]>::to_vec).collect()
}

/// What a directory has that no layer describes.
const IMPLIED_MODE: Mode = Mode::from_bits_truncate(0o755);
/// As the kernel's own limit.
const LINKS_MAX: usize = 40;
const KEPT_OPEN: usize = 128;
