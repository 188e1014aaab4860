//! Making files of each kind, in place of whatever of this layer bears their name.

use std::ffi::CString;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fstatat, makedev, mkdirat, mknodat};
use nix::unistd::{UnlinkatFlags, ftruncate, linkat, symlinkat, unlinkat};

use super::attributes::Attributes;
use super::directories::{self, Entered, Missing};
use super::{Extractor, exceeds, refused};
use crate::archive::{Archive, Segment};
use crate::overlay::{is_type, is_whiteout, os};
use crate::{Error, LayerPath, Result};

/// A file that is nothing but an inode.
#[derive(Debug, Clone, Copy)]
pub(super) enum Node {
    Device { block: bool, major: u32, minor: u32 },
    Fifo,
}

/// What stood in the way of a new file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum InTheWay {
    Directory,
    Other,
}

impl Extractor<'_> {
    pub(super) fn directory(&mut self, path: &LayerPath, attributes: Attributes) -> Result<()> {
        let name = self.enter_parent(path)?;
        let mut opaque = false;
        match mkdirat(self.dirs.current(), name, Mode::S_IRWXU) {
            Ok(()) => {}
            Err(Errno::EEXIST) => {
                if self.what_is(name, path)? == InTheWay::Other {
                    self.clear(name, path)?;
                    mkdirat(self.dirs.current(), name, Mode::S_IRWXU).map_err(os("make the directory", path))?;
                    // Something of this layer (or its whiteout) hid what lies below; the directory must go on doing so.
                    opaque = true;
                }
            }
            Err(errno) => return Err(os("make the directory", path)(errno)),
        }
        self.drop_link(name);
        let record = self.dirs.record_of(name);
        record.attributes = Some(attributes);
        record.opaque |= opaque;
        Ok(())
    }

    pub(super) fn file<R: Read>(
        &mut self,
        archive: &mut Archive<R>,
        path: &LayerPath,
        attributes: &Attributes,
        size: u64,
        segments: Option<&[Segment]>,
    ) -> Result<()> {
        let name = self.enter_parent(path)?;
        let make = |this: &Self| openat(this.dirs.current(), name, NEW_FILE, attributes.creation_mode());
        let file = File::from(self.placed(name, path, "create", make)?);
        match segments {
            Some(segments) => self.write_segments(archive, &file, path, size, segments)?,
            None if size < SPARSE_MIN => self.write_plain(archive, &file, path)?,
            None => self.write_large(archive, &file, path, size)?,
        }
        attributes.apply_to_new_file(file.as_fd(), path, &self.creator)
    }

    pub(super) fn symlink(&mut self, path: &LayerPath, attributes: &Attributes, target: &[u8]) -> Result<()> {
        if target.contains(&0) || target.is_empty() {
            return Err(refused(path, "a symbolic link to nothing"));
        }
        let name = self.enter_parent(path)?;
        self.placed(name, path, "make the symbolic link", |this| symlinkat(target, this.dirs.current(), name))?;
        attributes.apply_to_entry(self.dirs.current(), name, path, &self.creator, false)
    }

    pub(super) fn node(&mut self, path: &LayerPath, attributes: &Attributes, node: Node) -> Result<()> {
        let (kind, device) = match node {
            Node::Device { block: true, major, minor } => (SFlag::S_IFBLK, makedev(major.into(), minor.into())),
            Node::Device { block: false, major, minor } => (SFlag::S_IFCHR, makedev(major.into(), minor.into())),
            Node::Fifo => (SFlag::S_IFIFO, 0),
        };
        let name = self.enter_parent(path)?;
        let mode = attributes.creation_mode();
        self.placed(name, path, "make the node", |this| mknodat(this.dirs.current(), name, kind, mode, device))?;
        attributes.apply_to_entry(self.dirs.current(), name, path, &self.creator, true)
    }

    /// The link's own owner, mode and times are ignored: they are its target's, and setting them would let one entry
    /// change another.
    pub(super) fn hard_link(&mut self, path: &LayerPath, raw_target: &[u8]) -> Result<()> {
        let target = LayerPath::parse(raw_target)
            .filter(|target| !target.is_root())
            .ok_or_else(|| refused(path, "a hard link to a name with `..` or NUL, or to the root"))?;
        let (target_dir, target_name) = directories::split(target.as_bytes());
        let source = match self.dirs.enter(target_dir, Missing::Report)? {
            Entered::Missing => None,
            Entered::There => match fstatat(self.dirs.current(), target_name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Err(Errno::ENOENT) => None,
                Err(errno) => return Err(os("stat", &target)(errno)),
                Ok(stat) if is_whiteout(&stat) => None,
                Ok(stat) if is_type(&stat, SFlag::S_IFDIR) => {
                    return Err(refused(path, "a hard link to a directory"));
                }
                Ok(_) => {
                    let dir = self.dirs.current().try_clone_to_owned();
                    let errno = |error: std::io::Error| Errno::from_raw(error.raw_os_error().unwrap_or_default());
                    Some((dir.map_err(|error| os("open", &target)(errno(error)))?, self.dirs.real().join(target_name)))
                }
            },
        };
        let name = self.enter_parent(path)?;
        match source {
            Some((_, real)) if real == self.dirs.real().join(name) => Ok(()),
            Some((dir, _)) => self.placed(name, path, "link", |this| {
                linkat(&dir, target_name, this.dirs.current(), name, AtFlags::empty())
            }),
            None => {
                if fstatat(self.dirs.current(), name, AtFlags::AT_SYMLINK_NOFOLLOW).is_ok() {
                    self.clear(name, path)?;
                }
                self.links.add(self.dirs.real().join(name), target);
                Ok(())
            }
        }
    }

    pub(super) fn whiteout(&mut self, path: &LayerPath) -> Result<()> {
        let name = self.enter_parent(path)?;
        if !self.links.is_empty() && self.links.contains(&self.dirs.real().join(name)) {
            return Ok(());
        }
        match mknodat(self.dirs.current(), name, SFlag::S_IFCHR, Mode::empty(), 0) {
            Ok(()) => {
                self.whiteouts.insert(self.dirs.real().clone());
                Ok(())
            }
            // This layer has the name itself. A file hides what is below anyway; a directory must be told to.
            Err(Errno::EEXIST) => {
                if self.what_is(name, path)? == InTheWay::Directory {
                    self.dirs.record_of(name).renew();
                }
                Ok(())
            }
            Err(errno) => Err(os("make the whiteout", path)(errno)),
        }
    }

    /// Makes something new called `name` in the current directory, after removing what is there.
    fn placed<T>(
        &mut self,
        name: &[u8],
        path: &LayerPath,
        op: &'static str,
        make: impl Fn(&Self) -> nix::Result<T>,
    ) -> Result<T> {
        self.drop_link(name);
        match make(self) {
            Err(Errno::EEXIST) => {
                self.clear(name, path)?;
                make(self).map_err(os(op, path))
            }
            made => made.map_err(os(op, path)),
        }
    }

    fn what_is(&self, name: &[u8], path: &LayerPath) -> Result<InTheWay> {
        let stat = fstatat(self.dirs.current(), name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(os("stat", path))?;
        Ok(if is_type(&stat, SFlag::S_IFDIR) { InTheWay::Directory } else { InTheWay::Other })
    }

    /// Removes what an earlier entry of this layer made under that name.
    fn clear(&mut self, name: &[u8], path: &LayerPath) -> Result<()> {
        match unlinkat(self.dirs.current(), name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::EISDIR | Errno::EPERM) => {
                let gone = self.dirs.forget(name)?;
                self.links.remove_within(&gone);
                let name = CString::new(name).map_err(|_nul| os("remove", path)(Errno::EINVAL))?;
                dhow_sys::tree::remove(self.dirs.current(), &name).map_err(os("remove", path))
            }
            result => result.map_err(os("remove", path)),
        }
    }

    /// A later entry of the same name takes the place of a link that still waits for its target.
    fn drop_link(&mut self, name: &[u8]) {
        if !self.links.is_empty() {
            self.links.remove(&self.dirs.real().join(name));
        }
    }

    fn write_plain<R: Read>(&mut self, archive: &mut Archive<R>, mut file: &File, path: &LayerPath) -> Result<()> {
        while let Some(chunk) = archive.chunk(u64::MAX)? {
            self.bytes += chunk.len() as u64;
            exceeds(self.bytes, self.options.max_bytes, "bytes")?;
            file.write_all(chunk).map_err(|error| write_error(&error, path))?;
        }
        Ok(())
    }

    /// Leaves out long runs of zeros: layers carry sparse files (databases, disk images) in full.
    fn write_large<R: Read>(
        &mut self,
        archive: &mut Archive<R>,
        file: &File,
        path: &LayerPath,
        size: u64,
    ) -> Result<()> {
        let mut offset = 0;
        while let Some(chunk) = archive.chunk(HOLE - offset % HOLE)? {
            self.bytes += chunk.len() as u64;
            exceeds(self.bytes, self.options.max_bytes, "bytes")?;
            if !is_zero(chunk) {
                file.write_all_at(chunk, offset).map_err(|error| write_error(&error, path))?;
            }
            offset += chunk.len() as u64;
        }
        set_len(file, path, size)
    }

    fn write_segments<R: Read>(
        &mut self,
        archive: &mut Archive<R>,
        file: &File,
        path: &LayerPath,
        size: u64,
        segments: &[Segment],
    ) -> Result<()> {
        for segment in segments {
            let (mut offset, mut left) = (segment.offset, segment.len);
            while left > 0 {
                let Some(chunk) = archive.chunk(left)? else { return Err(os("write", path)(Errno::ENODATA)) };
                self.bytes += chunk.len() as u64;
                exceeds(self.bytes, self.options.max_bytes, "bytes")?;
                file.write_all_at(chunk, offset).map_err(|error| write_error(&error, path))?;
                offset += chunk.len() as u64;
                left -= chunk.len() as u64;
            }
        }
        set_len(file, path, size)
    }
}

fn set_len(file: &File, path: &LayerPath, size: u64) -> Result<()> {
    let size = i64::try_from(size).map_err(|_overflow| os("resize", path)(Errno::EFBIG))?;
    ftruncate(file, size).map_err(os("resize", path))
}

fn is_zero(chunk: &[u8]) -> bool {
    // The first bytes decide almost always.
    chunk.iter().take(16).all(|byte| *byte == 0) && chunk.iter().all(|byte| *byte == 0)
}

fn write_error(error: &std::io::Error, path: &LayerPath) -> Error {
    os("write", path)(Errno::from_raw(error.raw_os_error().unwrap_or_default()))
}

const NEW_FILE: OFlag =
    OFlag::O_WRONLY.union(OFlag::O_CREAT).union(OFlag::O_EXCL).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// Smaller files are written as they are.
const SPARSE_MIN: u64 = 1 << 20;
/// The grain of holes left out; a divisor of the reader's buffer, a multiple of every block size.
const HOLE: u64 = 128 << 10;
