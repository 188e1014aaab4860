//! `dhow-floor ROOTFS PROGRAM [ARG…]`: the bare system calls of a container's start, and nothing else.
//!
//! clone3 into six new namespaces, a root by bind mount, the seven mounts of the specification's default configuration,
//! pivot_root, exec, wait. No configuration is read, nothing is checked, limited, masked or recorded: no runtime can be
//! faster than this on the same kernel.
#![forbid(unsafe_code)]
#![expect(clippy::print_stderr, reason = "a command that talks to a person")]

use std::convert::Infallible;
use std::ffi::CString;
use std::os::fd::AsFd as _;
use std::path::Path;
use std::process::ExitCode;

use dhow_sys::clone::{Namespaces, Request, spawn};
use dhow_sys::pidfd;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::unistd::{chdir, execve, pivot_root, sethostname};

/// Type, target below the root, flags, data.
const MOUNTS: [(&str, &str, MsFlags, &str); 7] = [
    ("proc", "proc", MsFlags::empty(), ""),
    ("tmpfs", "dev", MsFlags::MS_NOSUID, "mode=755,size=65536k"),
    ("devpts", "dev/pts", MsFlags::MS_NOSUID, "newinstance,ptmxmode=0666,mode=0620,gid=5"),
    ("tmpfs", "dev/shm", MsFlags::MS_NOSUID, "mode=1777,size=65536k"),
    ("mqueue", "dev/mqueue", MsFlags::MS_NOSUID, ""),
    ("sysfs", "sys", MsFlags::MS_RDONLY, ""),
    ("tmpfs", "sys/fs/cgroup", MsFlags::MS_RDONLY, ""),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [root, command @ ..] = args.as_slice() else {
        eprintln!("usage: dhow-floor ROOTFS PROGRAM [ARG...]");
        return ExitCode::from(2);
    };
    let namespaces = Namespaces::PID
        | Namespaces::NETWORK
        | Namespaces::IPC
        | Namespaces::UTS
        | Namespaces::MOUNT
        | Namespaces::CGROUP;
    let request = Request { namespaces, ..Request::default() };
    let child = spawn(&request, |_| match start(Path::new(root), command) {
        Ok(never) => match never {},
        Err(errno) => {
            eprintln!("dhow-floor: {errno}");
            1
        }
    });
    match child.and_then(|child| pidfd::reap(child.pidfd.as_fd(), true)) {
        Ok(Some(exit)) => ExitCode::from(u8::try_from(exit.code()).unwrap_or(1)),
        Ok(None) => ExitCode::FAILURE,
        Err(errno) => {
            eprintln!("dhow-floor: {errno}");
            ExitCode::FAILURE
        }
    }
}

fn start(root: &Path, command: &[String]) -> nix::Result<Infallible> {
    let nothing: Option<&str> = None;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)?;
    mount(Some(root), root, nothing, MsFlags::MS_BIND | MsFlags::MS_REC, nothing)?;
    for (kind, target, flags, data) in MOUNTS {
        let target = root.join(target);
        if kind != "sysfs" && !target.exists() {
            std::fs::create_dir(&target).map_err(|error| nix::Error::from_raw(error.raw_os_error().unwrap_or(0)))?;
        }
        mount(Some(kind), &target, Some(kind), flags, Some(data))?;
    }
    chdir(root)?;
    pivot_root(".", ".")?;
    umount2(".", MntFlags::MNT_DETACH)?;
    chdir("/")?;
    sethostname("floor")?;
    let words: Vec<CString> = command.iter().filter_map(|word| CString::new(word.as_str()).ok()).collect();
    let program = words.first().ok_or(nix::Error::EINVAL)?;
    execve(program, &words, &[c"PATH=/bin"])
}
