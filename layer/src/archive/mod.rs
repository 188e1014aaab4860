//! A strict reader of layer tars: one entry at a time, only what every reader understands alike.
//!
//! The field layout is the `tar` crate's; the framing is our own, because a layer's next reader (Go's, GNU's, libarchive's)
//! must see the same entries as we do. Refused are: two sizes that disagree, sizes on entries that carry no data, two
//! extended headers for one entry, global headers that would change entries, records that lie about their length.
//! Understood are V7, ustar, GNU (long names, base-256 numbers, sparse), star prefixes and PAX with all three of GNU's
//! sparse dialects. Memory is bounded whatever the tar says.

mod header;
mod pax;
mod sparse;
mod stream;

use std::io::Read;

use crate::{Error, LayerPath, Result};
use header::{Header, TypeFlag};
use pax::Pax;
pub(crate) use sparse::Segment;
use stream::Stream;

/// Seconds and nanoseconds since 1970; the nanoseconds count forward also before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

/// One file as a layer tells it.
#[derive(Debug)]
pub(crate) struct Entry {
    /// As the tar has it.
    pub(crate) name: Vec<u8>,
    pub(crate) kind: EntryKind,
    /// Permission bits with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) atime: Option<Time>,
    /// Name and value.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum EntryKind {
    /// Its bytes follow, to be read with [`Archive::chunk`].
    File {
        size: u64,
        /// Where the bytes that follow belong, when not all of them do.
        segments: Option<Vec<Segment>>,
    },
    HardLink {
        target: Vec<u8>,
    },
    Symlink {
        target: Vec<u8>,
    },
    Device {
        block: bool,
        major: u32,
        minor: u32,
    },
    Directory,
    Fifo,
}

/// The entries of a tar, in order.
pub(crate) struct Archive<R> {
    stream: Stream<R>,
    /// Bytes of the current entry not yet read, and the padding behind them.
    remaining: u64,
    padding: u64,
    done: bool,
}

/// What extension headers said about the next entry.
#[derive(Default)]
struct Pending {
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    pax: Option<Pax>,
}

impl<R: Read> Archive<R> {
    pub(crate) fn new(inner: R) -> Self {
        Self { stream: Stream::new(inner), remaining: 0, padding: 0, done: false }
    }

