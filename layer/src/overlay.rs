//! What overlayfs would show of a stack of layers, looked up by handles and without mounting anything.

use std::collections::VecDeque;
use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use dhow_sys::xattr::{self, Target};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};

use serde::{Deserialize, Serialize};

use crate::{Error, LayerPath, Result};

/// Under which names overlayfs keeps its attributes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverlayXattrs {
    /// `trusted.overlay.*`, for a mount by the real root.
    #[default]
    Trusted,
    /// `user.overlay.*`, for a mount with `userxattr` in a user namespace.
    User,
}

/// One directory of the merged tree: the directories that make it up, nearest layer first, with their layer's number.
pub(crate) type Stack = Vec<(usize, OwnedFd)>;

/// What a name in a merged directory is.
pub(crate) enum Found {
    Nothing,
    WhitedOut,
    /// Anything but a directory, in that layer.
    File {
        layer: usize,
        stat: FileStat,
    },
    Directory(Stack),
}

/// What a whole path leads to, with the path's spelling free of symbolic links.
pub(crate) enum Resolved {
    Nothing,
    WhitedOut,
    File { parent: Stack, real: LayerPath, layer: usize, stat: FileStat },
    Directory { stack: Stack, real: LayerPath },
}

/// Layers as overlayfs stacks them, nearest first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Layers<'a> {
    layers: &'a [BorrowedFd<'a>],
    xattrs: OverlayXattrs,
}

impl<'a> Layers<'a> {
    pub(crate) fn new(layers: &'a [BorrowedFd<'a>], xattrs: OverlayXattrs) -> Self {
        Self { layers, xattrs }
    }

    /// The merged root. An opaque root hides the layers below it.
    pub(crate) fn root(&self) -> Result<Stack> {
        let mut stack = Stack::new();
        for (number, layer) in self.layers.iter().enumerate() {
            let fd = openat(layer, c".", DIRECTORY, Mode::empty()).map_err(os("open", &LayerPath::root()))?;
            let opaque = self.is_opaque(fd.as_fd()).map_err(os("read the attributes of", &LayerPath::root()))?;
            stack.push((number, fd));
            if opaque {
                break;
            }
        }
        Ok(stack)
    }

    /// The merged root without the first layer, and also when that hides it.
    pub(crate) fn roots_below(&self) -> Result<Stack> {
        let below = Layers { layers: self.layers.get(1..).unwrap_or_default(), xattrs: self.xattrs };
        Ok(below.root()?.into_iter().map(|(number, fd)| (number + 1, fd)).collect())
    }

    /// The entry `name` of a merged directory. `path` is for messages.
    pub(crate) fn find(&self, dir: &[(usize, OwnedFd)], name: &[u8], path: &LayerPath) -> Result<Found> {
        let mut stack = Stack::new();
        for (layer, fd) in dir {
            let stat = match fstatat(fd, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                Err(Errno::ENOENT | Errno::ENAMETOOLONG) => continue,
                Err(errno) => return Err(os("stat", path)(errno)),
            };
            if !is_type(&stat, SFlag::S_IFDIR) {
                return Ok(match (stack.is_empty(), is_whiteout(&stat)) {
                    (false, _) => Found::Directory(stack),
                    (true, true) => Found::WhitedOut,
                    (true, false) => Found::File { layer: *layer, stat },
                });
            }
            let below = openat(fd, name, DIRECTORY, Mode::empty()).map_err(os("open", path))?;
            let opaque = self.is_opaque(below.as_fd()).map_err(os("read the attributes of", path))?;
            stack.push((*layer, below));
            if opaque {
                break;
            }
        }
        Ok(if stack.is_empty() { Found::Nothing } else { Found::Directory(stack) })
    }

    /// Follows `path` from the root. Symbolic links on the way are followed inside the root; one at the end is not, unless
    /// `follow_last`.
    pub(crate) fn resolve(&self, path: &LayerPath, follow_last: bool) -> Result<Resolved> {
        let mut way: VecDeque<Vec<u8>> = path.components().map(<[u8]>::to_vec).collect();
        let mut stacks = vec![self.root()?];
        let mut real = LayerPath::root();
        let mut links = 0;
        while let Some(name) = way.pop_front() {
            if name == b".." {
                real.pop();
                stacks.truncate(stacks.len().saturating_sub(1).max(1));
                continue;
            }
            let Some(dir) = stacks.last() else { return Ok(Resolved::Nothing) };
            let here = real.join(&name);
            match self.find(dir, &name, &here)? {
                Found::Nothing => return Ok(Resolved::Nothing),
                Found::WhitedOut => return Ok(Resolved::WhitedOut),
                Found::Directory(stack) => {
                    real = here;
                    stacks.push(stack);
                }
                Found::File { layer, stat } if is_type(&stat, SFlag::S_IFLNK) && (follow_last || !way.is_empty()) => {
                    links += 1;
                    if links > LINKS_MAX {
                        return Err(os("resolve", path)(Errno::ELOOP));
                    }
                    let Some((_, fd)) = dir.iter().find(|(number, _)| *number == layer) else {
                        return Ok(Resolved::Nothing);
                    };
                    let target = readlinkat(fd, name.as_slice()).map_err(os("read the link", &here))?;
                    if target.as_bytes().starts_with(b"/") {
                        real = LayerPath::root();
                        stacks.truncate(1);
                    }
                    let parts = target.as_bytes().split(|byte| *byte == b'/').rev();
                    parts.filter(|part| !matches!(*part, b"" | b".")).for_each(|part| way.push_front(part.to_vec()));
                }
                Found::File { layer, stat } if way.is_empty() => {
                    let parent = stacks.pop().unwrap_or_default();
                    return Ok(Resolved::File { parent, real: here, layer, stat });
                }
                Found::File { .. } => return Ok(Resolved::Nothing),
            }
        }
        Ok(match stacks.pop() {
            Some(stack) if !stack.is_empty() => Resolved::Directory { stack, real },
            _ => Resolved::Nothing,
        })
    }

    /// Whether an open directory hides what is below it.
    pub(crate) fn is_opaque(&self, dir: BorrowedFd<'_>) -> nix::Result<bool> {
        Ok(xattr::get(Target::File(dir), opaque_name(self.xattrs))?.as_deref() == Some(b"y"))
    }
}

