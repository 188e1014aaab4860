//! What an extracted layer still needs from the layers below it, and doing it when they are there.
//!
//! Layers are extracted each by itself, all at once. Four things about a layer only its parents can tell:
//!
//! * A directory that the tar does not list but uses (`tmp/x` without `tmp/`) has the attributes of the directory below.
//! * Where the name of such a directory is a symbolic link below (`lib` on a merged-usr system), the files belong where
//!   the link leads, as they would if the tar were unpacked over the parents.
//! * A hard link may lead to a file below, which is then copied up first, as overlayfs does.
//! * A whiteout in a directory that no layer below has hides nothing, and must go: overlayfs lists a directory that it
//!   need not merge as it stands, so that the whiteout would be a name that nobody can look up.

mod relocate;

use std::ffi::CString;
use std::fs;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, openat};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, fstatat, futimens, mkdirat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, linkat, unlinkat};
use serde::{Deserialize, Serialize};

use crate::overlay::{DIRECTORY, Found, Layers, Resolved, Stack, is_whiteout, os};
use crate::{Error, LayerPath, OverlayXattrs, Result, copy};

/// What must wait until the layers below are there. Kept as `settle.json` beside the layer's directory.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Settle {
    /// How the layer's directory marks opaque directories.
    #[serde(default)]
    pub overlay_xattrs: OverlayXattrs,
    /// Directories that the tar did not list but needed, parents first.
    pub implied: Vec<LayerPath>,
    /// Hard links to names that this layer does not have, in the tar's order.
    pub links: Vec<SettleLink>,
    /// Directories in which this layer has whiteouts.
    #[serde(default)]
    pub whiteouts: Vec<LayerPath>,
}

/// A hard link into a layer below.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettleLink {
    /// The link to make.
    pub name: LayerPath,
    /// The existing file.
    pub target: LayerPath,
}

impl Settle {
    /// Writes `settle.json` beside `dir` (the directory that was filled). Not flushed: it is for the commit that follows.
    ///
    /// # Errors
    /// [`Error::SettleFile`].
    pub fn save_beside(&self, dir: &Path) -> Result<()> {
        let path = beside(dir);
        let write = || -> io::Result<()> {
            let temporary = path.with_extension("json.new");
            let mut file = fs::File::create(&temporary)?;
            file.write_all(&serde_json::to_vec(self)?)?;
            fs::rename(&temporary, &path)
        };
        write().map_err(|source| Error::SettleFile { op: "write", path: path.clone(), source })
    }

    /// Reads what [`Settle::save_beside`] wrote; `None` when there is none.
    ///
    /// # Errors
    /// [`Error::SettleFile`].
    pub fn load_beside(dir: &Path) -> Result<Option<Self>> {
        let path = beside(dir);
        let read = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.and_then(|bytes| serde_json::from_slice(&bytes).map_err(io::Error::from)),
        };
        read.map(Some).map_err(|source| Error::SettleFile { op: "read", path, source })
    }
}

/// Carries out `settle` in `layer` above `parents` (the layers below, nearest first). May be cut off at any point and done
/// again.
///
/// # Errors
/// [`Error::DanglingLink`] when a hard link's target exists in no layer or was whited out; system calls' errors.
pub fn settle(layer: BorrowedFd<'_>, parents: &[BorrowedFd<'_>], settle: &Settle) -> Result<()> {
    let stack: Vec<BorrowedFd<'_>> = std::iter::once(layer).chain(parents.iter().copied()).collect();
    let mut settler = Settler {
        layer,
        overlay_xattrs: settle.overlay_xattrs,
        layers: Layers::new(&stack, settle.overlay_xattrs),
        implied: settle.implied.clone(),
        links: settle.links.clone(),
    };
    settler.relocate()?;
    for link in settler.links.clone() {
        settler.link(&link)?;
    }
    for path in &settle.whiteouts {
        settler.idle_whiteouts(path)?;
    }
    // Parents last: giving a directory its attributes changes nothing above it, but may lock it.
    settler.implied.sort_unstable();
    settler.implied.dedup();
    for path in settler.implied.iter().rev() {
        settler.directory(path)?;
    }
    Ok(())
}

struct Settler<'a> {
    layer: BorrowedFd<'a>,
    overlay_xattrs: OverlayXattrs,
    /// The layer itself is number 0.
    layers: Layers<'a>,
    implied: Vec<LayerPath>,
    links: Vec<SettleLink>,
}