    /// The next entry; `None` at the end of the archive. What is unread of the entry before is skipped.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        let mut pending = Pending::default();
        loop {
            self.stream.skip(self.remaining + self.padding)?;
            (self.remaining, self.padding) = (0, 0);
            let offset = self.stream.offset();
            let Some(header) = self.next_header(offset)? else {
                if pending.long_name.is_some() || pending.long_link.is_some() || pending.pax.is_some() {
                    return Err(malformed(offset, "an extended header and no entry behind it"));
                }
                self.stream.drain()?;
                return Ok(None);
            };
            let flaw = |flaw: &str| malformed(offset, flaw);
            match header.type_flag {
                TypeFlag::GnuLongName => {
                    let text = self.extension(&header, offset)?;
                    if pending
                        .long_name
                        .replace(header::long_text(text).ok_or_else(|| flaw("NUL in a long name"))?)
                        .is_some()
                    {
                        return Err(flaw("two long names for one entry"));
                    }
                }
                TypeFlag::GnuLongLink => {
                    let text = self.extension(&header, offset)?;
                    if pending
                        .long_link
                        .replace(header::long_text(text).ok_or_else(|| flaw("NUL in a long link name"))?)
                        .is_some()
                    {
                        return Err(flaw("two long link names for one entry"));
                    }
                }
                TypeFlag::Pax => {
                    let pax = Pax::parse(&self.extension(&header, offset)?).map_err(|text| flaw(&text))?;
                    if pending.pax.replace(pax).is_some() {
                        return Err(flaw("two PAX headers for one entry"));
                    }
                }
                TypeFlag::PaxGlobal => {
                    let pax = Pax::parse(&self.extension(&header, offset)?).map_err(|text| flaw(&text))?;
                    // git's archives have a comment here. Docker ignores the rest, POSIX applies it to what follows.
                    if pax.changes_entries() {
                        return Err(flaw("a global PAX header that changes entries"));
                    }
                }
                _ => return self.entry(&header, pending, offset).map(Some),
            }
        }
    }

    /// The next bytes of the current entry, as many as are at hand; `None` when all were read.
    pub(crate) fn chunk(&mut self, most: u64) -> Result<Option<&[u8]>> {
        let most = self.remaining.min(most);
        if most == 0 {
            return Ok(None);
        }
        let chunk = self.stream.chunk(most)?;
        self.remaining -= chunk.len() as u64;
        Ok(Some(chunk))
    }

    fn next_header(&mut self, offset: u64) -> Result<Option<Header>> {
        if self.done {
            return Ok(None);
        }
        let Some(block) = self.stream.block()? else {
            // No end mark: Go's and GNU's readers take that as the end.
            self.done = true;
            return Ok(None);
        };
        if block.iter().all(|byte| *byte == 0) {
            self.done = true;
            return match self.stream.block()? {
                Some(second) if second.iter().any(|byte| *byte != 0) => {
                    Err(malformed(offset, "a single zero block and more entries behind it"))
                }
                _ => Ok(None),
            };
        }
        Header::parse(&block).map(Some).map_err(|text| malformed(offset, &text))
    }

    /// The whole contents of an extension header.
    fn extension(&mut self, header: &Header, offset: u64) -> Result<Vec<u8>> {
        if header.size > EXTENSION_MAX {
            return Err(malformed(offset, "an extended header of more than a MiB"));
        }
        self.begin_data(header.size, offset)?;
        let mut text = Vec::with_capacity(usize::try_from(header.size).unwrap_or_default());
        while let Some(chunk) = self.chunk(u64::MAX)? {
            text.extend_from_slice(chunk);
        }
        Ok(text)
    }

    fn begin_data(&mut self, size: u64, offset: u64) -> Result<()> {
        if size > i64::MAX as u64 {
            return Err(malformed(offset, "a size beyond 2^63"));
        }
        self.remaining = size;
        self.padding = size.next_multiple_of(BLOCK as u64) - size;
        Ok(())
    }

    fn entry(&mut self, header: &Header, pending: Pending, offset: u64) -> Result<Entry> {
        let flaw = |flaw: &str| malformed(offset, flaw);
        let mut pax = pending.pax.unwrap_or_default();
        let size = reconcile_size(header.size, pax.size).map_err(flaw)?;
        let name = pick(pax.path.take(), pending.long_name, &header.name).map_err(flaw)?;
        let target = pick(pax.linkpath.take(), pending.long_link, &header.link_name).map_err(flaw)?;
        if header.type_flag != TypeFlag::File && header.type_flag != TypeFlag::GnuSparse {
            if size != 0 {
                return Err(flaw("a size on an entry that carries no data"));
            }
            if pax.sparse.is_some() {
                return Err(flaw("a sparse map on an entry that carries no data"));
            }
        }
        self.begin_data(size, offset)?;
        let sparse_name = pax.sparse.as_mut().and_then(|sparse| sparse.name.take());
        let kind = match header.type_flag {
            TypeFlag::File => match pax.sparse.take() {
                None => EntryKind::File { size, segments: None },
                Some(sparse) => self.pax_sparse(sparse, offset)?,
            },
            TypeFlag::GnuSparse => {
                if pax.sparse.is_some() {
                    return Err(flaw("two sparse maps for one entry"));
                }
                self.gnu_sparse(header, offset)?
            }
            TypeFlag::HardLink => EntryKind::HardLink { target },
            TypeFlag::Symlink => EntryKind::Symlink { target },
            TypeFlag::Device { block } => {
                let (major, minor) = header.device.ok_or_else(|| flaw("a device without numbers"))?;
                EntryKind::Device { block, major, minor }
            }
            TypeFlag::Directory => EntryKind::Directory,
            TypeFlag::Fifo => EntryKind::Fifo,
            TypeFlag::GnuLongName | TypeFlag::GnuLongLink | TypeFlag::Pax | TypeFlag::PaxGlobal => {
                return Err(flaw("an extension where an entry belongs"));
            }
        };
        let name = sparse_name.unwrap_or(name);
        // The oldest tars say "directory" by a slash; with the later type flag readers disagree.
        let kind = match kind {
            EntryKind::File { size, .. } if name.ends_with(b"/") => {
                if size != 0 || !header.v7_type {
                    return Err(flaw("a file whose name ends in a slash"));
                }
                EntryKind::Directory
            }
            kind => kind,
        };
        let id = |text: &str, header: i64, pax: Option<u64>| -> Result<u32> {
            let id = pax.map_or(header, |id| i64::try_from(id).unwrap_or(-1));
            // The largest number means "leave as it is" to chown.
            u32::try_from(id).ok().filter(|id| *id != u32::MAX).ok_or_else(|| Error::Refused {
                name: LayerPath::lossy(&name),
                why: format!("{text} {id} is out of range"),
            })
        };
        Ok(Entry {
            uid: id("owner", header.uid, pax.uid)?,
            gid: id("group", header.gid, pax.gid)?,
            mode: header.mode,
            mtime: pax.mtime.unwrap_or(Time { seconds: header.mtime, nanoseconds: 0 }),
            atime: pax.atime,
            xattrs: pax.xattrs,
            kind,
            name,
        })
    }

    fn pax_sparse(&mut self, sparse: pax::Sparse, offset: u64) -> Result<EntryKind> {
        let flaw = |text: &str| malformed(offset, text);
        let Some(size) = sparse.real_size else { return Err(flaw("a sparse file without its size")) };
        let segments = match sparse.map {
            Some(segments) if !sparse.map_in_data => segments,
            None if sparse.map_in_data => {
                let mut map = sparse::DataMap::default();
                while let Some(needed) = map.bytes_needed() {
                    let Some(chunk) = self.chunk(needed)? else {
                        return Err(flaw("a sparse map longer than its entry"));
                    };
                    map.feed(chunk).map_err(flaw)?;
                }
                map.finish()
            }
            _ => return Err(flaw("a sparse file without its map")),
        };
        sparse::validate(&segments, size, self.remaining).map_err(flaw)?;
        Ok(EntryKind::File { size, segments: Some(segments) })
    }

    fn gnu_sparse(&mut self, header: &Header, offset: u64) -> Result<EntryKind> {
        let flaw = |text: &str| malformed(offset, text);
        let Some(gnu) = &header.gnu_sparse else { return Err(flaw("a sparse entry in a header that is not GNU's")) };
        let mut segments = gnu.segments.clone();
        let mut extended = gnu.extended;
        while extended {
            let Some(block) = self.stream.block()? else { return Err(flaw("a sparse map that breaks off")) };
            extended = sparse::extend(&block, &mut segments).map_err(|text| flaw(&text))?;
        }
        sparse::validate(&segments, gnu.real_size, self.remaining).map_err(flaw)?;
        Ok(EntryKind::File { size: gnu.real_size, segments: Some(segments) })
    }
}

