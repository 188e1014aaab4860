//! Extended attributes by descriptor, and by a name in an open directory that is never followed.
//!
//! The kernel has calls that take a directory and a name only since Linux 6.13 (`setxattrat`); until they are everywhere
//! the name goes through `/proc/self/fd/N/name`, whose first part is the directory itself and not a path to it.

use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;

/// Whose attributes are meant.
#[derive(Debug, Clone, Copy)]
pub enum Target<'a> {
    /// An open file (not one opened with `O_PATH`).
    File(BorrowedFd<'a>),
    /// The entry of that name in a directory; a symbolic link is meant itself.
    Entry(BorrowedFd<'a>, &'a CStr),
}

/// Sets attribute `name` (with its namespace, as `user.x`), whether it exists or not.
///
/// # Errors
/// `setxattr(2)`'s, among them `ENOTSUP` where the file system or the namespace has no attributes, and `EPERM` for `user.`
/// on anything but files and directories.
pub fn set(target: Target<'_>, name: &CStr, value: &[u8]) -> nix::Result<()> {
    let result = match target {
        // SAFETY: name is NUL-terminated and value is a valid slice of the length passed; both outlive the call, which
        // only reads them. The borrow keeps the descriptor open.
        Target::File(fd) => unsafe {
            libc::fsetxattr(fd.as_raw_fd(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0)
        },
        Target::Entry(dir, entry) => {
            let path = entry_path(dir, entry)?;
            // SAFETY: as above, and path is NUL-terminated and lives to the end of this block.
            unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) }
        }
    };
    Errno::result(result).map(drop)
}

/// The value of attribute `name`; `None` when the file has none of that name or its file system has no attributes.
///
/// # Errors
/// `getxattr(2)`'s other ones.
pub fn get(target: Target<'_>, name: &CStr) -> nix::Result<Option<Vec<u8>>> {
    let mut read = |buffer: &mut [u8]| {
        let (room, len) = (buffer.as_mut_ptr().cast(), buffer.len());
        let result = match target {
            // SAFETY: name is NUL-terminated; room points to len bytes that are exclusively borrowed; the kernel writes at
            // most len bytes, none when len is 0. The borrow keeps the descriptor open.
            Target::File(fd) => unsafe { libc::fgetxattr(fd.as_raw_fd(), name.as_ptr(), room, len) },
            Target::Entry(dir, entry) => {
                let path = entry_path(dir, entry)?;
                // SAFETY: as above, and path is NUL-terminated and lives to the end of this block.
                unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), room, len) }
            }
        };
        Errno::result(result)
    };
    match grow(&mut read) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::ENODATA | Errno::ENOTSUP) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// The names of all attributes, sorted; none where the file system has no attributes.
///
/// # Errors
/// `listxattr(2)`'s other ones.
pub fn list(target: Target<'_>) -> nix::Result<Vec<CString>> {
    let mut read = |buffer: &mut [u8]| {
        let (room, len) = (buffer.as_mut_ptr().cast(), buffer.len());
        let result = match target {
            // SAFETY: room points to len bytes that are exclusively borrowed; the kernel writes at most len bytes, none
            // when len is 0. The borrow keeps the descriptor open.
            Target::File(fd) => unsafe { libc::flistxattr(fd.as_raw_fd(), room, len) },
            Target::Entry(dir, entry) => {
                let path = entry_path(dir, entry)?;
                // SAFETY: as above, and path is NUL-terminated and lives to the end of this block.
                unsafe { libc::llistxattr(path.as_ptr(), room, len) }
            }
        };
        Errno::result(result)
    };
    let names = match grow(&mut read) {
        Ok(names) => names,
        Err(Errno::ENOTSUP) => return Ok(Vec::new()),
        Err(errno) => return Err(errno),
    };
    let mut names: Vec<CString> = names
        .split_inclusive(|byte| *byte == 0)
        .filter_map(|name| CStr::from_bytes_with_nul(name).ok())
        .map(CStr::to_owned)
        .collect();
    names.sort_unstable();
    Ok(names)
}

