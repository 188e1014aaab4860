//! clone3(2) (Linux 5.3), or where a sandbox hides it clone(2): a child straight in its namespaces and its cgroup, with a pidfd.
//!
//! The constants are our own `u64`s: libc has them as `int`, where everything from bit 32 on is cut off and
//! `CLONE_INTO_CGROUP` becomes 0.

use std::fmt;
use std::ops::{BitOr, BitOrAssign};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::fcntl::{OFlag, openat};
use nix::sys::stat::Mode;

use crate::raw::check;
use crate::{Errno, Result, pidfd, process};

/// A set of namespace kinds, as `CLONE_NEW*` bits.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Namespaces(u64);

impl Namespaces {
    /// No namespace.
    pub const NONE: Self = Self(0);
    /// Time namespace (Linux 5.6). clone3 can make one, but its offsets can't be set any more then.
    pub const TIME: Self = Self(0x0000_0080);
    /// Mount namespace.
    pub const MOUNT: Self = Self(0x0002_0000);
    /// Cgroup namespace. Its root is the cgroup of the *caller*, also with [`Request::cgroup`].
    pub const CGROUP: Self = Self(0x0200_0000);
    /// Host and domain name.
    pub const UTS: Self = Self(0x0400_0000);
    /// System V IPC and POSIX message queues.
    pub const IPC: Self = Self(0x0800_0000);
    /// Users and capabilities.
    pub const USER: Self = Self(0x1000_0000);
    /// Process ids.
    pub const PID: Self = Self(0x2000_0000);
    /// Network.
    pub const NETWORK: Self = Self(0x4000_0000);

    /// The `CLONE_NEW*` bits.
    #[must_use]
    pub const fn bits(self) -> u64 {
        self.0
    }

    /// Whether all of `other` is in the set.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The set without `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether the set is empty.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The set for setns(2) and unshare(2). Every namespace bit fits an `int`.
    #[must_use]
    pub fn flags(self) -> nix::sched::CloneFlags {
        nix::sched::CloneFlags::from_bits_retain(i32::try_from(self.0).unwrap_or_default())
    }
}

impl BitOr for Namespaces {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Namespaces {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Debug for Namespaces {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Namespaces({:#x})", self.0)
    }
}

const CLONE_PIDFD: u64 = 0x0000_1000;
const CLONE_PARENT: u64 = 0x0000_8000;
const CLONE_CLEAR_SIGHAND: u64 = 1 << 32;
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// What the child is to be born into.
#[derive(Debug, Default)]
pub struct Request<'a> {
    /// New namespaces.
    pub namespaces: Namespaces,
    /// A directory of the cgroup v2 tree (Linux 5.7). Costs 0.1 ms where a write to `cgroup.procs` costs up to 14.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// The child becomes the caller's sibling: a child of the caller's parent (`CLONE_PARENT`).
    pub sibling: bool,
}

/// A child process.
#[derive(Debug)]
pub struct Child {
    /// Its pid in the caller's pid namespace.
    pub pid: i32,
    /// Becomes readable when it has ended.
    pub pidfd: OwnedFd,
}

/// Held by the code that runs in a freshly cloned child, which never returns to the frames of its parent. Nothing there
/// can use a descriptor again, so the functions that take this may close descriptors by number.
#[derive(Debug)]
pub struct InChild(());

/// The kernel's `struct clone_args`, version 2.
#[repr(C)]
#[derive(Default)]
struct Args {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Clones the calling process like fork(2); the child runs `child` and ends with the code that it returns.
///
/// The child has a copy of all memory and descriptors. Signal handlers are reset in it (ignored signals stay ignored).
/// It ends by `_exit`: no destructor of the caller's frames and no `atexit` handler runs in it.
///
/// # Errors
/// `EBUSY` when the process has more than one thread: then locks (of the allocator, of std) may be held in the child by
/// threads that do not exist there. Otherwise clone3's: `EPERM`, `ENOSPC` (limit of namespaces), `EINVAL`, `EAGAIN`, …
pub fn spawn(request: &Request<'_>, child: impl FnOnce(&InChild) -> u8) -> Result<Child> {
    if !process::is_single_threaded()? {
        return Err(Errno::EBUSY);
    }
    let mut pidfd: libc::c_int = -1;
    let mut args = Args {
        flags: request.namespaces.bits() | CLONE_PIDFD | CLONE_CLEAR_SIGHAND,
        pidfd: (&raw mut pidfd) as u64,
        exit_signal: u64::from(libc::SIGCHLD.unsigned_abs()),
        ..Args::default()
    };
    if let Some(cgroup) = request.cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    if request.sibling {
        // With CLONE_PARENT the exit signal is the caller's own; the kernel refuses another one (Linux 5.9).
        args.flags |= CLONE_PARENT;
        args.exit_signal = 0;
    }
    // SAFETY: `args` is a valid `clone_args` whose size is passed along, and `pidfd` outlives the call. Without CLONE_VM
    // the child works on a copy of the memory, on the same stack addresses. The process has exactly one thread (checked
    // above), so every lock is in the state in which this thread left it and the child may call anything, including
    // the allocator.
    let ret = unsafe { libc::syscall(libc::SYS_clone3, &raw mut args, size_of::<Args>()) };
    let (born, older) = match check(ret) {
        Err(Errno::ENOSYS) => (older(&args, &mut pidfd)?, true),
        born => (born?, false),
    };
    match born {
        0 => {
            if older {
                process::reset_signals();
            }
            // A panic must not unwind into the caller's frames: two processes would go on from there.
            let code = catch_unwind(AssertUnwindSafe(|| child(&InChild(())))).unwrap_or(101);
            process::exit_now(code)
        }
        pid => {
            // SAFETY: clone3 has succeeded with CLONE_PIDFD, so `pidfd` is a new descriptor of ours, close-on-exec.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let child = Child { pid: i32::try_from(pid).or(Err(Errno::EOVERFLOW))?, pidfd };
            match request.cgroup {
                Some(cgroup) if older => move_into(child, cgroup),
                _ => Ok(child),
            }
        }
    }
}

/// clone(2), where an outer sandbox hides clone3 because its filter can't look into the structure. It does the same but for
/// clearing signal handlers and for the cgroup.
fn older(args: &Args, pidfd: &mut libc::c_int) -> Result<libc::c_long> {
    if args.flags & Namespaces::TIME.bits() != 0 {
        // The bit is part of the exit signal here.
        return Err(Errno::ENOSYS);
    }
    let flags = args.flags & u64::from(u32::MAX) | args.exit_signal;
    // SAFETY: as for clone3 above: no CLONE_VM and no new stack, so the child goes on with copies of everything, and the
    // process has one thread. `pidfd` outlives the call. The arguments after it are unused, so their order, which differs
    // between architectures, does not matter.
    check(unsafe { libc::syscall(libc::SYS_clone, flags, 0u64, std::ptr::from_mut(pidfd), 0u64, 0u64) })
}

/// What `CLONE_INTO_CGROUP` would have done.
fn move_into(child: Child, cgroup: BorrowedFd<'_>) -> Result<Child> {
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC;
    let moved = openat(cgroup, c"cgroup.procs", flags, Mode::empty())
        .and_then(|procs| nix::unistd::write(procs, child.pid.to_string().as_bytes()));
    match moved {
        Ok(_) => Ok(child),
        Err(error) => {
            // Outside of its cgroup it may not run. A sibling is reaped by its parent.
            pidfd::send_signal(child.pidfd.as_fd(), libc::SIGKILL).ok();
            pidfd::reap(child.pidfd.as_fd(), true).ok();
            Err(error)
        }
    }
}
