//! Writes what a [`View`](super::view::View) shows as a tar: `cp CONTAINER:PATH -`.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use nix::sys::stat::{FileStat, SFlag, major, minor};
use tar::{Builder, EntryType, Header};

use super::view::{Entry, Node, kind};

/// Appends `entry` under `name`, a directory with all that is in it. Sockets are left out.
pub(crate) fn entry(entry: &Entry, name: &Path, out: &mut Builder<impl Write>) -> io::Result<()> {
    let mut header = header(&entry.stat);
    match &entry.node {
        Node::Directory(directory) => {
            header.set_entry_type(EntryType::Directory);
            out.append_data(&mut header, slash(name), io::empty())?;
            for inner in directory.names()? {
                // What went away meanwhile is not there to be written.
                if let Some(found) = directory.entry(&inner)? {
                    self::entry(&found, &name.join(&inner), out)?;
                }
            }
            Ok(())
        }
        Node::Link(target) => {
            header.set_entry_type(EntryType::Symlink);
            out.append_link(&mut header, name, target)
        }
        Node::Other(_) if entry.is_file() => {
            let size = u64::try_from(entry.stat.st_size).unwrap_or(0);
            header.set_size(size);
            // A file that shrinks or grows while it is read must not shift what follows.
            out.append_data(&mut header, name, entry.open()?.chain(io::repeat(0)).take(size))
        }
        Node::Other(_) => {
            let device = match kind(&entry.stat) {
                SFlag::S_IFCHR => EntryType::Char,
                SFlag::S_IFBLK => EntryType::Block,
                SFlag::S_IFIFO => EntryType::Fifo,
                _ => return Ok(()),
            };
            header.set_entry_type(device);
            let number = |part: u64| u32::try_from(part).map_err(|_large| io::ErrorKind::InvalidData);
            header.set_device_major(number(major(entry.stat.st_rdev))?)?;
            header.set_device_minor(number(minor(entry.stat.st_rdev))?)?;
            out.append_data(&mut header, name, io::empty())
        }
    }
}

fn header(stat: &FileStat) -> Header {
    let mut header = Header::new_gnu();
    header.set_mode(stat.st_mode & 0o7777);
    header.set_uid(stat.st_uid.into());
    header.set_gid(stat.st_gid.into());
    header.set_mtime(u64::try_from(stat.st_mtime).unwrap_or(0));
    header.set_size(0);
    header
}

/// A directory's name ends in a slash, as tar writes it.
fn slash(name: &Path) -> PathBuf {
    name.join("")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;
    use crate::rootfs::view::View;

    #[test]
    fn a_tree_comes_out_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let long = "n".repeat(200);
        fs::create_dir_all(dir.path().join("d/sub")).unwrap();
        fs::write(dir.path().join("d").join(&long), "text").unwrap();
        fs::set_permissions(dir.path().join("d").join(&long), fs::Permissions::from_mode(0o4711)).unwrap();
        symlink("/nowhere", dir.path().join("d/link")).unwrap();
        nix::unistd::mkfifo(&dir.path().join("d/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let view = View::open(&[dir.path().to_owned()]).unwrap();
        let mut builder = Builder::new(Vec::new());
        entry(&view.lookup(Path::new("/d"), false).unwrap(), Path::new("d"), &mut builder).unwrap();
        let bytes = builder.into_inner().unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let mut list = Vec::new();
        for found in archive.entries().unwrap() {
            let mut found = found.unwrap();
            let mut text = String::new();
            found.read_to_string(&mut text).unwrap();
            let header = found.header();
            list.push((found.path().unwrap().display().to_string(), header.entry_type(), header.mode().unwrap(), text));
        }
        let names: Vec<&str> = list.iter().map(|(name, ..)| name.as_str()).collect();
        assert_eq!(names, ["d/", "d/link", &format!("d/{long}"), "d/pipe", "d/sub/"]);
        assert_eq!((list[2].1, list[2].2, list[2].3.as_str()), (EntryType::Regular, 0o4711, "text"));
        assert_eq!((list[1].1, list[3].1), (EntryType::Symlink, EntryType::Fifo));
    }
}
