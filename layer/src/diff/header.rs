//! Tar entries with one spelling each: ustar where it suffices, a PAX header before it where it does not.

use std::ffi::CString;
use std::io::Write;

use nix::sys::stat::{FileStat, major, minor};

use super::Diffed;
use crate::{Error, LayerPath, Result};

/// What kind of file an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    HardLink(LayerPath),
    Symlink(Vec<u8>),
    Device { block: bool, number: u64 },
    Directory,
    Fifo,
}

/// Everything a tar says about one file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) path: LayerPath,
    kind: Kind,
    pub(super) size: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    seconds: i64,
    nanoseconds: i64,
    /// Sorted by name.
    xattrs: Vec<(CString, Vec<u8>)>,
}

impl Record {
    pub(super) fn new(path: LayerPath, kind: Kind, stat: &FileStat, xattrs: Vec<(CString, Vec<u8>)>) -> Self {
        let size = match kind {
            Kind::File => u64::try_from(stat.st_size).unwrap_or_default(),
            _ => 0,
        };
        // The kernel gives every symbolic link these.
        let mode = if matches!(kind, Kind::Symlink(_)) { 0o777 } else { stat.st_mode & 0o7777 };
        Self {
            path,
            kind,
            size,
            mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            seconds: stat.st_mtime,
            nanoseconds: stat.st_mtime_nsec,
            xattrs,
        }
    }

    /// An empty file whose name is all it says.
    pub(super) fn mark(path: &LayerPath) -> Self {
        Self {
            path: path.clone(),
            kind: Kind::File,
            size: 0,
            mode: 0,
            uid: 0,
            gid: 0,
            seconds: 0,
            nanoseconds: 0,
            xattrs: Vec::new(),
        }
    }

    pub(super) fn equals_but_time(&self, other: &Self) -> bool {
        let same_time = Self { seconds: other.seconds, nanoseconds: other.nanoseconds, ..self.clone() };
        same_time == *other
    }

    fn name(&self) -> Vec<u8> {
        let mut name = self.path.as_bytes().to_vec();
        if self.kind == Kind::Directory {
            if self.path.is_root() {
                name.push(b'.');
            }
            name.push(b'/');
        }
        name
    }

    fn link_name(&self) -> &[u8] {
        match &self.kind {
            Kind::HardLink(target) => target.as_bytes(),
            Kind::Symlink(target) => target,
            _ => b"",
        }
    }

    fn type_flag(&self) -> tar::EntryType {
        match self.kind {
            Kind::File => tar::EntryType::Regular,
            Kind::HardLink(_) => tar::EntryType::Link,
            Kind::Symlink(_) => tar::EntryType::Symlink,
            Kind::Device { block: true, .. } => tar::EntryType::Block,
            Kind::Device { block: false, .. } => tar::EntryType::Char,
            Kind::Directory => tar::EntryType::Directory,
            Kind::Fifo => tar::EntryType::Fifo,
        }
    }

    /// The PAX records for what the old fields cannot hold, in a fixed order.
    fn extensions(&self) -> Vec<u8> {
        let mut text = Vec::new();
        let mut add = |key: &[u8], value: &[u8]| pax_record(&mut text, key, value);
        let name = self.name();
        if name.len() > NAME_MAX {
            add(b"path", &name);
        }
        if self.link_name().len() > NAME_MAX {
            add(b"linkpath", self.link_name());
        }
        if self.size > SIZE_MAX {
            add(b"size", self.size.to_string().as_bytes());
        }
        if self.uid > ID_MAX {
            add(b"uid", self.uid.to_string().as_bytes());
        }
        if self.gid > ID_MAX {
            add(b"gid", self.gid.to_string().as_bytes());
        }
        if self.nanoseconds != 0 || !(0..=TIME_MAX).contains(&self.seconds) {
            add(b"mtime", decimal_time(self.seconds, self.nanoseconds).as_bytes());
        }
        for (name, value) in &self.xattrs {
            add(&[b"SCHILY.xattr.", name.as_bytes()].concat(), value);
        }
        text
    }
}

/// Writes entries one behind the other.
pub(super) struct TarWriter<W> {
    inner: W,
    written: Diffed,
}

impl<W: Write> TarWriter<W> {
    pub(super) fn new(inner: W) -> Self {
        Self { inner, written: Diffed::default() }
    }

