//! The mount API by descriptors (Linux 5.2; mount_setattr 5.12): a mount is built detached and then moved into place.
//!
//! A detached mount vanishes when its descriptor is closed, so a crash can't leave one behind, and nobody can reach into
//! it before it is finished.

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use crate::raw::{check, owned};
use crate::{Errno, Result};

/// `MOUNT_ATTR_*`: properties of one mount.
pub mod attr {
    /// Read-only.
    pub const RDONLY: u64 = 0x0000_0001;
    /// Set-user-ID bits and file capabilities have no effect.
    pub const NOSUID: u64 = 0x0000_0002;
    /// Device nodes can't be opened.
    pub const NODEV: u64 = 0x0000_0004;
    /// Nothing can be executed.
    pub const NOEXEC: u64 = 0x0000_0008;
    /// The bits that choose how access times are kept; clear them before one is set.
    pub const ATIME: u64 = 0x0000_0070;
    /// The default way: [`ATIME`] cleared.
    pub const RELATIME: u64 = 0x0000_0000;
    /// Never updated.
    pub const NOATIME: u64 = 0x0000_0010;
    /// Always updated.
    pub const STRICTATIME: u64 = 0x0000_0020;
    /// Not updated for directories.
    pub const NODIRATIME: u64 = 0x0000_0080;
    /// Ids are mapped as in a user namespace.
    pub const IDMAP: u64 = 0x0010_0000;
    /// Symbolic links are not followed (Linux 5.14).
    pub const NOSYMFOLLOW: u64 = 0x0020_0000;
}

/// How mounts made elsewhere are passed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// Neither way.
    Private,
    /// From the group that this mount was copied from, not back.
    Slave,
    /// Both ways.
    Shared,
    /// Neither way, and it can't be bind-mounted.
    Unbindable,
}

impl Propagation {
    fn bits(self) -> u64 {
        match self {
            Self::Private => libc::MS_PRIVATE,
            Self::Slave => libc::MS_SLAVE,
            Self::Shared => libc::MS_SHARED,
            Self::Unbindable => libc::MS_UNBINDABLE,
        }
    }
}

/// A change of a mount's attributes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change<'a> {
    /// [`attr`] bits to set.
    pub set: u64,
    /// [`attr`] bits to clear.
    pub clear: u64,
    /// New propagation.
    pub propagation: Option<Propagation>,
    /// A user namespace whose mappings the mount gets; needs a detached mount.
    pub idmap: Option<BorrowedFd<'a>>,
    /// All mounts below as well.
    pub recursive: bool,
}

impl Change<'_> {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set == 0 && self.clear == 0 && self.propagation.is_none() && self.idmap.is_none()
    }
}

/// The kernel's `struct mount_attr`.
#[repr(C)]
struct RawAttr {
    set: u64,
    clear: u64,
    propagation: u64,
    userns: u64,
}

const AT_EMPTY_PATH: libc::c_uint = 0x1000;
const AT_RECURSIVE: libc::c_uint = 0x8000;
const OPEN_TREE_CLONE: libc::c_uint = 1;
const OPEN_TREE_CLOEXEC: libc::c_uint = 0o2_000_000;
const FSOPEN_CLOEXEC: libc::c_uint = 1;
const FSPICK_CLOEXEC: libc::c_uint = 1;
const FSPICK_EMPTY_PATH: libc::c_uint = 8;
const FSMOUNT_CLOEXEC: libc::c_uint = 1;
const MOVE_MOUNT_F_EMPTY_PATH: libc::c_uint = 0x04;
const MOVE_MOUNT_T_EMPTY_PATH: libc::c_uint = 0x40;
const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_SET_FD: libc::c_uint = 5;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const FSCONFIG_CMD_RECONFIGURE: libc::c_uint = 7;

/// Longest value that fsconfig takes as a string (the kernel copies at most 256 bytes with the NUL).
pub const MAX_STRING: usize = 255;

