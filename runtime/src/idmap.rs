//! Writing the id mappings of a new user namespace, by ourselves or through newuidmap and newgidmap.

use std::fs;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::process::Command;

use dhow_sys::clone::{Namespaces, Request, spawn};
use dhow_sys::pidfd;
use nix::unistd::{getegid, geteuid};

use crate::config::IdMapping;
use crate::{Error, Result};

/// Maps the ids of a process that has just made its user namespace.
///
/// # Errors
/// [`Error::File`] when the kernel refuses; [`Error::Config`] when the helper programs do.
pub(crate) fn write(pid: i32, uid: &[IdMapping], gid: &[IdMapping]) -> Result<()> {
    let file = |name: &str| format!("/proc/{pid}/{name}");
    let put = |name: &str, text: &str| {
        let path = file(name);
        fs::write(&path, text).map_err(Error::file("write", Path::new(&path)))
    };
    if geteuid().is_root() {
        put("uid_map", &lines(uid))?;
        return put("gid_map", &lines(gid));
    }
    // The kernel lets an ordinary user map their own id alone; everything else the setuid helpers must vouch for.
    if own_only(uid, geteuid().as_raw()) {
        put("uid_map", &lines(uid))?;
    } else {
        helper("newuidmap", "linux.uidMappings", pid, uid)?;
    }
    if own_only(gid, getegid().as_raw()) {
        put("setgroups", "deny")?;
        put("gid_map", &lines(gid))
    } else {
        helper("newgidmap", "linux.gidMappings", pid, gid)
    }
}

/// A user namespace that has these mappings and no process, for id-mapped mounts.
///
/// # Errors
/// [`Error::Sys`], [`Error::File`].
pub(crate) fn namespace(uid: &[IdMapping], gid: &[IdMapping]) -> Result<OwnedFd> {
    let (hold, release) = nix::unistd::pipe().map_err(Error::sys("pipe"))?;
    let request = Request { namespaces: Namespaces::USER, ..Request::default() };
    let child = spawn(&request, |token| {
        // Waits until its parent has taken what it wanted, or is gone.
        let kept = dhow_sys::fd::keep_only(token, &mut [hold.as_raw_fd()]);
        u8::from(kept.is_err() || nix::unistd::read(&hold, &mut [0]).is_err())
    })
    .map_err(Error::sys("clone a user namespace"))?;
    let path = format!("/proc/{}/ns/user", child.pid);
    let namespace =
        write(child.pid, uid, gid).and_then(|()| fs::File::open(&path).map_err(Error::file("open", Path::new(&path))));
    drop(release);
    pidfd::reap(child.pidfd.as_fd(), true).map_err(Error::sys("wait for the user namespace's process"))?;
    namespace.map(OwnedFd::from)
}

fn lines(map: &[IdMapping]) -> String {
    map.iter().map(|m| format!("{} {} {}\n", m.container_id, m.host_id, m.size)).collect()
}

fn own_only(map: &[IdMapping], id: u32) -> bool {
    matches!(map, [one] if one.size == 1 && one.host_id == id)
}

fn helper(program: &str, field: &str, pid: i32, map: &[IdMapping]) -> Result<()> {
    let numbers = map.iter().flat_map(|m| [m.container_id, m.host_id, m.size]).map(|n| n.to_string());
    let output = Command::new(program).arg(pid.to_string()).args(numbers).output();
    match output {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => {
            Err(Error::config(field, format!("{program}: {}", String::from_utf8_lossy(&output.stderr).trim())))
        }
        Err(e) => Err(Error::config(field, format!("{program}: {e}"))),
    }
}
