//! Two trees compared entry by entry: kind, mode, owner, times, device, attributes, content, and who shares an inode.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};

/// Everything about one name in a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    kind: &'static str,
    mode: u32,
    owner: (u32, u32),
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    device: u64,
    size: u64,
    /// A link's target, or the hash of a file's content.
    content: String,
    xattrs: BTreeMap<String, Vec<u8>>,
    /// The first of the names that share the inode, where there are several.
    linked: Option<PathBuf>,
}

/// What a comparison leaves out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Leave {
    /// Modification times of directories (tools that write entries below do not all restore them).
    pub directory_times: bool,
    /// The root directory itself.
    pub root: bool,
}

/// Every entry below `root`, and `root` itself as the empty path.
///
/// # Panics
/// When something cannot be read.
#[must_use]
pub fn scan(root: &Path) -> BTreeMap<PathBuf, Entry> {
    let mut entries = BTreeMap::new();
    let mut inodes: BTreeMap<(u64, u64), PathBuf> = BTreeMap::new();
    visit(root, Path::new(""), &mut entries, &mut inodes);
    // A link count may also count names that an overlay hides: only names that are seen are compared.
    let mut names: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for first in entries.values().filter_map(|entry| entry.linked.as_ref()) {
        *names.entry(first.clone()).or_default() += 1;
    }
    for entry in entries.values_mut() {
        entry.linked.take_if(|first| names.get(first) == Some(&1));
    }
    entries
}

fn visit(root: &Path, path: &Path, entries: &mut BTreeMap<PathBuf, Entry>, inodes: &mut BTreeMap<(u64, u64), PathBuf>) {
    let full = if path.as_os_str().is_empty() { root.to_owned() } else { root.join(path) };
    let meta = fs::symlink_metadata(&full).unwrap_or_else(|error| panic!("{}: {error}", full.display()));
    let kind = meta.file_type();
    let mut content = String::new();
    if kind.is_symlink() {
        content = fs::read_link(&full).expect("a link's target").to_string_lossy().into_owned();
    } else if kind.is_file() {
        content = hash(&full, meta.len());
    }
    let linked = (meta.nlink() > 1 && !kind.is_dir())
        .then(|| inodes.entry((meta.dev(), meta.ino())).or_insert_with(|| path.to_owned()).clone());
    let entry = Entry {
        kind: match () {
            () if kind.is_dir() => "directory",
            () if kind.is_file() => "file",
            () if kind.is_symlink() => "symlink",
            () if kind.is_fifo() => "fifo",
            () if kind.is_char_device() => "character device",
            () if kind.is_block_device() => "block device",
            () => "other",
        },
        mode: meta.mode() & 0o7777,
        owner: (meta.uid(), meta.gid()),
        modified: (meta.mtime(), meta.mtime_nsec()),
        device: meta.rdev(),
        size: if kind.is_dir() { 0 } else { meta.len() },
        content,
        xattrs: xattrs(&full),
        linked,
    };
    entries.insert(path.to_owned(), entry);
    if kind.is_dir() {
        let mut names: Vec<_> = fs::read_dir(&full)
            .unwrap_or_else(|error| panic!("{}: {error}", full.display()))
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        names.sort();
        for name in names {
            visit(root, &path.join(name), entries, inodes);
        }
    }
}

/// What overlayfs and unprivileged unpackers note for themselves is not part of a tree.
fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = xattr::list(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    names
        .map(|name| name.to_string_lossy().into_owned())
        .filter(|name| !name.starts_with("trusted.overlay.") && name != "user.rootlesscontainers")
        .map(|name| (name.clone(), xattr::get(path, &name).expect("an attribute").unwrap_or_default()))
        .collect()
}

