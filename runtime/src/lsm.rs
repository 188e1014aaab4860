//! What security modules this kernel has.

use std::path::Path;

use nix::sys::statfs::{FsType, statfs};

use crate::plan::Process;
use crate::{Error, Result};

/// Refuses labels of a module that is not there: a process without the confinement that was asked for must not run.
///
/// # Errors
/// [`Error::Config`] with the field.
pub(crate) fn check(process: &Process, mount_label: Option<&str>) -> Result<()> {
    if process.apparmor.is_some() && !apparmor() {
        return Err(Error::config("process.apparmorProfile", "AppArmor is not enabled"));
    }
    let selinux = [("process.selinuxLabel", process.selinux.is_some()), ("linux.mountLabel", mount_label.is_some())];
    match selinux.iter().find(|(_, given)| *given) {
        Some((field, _)) if !selinux_is_mounted() => {
            Err(Error::config(*field, "selinux label is specified in config, but selinux is disabled or not supported"))
        }
        _ => Ok(()),
    }
}

fn apparmor() -> bool {
    let enabled = std::fs::read(Path::new("/sys/module/apparmor/parameters/enabled"));
    enabled.is_ok_and(|text| text.starts_with(b"Y"))
}

fn selinux_is_mounted() -> bool {
    statfs("/sys/fs/selinux").is_ok_and(|stat| stat.filesystem_type() == SELINUX)
}

const SELINUX: FsType = FsType(0xf97c_ff8c);
