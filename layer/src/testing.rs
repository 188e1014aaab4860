//! A tar builder that can lie, and directories as comparable values.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use dhow_sys::tree::{Next, WalkError, walk};
use dhow_sys::xattr::{self, Target as Xattr};
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{Mode, SFlag};
use tempfile::TempDir;

use crate::overlay::is_type;
use crate::{ExtractOptions, Extracted, Result, extract};

/// Tar bytes in the making.
#[derive(Default, Clone)]
pub(crate) struct Tar(Vec<u8>);

impl Tar {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    /// Any entry: name and link name are cut to their fields, `change` may set anything else before the checksum.
    pub(crate) fn entry(
        mut self,
        kind: u8,
        name: &[u8],
        link: &[u8],
        data: &[u8],
        change: impl FnOnce(&mut tar::Header),
    ) -> Self {
        let mut header = tar::Header::new_ustar();
        header.as_old_mut().linkflag = [kind];
        let old = header.as_old_mut();
        old.name[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
        old.linkname[..link.len().min(100)].copy_from_slice(&link[..link.len().min(100)]);
        header.set_mode(if kind == b'5' { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000_000);
        header.set_size(data.len() as u64);
        change(&mut header);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.raw(data)
    }

    /// Bytes, padded to a block.
    pub(crate) fn raw(mut self, data: &[u8]) -> Self {
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub(crate) fn file(self, name: &str, data: &[u8]) -> Self {
        self.entry(b'0', name.as_bytes(), b"", data, |_| ())
    }

    pub(crate) fn dir(self, name: &str, mode: u32) -> Self {
        self.entry(b'5', name.as_bytes(), b"", b"", |header| header.set_mode(mode))
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(b'2', name.as_bytes(), target.as_bytes(), b"", |header| header.set_mode(0o777))
    }

    pub(crate) fn link(self, name: &str, target: &str) -> Self {
        self.entry(b'1', name.as_bytes(), target.as_bytes(), b"", |_| ())
    }

    /// A PAX header for the entry that follows.
    pub(crate) fn pax(self, records: &[(&str, &[u8])]) -> Self {
        self.entry(b'x', b"PaxHeader", b"", &pax_text(records), |_| ())
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }

    pub(crate) fn bytes(self) -> Vec<u8> {
        self.0
    }
}

pub(crate) fn pax_text(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut text = Vec::new();
    for (key, value) in records {
        let body = key.len() + value.len() + 3;
        let len = (1..8).map(|digits| body + digits).find(|len| len.to_string().len() + body == *len).unwrap();
        text.extend_from_slice(format!("{len} {key}=").as_bytes());
        text.extend_from_slice(value);
        text.push(b'\n');
    }
    text
}

/// A directory that goes away with its value, below one that nothing should be written to.
pub(crate) struct Target {
    pub(crate) outer: TempDir,
    pub(crate) dir: File,
}

impl Target {
    pub(crate) fn new() -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests make devices and change owners: run them as root");
        let outer = tempfile::tempdir().unwrap();
        fs::create_dir(outer.path().join("fs")).unwrap();
        fs::write(outer.path().join("canary"), "untouched").unwrap();
        let dir = File::open(outer.path().join("fs")).unwrap();
        Self { outer, dir }
    }

    pub(crate) fn path(&self, name: &str) -> std::path::PathBuf {
        self.outer.path().join("fs").join(name)
    }

    pub(crate) fn extract(&self, tar: &[u8]) -> Result<Extracted> {
        let result = extract(tar, self.dir.as_fd(), &ExtractOptions::default());
        assert_eq!(fs::read_to_string(self.outer.path().join("canary")).unwrap(), "untouched");
        assert_eq!(fs::read_dir(self.outer.path()).unwrap().count(), 2, "something escaped");
        result
    }

    pub(crate) fn snapshot(&self) -> BTreeMap<String, Node> {
        snapshot(&self.dir)
    }
}

/// All of a file that a layer carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    pub(crate) kind: String,
    pub(crate) mode: u32,
    pub(crate) owner: (u32, u32),
    pub(crate) mtime: (i64, i64),
    pub(crate) xattrs: Vec<(String, Vec<u8>)>,
    /// The first name of the same inode.
    pub(crate) same_as: Option<String>,
}

/// Every file below a directory, and the directory itself as `.`.
pub(crate) fn snapshot(dir: &File) -> BTreeMap<String, Node> {
    let mut nodes = BTreeMap::new();
    let mut inodes = BTreeMap::new();
    let root = nix::sys::stat::fstat(dir).unwrap();
    nodes.insert(".".to_owned(), node(&root, "dir".to_owned(), Xattr::File(dir.as_fd()), None));
    walk::<WalkError>(dir.as_fd(), |visit| {
        let stat = visit.stat;
        let name = visit.path.escape_ascii().to_string();
        let kind = match stat.st_mode & SFlag::S_IFMT.bits() {
            kind if kind == SFlag::S_IFDIR.bits() => "dir".to_owned(),
            kind if kind == SFlag::S_IFREG.bits() => {
                let fd = openat(visit.dir, visit.name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
                describe(&File::from(fd))
            }
            kind if kind == SFlag::S_IFLNK.bits() => format!("-> {:?}", readlinkat(visit.dir, visit.name).unwrap()),
            other => format!("node {other:o} {:x}", stat.st_rdev),
        };
        let first = inodes.entry(stat.st_ino).or_insert_with(|| name.clone()).clone();
        let same_as = (first != name && !is_type(stat, SFlag::S_IFDIR)).then_some(first);
        nodes.insert(name, node(stat, kind, Xattr::Entry(visit.dir, visit.name), same_as));
        Ok(Next::Descend)
    })
    .unwrap();
    nodes
}

fn node(stat: &nix::sys::stat::FileStat, kind: String, target: Xattr<'_>, same_as: Option<String>) -> Node {
    let xattrs = xattr::list(target)
        .unwrap()
        .into_iter()
        .map(|name| (name.to_string_lossy().into_owned(), xattr::get(target, &name).unwrap().unwrap()))
        .collect();
    Node {
        kind,
        mode: stat.st_mode & 0o7777,
        owner: (stat.st_uid, stat.st_gid),
        mtime: (stat.st_mtime, stat.st_mtime_nsec),
        xattrs,
        same_as,
    }
}

/// Length and contents, long ones by their digest.
fn describe(file: &File) -> String {
    let len = file.metadata().unwrap().len();
    if len <= 64 {
        let mut bytes = Vec::new();
        (&mut &*file).read_to_end(&mut bytes).unwrap();
        return format!("file {}", bytes.escape_ascii());
    }
    let mut hasher = crate::digest::Hasher::new(crate::digest::Algorithm::Sha256);
    let mut buffer = vec![0; 1 << 20];
    let mut offset = 0;
    while offset < len {
        let count = file.read_at(&mut buffer, offset).unwrap();
        hasher.update(&buffer[..count]);
        offset += count as u64;
    }
    format!("file of {len}: {}", hasher.finish())
}
