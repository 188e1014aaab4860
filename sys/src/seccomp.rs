//! seccomp(2): installing a filter, and asking the kernel what it can do.
//!
//! Compiling a profile into a program is the runtime's business; here is only the system call. A filter
//! is installed for the calling thread (or, with `TSYNC`, all threads) and inherited over fork and exec;
//! it can never be taken off again.

use std::os::fd::OwnedFd;

use crate::raw::{check, owned};
use crate::{Errno, Result};

/// One instruction of a classic BPF program, as the kernel takes it.
pub type Instruction = libc::sock_filter;

/// The most instructions the kernel accepts in one filter (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// How a filter is installed: the flags of `SECCOMP_SET_MODE_FILTER`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FilterFlags(u32);

impl FilterFlags {
    /// All threads of the process get the filter, or none does. Linux 3.17.
    pub const TSYNC: Self = Self(1 << 0);
    /// Actions other than allow are written to the audit log. Linux 4.14.
    pub const LOG: Self = Self(1 << 1);
    /// The speculative-store-bypass mitigation is left off. Linux 4.17.
    pub const SPEC_ALLOW: Self = Self(1 << 2);
    /// Installing answers with a descriptor on which `USER_NOTIF` requests arrive. Linux 5.0.
    pub const NEW_LISTENER: Self = Self(1 << 3);
    /// With `NEW_LISTENER`: once a request was read, only a fatal signal interrupts the waiting task. Linux 5.19.
    pub const WAIT_KILLABLE_RECV: Self = Self(1 << 5);

    /// The flags as the kernel counts them.
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Whether all of `other` is in this set.
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// This set less `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// What a filter can return for a system call (`SECCOMP_RET_*` without its data).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Action {
    /// The whole process ends by SIGSYS.
    KillProcess = 0x8000_0000,
    /// The calling thread ends by SIGSYS.
    KillThread = 0x0000_0000,
    /// The thread gets SIGSYS, which it can handle.
    Trap = 0x0003_0000,
    /// The call fails with the error number in the data.
    Errno = 0x0005_0000,
    /// A supervisor decides over the listener.
    UserNotif = 0x7fc0_0000,
    /// A tracer decides; the call fails with ENOSYS where there is none.
    Trace = 0x7ff0_0000,
    /// The call goes through and is logged.
    Log = 0x7ffc_0000,
    /// The call goes through.
    Allow = 0x7fff_0000,
}

/// The sizes of the kernel's notification structures (`SECCOMP_GET_NOTIF_SIZES`); larger than what
/// we were compiled with on newer kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotifSizes {
    /// Bytes of `struct seccomp_notif`.
    pub request: usize,
    /// Bytes of `struct seccomp_notif_resp`.
    pub response: usize,
    /// Bytes of `struct seccomp_data`.
    pub data: usize,
}

const SECCOMP_SET_MODE_FILTER: libc::c_uint = 1;
const SECCOMP_GET_ACTION_AVAIL: libc::c_uint = 2;
const SECCOMP_GET_NOTIF_SIZES: libc::c_uint = 3;

/// Installs `program` for the calling thread. Allocates nothing, so it may be called between fork and exec.
///
/// Answers the listener when `NEW_LISTENER` is among the flags.
///
/// # Errors
/// `EACCES` without either no_new_privs or CAP_SYS_ADMIN; `EINVAL` for a program the kernel rejects or a
/// flag it does not know; `ESRCH` when `TSYNC` found a thread that can't follow (that thread's id is lost);
/// `EBUSY` when a listener exists already; `E2BIG` for a program that is empty or too long.
pub fn install(program: &[Instruction], flags: FilterFlags) -> Result<Option<OwnedFd>> {
    if program.is_empty() || program.len() > MAX_INSTRUCTIONS {
        return Err(Errno::E2BIG);
    }
    let fprog = libc::sock_fprog { len: program.len() as libc::c_ushort, filter: program.as_ptr().cast_mut() };
    // SAFETY: fprog points at `program`, which lives over the call with the length given; the kernel copies
    // the instructions and never writes to them, so casting the const away is sound. The call touches no
    // memory of the caller besides, and is async-signal-safe.
    let answer =
        unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags.bits(), std::ptr::from_ref(&fprog)) };
    if flags.contains(FilterFlags::NEW_LISTENER) {
        return owned(answer).map(Some);
    }
    // With TSYNC a positive answer is the id of the thread that stood in the way.
    if check(answer)? > 0 { Err(Errno::ESRCH) } else { Ok(None) }
}

/// Whether the running kernel knows `action`.
///
/// # Errors
/// `ENOSYS` on a kernel without seccomp(2); `EINVAL` before Linux 4.14.
pub fn action_available(action: Action) -> Result<bool> {
    let value = action as u32;
    // SAFETY: the kernel reads one u32 at the pointer, which is a live local.
    let answer =
        unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0u64, std::ptr::from_ref(&value)) };
    match check(answer) {
        Ok(_) => Ok(true),
        Err(Errno::EOPNOTSUPP) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Whether the running kernel knows all of `flags` for installing a filter.
///
/// Asks with a null program: the kernel checks the flags first and only then faults on the pointer.
pub fn flags_available(flags: FilterFlags) -> bool {
    // SAFETY: a null program is never read: the kernel fails with EFAULT before it touches anything.
    let answer = unsafe {
        libc::syscall(libc::SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags.bits(), std::ptr::null::<libc::sock_fprog>())
    };
    check(answer) == Err(Errno::EFAULT)
}

/// The sizes of the structures on the notification descriptor.
///
/// # Errors
/// `EINVAL` before Linux 5.0.
pub fn notif_sizes() -> Result<NotifSizes> {
    let mut sizes = [0u16; 3];
    // SAFETY: struct seccomp_notif_sizes is three u16; the kernel writes exactly these six bytes.
    let answer = unsafe { libc::syscall(libc::SYS_seccomp, SECCOMP_GET_NOTIF_SIZES, 0u64, sizes.as_mut_ptr()) };
    check(answer)?;
    Ok(NotifSizes { request: sizes[0].into(), response: sizes[1].into(), data: sizes[2].into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_knows_every_action_and_flag_used() {
        for action in [
            Action::KillProcess,
            Action::KillThread,
            Action::Trap,
            Action::Errno,
            Action::UserNotif,
            Action::Trace,
            Action::Log,
            Action::Allow,
        ] {
            assert_eq!(action_available(action), Ok(true), "{action:?}");
        }
        assert!(flags_available(FilterFlags::LOG.union(FilterFlags::SPEC_ALLOW)));
        assert!(!flags_available(FilterFlags(1 << 30)));
        let sizes = notif_sizes().unwrap();
        assert_eq!(sizes.data, 64);
        assert!(sizes.request >= 80 && sizes.response >= 24, "{sizes:?}");
    }

    #[test]
    fn an_empty_or_oversized_program_is_refused_before_the_kernel_sees_it() {
        assert_eq!(install(&[], FilterFlags::default()).unwrap_err(), Errno::E2BIG);
        let long = vec![Instruction { code: 6, jt: 0, jf: 0, k: 0 }; MAX_INSTRUCTIONS + 1];
        assert_eq!(install(&long, FilterFlags::default()).unwrap_err(), Errno::E2BIG);
    }
}
