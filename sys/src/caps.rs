//! Capabilities: names, and the five sets of a thread (capabilities(7)).

use std::fmt;

use crate::raw::check;
use crate::{Errno, Result};

/// A set of capabilities, one bit each.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct CapSet(pub u64);

/// Names by number, without `CAP_` (Linux 5.9 has all of them).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// Number of `CAP_DAC_OVERRIDE`.
pub const DAC_OVERRIDE: u32 = 1;
/// Number of `CAP_DAC_READ_SEARCH`.
pub const DAC_READ_SEARCH: u32 = 2;
/// Number of `CAP_SYS_ADMIN`.
pub const SYS_ADMIN: u32 = 21;
/// Number of `CAP_SYS_RESOURCE`.
pub const SYS_RESOURCE: u32 = 24;

impl CapSet {
    /// No capability.
    pub const EMPTY: Self = Self(0);

    /// With capability number `cap`.
    #[must_use]
    pub const fn with(self, cap: u32) -> Self {
        Self(self.0 | 1 << cap)
    }

    /// Whether capability number `cap` is in it.
    #[must_use]
    pub const fn has(self, cap: u32) -> bool {
        cap < 64 && self.0 & (1 << cap) != 0
    }

    /// What is in either.
    #[must_use]
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl fmt::Debug for CapSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CapSet({:#x})", self.0)
    }
}

/// The number of a capability by name, `CAP_CHOWN` or `CHOWN`, in any case.
#[must_use]
pub fn number(name: &str) -> Option<u32> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES.iter().position(|n| *n == bare).and_then(|n| u32::try_from(n).ok())
}

/// All names, `CAP_CHOWN` first, in the order of their numbers.
pub fn names() -> impl Iterator<Item = String> {
    NAMES.iter().map(|n| format!("CAP_{n}"))
}

#[repr(C)]
struct Header {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

const VERSION_3: u32 = 0x2008_0522;

/// The three classic sets of a thread.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sets {
    /// What counts now.
    pub effective: CapSet,
    /// What may become effective.
    pub permitted: CapSet,
    /// What files may hand on over exec.
    pub inheritable: CapSet,
}

/// The calling thread's sets.
///
/// # Errors
/// None that a valid call could give.
pub fn get() -> Result<Sets> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 has two data elements; both structures outlive the call.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw mut header, data.as_mut_ptr()) })?;
    let join = |part: fn(&Data) -> u32| CapSet(u64::from(part(&data[0])) | u64::from(part(&data[1])) << 32);
    Ok(Sets {
        effective: join(|d| d.effective),
        permitted: join(|d| d.permitted),
        inheritable: join(|d| d.inheritable),
    })
}

/// Sets the calling thread's sets.
///
/// # Errors
/// `EPERM` when a set would gain what the thread may not have.
pub fn set(sets: Sets) -> Result<()> {
    let mut header = Header { version: VERSION_3, pid: 0 };
    let half = |shift: u32| {
        let part = |set: CapSet| u32::try_from(set.0 >> shift & u64::from(u32::MAX)).unwrap_or_default();
        Data { effective: part(sets.effective), permitted: part(sets.permitted), inheritable: part(sets.inheritable) }
    };
    let data = [half(0), half(32)];
    // SAFETY: as in `get`; the kernel only reads `data`.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw mut header, data.as_ptr()) }).map(drop)
}

/// Drops from the bounding set whatever is not in `keep`.
///
/// # Errors
/// `EPERM` without `CAP_SETPCAP`.
pub fn bound(keep: CapSet) -> Result<()> {
    for cap in 0..64 {
        if keep.has(cap) {
            continue;
        }
        match prctl(libc::PR_CAPBSET_DROP, cap.into(), 0) {
            // The kernel doesn't know numbers from here on.
            Err(Errno::EINVAL) => break,
            other => other?,
        };
    }
    Ok(())
}

/// The bounding set.
#[must_use]
pub fn bounding() -> CapSet {
    let known = (0..64).take_while(|&cap| prctl(libc::PR_CAPBSET_READ, u64::from(cap), 0).is_ok());
    known.filter(|&cap| prctl(libc::PR_CAPBSET_READ, u64::from(cap), 0) == Ok(1)).fold(CapSet::EMPTY, CapSet::with)
}

/// Makes the ambient set equal to `caps`.
///
/// # Errors
/// `EPERM` when a capability is not both permitted and inheritable.
pub fn set_ambient(caps: CapSet) -> Result<()> {
    let clear = u64::from(libc::PR_CAP_AMBIENT_CLEAR_ALL.unsigned_abs());
    let raise = u64::from(libc::PR_CAP_AMBIENT_RAISE.unsigned_abs());
    prctl(libc::PR_CAP_AMBIENT, clear, 0)?;
    for cap in (0..64).filter(|&cap| caps.has(cap)) {
        prctl(libc::PR_CAP_AMBIENT, raise, cap.into())?;
    }
    Ok(())
}

/// Whether permitted capabilities survive the next change of user ids away from 0 (`PR_SET_KEEPCAPS`; exec clears it).
///
/// # Errors
/// `EPERM` when the securebits lock it.
pub fn keep_over_setuid(keep: bool) -> Result<()> {
    prctl(libc::PR_SET_KEEPCAPS, keep.into(), 0).map(drop)
}

fn prctl(option: libc::c_int, a: u64, b: u64) -> Result<libc::c_long> {
    // SAFETY: the options used in this file take integers only.
    check(unsafe { libc::prctl(option, a, b, 0, 0) }.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers() {
        assert_eq!(number("CAP_CHOWN"), Some(0));
        assert_eq!(number("sys_admin"), Some(SYS_ADMIN));
        assert_eq!(number("CAP_CHECKPOINT_RESTORE"), Some(40));
        assert_eq!(number("CAP_NONSENSE"), None);
        assert_eq!(names().nth(24).as_deref(), Some("CAP_SYS_RESOURCE"));
    }

    #[test]
    fn own_sets_can_be_set_again() {
        let sets = get().unwrap();
        set(sets).unwrap();
        assert_eq!(get().unwrap(), sets);
        assert_eq!(sets.permitted.and(bounding()), sets.permitted);
    }
}