impl Settler<'_> {
    /// Gives an implied directory what the nearest directory below has, or root:root 0755.
    fn directory(&self, path: &LayerPath) -> Result<()> {
        let Resolved::Directory { stack, real } = self.layers.resolve(path, false)? else { return Ok(()) };
        // Relocated meanwhile, or never made: nothing of this layer to settle.
        let Some((0, own)) = stack.first() else { return Ok(()) };
        // An opaque directory hides what the one below holds, not what it is.
        let below = match path.split() {
            None => self.layers.roots_below()?,
            Some((parent, name)) => match self.below(&parent)? {
                Some((_, below)) => match self.layers.find(&below, name, path)? {
                    Found::Directory(stack) => stack,
                    Found::Nothing | Found::WhitedOut | Found::File { .. } => Stack::new(),
                },
                None => Stack::new(),
            },
        };
        match below.first() {
            Some((_, below)) => copy::directory_attributes(below.as_fd(), own.as_fd(), &real),
            None => {
                fchown(own, Some(Uid::from_raw(0)), Some(Gid::from_raw(0)))
                    .map_err(os("change the owner of", &real))?;
                fchmod(own, Mode::from_bits_truncate(0o755)).map_err(os("change the mode of", &real))?;
                let epoch = TimeSpec::new(0, 0);
                futimens(own, &epoch, &epoch).map_err(os("set the times of", &real))
            }
        }
    }

    /// The real path of a directory, and what the layers below have there and this layer does not hide.
    fn below(&self, path: &LayerPath) -> Result<Option<(LayerPath, Stack)>> {
        let Resolved::Directory { stack, real } = self.layers.resolve(path, false)? else { return Ok(None) };
        Ok(Some((real, stack.into_iter().filter(|(layer, _)| *layer != 0).collect())))
    }

    /// Takes the whiteouts out of a directory of this layer under which no other lies.
    fn idle_whiteouts(&self, path: &LayerPath) -> Result<()> {
        let Resolved::Directory { stack, real } = self.layers.resolve(path, false)? else { return Ok(()) };
        let [(0, own)] = stack.as_slice() else { return Ok(()) };
        let mut listing = Dir::openat(own, c".", DIRECTORY, Mode::empty()).map_err(os("open", &real))?;
        let mut idle: Vec<CString> = Vec::new();
        for entry in listing.iter() {
            let entry = entry.map_err(os("list", &real))?;
            let stat = fstatat(own, entry.file_name(), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(os("stat", &real))?;
            if is_whiteout(&stat) {
                idle.push(entry.file_name().to_owned());
            }
        }
        let _times = KeepTimes::of(own.as_fd(), &real)?;
        for name in idle {
            unlinkat(own, name.as_c_str(), UnlinkatFlags::NoRemoveDir).map_err(os("remove a whiteout of", &real))?;
        }
        Ok(())
    }

    fn link(&mut self, link: &SettleLink) -> Result<()> {
        let dangling = |why| Error::DanglingLink { name: link.name.clone(), target: link.target.clone(), why };
        let (parent, real, layer, stat) = match self.layers.resolve(&link.target, false)? {
            Resolved::Nothing => return Err(dangling("is in no layer")),
            Resolved::WhitedOut => return Err(dangling("was deleted")),
            Resolved::Directory { .. } => return Err(dangling("is a directory")),
            Resolved::File { parent, real, layer, stat } => (parent, real, layer, stat),
        };
        let Some((real_dir, name)) = real.split() else { return Err(dangling("is in no layer")) };
        let name = CString::new(name).map_err(|_nul| dangling("is in no layer"))?;
        let own = self.ensure_directory(&real_dir)?;
        if layer != 0 {
            let from = parent.iter().find(|(number, _)| *number == layer).ok_or_else(|| dangling("is in no layer"))?;
            let _times = KeepTimes::of(own.as_fd(), &real_dir)?;
            copy::file(from.1.as_fd(), own.as_fd(), &name, &stat, &real)?;
        }
        let Some((link_dir, link_name)) = link.name.split() else { return Err(dangling("would replace the root")) };
        let into = self.ensure_directory(&link_dir)?;
        let _times = KeepTimes::of(into.as_fd(), &link_dir)?;
        match linkat(&own, name.as_c_str(), &into, link_name, AtFlags::empty()) {
            // Made before settling was cut off.
            Err(Errno::EEXIST) if same_file(&own, &name, &into, link_name, &link.name)? => Ok(()),
            result => result.map_err(os("link", &link.name)),
        }
    }

    /// Opens a directory of the layer by its real path, making what is missing (to be settled after).
    fn ensure_directory(&mut self, path: &LayerPath) -> Result<OwnedFd> {
        let mut fd = openat(self.layer, c".", DIRECTORY, Mode::empty()).map_err(os("open", path))?;
        let mut real = LayerPath::root();
        for name in path.components() {
            let above = real.clone();
            real.push(name);
            fd = match openat(&fd, name, DIRECTORY, Mode::empty()) {
                Err(Errno::ENOENT) => {
                    let _times = KeepTimes::of(fd.as_fd(), &above)?;
                    mkdirat(&fd, name, Mode::S_IRWXU).map_err(os("make the directory", &real))?;
                    self.implied.push(real.clone());
                    openat(&fd, name, DIRECTORY, Mode::empty()).map_err(os("open", &real))?
                }
                opened => opened.map_err(os("open", &real))?,
            };
        }
        Ok(fd)
    }
}

/// Puts a directory's times back when something was made in it that its tar does not count.
struct KeepTimes {
    dir: OwnedFd,
    stat: FileStat,
}

impl KeepTimes {
    fn of(dir: BorrowedFd<'_>, path: &LayerPath) -> Result<Self> {
        let dir = openat(dir, c".", DIRECTORY, Mode::empty()).map_err(os("open", path))?;
        let stat = fstat(&dir).map_err(os("stat", path))?;
        Ok(Self { dir, stat })
    }
}

impl Drop for KeepTimes {
    fn drop(&mut self) {
        let (atime, mtime) = copy::times(&self.stat);
        // On a directory that this process just wrote to it cannot fail for want of rights.
        futimens(&self.dir, &atime, &mtime).unwrap_or_default();
    }
}

fn same_file(a: &OwnedFd, a_name: &CString, b: &OwnedFd, b_name: &[u8], path: &LayerPath) -> Result<bool> {
    let a = fstatat(a, a_name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW).map_err(os("stat", path))?;
    let b = fstatat(b, b_name, AtFlags::AT_SYMLINK_NOFOLLOW).map_err(os("stat", path))?;
    Ok((a.st_dev, a.st_ino) == (b.st_dev, b.st_ino))
}

fn beside(dir: &Path) -> PathBuf {
    dir.with_file_name("settle.json")
}

#[cfg(test)]
mod tests;