/// The name of overlayfs's opaque mark.
pub(crate) fn opaque_name(xattrs: OverlayXattrs) -> &'static std::ffi::CStr {
    match xattrs {
        OverlayXattrs::Trusted => c"trusted.overlay.opaque",
        OverlayXattrs::User => c"user.overlay.opaque",
    }
}

/// Attributes that belong to the machine a layer was made on, or that would speak to overlayfs in the layer's name: a
/// `redirect` could point anywhere below, a `metacopy` at another file's data.
pub(crate) fn is_foreign_xattr(name: &[u8]) -> bool {
    name.starts_with(b"trusted.overlay.")
        || name.starts_with(b"user.overlay.")
        || matches!(name, b"security.selinux" | b"security.ima" | b"security.evm" | b"system.nfs4_acl")
}

/// Sets one attribute; leaves out what this file system or this kind of file cannot have, except file capabilities, without
/// which a program would fail later and nobody would know why.
pub(crate) fn set_xattr(target: Target<'_>, name: &CString, value: &[u8], path: &LayerPath) -> Result<()> {
    match xattr::set(target, name, value) {
        Ok(()) => Ok(()),
        Err(errno @ (Errno::ENOTSUP | Errno::EPERM)) if name.as_bytes() != b"security.capability" => {
            log::warn!("{path}: attribute {} left out: {errno}", name.to_string_lossy());
            Ok(())
        }
        Err(source) => Err(Error::Os { op: "set an attribute of", path: path.clone(), source }),
    }
}

pub(crate) fn is_type(stat: &FileStat, kind: SFlag) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == kind.bits()
}

pub(crate) fn is_whiteout(stat: &FileStat) -> bool {
    is_type(stat, SFlag::S_IFCHR) && stat.st_rdev == 0
}

/// Turns an errno into an error that names the call and the file.
pub(crate) fn os<'p>(op: &'static str, path: &'p LayerPath) -> impl Fn(Errno) -> Error + use<'p> {
    move |source| Error::Os { op, path: path.clone(), source }
}

pub(crate) const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_NOFOLLOW).union(OFlag::O_CLOEXEC);
/// As the kernel's own limit.
const LINKS_MAX: usize = 40;
