//! bpf(2): programs for the device filter of cgroup v2.
//!
//! Only what that filter needs: assembling a program instruction by instruction, loading it as
//! `BPF_PROG_TYPE_CGROUP_DEVICE`, and attaching, replacing, listing and detaching it. What the program
//! decides is the runtime's business.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use crate::raw::{check, owned};
use crate::{Errno, Result};

/// A register of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Register {
    /// The answer.
    R0 = 0,
    /// The context when the program starts.
    R1 = 1,
    /// Free.
    R2 = 2,
    /// Free.
    R3 = 3,
    /// Free.
    R4 = 4,
    /// Free.
    R5 = 5,
}

/// One instruction, as the kernel's `struct bpf_insn`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Class, operation and source.
    pub code: u8,
    /// Destination register in the low half, source register in the high one.
    pub registers: u8,
    /// Offset of a load.
    pub offset: i16,
    /// Immediate operand.
    pub immediate: i32,
}

/// What an instruction does with two numbers of 64 bits; the first is also where the result goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Operation {
    /// `dst += operand`
    Add = 0x00,
    /// `dst *= operand`
    Multiply = 0x20,
    /// `dst |= operand`
    Or = 0x40,
    /// `dst &= operand`
    And = 0x50,
    /// `dst <<= operand`
    ShiftLeft = 0x60,
    /// `dst >>= operand`, zeros from the left.
    ShiftRight = 0x70,
    /// `dst = -dst`; there is no operand.
    Negate = 0x80,
    /// `dst ^= operand`
    Xor = 0xa0,
    /// `dst = operand`
    Set = 0xb0,
}

impl Instruction {
    /// `dst = *(u32 *)(src + offset)`
    pub const fn load_word(dst: Register, src: Register, offset: i16) -> Self {
        Self { offset, ..Self::new(0x61, dst, src, 0) }
    }

    /// An operation on two registers.
    pub const fn registers(operation: Operation, dst: Register, src: Register) -> Self {
        Self::new(0x0f | operation as u8, dst, src, 0)
    }

    /// An operation with a number, whose sign is extended to 64 bits.
    pub const fn immediate(operation: Operation, dst: Register, number: i32) -> Self {
        Self::new(0x07 | operation as u8, dst, Register::R0, number)
    }

    /// `dst = number`, with zeros in the upper half.
    pub const fn set_unsigned(dst: Register, number: u32) -> Self {
        Self::new(0xb4, dst, Register::R0, number.cast_signed())
    }

    /// Ends the program with `R0` as its answer.
    pub const fn exit() -> Self {
        Self::new(0x95, Register::R0, Register::R0, 0)
    }

    const fn new(code: u8, dst: Register, src: Register, immediate: i32) -> Self {
        Self { code, registers: dst as u8 | (src as u8) << 4, offset: 0, immediate }
    }
}

/// A device program that the kernel has verified.
#[derive(Debug)]
pub struct DeviceProgram(OwnedFd);

/// The kernel's name for a loaded program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProgramId(pub u32);

impl DeviceProgram {
    /// Loads a program of type `BPF_PROG_TYPE_CGROUP_DEVICE` (Linux 4.15).
    ///
    /// # Errors
    /// `EPERM` without CAP_BPF and CAP_NET_ADMIN in the first user namespace; `EINVAL` or `EACCES` for a
    /// program that the verifier rejects; `E2BIG` for one that is too long.
    pub fn load(instructions: &[Instruction]) -> Result<Self> {
        let mut name = [0; 16];
        name[..11].copy_from_slice(b"dhow_device");
        let mut attr = LoadAttr {
            prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
            insn_cnt: u32::try_from(instructions.len()).or(Err(Errno::E2BIG))?,
            insns: instructions.as_ptr() as u64,
            // No helper is called, so the licence does not matter to the kernel.
            license: c"Apache-2.0".as_ptr() as u64,
            log_level: 0,
            log_size: 0,
            log_buf: 0,
            kern_version: 0,
            prog_flags: 0,
            prog_name: name,
            prog_ifindex: 0,
            expected_attach_type: BPF_CGROUP_DEVICE,
        };
        // SAFETY: `insns` points at `insn_cnt` instructions with the layout of struct bpf_insn and `license` at a
        // string with its NUL; both live over the call, and the kernel only reads them.
        owned(unsafe { bpf(BPF_PROG_LOAD, &mut attr) }).map(Self)
    }

    /// A handle on the program with this id, to detach or replace it.
    ///
    /// # Errors
    /// `ENOENT` when it is gone; `EPERM` without CAP_SYS_ADMIN.
    pub fn by_id(id: ProgramId) -> Result<Self> {
        let mut attr = FdByIdAttr { prog_id: id.0, next_id: 0, open_flags: 0 };
        // SAFETY: the structure holds no pointer.
        owned(unsafe { bpf(BPF_PROG_GET_FD_BY_ID, &mut attr) }).map(Self)
    }