/// A detached copy of the mount at `path` (relative to `dir`; an empty path is `dir` itself), with all mounts below it
/// when `recursive`.
///
/// # Errors
/// `ENOENT` and other resolution errors, `EPERM` without `CAP_SYS_ADMIN`, `EINVAL` when the mount is unbindable or, not
/// `recursive`, hides something from a less privileged user namespace.
pub fn clone_tree(dir: BorrowedFd<'_>, path: &CStr, recursive: bool) -> Result<OwnedFd> {
    let flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | if recursive { AT_RECURSIVE } else { 0 };
    // SAFETY: `path` is a NUL-terminated string that outlives the call, which only reads it.
    owned(unsafe { libc::syscall(libc::SYS_open_tree, dir.as_raw_fd(), path.as_ptr(), flags) })
}

/// Moves a detached mount (or the attached one whose root `mount` is) to `target`, which is itself the directory or file
/// to be covered.
///
/// # Errors
/// `EINVAL` when the target is of another mount namespace or the mount's parent is shared, `ENOTDIR` when only one of the
/// two is a directory, `EPERM`.
pub fn move_mount(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<()> {
    let flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
    let empty = c"".as_ptr();
    // SAFETY: both paths are static NUL-terminated strings.
    let ret =
        unsafe { libc::syscall(libc::SYS_move_mount, mount.as_raw_fd(), empty, target.as_raw_fd(), empty, flags) };
    check(ret).map(drop)
}

/// Changes the mount whose root `mount` is.
///
/// # Errors
/// `EINVAL` when it is no mount's root or the combination is impossible, `EPERM` for attributes that are locked.
pub fn set_attr(mount: BorrowedFd<'_>, change: &Change<'_>) -> Result<()> {
    let raw = RawAttr {
        set: change.set | if change.idmap.is_some() { attr::IDMAP } else { 0 },
        clear: change.clear,
        propagation: change.propagation.map_or(0, Propagation::bits),
        userns: change.idmap.map_or(0, |fd| u64::from(fd.as_raw_fd().unsigned_abs())),
    };
    let flags = AT_EMPTY_PATH | if change.recursive { AT_RECURSIVE } else { 0 };
    let (fd, path) = (mount.as_raw_fd(), c"".as_ptr());
    // SAFETY: `raw` is a valid mount_attr of the size that is passed, the path a static NUL-terminated string.
    let ret = unsafe { libc::syscall(libc::SYS_mount_setattr, fd, path, flags, &raw const raw, size_of::<RawAttr>()) };
    check(ret).map(drop)
}

/// A file system being configured: fsopen, fsconfig, fsmount.
#[derive(Debug)]
pub struct Context(OwnedFd);

impl Context {
    /// Begins with a new instance of the file system type.
    ///
    /// # Errors
    /// `ENODEV` when the kernel has no such type, `EPERM`.
    pub fn open(kind: &CStr) -> Result<Self> {
        // SAFETY: `kind` is a NUL-terminated string that outlives the call.
        owned(unsafe { libc::syscall(libc::SYS_fsopen, kind.as_ptr(), FSOPEN_CLOEXEC) }).map(Self)
    }

    /// Begins with the file system that `mount` shows, to be changed by [`Self::reconfigure`].
    ///
    /// # Errors
    /// `EINVAL` when it is no mount's root, `EPERM`.
    pub fn pick(mount: BorrowedFd<'_>) -> Result<Self> {
        let flags = FSPICK_CLOEXEC | FSPICK_EMPTY_PATH;
        // SAFETY: the path is a static NUL-terminated string.
        owned(unsafe { libc::syscall(libc::SYS_fspick, mount.as_raw_fd(), c"".as_ptr(), flags) }).map(Self)
    }

    /// Sets an option without value (`noquota`, `ro`).
    ///
    /// # Errors
    /// `EINVAL` when the file system doesn't know it; [`Self::log`] may tell more.
    pub fn set_flag(&self, key: &CStr) -> Result<()> {
        self.config(FSCONFIG_SET_FLAG, Some(key), None, 0)
    }

    /// Sets an option to a string of at most [`MAX_STRING`] bytes.
    ///
    /// # Errors
    /// As [`Self::set_flag`]; also `EINVAL` when the string is too long.
    pub fn set_string(&self, key: &CStr, value: &CStr) -> Result<()> {
        self.config(FSCONFIG_SET_STRING, Some(key), Some(value), 0)
    }

    /// Sets an option to a descriptor (overlay's layers since Linux 6.13).
    ///
    /// # Errors
    /// As [`Self::set_flag`].
    pub fn set_fd(&self, key: &CStr, value: BorrowedFd<'_>) -> Result<()> {
        self.config(FSCONFIG_SET_FD, Some(key), None, value.as_raw_fd())
    }

    /// Makes the file system.
    ///
    /// # Errors
    /// Whatever mount(2) of that type gives; [`Self::log`] may tell more.
    pub fn create(&self) -> Result<()> {
        self.config(FSCONFIG_CMD_CREATE, None, None, 0)
    }

    /// Applies the changed options to the picked file system.
    ///
    /// # Errors
    /// As [`Self::create`].
    pub fn reconfigure(&self) -> Result<()> {
        self.config(FSCONFIG_CMD_RECONFIGURE, None, None, 0)
    }

    /// The detached mount of what was created, with [`attr`] bits.
    ///
    /// # Errors
    /// `EPERM`, also when a user namespace may mount this type only as visibly as it is mounted already (proc, sysfs).
    pub fn mount(&self, attributes: u64) -> Result<OwnedFd> {
        let fd = self.0.as_raw_fd();
        // SAFETY: fsmount takes three integers and touches no memory of ours.
        owned(unsafe { libc::syscall(libc::SYS_fsmount, fd, FSMOUNT_CLOEXEC, attributes) })
    }

    /// What the file system has to say about the last errors, joined by `; `. Empty when it says nothing.
    #[must_use]
    pub fn log(&self) -> String {
        let mut lines = Vec::new();
        let mut buffer = [0; 1024];
        while let Ok(n) = nix::unistd::read(&self.0, &mut buffer) {
            if n == 0 {
                break;
            }
            let line = String::from_utf8_lossy(&buffer[..n]);
            // "e overlay: text": the first letter is the level.
            lines.push(line.trim_end().get(2..).unwrap_or_default().to_owned());
        }
        lines.join("; ")
    }

    fn config(&self, command: libc::c_uint, key: Option<&CStr>, value: Option<&CStr>, aux: i32) -> Result<()> {
        let key = key.map_or(std::ptr::null(), CStr::as_ptr);
        let value = value.map_or(std::ptr::null(), CStr::as_ptr);
        let fd = self.0.as_raw_fd();
        // SAFETY: key and value are null where the command takes none, else NUL-terminated strings that outlive the call.
        check(unsafe { libc::syscall(libc::SYS_fsconfig, fd, command, key, value, aux) }).map(drop)
    }
}

/// Whether `fd` is the root of a mount (statx, Linux 5.8).
///
/// # Errors
/// statx's.
pub fn is_mount_root(fd: BorrowedFd<'_>) -> Result<bool> {
    Ok(statx(fd, 0)?.stx_attributes & libc::STATX_ATTR_MOUNT_ROOT as u64 != 0)
}

/// The id of the mount that `fd` lies on, as in mountinfo (Linux 5.8).
///
/// # Errors
/// statx's; `ENOSYS` when the kernel doesn't tell it.
pub fn mount_id(fd: BorrowedFd<'_>) -> Result<u64> {
    let stat = statx(fd, libc::STATX_MNT_ID)?;
    if stat.stx_mask & libc::STATX_MNT_ID == 0 { Err(Errno::ENOSYS) } else { Ok(stat.stx_mnt_id) }
}

fn statx(fd: BorrowedFd<'_>, mask: libc::c_uint) -> Result<libc::statx> {
    // SAFETY: statx is plain data for which zeroes are a valid value.
    let mut stat: libc::statx = unsafe { std::mem::zeroed() };
    let flags = libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: the path is a static NUL-terminated string and `stat` outlives the call.
    let ret = unsafe { libc::statx(fd.as_raw_fd(), c"".as_ptr(), flags, mask, &raw mut stat) };
    check(ret.into()).map(|_| stat)
}
