//! A layer's tar into an empty directory, by directory handles only.
//!
//! The kernel never gets a path of more than one component from here, and every step refuses symbolic links; a link on the
//! way to an entry is read and resolved inside the root by [`directories`]. Directories are made 0700 and get their owner,
//! mode, attributes and times at the very end, so that neither a setgid bit nor a default ACL nor a missing write permission
//! touches what is made inside them, and no child changes a time that was set.
//!
//! Within a layer the last entry of a name wins. Whiteouts hide what the layers below have, never what this layer has,
//! wherever in the tar they stand; a directory that takes the place of something else of this layer is opaque.

mod attributes;
mod directories;
mod links;
mod member;
mod place;

use std::collections::BTreeSet;
use std::io::Read;
use std::os::fd::BorrowedFd;

use nix::errno::Errno;

use crate::archive::{Archive, Entry, EntryKind};
use crate::{Error, LayerPath, OverlayXattrs, Result, Settle};
use attributes::{Attributes, Creator};
use directories::{Directories, Entered, Missing};
use links::WaitingLinks;
use member::Member;

pub(crate) use member::{OPAQUE_NAME, WHITEOUT_PREFIX};

/// How to extract.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct ExtractOptions {
    /// Where the opaque mark goes.
    pub overlay_xattrs: OverlayXattrs,
    /// Stop with [`crate::Error::TooLarge`] when file contents exceed this many bytes.
    pub max_bytes: Option<u64>,
    /// Stop with [`crate::Error::TooLarge`] when the tar has more entries.
    pub max_entries: Option<u64>,
}

/// What came out of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Extracted {
    /// Entries of the tar, whiteouts included.
    pub entries: u64,
    /// Bytes of file contents.
    pub bytes: u64,
    /// What [`crate::settle()`] must do when the layers below are there.
    pub settle: Settle,
}

/// Reads the tar (uncompressed) to the end of the stream and makes its files in `target`, an empty directory.
///
/// Nothing is flushed: whoever commits the directory does that once. `target` should lie where no other user can reach it.
///
/// # Errors
/// See [`crate::Error`]; what was made until then stays in `target`, for the caller to remove.
pub fn extract(reader: impl Read, target: BorrowedFd<'_>, options: &ExtractOptions) -> Result<Extracted> {
    let mut archive = Archive::new(reader);
    let mut extractor = Extractor {
        options,
        creator: Creator::current(),
        dirs: Directories::new(target),
        links: WaitingLinks::default(),
        whiteouts: BTreeSet::new(),
        entries: 0,
        bytes: 0,
    };
    while let Some(entry) = archive.next()? {
        extractor.entry(&mut archive, entry)?;
    }
    extractor.finish()
}

struct Extractor<'a> {
    options: &'a ExtractOptions,
    creator: Creator,
    dirs: Directories<'a>,
    links: WaitingLinks,
    /// Directories in which whiteouts were made.
    whiteouts: BTreeSet<LayerPath>,
    entries: u64,
    bytes: u64,
}

impl Extractor<'_> {
    fn entry<R: Read>(&mut self, archive: &mut Archive<R>, entry: Entry) -> Result<()> {
        self.entries += 1;
        exceeds(self.entries, self.options.max_entries, "entries")?;
        let member = Member::parse(&entry.name)?;
        let attributes = Attributes::new(&entry);
        match (member, entry.kind) {
            (Member::Ignored, _) => Ok(()),
            (Member::Opaque(dir), _) => {
                self.enter(&dir)?;
                self.dirs.record().opaque = true;
                Ok(())
            }
            (Member::Whiteout(path), _)
            | (Member::File(path), EntryKind::Device { block: false, major: 0, minor: 0 }) => self.whiteout(&path),
            (Member::Root, EntryKind::Directory) => {
                self.enter(&LayerPath::root())?;
                self.dirs.record().attributes = Some(attributes);
                Ok(())
            }
            (Member::Root, _) => Err(refused(&LayerPath::root(), "the root can only be a directory")),
            (Member::File(path), EntryKind::Directory) => self.directory(&path, attributes),
            (Member::File(path), EntryKind::File { size, segments }) => {
                self.file(archive, &path, &attributes, size, segments.as_deref())
            }
            (Member::File(path), EntryKind::Symlink { target }) => self.symlink(&path, &attributes, &target),
            (Member::File(path), EntryKind::HardLink { target }) => self.hard_link(&path, &target),
            (Member::File(path), EntryKind::Device { block, major, minor }) => {
                self.node(&path, &attributes, place::Node::Device { block, major, minor })
            }
            (Member::File(path), EntryKind::Fifo) => self.node(&path, &attributes, place::Node::Fifo),
        }
    }

    /// Goes to a directory, making what is missing on the way.
    fn enter(&mut self, dir: &LayerPath) -> Result<()> {
        match self.dirs.enter(dir.as_bytes(), Missing::Create)? {
            Entered::There => Ok(()),
            Entered::Missing => Err(Error::Os { op: "open", path: dir.clone(), source: Errno::ENOENT }),
        }
    }

    /// Goes to the directory that holds `path`; gives `path`'s last component.
    fn enter_parent<'p>(&mut self, path: &'p LayerPath) -> Result<&'p [u8]> {
        let (parent, name) = directories::split(path.as_bytes());
        match self.dirs.enter(parent, Missing::Create)? {
            Entered::There => Ok(name),
            Entered::Missing => Err(Error::Os { op: "open", path: path.clone(), source: Errno::ENOENT }),
        }
    }

    fn finish(mut self) -> Result<Extracted> {
        self.dirs.finish(&self.creator, self.options.overlay_xattrs)?;
        Ok(Extracted {
            entries: self.entries,
            bytes: self.bytes,
            settle: Settle {
                overlay_xattrs: self.options.overlay_xattrs,
                implied: self.dirs.implied(),
                links: self.links.into_settle(),
                whiteouts: self.whiteouts.into_iter().collect(),
            },
        })
    }
}

fn exceeds(count: u64, limit: Option<u64>, unit: &'static str) -> Result<()> {
    match limit {
        Some(limit) if count > limit => Err(Error::TooLarge { limit, unit }),
        _ => Ok(()),
    }
}

fn refused(name: &LayerPath, why: &str) -> Error {
    Error::Refused { name: name.clone(), why: why.to_owned() }
}

#[cfg(test)]
mod tests;