    /// Attaches the program to a cgroup beside those that are there; every one of them has to allow an access.
    ///
    /// # Errors
    /// `EPERM` where the cgroup has a program that allows no other; `EEXIST` when it is attached already;
    /// `E2BIG` with more than 64 of them.
    pub fn attach(&self, cgroup: BorrowedFd<'_>) -> Result<()> {
        self.attach_with(cgroup, BPF_F_ALLOW_MULTI, 0)
    }

    /// Puts the program in the place of `old` in one step (Linux 5.6): no access in between sees neither.
    ///
    /// # Errors
    /// `ENOENT` when `old` is not attached there; `EINVAL` before Linux 5.6.
    pub fn replace(&self, cgroup: BorrowedFd<'_>, old: &Self) -> Result<()> {
        self.attach_with(cgroup, BPF_F_ALLOW_MULTI | BPF_F_REPLACE, raw(old.0.as_fd()))
    }

    /// Takes the program off a cgroup.
    ///
    /// # Errors
    /// `ENOENT` when it is not attached there.
    pub fn detach(&self, cgroup: BorrowedFd<'_>) -> Result<()> {
        let mut attr = AttachAttr {
            target_fd: raw(cgroup),
            attach_bpf_fd: raw(self.0.as_fd()),
            attach_type: BPF_CGROUP_DEVICE,
            attach_flags: 0,
            replace_bpf_fd: 0,
        };
        // SAFETY: the structure holds no pointer.
        check(unsafe { bpf(BPF_PROG_DETACH, &mut attr) }).map(drop)
    }

    fn attach_with(&self, cgroup: BorrowedFd<'_>, flags: u32, replaced: u32) -> Result<()> {
        let mut attr = AttachAttr {
            target_fd: raw(cgroup),
            attach_bpf_fd: raw(self.0.as_fd()),
            attach_type: BPF_CGROUP_DEVICE,
            attach_flags: flags,
            replace_bpf_fd: replaced,
        };
        // SAFETY: the structure holds no pointer.
        check(unsafe { bpf(BPF_PROG_ATTACH, &mut attr) }).map(drop)
    }
}

/// The device programs attached to a cgroup itself, not those it inherits.
///
/// # Errors
/// `EBADF` for a descriptor that is no cgroup v2; `EINVAL` on a kernel without `CONFIG_CGROUP_BPF`;
/// `EPERM` without CAP_NET_ADMIN.
pub fn device_programs(cgroup: BorrowedFd<'_>) -> Result<Vec<ProgramId>> {
    // The kernel attaches at most 64 programs of one type (BPF_CGROUP_MAX_PROGS).
    let mut ids = [0_u32; 64];
    let mut attr = QueryAttr {
        target_fd: raw(cgroup),
        attach_type: BPF_CGROUP_DEVICE,
        query_flags: 0,
        attach_flags: 0,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: 64,
        padding: 0,
        prog_attach_flags: 0,
        link_ids: 0,
        link_attach_flags: 0,
        revision: 0,
    };
    // SAFETY: `prog_ids` points at 64 words that live over the call and `prog_cnt` says so.
    check(unsafe { bpf(BPF_PROG_QUERY, &mut attr) })?;
    Ok(ids.iter().take(attr.prog_cnt as usize).copied().map(ProgramId).collect())
}

/// # Safety
/// `attr` is the structure that `command` takes, and every address in it is good for what the kernel does with it.
unsafe fn bpf<A>(command: libc::c_int, attr: &mut A) -> libc::c_long {
    // SAFETY: the kernel reads (and for queries writes) within the size given; the addresses are the caller's promise.
    unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attr), size_of::<A>()) }
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().cast_unsigned()
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_PROG_QUERY: libc::c_int = 16;

const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 1 << 1;
const BPF_F_REPLACE: u32 = 1 << 2;

#[repr(C)]
struct LoadAttr {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
    prog_ifindex: u32,
    expected_attach_type: u32,
}

#[repr(C)]
struct AttachAttr {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
    replace_bpf_fd: u32,
}

#[repr(C)]
struct FdByIdAttr {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
}

/// Down to `revision` although we don't ask for it: Linux 6.17 writes it back whatever size it was told.
#[repr(C)]
struct QueryAttr {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    padding: u32,
    prog_attach_flags: u64,
    link_ids: u64,
    link_attach_flags: u64,
    revision: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_verifier_takes_a_program_that_ends_and_refuses_one_that_does_not() {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root");
        let allow = [Instruction::set_unsigned(Register::R0, 1), Instruction::exit()];
        let program = DeviceProgram::load(&allow).unwrap();
        assert!(matches!(DeviceProgram::load(&allow[..1]).map_err(drop), Err(())));
        drop(program);
    }

    #[test]
    fn layouts_are_the_kernels() {
        assert_eq!(size_of::<Instruction>(), 8);
        assert_eq!(size_of::<LoadAttr>(), 72);
        assert_eq!(std::mem::offset_of!(QueryAttr, revision), 56);
    }

    #[test]
    fn a_file_that_is_no_cgroup_has_no_programs() {
        let file = std::fs::File::open("/proc/self/status").unwrap();
        assert_eq!(device_programs(file.as_fd()), Err(Errno::EBADF));
    }
}