    /// The headers of an entry; a file's contents and padding come after.
    pub(super) fn entry(&mut self, record: &Record) -> Result<()> {
        let extensions = record.extensions();
        if !extensions.is_empty() {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::XHeader);
            fill(&mut header.as_old_mut().name, b"PaxHeader");
            header.set_mode(0o644);
            set_common(&mut header, 0, 0, 0, extensions.len() as u64);
            self.header(header)?;
            self.data(&extensions)?;
            self.pad(extensions.len() as u64)?;
        }
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(record.type_flag());
        fill(&mut header.as_old_mut().name, &record.name());
        fill(&mut header.as_old_mut().linkname, record.link_name());
        header.set_mode(record.mode);
        // What does not fit stands in the PAX header; a reader that does not know those gets a zero, not a wrong number.
        let fits = |id: u32| if id > ID_MAX { 0 } else { u64::from(id) };
        let size = if record.size > SIZE_MAX { 0 } else { record.size };
        let seconds = u64::try_from(record.seconds.clamp(0, TIME_MAX)).unwrap_or_default();
        set_common(&mut header, fits(record.uid), fits(record.gid), seconds, size);
        if let Kind::Device { number, .. } = record.kind {
            let part = |part: u64| u32::try_from(part).map_err(std::io::Error::other);
            let set = |header: &mut tar::Header| -> std::io::Result<()> {
                header.set_device_major(part(major(number))?)?;
                header.set_device_minor(part(minor(number))?)
            };
            set(&mut header).map_err(|source| Error::Write { source })?;
        }
        self.written.entries += 1;
        self.header(header)
    }

    pub(super) fn data(&mut self, bytes: &[u8]) -> Result<()> {
        self.written.bytes += bytes.len() as u64;
        self.inner.write_all(bytes).map_err(|source| Error::Write { source })
    }

    /// Fills the last block of `size` bytes of contents.
    pub(super) fn pad(&mut self, size: u64) -> Result<()> {
        let excess = usize::try_from(size % BLOCK as u64).unwrap_or_default();
        if excess == 0 { Ok(()) } else { self.data(&[0; BLOCK][excess..]) }
    }

    /// The two blocks that end a tar.
    pub(super) fn finish(mut self) -> Result<Diffed> {
        self.data(&[0; 2 * BLOCK])?;
        Ok(self.written)
    }

    fn header(&mut self, mut header: tar::Header) -> Result<()> {
        header.set_cksum();
        self.data(header.as_bytes())
    }
}

fn set_common(header: &mut tar::Header, uid: u64, gid: u64, mtime: u64, size: u64) {
    header.set_uid(uid);
    header.set_gid(gid);
    header.set_mtime(mtime);
    header.set_size(size);
}

/// As much of `text` as fits; the whole of it stands in a PAX header then.
fn fill(field: &mut [u8; NAME_MAX], text: &[u8]) {
    let len = text.len().min(NAME_MAX);
    field[..len].copy_from_slice(&text[..len]);
}

/// `length key=value\n`, where the length counts its own digits.
fn pax_record(text: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let body = key.len() + value.len() + " =\n".len();
    let mut len = body + 1;
    while len != body + len.to_string().len() {
        len = body + len.to_string().len();
    }
    text.extend_from_slice(len.to_string().as_bytes());
    text.push(b' ');
    text.extend_from_slice(key);
    text.push(b'=');
    text.extend_from_slice(value);
    text.push(b'\n');
}

/// Seconds since 1970 with as many digits of the fraction as it has; before 1970 both count back from zero.
fn decimal_time(seconds: i64, nanoseconds: i64) -> String {
    let (sign, seconds, nanoseconds) = match (seconds < 0, nanoseconds) {
        (false, _) => ("", seconds, nanoseconds),
        (true, 0) => ("-", -seconds, 0),
        (true, _) => ("-", -(seconds + 1), 1_000_000_000 - nanoseconds),
    };
    if nanoseconds == 0 {
        return format!("{sign}{seconds}");
    }
    let fraction = format!("{nanoseconds:09}");
    format!("{sign}{seconds}.{}", fraction.trim_end_matches('0'))
}

const BLOCK: usize = 512;
const NAME_MAX: usize = 100;
/// Eleven octal digits.
const SIZE_MAX: u64 = 0o777_7777_7777;
const TIME_MAX: i64 = 0o777_7777_7777;
/// Seven octal digits.
const ID_MAX: u32 = 0o777_7777;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_count_their_own_digits() {
        for (len, want) in [(1, "8 k=v\n".len() - 1), (3, 8), (93, 99), (94, 101)] {
            let mut text = Vec::new();
            pax_record(&mut text, b"k", &vec![b'v'; len]);
            let said: usize = std::str::from_utf8(&text).unwrap().split(' ').next().unwrap().parse().unwrap();
            assert_eq!(said, text.len(), "{len}");
            if len != 1 {
                assert!(said >= want);
            }
        }
    }

    #[test]
    fn times() {
        for (seconds, nanoseconds, want) in [
            (0, 5, "0.000000005"),
            (12, 500_000_000, "12.5"),
            (-2, 500_000_000, "-1.5"),
            (-1, 0, "-1"),
            (-1, 1, "-0.999999999"),
        ] {
            assert_eq!(decimal_time(seconds, nanoseconds), want);
        }
    }
}
