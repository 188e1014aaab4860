//! Saving a running container to files, and bringing it back: by criu, which does the work.
//!
//! criu knows processes; this knows the container. What of it lies outside (sources of bind mounts, namespaces that it was
//! given, the pipes of its stdio) is not saved but named, and handed in again under the same names:
//!
//! ```text
//! outside                       in the image, by           handed in again as
//! a bind mount                  its place in the container  the source in config.json
//! a masked file                 /dev/null                   /dev/null
//! a bound device                its path                    the host's of that path
//! a v1 cgroup hierarchy         its place in the container  the container's cgroup
//! a network or pid namespace    extRootNetNS, extRootPidNS  a descriptor (from config.json's path)
//! a pipe of 0, 1 or 2           pipe:[inode]                the restoring caller's 0, 1 or 2
//! a fifo of 0, 1 or 2           file[mount:inode]           likewise (runc has none)
//! the terminal's other end      nothing                     (comes back as a descriptor)
//! ```
//!
//! The names, `descriptors.json` beside criu's images, and the log's names (`dump.log`, `restore.log`) are runc's, so
//! that either runtime restores what the other has saved.
//!
//! * `wire`, `message`: criu's protocol; `service`: its process and the conversation
//! * `options`: what both directions share; `external`: what lies outside
//! * `dump`, `restore`: the two directions

mod dump;
mod external;
mod message;
mod options;
mod restore;
mod service;
mod wire;

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::CreateRequest;

pub(crate) use dump::dump;
pub(crate) use external::descriptors;
pub(crate) use restore::restore;

/// How criu treats cgroups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum CgroupMode {
    /// Not at all.
    Ignore = 0,
    /// Properties of those that it makes itself.
    Soft = 3,
    /// Properties of all.
    Full = 4,
    /// They must not be there.
    Strict = 5,
    /// As criu thinks best.
    #[default]
    Default = 6,
}

/// What saving and restoring have in common. The names are those of criu's own options.
#[derive(Debug, Default)]
pub struct CriuOptions {
    /// The directory of the saved container.
    pub image_path: PathBuf,
    /// The directory of criu's log and statistics; none: the images'.
    pub work_path: Option<PathBuf>,
    /// Open TCP connections are allowed.
    pub tcp_established: bool,
    /// Unix sockets with an end outside are allowed.
    pub ext_unix_sk: bool,
    /// A terminal from outside is allowed.
    pub shell_job: bool,
    /// File locks are allowed.
    pub file_locks: bool,
    /// Memory that a later image has is freed in an earlier one.
    pub auto_dedup: bool,
    /// Memory is fetched when it is used.
    pub lazy_pages: bool,
    /// Cgroups.
    pub manage_cgroups: CgroupMode,
}

/// A container to be saved.
#[derive(Debug, Default)]
pub struct CheckpointRequest {
    /// The common ones.
    pub criu: CriuOptions,
    /// An earlier image of its memory, relative to the image's directory.
    pub parent_path: Option<PathBuf>,
    /// It goes on afterwards.
    pub leave_running: bool,
    /// Only its memory, and it goes on.
    pub pre_dump: bool,
    /// Connections that are just being made are left out.
    pub tcp_skip_in_flight: bool,
    /// Deleted files that are open are kept by a link.
    pub link_remap: bool,
    /// Address and port of who gets the memory.
    pub page_server: Option<(String, u16)>,
    /// Gets a NUL byte when lazy pages can be fetched.
    pub status_fd: Option<OwnedFd>,
}

/// A container to be brought back.
#[derive(Debug, Default)]
pub struct RestoreRequest {
    /// What it is called, and made from. What a program is given when it starts (`preserve_fds`, …) means nothing here.
    pub create: CreateRequest,
    /// The common ones.
    pub criu: CriuOptions,
    /// TCP connections come back closed.
    pub tcp_close: bool,
    /// TYPE:NAME of another security profile.
    pub lsm_profile: Option<String>,
    /// Another SELinux context of the mounts.
    pub lsm_mount_context: Option<String>,
}