/// Removes attribute `name`; `Ok` when there is none.
///
/// # Errors
/// `removexattr(2)`'s other ones.
pub fn remove(target: Target<'_>, name: &CStr) -> nix::Result<()> {
    let result = match target {
        // SAFETY: name is NUL-terminated and outlives the call; the borrow keeps the descriptor open.
        Target::File(fd) => unsafe { libc::fremovexattr(fd.as_raw_fd(), name.as_ptr()) },
        Target::Entry(dir, entry) => {
            let path = entry_path(dir, entry)?;
            // SAFETY: as above, and path is NUL-terminated and lives to the end of this block.
            unsafe { libc::lremovexattr(path.as_ptr(), name.as_ptr()) }
        }
    };
    match Errno::result(result) {
        Ok(_) | Err(Errno::ENODATA) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// The path to an entry by way of its directory's descriptor. The entry must be a single component: a slash in it would
/// make the kernel follow what lies before.
fn entry_path(dir: BorrowedFd<'_>, entry: &CStr) -> nix::Result<CString> {
    if entry.to_bytes().contains(&b'/') {
        return Err(Errno::EINVAL);
    }
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(entry.to_bytes());
    CString::new(path).map_err(|_nul| Errno::EINVAL)
}

/// Asks for a value whose size only the kernel knows: first with room for the usual, then with as much as it says.
fn grow(read: &mut dyn FnMut(&mut [u8]) -> nix::Result<isize>) -> nix::Result<Vec<u8>> {
    let mut buffer = vec![0; USUAL_SIZE];
    loop {
        match read(&mut buffer) {
            Ok(len) => {
                buffer.truncate(len.unsigned_abs());
                return Ok(buffer);
            }
            Err(Errno::ERANGE) => {
                let needed = read(&mut [])?;
                buffer = vec![0; needed.unsigned_abs()];
            }
            Err(errno) => return Err(errno),
        }
    }
}

const USUAL_SIZE: usize = 256;

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn sets_reads_lists_and_removes_on_files_and_entries() {
        let dir = tempfile::tempdir().unwrap();
        let handle = File::open(dir.path()).unwrap();
        let file = File::create(dir.path().join("f")).unwrap();
        let long = vec![b'v'; 2000];
        for target in [Target::File(file.as_fd()), Target::Entry(handle.as_fd(), c"f")] {
            set(target, c"user.b", &long).unwrap();
            set(target, c"user.a", b"").unwrap();
            assert_eq!(get(target, c"user.b").unwrap().as_deref(), Some(&long[..]));
            assert_eq!(get(target, c"user.a").unwrap().as_deref(), Some(&b""[..]));
            assert_eq!(get(target, c"user.none").unwrap(), None);
            assert_eq!(list(target).unwrap(), [c"user.a".to_owned(), c"user.b".to_owned()]);
            remove(target, c"user.a").unwrap();
            remove(target, c"user.a").unwrap();
            assert_eq!(list(target).unwrap(), [c"user.b".to_owned()]);
            remove(target, c"user.b").unwrap();
        }
    }

    #[test]
    fn an_entry_is_never_followed() {
        let dir = tempfile::tempdir().unwrap();
        let handle = File::open(dir.path()).unwrap();
        let file = File::create(dir.path().join("f")).unwrap();
        std::os::unix::fs::symlink("f", dir.path().join("link")).unwrap();
        assert_eq!(set(Target::Entry(handle.as_fd(), c"link"), c"user.a", b"1"), Err(Errno::EPERM));
        assert_eq!(set(Target::Entry(handle.as_fd(), c"x/f"), c"user.a", b"1"), Err(Errno::EINVAL));
        assert!(list(Target::File(file.as_fd())).unwrap().is_empty());
    }
}
