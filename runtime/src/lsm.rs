//! What security modules this kernel has.

use std::io::Write;
use std::path::Path;

use nix::sys::statfs::{FsType, statfs};

use crate::plan::Process;
use crate::{Error, Result};

/// Refuses labels of a module that is not there, and those that SELinux's policy does not know: a process without the
/// confinement that was asked for must not run.
///
/// # Errors
/// [`Error::Config`] with the field.
pub(crate) fn check(process: &Process, mount_label: Option<&str>) -> Result<()> {
    if process.apparmor.is_some() && !apparmor() {
        return Err(Error::config("process.apparmorProfile", "AppArmor is not enabled"));
    }
    for (field, label) in [("process.selinuxLabel", process.selinux.as_deref()), ("linux.mountLabel", mount_label)] {
        let Some(label) = label else { continue };
        if !selinux_is_mounted() {
            let text = "selinux label is specified in config, but selinux is disabled or not supported";
            return Err(Error::config(field, text));
        }
        if !is_known(label) {
            return Err(Error::config(field, format!("{label:?} is no label in the policy that is loaded")));
        }
    }
    Ok(())
}

/// Asks the kernel. Where the caller may not ask, setting the label has to show it.
fn is_known(label: &str) -> bool {
    let file = std::fs::OpenOptions::new().write(true).open("/sys/fs/selinux/context");
    let asked = file.and_then(|mut file| file.write_all(label.as_bytes()));
    !asked.is_err_and(|e| e.kind() == std::io::ErrorKind::InvalidInput)
}

fn apparmor() -> bool {
    let enabled = std::fs::read(Path::new("/sys/module/apparmor/parameters/enabled"));
    enabled.is_ok_and(|text| text.starts_with(b"Y"))
}

fn selinux_is_mounted() -> bool {
    statfs("/sys/fs/selinux").is_ok_and(|stat| stat.filesystem_type() == SELINUX)
}

const SELINUX: FsType = FsType(0xf97c_ff8c);
