//! The file that gets a process's pid.

use std::ffi::OsStr;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::sys::stat::Mode;
use nix::unistd::linkat;

use crate::{Error, Result};

/// Writes a pid file: whoever waits for it never reads half of it, and a runtime that is killed leaves no other file.
pub(crate) fn write(path: &Path, pid: i32) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let nameless =
        nix::fcntl::open(dir, OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::from_bits_truncate(0o666));
    if let Ok(fd) = nameless {
        let file = std::fs::File::from(fd);
        (&file).write_all(pid.to_string().as_bytes()).map_err(Error::file("write", path))?;
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        if linkat(AT_FDCWD, link.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW).is_ok() {
            return Ok(());
        }
    }
    // There is one already, or the file system has no nameless files.
    let mut name = OsStr::new(".").to_owned();
    name.push(path.file_name().unwrap_or_default());
    let fresh = path.with_file_name(name);
    std::fs::write(&fresh, pid.to_string()).map_err(Error::file("write", &fresh))?;
    std::fs::rename(&fresh, path).map_err(Error::file("write", path))
}
