//! systemd's readiness protocol (sd_notify(3)) for a container's program: the directory with the socket it writes to.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use crate::config::{Mount, Spec};
use crate::{Error, Result};

/// Where the socket is expected, in a container's own directory.
pub(crate) fn socket(dir: &Path) -> PathBuf {
    dir.join(DIR).join(SOCKET)
}

/// Adds the mount and the variable.
pub(crate) fn add(spec: &mut Spec, dir: &Path) {
    let options = ["bind", "nosuid", "noexec", "nodev", "ro"];
    spec.mounts.push(Mount {
        destination: INSIDE.into(),
        source: dir.join(DIR).to_string_lossy().into_owned(),
        options: options.map(String::from).into(),
        ..Mount::default()
    });
    if let Some(process) = &mut spec.process {
        process.env.push(format!("NOTIFY_SOCKET={INSIDE}/{SOCKET}"));
    }
}

/// Makes the directory in the container's own.
pub(crate) fn make(dir: &Path) -> Result<()> {
    let notify = dir.join(DIR);
    std::fs::DirBuilder::new().mode(0o755).create(&notify).map_err(Error::file("make", &notify))
}

const DIR: &str = "notify";
const SOCKET: &str = "notify.sock";
/// Where the container sees the directory.
const INSIDE: &str = "/run/notify";
