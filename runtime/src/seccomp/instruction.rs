//! The instructions of classic BPF that filters are made of.

use dhow_sys::seccomp::Instruction;

/// Loads a word of `struct seccomp_data` into A (`BPF_LD | BPF_W | BPF_ABS`).
pub(super) fn load(offset: u32) -> Instruction {
    Instruction { code: 0x20, jt: 0, jf: 0, k: offset }
}

/// Skips `jt` instructions when A equals `value`, else `jf` (`BPF_JMP | BPF_JEQ | BPF_K`).
pub(super) fn jump_if_equal(value: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code: 0x15, jt, jf, k: value }
}

/// Skips `jt` instructions when A is `value` or more, else `jf` (`BPF_JMP | BPF_JGE | BPF_K`).
pub(super) fn jump_if_at_least(value: u32, jt: u8, jf: u8) -> Instruction {
    Instruction { code: 0x35, jt, jf, k: value }
}

/// Skips `over` instructions (`BPF_JMP | BPF_JA`).
pub(super) fn jump(over: usize) -> Instruction {
    Instruction { code: 0x05, jt: 0, jf: 0, k: u32::try_from(over).expect("a program is far shorter") }
}

/// Ends with `answer` (`BPF_RET | BPF_K`).
pub(super) fn ret(answer: u32) -> Instruction {
    Instruction { code: 0x06, jt: 0, jf: 0, k: answer }
}
