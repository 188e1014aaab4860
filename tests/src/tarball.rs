//! A tar writer that does as it is told: also what no honest tar program would write.

use std::collections::BTreeMap;

/// A tar archive that grows in memory. The setters (`owner`, `mtime`, `xattr`) speak of the next entry only.
#[derive(Clone, Debug)]
#[must_use]
pub struct Tarball {
    bytes: Vec<u8>,
    long_names: LongNames,
    next: Next,
    /// Some unpackers give a hard link's mode to the file: it must be the same.
    modes: BTreeMap<String, u32>,
}

/// How names over 100 bytes are written; both are found in real images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LongNames {
    /// A `path` record in a POSIX extended header (Go's archive/tar, and so docker).
    Pax,
    /// An entry of type `L` before it (GNU tar).
    Gnu,
}

#[derive(Clone, Debug, Default)]
struct Next {
    uid: u64,
    gid: u64,
    mtime: Option<(i64, u32)>,
    xattrs: Vec<(String, Vec<u8>)>,
    claimed_size: Option<u64>,
}

/// One header's fields, as they are written.
#[derive(Clone, Debug)]
struct Header<'a> {
    name: &'a [u8],
    kind: u8,
    mode: u32,
    link: &'a [u8],
    device: (u32, u32),
    size: u64,
}

/// The time of entries that set none.
const TIME: i64 = 1_700_000_000;
const BLOCK: usize = 512;

impl Default for Tarball {
    fn default() -> Self {
        Self::new(LongNames::Pax)
    }
}

impl Tarball {
    /// An empty archive.
    pub fn new(long_names: LongNames) -> Self {
        Self { bytes: Vec::new(), long_names, next: Next::default(), modes: BTreeMap::new() }
    }

    /// The next entry's owner.
    pub fn owner(mut self, uid: u64, gid: u64) -> Self {
        (self.next.uid, self.next.gid) = (uid, gid);
        self
    }

    /// The next entry's modification time, in seconds and nanoseconds.
    pub fn mtime(mut self, seconds: i64, nanos: u32) -> Self {
        self.next.mtime = Some((seconds, nanos));
        self
    }

    /// An extended attribute of the next entry.
    pub fn xattr(mut self, name: &str, value: impl Into<Vec<u8>>) -> Self {
        self.next.xattrs.push((name.to_owned(), value.into()));
        self
    }

    /// The next entry's header claims this size, whatever follows.
    pub fn claimed_size(mut self, size: u64) -> Self {
        self.next.claimed_size = Some(size);
        self
    }

    /// A directory; a final slash is added.
    pub fn dir(self, path: &str, mode: u32) -> Self {
        let name = format!("{path}/");
        self.entry(&Header { kind: b'5', ..Header::of(&name, mode) }, b"")
    }

    /// A regular file.
    pub fn file(mut self, path: &str, mode: u32, content: impl AsRef<[u8]>) -> Self {
        let content = content.as_ref();
        self.modes.insert(path.to_owned(), mode);
        self.entry(&Header { size: content.len() as u64, ..Header::of(path, mode) }, content)
    }

    /// A symbolic link.
    pub fn symlink(self, path: &str, target: &str) -> Self {
        self.entry(&Header { kind: b'2', link: target.as_bytes(), ..Header::of(path, 0o777) }, b"")
    }

    /// A hard link to a path in the image.
    pub fn hard_link(self, path: &str, target: &str) -> Self {
        let mode = self.modes.get(target).copied().unwrap_or(0o644);
        self.entry(&Header { kind: b'1', link: target.as_bytes(), ..Header::of(path, mode) }, b"")
    }

    /// A character device.
    pub fn char_device(self, path: &str, mode: u32, major: u32, minor: u32) -> Self {
        self.entry(&Header { kind: b'3', device: (major, minor), ..Header::of(path, mode) }, b"")
    }

    /// A block device.
    pub fn block_device(self, path: &str, mode: u32, major: u32, minor: u32) -> Self {
        self.entry(&Header { kind: b'4', device: (major, minor), ..Header::of(path, mode) }, b"")
    }

    /// A named pipe.
    pub fn fifo(self, path: &str, mode: u32) -> Self {
        self.entry(&Header { kind: b'6', ..Header::of(path, mode) }, b"")
    }

    /// The mark that `path` of the layers below is gone.
    pub fn whiteout(self, path: &str) -> Self {
        let (dir, name) = path.rsplit_once('/').map_or(("", path), |(dir, name)| (dir, name));
        let slash = if dir.is_empty() { "" } else { "/" };
        self.file(&format!("{dir}{slash}.wh.{name}"), 0o600, "")
    }

    /// The mark that nothing of the layers below is seen in directory `path`.
    pub fn opaque(self, path: &str) -> Self {
        self.file(&format!("{path}/.wh..wh..opq"), 0o600, "")
    }

    /// A file in GNU tar's old sparse format: up to four pieces of data in `size` bytes.
    pub fn sparse(mut self, path: &str, mode: u32, size: u64, pieces: &[(u64, &[u8])]) -> Self {
        assert!(pieces.len() <= 4 && path.len() <= 100, "more needs extension blocks");
        let stored: u64 = pieces.iter().map(|(_, data)| data.len() as u64).sum();
        let mut block = self.header(&Header { kind: b'S', size: stored, ..Header::of(path, mode) });
        block[257..265].copy_from_slice(b"ustar  \0");
        for (slot, (offset, data)) in pieces.iter().enumerate() {
            let at = 386 + slot * 24;
            octal(&mut block[at..at + 12], *offset);
            octal(&mut block[at + 12..at + 24], data.len() as u64);
        }
        octal(&mut block[483..495], size);
        checksum(&mut block);
        self.bytes.extend_from_slice(&block);
        let data: Vec<u8> = pieces.iter().flat_map(|(_, data)| data.iter().copied()).collect();
        self.data(&data);
        self.next = Next::default();
        self
    }

