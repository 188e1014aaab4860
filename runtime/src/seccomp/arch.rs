//! The architectures whose system calls can be filtered.

use oci_spec::runtime::Arch;

/// An architecture, as a task's system call entry has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// 64 bit x86.
    X86_64,
    /// 32 bit x86.
    X86,
    /// 64 bit x86 with 32 bit pointers: the same audit number as x86_64, with bit 30 in the call's number.
    X32,
    /// 64 bit ARM.
    Aarch64,
    /// 32 bit ARM (EABI).
    Arm,
    /// 64 bit RISC-V.
    Riscv64,
}

/// Marks the system calls of x32 (`__X32_SYSCALL_BIT`).
pub(super) const X32_BIT: u32 = 0x4000_0000;

impl Architecture {
    /// What we were compiled for.
    #[cfg(target_arch = "x86_64")]
    pub const NATIVE: Self = Self::X86_64;
    /// What we were compiled for.
    #[cfg(target_arch = "aarch64")]
    pub const NATIVE: Self = Self::Aarch64;
    /// What we were compiled for.
    #[cfg(target_arch = "riscv64")]
    pub const NATIVE: Self = Self::Riscv64;

    /// The architecture that a profile names. `None` for one that no kernel of ours can run.
    pub fn from_profile(name: Arch, native: Self) -> Option<Self> {
        match name {
            Arch::ScmpArchNative => Some(native),
            Arch::ScmpArchX86_64 => Some(Self::X86_64),
            Arch::ScmpArchX86 => Some(Self::X86),
            Arch::ScmpArchX32 => Some(Self::X32),
            Arch::ScmpArchAarch64 => Some(Self::Aarch64),
            Arch::ScmpArchArm => Some(Self::Arm),
            Arch::ScmpArchRiscv64 => Some(Self::Riscv64),
            _ => None,
        }
    }

    /// Whether a kernel built for `native` can run programs of this architecture.
    pub fn runs_on(self, native: Self) -> bool {
        match native {
            Self::X86_64 => matches!(self, Self::X86_64 | Self::X86 | Self::X32),
            Self::Aarch64 => matches!(self, Self::Aarch64 | Self::Arm),
            other => self == other,
        }
    }

    /// The kernel's name for it in `seccomp_data.arch` (`AUDIT_ARCH_*`).
    pub fn audit(self) -> u32 {
        match self {
            Self::X86_64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
            Self::Riscv64 => 0xc000_00f3,
        }
    }

    /// What is set in the number of each of its system calls.
    pub fn number_bit(self) -> u32 {
        if self == Self::X32 { X32_BIT } else { 0 }
    }

    /// Whether arguments have 32 bits. On x32 registers have 64.
    pub fn is_narrow(self) -> bool {
        matches!(self, Self::X86 | Self::Arm)
    }

    /// Above this number lie only calls private to the architecture: a new call will not appear there.
    pub(super) fn last_ordinary(self) -> u32 {
        match self {
            Self::Arm => 0x000e_ffff,
            _ => X32_BIT - 1,
        }
    }

    /// Where it stands in the table of numbers.
    pub(super) fn column(self) -> usize {
        match self {
            Self::X86_64 => 0,
            Self::X86 => 1,
            Self::X32 => 2,
            Self::Aarch64 => 3,
            Self::Arm => 4,
            Self::Riscv64 => 5,
        }
    }
}
