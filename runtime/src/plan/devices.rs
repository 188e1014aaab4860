//! `linux.devices` and the devices that every container has.

use std::path::{Path, PathBuf};

use nix::sys::stat::{SFlag, makedev};

use crate::config::Linux;
use crate::{Error, Result};

/// A device node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// In the container.
    pub path: PathBuf,
    /// What it is.
    pub kind: NodeKind,
    /// Of the driver.
    pub major: u64,
    /// Of the device.
    pub minor: u64,
    /// Permissions.
    pub mode: u32,
    /// Owner in the container.
    pub uid: u32,
    /// Group in the container.
    pub gid: u32,
    /// Whether config.json describes it. Else it is one that every container has.
    pub described: bool,
}

impl Device {
    /// Its number, as stat has it.
    #[must_use]
    pub fn number(&self) -> u64 {
        makedev(self.major, self.minor)
    }

    /// Whether its node is made outside of the container's user namespace, if it has one: for those that every container
    /// has the host's do.
    #[must_use]
    pub fn is_prepared(&self) -> bool {
        self.described && self.kind != NodeKind::Fifo
    }
}

/// What a device node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeKind {
    /// Characters.
    Character,
    /// Blocks.
    Block,
    /// A named pipe.
    Fifo,
}

impl NodeKind {
    /// As the file type in a mode.
    #[must_use]
    pub fn flag(self) -> SFlag {
        match self {
            Self::Character => SFlag::S_IFCHR,
            Self::Block => SFlag::S_IFBLK,
            Self::Fifo => SFlag::S_IFIFO,
        }
    }
}

const DEFAULT: [(&str, u64, u64); 6] = [
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
];

pub(super) fn all(linux: &Linux) -> Result<Vec<Device>> {
    let mut devices = Vec::with_capacity(DEFAULT.len() + linux.devices.len());
    for (path, major, minor) in DEFAULT {
        if !linux.devices.iter().any(|d| d.path == path) {
            let path = PathBuf::from(path);
            let (kind, mode) = (NodeKind::Character, 0o666);
            devices.push(Device { path, kind, major, minor, mode, uid: 0, gid: 0, described: false });
        }
    }
    for (i, device) in linux.devices.iter().enumerate() {
        let field = |name: &str| format!("linux.devices[{i}].{name}");
        let kind = match device.kind.as_str() {
            "c" | "u" => NodeKind::Character,
            "b" => NodeKind::Block,
            "p" => NodeKind::Fifo,
            other => return Err(Error::config(field("type"), format!("{other:?} is unknown"))),
        };
        if !Path::new(&device.path).is_absolute() {
            return Err(Error::config(field("path"), format!("{:?} is not an absolute path", device.path)));
        }
        // A link to the container's own terminals, whatever a privileged container's list of the host's devices says.
        if Path::new(&device.path) == Path::new("/dev/ptmx") {
            continue;
        }
        let number = |name: &str, n: i64| {
            let known = u64::try_from(n).ok().filter(|n| *n <= u64::from(u32::MAX));
            known.ok_or_else(|| Error::config(field(name), format!("{n} is impossible")))
        };
        // A fifo has no numbers, whatever is written there.
        let (major, minor) = match kind {
            NodeKind::Fifo => (0, 0),
            _ => (number("major", device.major)?, number("minor", device.minor)?),
        };
        devices.push(Device {
            path: PathBuf::from(&device.path),
            kind,
            major,
            minor,
            mode: device.file_mode.unwrap_or(0o666) & 0o7777,
            uid: device.uid.unwrap_or(0),
            gid: device.gid.unwrap_or(0),
            described: true,
        });
    }
    Ok(devices)
}
