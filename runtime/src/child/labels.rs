//! Labels of security modules. One that can't be set is no label, so it is an error.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use dhow_sys::mountfd::{Change, attr, set_attr};
use dhow_sys::{Errno, xattr};
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use super::mounts::make;
use super::procfs::Proc;
use super::{Common, Failure, Result};
use crate::plan::{Mount, Process};

/// The label of the keyring that is made next: without it the program could not use the keys it finds in its session. It is
/// gone with the next exec. Before anything of the container's is mounted or joined, when /proc is still the caller's.
pub(super) fn keys(common: &Common<'_>) -> Result<()> {
    match &common.process.selinux {
        Some(label) if common.keyring.is_some() => {
            let written = std::fs::write("/proc/self/attr/keycreate", label);
            written.map_err(|e| Failure::new(format!("process.selinuxLabel {label}: keyring: {e}")))
        }
        _ => Ok(()),
    }
}

/// The labels that the program gets when it is executed.
pub(super) fn program(process: &Process) -> Result<()> {
    if process.apparmor.is_none() && process.selinux.is_none() {
        return Ok(());
    }
    let proc = Proc::open()?;
    if let Some(profile) = &process.apparmor {
        let text = format!("exec {profile}");
        let written = match proc.write(Path::new("self/attr/apparmor/exec"), text.as_bytes()) {
            Err(Errno::ENOENT) => proc.write(Path::new("self/attr/exec"), text.as_bytes()),
            other => other,
        };
        written.map_err(Failure::errno(format_args!("process.apparmorProfile {profile}")))?;
    }
    match &process.selinux {
        Some(label) => proc
            .write(Path::new("self/attr/exec"), label.as_bytes())
            .map_err(Failure::errno(format_args!("process.selinuxLabel {label}"))),
        None => Ok(()),
    }
}

/// A new mqueue file system, whose root has the label: by itself, because there is no mount option for it. Only then it may
/// become read-only.
pub(super) fn mqueue(mount: &Mount, label: &str) -> Result<OwnedFd> {
    let mut writable = mount.clone();
    let readonly = writable.options.make_writable();
    let made = make("mqueue", &writable)?;
    let error = || Failure::errno(format!("linux.mountLabel {label}"));
    let root = openat(&made, c".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    let root = root.map_err(error())?;
    match xattr::set(xattr::Target::File(root.as_fd()), c"security.selinux", label.as_bytes()) {
        // There are no labels in some user namespaces, and no right to them over a joined IPC namespace.
        Ok(()) | Err(Errno::ENOTSUP | Errno::EPERM) => {}
        Err(e) => return Err(error()(e)),
    }
    if readonly {
        let change = Change { set: attr::RDONLY, ..Change::default() };
        set_attr(made.as_fd(), &change).map_err(Failure::errno("make it read-only"))?;
    }
    Ok(made)
}
