//! The mount table of this process's mount namespace, as `/proc/self/mountinfo` has it.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// Its number.
    pub(crate) id: u64,
    /// The number of the mount that it lies on.
    pub(crate) parent: u64,
    /// Which directory of the file system is seen.
    pub(crate) root: PathBuf,
    /// Where, as seen from this process's root.
    pub(crate) path: PathBuf,
    /// It belongs to a peer group.
    pub(crate) shared: bool,
    /// File system type.
    pub(crate) kind: String,
    /// Options of the file system.
    pub(crate) options: Vec<String>,
}

/// All of them, in no order that means anything.
///
/// # Errors
/// When the file can't be read.
pub(crate) fn own() -> io::Result<Vec<Mount>> {
    std::fs::read(Path::new(FILE)).map(|text| parse(&text))
}

/// The lines of such a file.
pub(crate) fn parse(text: &[u8]) -> Vec<Mount> {
    text.split(|b| *b == b'\n').filter_map(Mount::parse).collect()
}

/// The numbers of a mount and of everything that is mounted on it, at any depth. A table that goes in circles ends them.
pub(crate) fn below(mounts: &[Mount], top: u64) -> Vec<u64> {
    let mut found = vec![top];
    let mut fresh = BTreeSet::from([top]);
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(mounts.iter().filter(|m| m.parent == parent && fresh.insert(m.id)).map(|m| m.id));
        at += 1;
    }
    found
}

impl Mount {
    fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|b| *b == b' ');
        let number = |field: &[u8]| std::str::from_utf8(field).ok()?.parse().ok();
        let (id, parent) = (number(fields.next()?)?, number(fields.next()?)?);
        let (root, path) = (unescape(fields.nth(1)?), unescape(fields.next()?));
        // Optional fields, in any number, end with a dash.
        let optional: Vec<_> = fields.by_ref().skip(1).take_while(|f| *f != b"-").collect();
        let shared = optional.iter().any(|field| field.starts_with(b"shared:"));
        let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
        let kind = text(fields.next()?);
        let options = text(fields.nth(1)?).split(',').map(str::to_owned).collect();
        Some(Self { id, parent, root, path, shared, kind, options })
    }
}

/// Blanks and backslashes of a path are written as three octal digits.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        let code = after.get(..3).and_then(|d| u8::from_str_radix(std::str::from_utf8(d).ok()?, 8).ok());
        match (first, code) {
            (b'\\', Some(code)) => {
                bytes.push(code);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    PathBuf::from(OsString::from_vec(bytes))
}

const FILE: &str = "/proc/self/mountinfo";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mutation::{damaged, damages, rounds};

    #[test]
    fn lines() {
        let line = br"36 35 98:0 /mnt\0401 /mnt\1342 rw,noatime master:1 shared:2 - ext3 /dev/root rw,errors=continue";
        let mount = Mount::parse(line).unwrap();
        assert_eq!((mount.id, mount.parent, mount.shared), (36, 35, true));
        assert_eq!((mount.root, mount.path), (PathBuf::from("/mnt 1"), PathBuf::from("/mnt\\2")));
        assert_eq!((mount.kind.as_str(), mount.options), ("ext3", vec!["rw".into(), "errors=continue".into()]));
        let bare = Mount::parse(b"22 1 0:20 / / rw - tmpfs none rw").unwrap();
        assert_eq!((bare.shared, bare.kind.as_str()), (false, "tmpfs"));
        assert_eq!(Mount::parse(b"nonsense"), None);
    }

    #[test]
    fn trees() {
        let line = |id, parent| Mount::parse(format!("{id} {parent} 0:1 / /x rw - tmpfs t rw").as_bytes()).unwrap();
        let mounts = [line(5, 9), line(9, 2), line(2, 1), line(3, 2), line(1, 1)];
        assert_eq!(below(&mounts, 9), [9, 5]);
        assert_eq!(below(&mounts, 2), [2, 9, 3, 5]);
        assert_eq!(below(&[line(1, 2), line(2, 1)], 1), [1, 2], "in a circle");
    }

    proptest! {
        #![proptest_config(rounds(500))]

        #[test]
        fn damaged_lines_are_read_or_left_out(damages in damages()) {
            let text = br"5 9 0:1 / /a\0401 rw shared:2 - tmpfs t rw
9 2 0:1 / /x rw - tmpfs t rw
2 1 0:1 / /x rw - tmpfs t rw,a=b
1 2 0:1 / / rw - tmpfs t rw";
            let text = damaged(text, &damages);
            let mounts = parse(&text);
            prop_assert!(mounts.len() <= text.split(|byte| *byte == b'\n').count());
            for mount in &mounts {
                prop_assert!(below(&mounts, mount.id).len() <= mounts.len());
            }
        }
    }

    #[test]
    fn this_process_has_a_root() {
        assert!(own().unwrap().iter().any(|mount| mount.path == Path::new("/")));
    }
}
