//! Files that lie in an implied directory whose name is a symbolic link below.
//!
//! Unpacked over its parents, `lib/x` would follow `lib -> usr/lib`; unpacked alone it made a directory `lib` that would
//! hide the link. Its contents move to where the link leads.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd};

use nix::errno::Errno;
use nix::fcntl::{RenameFlags, openat, renameat2};
use nix::sys::stat::{Mode, SFlag};
use nix::unistd::{UnlinkatFlags, unlinkat};

use super::Settler;
use crate::overlay::{DIRECTORY, Found, Layers, Resolved, is_type, os};
use crate::{LayerPath, Result};

impl Settler<'_> {
    pub(super) fn relocate(&mut self) -> Result<()> {
        let mut index = 0;
        while let Some(path) = self.implied.get(index).cloned() {
            if let Some(target) = self.link_target(&path)? {
                let moved = |old: &LayerPath| {
                    let mut new = target.clone();
                    old.components().skip(path.components().count()).for_each(|part| new.push(part));
                    new
                };
                // A directory that the layer has at the new place already keeps what its own entry said.
                let own = [self.layer];
                let own = Layers::new(&own, self.overlay_xattrs);
                let mut implied = Vec::new();
                for old in std::mem::take(&mut self.implied) {
                    if !old.is_within(&path) {
                        implied.push(old);
                    } else if !matches!(own.resolve(&moved(&old), false)?, Resolved::Directory { .. }) {
                        implied.push(moved(&old));
                    }
                }
                self.implied = implied;
                self.move_contents(&path, &target)?;
                for link in self.links.iter_mut().filter(|link| link.name.is_within(&path)) {
                    link.name = moved(&link.name);
                }
                // The list changed before and behind the index; those looked at already are looked at again in vain.
                index = 0;
                continue;
            }
            index += 1;
        }
        Ok(())
    }

    /// Where the contents of this implied directory belong, when below its name is a link to a directory.
    fn link_target(&self, path: &LayerPath) -> Result<Option<LayerPath>> {
        let Some((parent, name)) = path.split() else { return Ok(None) };
        let Some((real, below)) = self.below(&parent)? else { return Ok(None) };
        let Found::File { stat, layer } = self.layers.find(&below, name, path)? else { return Ok(None) };
        if !is_type(&stat, SFlag::S_IFLNK) {
            return Ok(None);
        }
        let Some((_, dir)) = below.iter().find(|(number, _)| *number == layer) else { return Ok(None) };
        let text = nix::fcntl::readlinkat(dir, name).map_err(os("read the link", path))?;
        let text = std::os::unix::ffi::OsStrExt::as_bytes(text.as_os_str()).to_vec();
        let Some(start) = lexical(&real, &text) else { return Ok(None) };
        if let Resolved::Directory { stack, .. } = self.layers.resolve(path, false)?
            && let Some((0, own)) = stack.first()
            && self.layers.is_opaque(own.as_fd()).map_err(os("read the attributes of", path))?
        {
            // It says that nothing below counts, the link included.
            return Ok(None);
        }
        match self.layers.resolve(&start, true)? {
            // A link into itself or to nothing: the directory stands in its place.
            Resolved::Directory { real, .. } if !real.is_within(path) && !real.is_root() => Ok(Some(real)),
            _ => Ok(None),
        }
    }

    fn move_contents(&mut self, path: &LayerPath, target: &LayerPath) -> Result<()> {
        let Some((parent, name)) = path.split() else { return Ok(()) };
        let parent_fd = self.ensure_directory(&parent)?;
        let from = match openat(&parent_fd, name, DIRECTORY, Mode::empty()) {
            Ok(from) => from,
            Err(Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(os("open", path)(errno)),
        };
        let to = self.ensure_directory(target)?;
        merge(from.as_fd(), to.as_fd(), path)?;
        unlinkat(&parent_fd, name, UnlinkatFlags::RemoveDir).map_err(os("remove", path))
    }
}

/// Moves everything in `from` to `to`. Where both have a directory they merge; else what comes replaces what is there.
fn merge(from: BorrowedFd<'_>, to: BorrowedFd<'_>, path: &LayerPath) -> Result<()> {
    for name in names(from, path)? {
        let here = path.join(name.as_bytes());
        match renameat2(from, name.as_c_str(), to, name.as_c_str(), RenameFlags::RENAME_NOREPLACE) {
            Ok(()) => continue,
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(os("move", &here)(errno)),
        }
        let both = (
            openat(from, name.as_c_str(), DIRECTORY, Mode::empty()),
            openat(to, name.as_c_str(), DIRECTORY, Mode::empty()),
        );
        if let (Ok(below), Ok(above)) = both {
            merge(below.as_fd(), above.as_fd(), &here)?;
            unlinkat(from, name.as_c_str(), UnlinkatFlags::RemoveDir).map_err(os("remove", &here))?;
        } else {
            dhow_sys::tree::remove(to, &name).map_err(os("remove", &here))?;
            renameat2(from, name.as_c_str(), to, name.as_c_str(), RenameFlags::RENAME_NOREPLACE)
                .map_err(os("move", &here))?;
        }
    }
    Ok(())
}

fn names(dir: BorrowedFd<'_>, path: &LayerPath) -> Result<Vec<CString>> {
    let mut listing = nix::dir::Dir::openat(dir, c".", DIRECTORY, Mode::empty()).map_err(os("open", path))?;
    let mut names = Vec::new();
    for entry in listing.iter() {
        let entry = entry.map_err(os("list", path))?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    Ok(names)
}

/// A link's text as a path from the root, seen from the real directory `dir`. `None` for a NUL.
fn lexical(dir: &LayerPath, text: &[u8]) -> Option<LayerPath> {
    if text.contains(&0) {
        return None;
    }
    let mut path = if text.starts_with(b"/") { LayerPath::root() } else { dir.clone() };
    for part in text.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            // Exact while what came before is real, as `dir` is; behind a link's own component it is an approximation.
            b".." => path.pop(),
            part => path.push(part),
        }
    }
    Some(path)
}