    /// Bytes as they are.
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self
    }

    /// The archive, with its two empty blocks at the end.
    #[must_use]
    pub fn finish(mut self) -> Vec<u8> {
        self.bytes.extend_from_slice(&[0; 2 * BLOCK]);
        self.bytes
    }

    /// The archive without an end.
    #[must_use]
    pub fn unfinished(self) -> Vec<u8> {
        self.bytes
    }

    fn entry(mut self, header: &Header<'_>, content: &[u8]) -> Self {
        let mut records = Vec::new();
        if let Some((seconds, nanos)) = self.next.mtime.filter(|(_, nanos)| *nanos != 0) {
            record(&mut records, "mtime", format!("{seconds}.{nanos:09}").as_bytes());
        }
        for (name, value) in &self.next.xattrs {
            record(&mut records, &format!("SCHILY.xattr.{name}"), value);
        }
        for (value, key, kind) in [(header.name, "path", b'L'), (header.link, "linkpath", b'K')] {
            match self.long_names {
                LongNames::Pax if value.len() > 100 => record(&mut records, key, value),
                LongNames::Gnu if value.len() > 100 => {
                    let long = [value, b"\0"].concat();
                    let size = long.len() as u64;
                    self.meta(&Header { kind, size, ..Header::of("././@LongLink", 0o644) }, &long);
                }
                _ => {}
            }
        }
        if self.next.uid.max(self.next.gid) > 0o7_777_777 {
            record(&mut records, "uid", self.next.uid.to_string().as_bytes());
            record(&mut records, "gid", self.next.gid.to_string().as_bytes());
        }
        if !records.is_empty() {
            let size = records.len() as u64;
            self.meta(&Header { kind: b'x', size, ..Header::of("PaxHeaders/entry", 0o644) }, &records);
        }
        let size = self.next.claimed_size.unwrap_or(header.size);
        let mut block = self.header(&Header { size, ..header.clone() });
        checksum(&mut block);
        self.bytes.extend_from_slice(&block);
        self.data(content);
        self.next = Next::default();
        self
    }

    /// An entry about the next entry: the setters are not about it.
    fn meta(&mut self, header: &Header<'_>, content: &[u8]) {
        let next = std::mem::take(&mut self.next);
        let mut block = self.header(header);
        checksum(&mut block);
        self.bytes.extend_from_slice(&block);
        self.data(content);
        self.next = next;
    }

    fn data(&mut self, content: &[u8]) {
        self.bytes.extend_from_slice(content);
        let padded = self.bytes.len().next_multiple_of(BLOCK);
        self.bytes.resize(padded, 0);
    }

    fn header(&self, header: &Header<'_>) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        let copy = |to: &mut [u8], from: &[u8]| {
            let length = to.len().min(from.len());
            to[..length].copy_from_slice(&from[..length]);
        };
        copy(&mut block[..100], header.name);
        octal(&mut block[100..108], header.mode.into());
        octal(&mut block[108..116], self.next.uid.min(0o7_777_777));
        octal(&mut block[116..124], self.next.gid.min(0o7_777_777));
        octal(&mut block[124..136], header.size);
        octal(&mut block[136..148], self.next.mtime.map_or(TIME, |(seconds, _)| seconds).unsigned_abs());
        block[156] = header.kind;
        copy(&mut block[157..257], header.link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        octal(&mut block[329..337], header.device.0.into());
        octal(&mut block[337..345], header.device.1.into());
        block
    }
}

impl<'a> Header<'a> {
    fn of(name: &'a str, mode: u32) -> Self {
        Self { name: name.as_bytes(), kind: b'0', mode, link: b"", device: (0, 0), size: 0 }
    }
}

/// A number as octal digits with a final NUL, or in GNU's binary form when they are too few.
fn octal(field: &mut [u8], value: u64) {
    let digits = field.len() - 1;
    let text = format!("{value:0digits$o}\0");
    if text.len() == field.len() {
        field.copy_from_slice(text.as_bytes());
        return;
    }
    let bytes = value.to_be_bytes();
    field.fill(0);
    let start = field.len() - bytes.len();
    field[start..].copy_from_slice(&bytes);
    field[0] = 0x80;
}

fn checksum(block: &mut [u8; BLOCK]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

/// One record of a POSIX extended header; its length counts its own digits.
fn record(records: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = 1 + key.len() + 1 + value.len() + 1;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length += 1;
    }
    records.extend_from_slice(format!("{length} {key}=").as_bytes());
    records.extend_from_slice(value);
    records.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gnu_tar_reads_what_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let long = format!("{}/{}", "d".repeat(120), "f".repeat(180));
        for style in [LongNames::Pax, LongNames::Gnu] {
            let tar = Tarball::new(style)
                .dir("a", 0o755)
                .file(&long, 0o644, "long")
                .mtime(1_234_567_890, 123_456_789)
                .file("a/b", 0o4755, "hello")
                .hard_link("a/c", "a/b")
                .sparse("s", 0o600, 5 << 30, &[(0, b"begin"), (4 << 30, b"middle"), (5 << 30, b"")])
                .finish();
            let path = dir.path().join("t.tar");
            std::fs::write(&path, tar).unwrap();
            let list = crate::tool("tar", ["--full-time", "-tvf"]).arg(&path).env("TZ", "UTC").run().ok();
            for word in ["-rwsr-xr-x", "2009-02-13 23:31:30.123456789", &long, "link to a/b", "5368709120"] {
                assert!(list.stdout.contains(word), "{word} in {}", list.stdout);
            }
        }
    }
}
