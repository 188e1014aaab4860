//! How a process is scheduled, for CPU, disk and memory: what nix has no wrapper for.

use crate::Result;
use crate::raw::check;

/// The policy with guaranteed time (Linux 3.14).
pub const DEADLINE: u32 = 6;

/// How a thread is scheduled.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// For the normal policies.
    pub nice: i32,
    /// For the real-time policies.
    pub priority: u32,
    /// Nanoseconds, for SCHED_DEADLINE.
    pub runtime: u64,
    /// Nanoseconds, for SCHED_DEADLINE.
    pub deadline: u64,
    /// Nanoseconds, for SCHED_DEADLINE.
    pub period: u64,
}

/// Lets the calling thread run on every processor that its cgroup allows.
///
/// # Errors
/// `EINVAL` on a machine with more processors than the kernel's default limit of 8192.
pub fn use_all_processors() -> Result<()> {
    let set = [u8::MAX; 1024];
    // SAFETY: the kernel reads as many bytes as the set is long; 0 is the calling thread.
    check(unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, set.len(), set.as_ptr()) }).map(drop)
}

/// The kernel's `struct sched_attr`, version 0.
#[repr(C)]
struct Raw {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Sets the calling thread's scheduling.
///
/// # Errors
/// `EPERM` without `CAP_SYS_NICE`, `EINVAL`, `EBUSY` (deadline bandwidth).
pub fn set(attributes: &Attributes) -> Result<()> {
    let size = u32::try_from(size_of::<Raw>()).unwrap_or_default();
    let Attributes { policy, flags, nice, priority, runtime, deadline, period } = *attributes;
    let mut raw = Raw { size, policy, flags, nice, priority, runtime, deadline, period };
    // SAFETY: `raw` is a sched_attr that tells its own size and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw mut raw, 0) }).map(drop)
}

/// Sets the calling thread's disk priority: `class` 1 real-time, 2 best effort, 3 idle; `priority` 0 (high) to 7.
///
/// # Errors
/// `EPERM`, `EINVAL`.
pub fn set_io_priority(class: u16, priority: u16) -> Result<()> {
    const IOPRIO_WHO_PROCESS: libc::c_int = 1;
    let value = libc::c_int::from(class) << 13 | libc::c_int::from(priority);
    // SAFETY: three integers.
    check(unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, value) }).map(drop)
}

/// Sets the calling thread's memory policy: `mode` with `MPOL_F_*` bits, and the nodes.
///
/// # Errors
/// `EINVAL` when mode and nodes don't fit each other or this machine.
pub fn set_memory_policy(mode: u32, nodes: &[u32]) -> Result<()> {
    let words = nodes.iter().max().map_or(0, |max| max / 64 + 1);
    let mut mask = vec![0_u64; usize::try_from(words).unwrap_or_default()];
    for node in nodes {
        mask[usize::try_from(node / 64).unwrap_or_default()] |= 1 << (node % 64);
    }
    // The kernel looks at one bit less than it is told.
    let bits = u64::from(words) * 64 + 1;
    let pointer = if mask.is_empty() { std::ptr::null() } else { mask.as_ptr() };
    // SAFETY: `mask` has as many bits as `bits` says (less the one the kernel subtracts) and outlives the call.
    check(unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, pointer, bits) }).map(drop)
}