/// The hash of the blocks that are not all zero, with their places: the same whether holes are holes or written zeros.
fn hash(path: &Path, size: u64) -> String {
    const BLOCK: usize = 64 * 1024;
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; BLOCK];
    let mut at = 0;
    while at < size {
        let next =
            match nix::unistd::lseek(&file, i64::try_from(at).expect("a file offset"), nix::unistd::Whence::SeekData) {
                Ok(data) => data.unsigned_abs(),
                Err(nix::errno::Errno::ENXIO) => break,
                Err(_) => at,
            };
        at = next / BLOCK as u64 * BLOCK as u64;
        let length = file.read_at(&mut buffer, at).expect("reading a file");
        if length == 0 {
            break;
        }
        let block = &buffer[..length];
        if block.iter().any(|byte| *byte != 0) {
            let trimmed = block.len() - block.iter().rev().take_while(|byte| **byte == 0).count();
            hasher.update(at.to_le_bytes());
            hasher.update(&block[..trimmed]);
        }
        at += BLOCK as u64;
    }
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Panics with every difference.
///
/// # Panics
/// When there is one.
#[track_caller]
pub fn assert_equal(left: &Path, right: &Path, leave: Leave) {
    let differences = differences(scan(left), scan(right), leave);
    assert!(
        differences.is_empty(),
        "{} and {} differ in {} entries:\n{}",
        left.display(),
        right.display(),
        differences.len(),
        differences.iter().take(40).cloned().collect::<Vec<_>>().join("\n")
    );
}

/// One line for each difference.
#[must_use]
pub fn differences(
    mut left: BTreeMap<PathBuf, Entry>,
    mut right: BTreeMap<PathBuf, Entry>,
    leave: Leave,
) -> Vec<String> {
    for side in [&mut left, &mut right] {
        if leave.root {
            side.remove(Path::new(""));
        }
        if leave.directory_times {
            side.values_mut().filter(|entry| entry.kind == "directory").for_each(|entry| entry.modified = (0, 0));
        }
    }
    let mut lines = Vec::new();
    for (path, entry) in &left {
        match right.get(path) {
            None => lines.push(format!("{}: only on the left ({})", path.display(), entry.kind)),
            Some(other) if other != entry => lines.push(format!("{}:\n    {entry:?}\n    {other:?}", path.display())),
            Some(_) => {}
        }
    }
    for (path, entry) in right.iter().filter(|(path, _)| !left.contains_key(*path)) {
        lines.push(format!("{}: only on the right ({})", path.display(), entry.kind));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sees_every_kind_of_difference() {
        let make = |change: &str| {
            let dir = tempfile::tempdir().unwrap();
            let script = format!(
                "cd {}; echo a >f; ln f g; mkdir d; echo b >d/x; ln -s f l; truncate -s 1M s; printf z | dd of=s bs=1 seek=500000 conv=notrunc status=none; \
                 touch -d @1000000000.5 f d/x s d; touch -h -d @1000000000 l; {change}; touch -d @1000000000 d .",
                dir.path().display()
            );
            crate::tool("sh", ["-ec", &script]).run().ok();
            dir
        };
        let base = make("true");
        let same = make("cp s t; mv t s; touch -d @1000000000.5 s");
        assert_eq!(differences(scan(base.path()), scan(same.path()), Leave::default()), Vec::<String>::new());
        for (change, path) in [
            ("chmod 600 f", "f"),
            ("touch -d @1000000000.6 f", "f"),
            ("chown 1 d/x", "d/x"),
            ("rm g; cp -p f g", "f"),
            ("ln -sfn g l; touch -h -d @1000000000 l", "l"),
            ("rm d/x", "d/x"),
            ("echo c >d/x; touch -d @1000000000.5 d/x", "d/x"),
            (
                "setfattr -n user.a -v b f 2>/dev/null || python3 -c 'import os; os.setxattr(\"f\",\"user.a\",b\"b\")'",
                "f",
            ),
        ] {
            let other = make(change);
            let lines = differences(scan(base.path()), scan(other.path()), Leave::default());
            assert!(lines.iter().any(|line| line.starts_with(path)), "{change}: {lines:?}");
        }
    }
}