/// PAX may enlarge a size that the old field cannot hold, and nothing else: a small one beside a different old one is
/// how two readers are made to see different archives.
fn reconcile_size(header: u64, pax: Option<u64>) -> std::result::Result<u64, &'static str> {
    match pax {
        None => Ok(header),
        Some(pax) if pax == header || pax > OCTAL_SIZE_MAX => Ok(pax),
        Some(_) => Err("the PAX size contradicts the header's"),
    }
}

fn pick(pax: Option<Vec<u8>>, gnu: Option<Vec<u8>>, header: &[u8]) -> std::result::Result<Vec<u8>, &'static str> {
    match (pax, gnu) {
        (Some(pax), Some(gnu)) if pax != gnu => Err("a PAX name and a GNU long name that differ"),
        (Some(name), _) | (None, Some(name)) => Ok(name),
        (None, None) => Ok(header.to_vec()),
    }
}

fn malformed(offset: u64, flaw: &str) -> Error {
    Error::Malformed { offset, flaw: flaw.to_owned() }
}

const BLOCK: usize = 512;
/// As Go's reader has it.
const EXTENSION_MAX: u64 = 1 << 20;
/// The largest number of eleven octal digits.
const OCTAL_SIZE_MAX: u64 = 0o777_7777_7777;

#[cfg(test)]
mod tests;
