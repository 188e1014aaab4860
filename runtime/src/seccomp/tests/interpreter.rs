//! A small machine for classic BPF, with the instructions that a filter may have here.

use dhow_sys::seccomp::Instruction;

/// `struct seccomp_data`, but for the instruction pointer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Call {
    pub(super) number: u32,
    pub(super) audit: u32,
    pub(super) arguments: [u64; 6],
}

impl Call {
    fn word(&self, offset: u32) -> u32 {
        match offset {
            0 => self.number,
            4 => self.audit,
            16..64 => {
                let argument = self.arguments[(offset as usize - 16) / 8];
                if offset % 8 == 4 { (argument >> 32) as u32 } else { argument as u32 }
            }
            _ => panic!("a filter reads at {offset}"),
        }
    }
}

/// What the program answers.
pub(super) fn run(program: &[Instruction], call: &Call) -> u32 {
    let (mut accumulator, mut index, mut scratch) = (0_u32, 0_u32, [0_u32; 16]);
    let mut counter = 0;
    loop {
        let Instruction { code, jt, jf, k } = program[counter];
        counter += 1;
        let skip = |holds: bool| usize::from(if holds { jt } else { jf });
        match code {
            0x20 => accumulator = call.word(k),
            0x00 => accumulator = k,
            0x60 => accumulator = scratch[k as usize],
            0x01 => index = k,
            0x02 => scratch[k as usize] = accumulator,
            0x54 => accumulator &= k,
            0x07 => index = accumulator,
            0x87 => accumulator = index,
            0x05 => counter += k as usize,
            0x15 => counter += skip(accumulator == k),
            0x25 => counter += skip(accumulator > k),
            0x35 => counter += skip(accumulator >= k),
            0x45 => counter += skip(accumulator & k != 0),
            0x06 => return k,
            0x16 => return accumulator,
            _ => panic!("instruction {code:#x} at {}", counter - 1),
        }
    }
}

/// Every number that any architecture uses, and those around the borders.
pub(super) fn interesting_numbers() -> impl Iterator<Item = u32> {
    let borders = [600, 0xf_0000 - 1, 0x3fff_ffff, 0x7fff_ffff, 0x8000_0000, u32::MAX - 1, u32::MAX];
    (0..560).chain((0..560).map(|number| number | 0x4000_0000)).chain(0xf_0000..0xf_0008).chain(borders)
}
