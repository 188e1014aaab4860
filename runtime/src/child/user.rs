//! Giving up the runtime's privileges.

use dhow_sys::caps::{self, Sets};
use dhow_sys::{Errno, Result, fd};
use nix::sys::stat::{SFlag, fstat, makedev};
use nix::unistd::{Gid, Uid, fchown, setgroups, setresgid, setresuid};

use super::Failure;
use crate::plan::Process;

/// Becomes the process's user with its capabilities. After it nothing privileged can be done.
pub(super) fn become_user(process: &Process) -> super::Result<()> {
    // Without a word about capabilities there are none.
    let wanted = process.capabilities.unwrap_or_default();
    // While CAP_SETPCAP is there.
    caps::bound(wanted.bounding).map_err(Failure::errno("drop capabilities from the bounding set"))?;
    caps::keep_over_setuid(true).map_err(Failure::errno("keep capabilities"))?;
    let groups = if process.keeps_groups { Ok(()) } else { groups(process) };
    groups.map_err(Failure::errno("process.user.additionalGids"))?;
    // The group first: the user may not have the right to.
    let (uid, gid) = (Uid::from_raw(process.uid), Gid::from_raw(process.gid));
    setresgid(gid, gid, gid).map_err(Failure::errno(format_args!("process.user.gid {gid}")))?;
    setresuid(uid, uid, uid).map_err(Failure::errno(format_args!("process.user.uid {uid}")))?;
    let own = caps::get().map_err(Failure::errno("read the capabilities"))?;
    // What the runtime does not have itself it can't pass on; engines inside containers ask for it nevertheless.
    let permitted = wanted.permitted.and(own.permitted);
    let sets = Sets {
        permitted,
        effective: wanted.effective.and(permitted),
        inheritable: wanted.inheritable.and(own.permitted),
    };
    caps::set(sets).map_err(Failure::errno("set the capabilities"))?;
    caps::keep_over_setuid(false).map_err(Failure::errno("keep capabilities"))?;
    let ambient = wanted.ambient.and(sets.permitted).and(sets.inheritable);
    caps::set_ambient(ambient).map_err(Failure::errno("set the ambient capabilities"))
}

fn groups(process: &Process) -> Result<()> {
    let groups: Vec<Gid> = process.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    match setgroups(&groups) {
        // An unprivileged user namespace forbids it; without groups that is as good.
        Err(Errno::EPERM) if groups.is_empty() => Ok(()),
        other => other,
    }
}

/// Lets the user open /dev/stdin and its like: what a pipe or terminal belongs to the caller for. The null device is
/// everybody's and stays as it is.
pub(super) fn own_stdio(process: &Process) {
    if process.uid == 0 {
        return;
    }
    for stream in fd::standard() {
        let Ok(stat) = fstat(stream) else { continue };
        let null = stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFCHR.bits() && stat.st_rdev == makedev(1, 3);
        if !null && stat.st_uid != process.uid {
            // A file of somebody else's in a user namespace, or on a read-only file system: then it just stays so.
            fchown(stream, Some(Uid::from_raw(process.uid)), None).ok();
        }
    }
}
