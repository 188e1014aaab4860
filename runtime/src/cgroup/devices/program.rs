//! The device filter of cgroup v2: a program that the kernel asks at every open and mknod of a device.
//!
//! ```text
//! ASKED = the accesses asked for, REFUSED = 0, and a key for each kind: its upper half is zero for a device of this kind,
//! and its lower one has twelve bits of the major number and twenty of the minor one, as the kernel's dev_t
//! for each rule, the last one first:
//!     OTHER = no bit if it concerns this device, else all of them
//!     it allows:   ASKED &= OTHER | the accesses that it does not speak of
//!     it refuses:  REFUSED |= ASKED & !OTHER & the accesses that it speaks of
//! answer whether nothing is left in ASKED | REFUSED
//! ```
//! There is no branch in it, for the verifier follows each way through a program: docs/performance.md says what a jump per rule cost.

use std::os::fd::AsFd;

use dhow_sys::Errno;
use dhow_sys::bpf::{DeviceProgram, Instruction, Operation, Register, device_programs};

use super::super::dir::Dir;
use super::super::error::{CgroupError, Result};
use super::{Access, DeviceRules, Kind, Rule};

const REFUSED: Register = Register::R0;
/// The context at the start, then whatever a rule needs.
const OTHER: Register = Register::R1;
const CHARACTER: Register = Register::R2;
const ASKED: Register = Register::R3;
/// The key of rules for both kinds.
const DEVICE: Register = Register::R4;
const BLOCK: Register = Register::R5;

const MINOR_BITS: u32 = 20;
const MAJOR_BITS: u32 = 12;

/// The program that decides by these rules.
pub(super) fn assemble(rules: &DeviceRules) -> Vec<Instruction> {
    let mut code = begin();
    for rule in rules.0.iter().rev() {
        if rule.is_about_everything() {
            // Nothing gets past it; what is left of what was asked for is refused.
            if rule.allow {
                code.push(Instruction::immediate(Operation::Set, ASKED, 0));
            }
            break;
        }
        let Some(concern) = concern(rule) else { continue };
        code.extend(concern);
        code.extend(decide(rule));
    }
    code.extend([
        Instruction::registers(Operation::Or, REFUSED, ASKED),
        // The sign of what is left less one.
        Instruction::immediate(Operation::Add, REFUSED, -1),
        Instruction::immediate(Operation::ShiftRight, REFUSED, 63),
        Instruction::exit(),
    ]);
    code
}

fn begin() -> Vec<Instruction> {
    use Operation::{And, Or, Set, ShiftLeft, ShiftRight, Xor};
    vec![
        // struct bpf_cgroup_dev_ctx: the kind (1 block, 2 character) in the lower half of the first word, the accesses in
        // the upper one; the major and the minor number.
        Instruction::load_word(BLOCK, OTHER, 0),
        Instruction::load_word(DEVICE, OTHER, 4),
        Instruction::load_word(OTHER, OTHER, 8),
        Instruction::immediate(ShiftLeft, DEVICE, MINOR_BITS.cast_signed()),
        Instruction::registers(Or, DEVICE, OTHER),
        Instruction::registers(Set, ASKED, BLOCK),
        Instruction::immediate(ShiftRight, ASKED, 16),
        Instruction::immediate(And, BLOCK, 1),
        Instruction::immediate(ShiftLeft, BLOCK, 32),
        Instruction::registers(Set, CHARACTER, DEVICE),
        Instruction::registers(Or, CHARACTER, BLOCK),
        Instruction::immediate(Set, BLOCK, 1),
        Instruction::immediate(ShiftLeft, BLOCK, 32),
        Instruction::registers(Xor, BLOCK, CHARACTER),
        Instruction::immediate(Set, REFUSED, 0),
    ]
}

/// Makes OTHER; nothing for a rule about a device that there can't be.
fn concern(rule: &Rule) -> Option<Vec<Instruction>> {
    use Operation::{And, Multiply, Negate, ShiftRight, Xor};
    let key = match rule.kind {
        Kind::Any => DEVICE,
        Kind::Block => BLOCK,
        Kind::Char => CHARACTER,
    };
    let fits = |number: Option<u32>, bits| number.is_none_or(|number| number >> bits == 0);
    if !fits(rule.major, MAJOR_BITS) || !fits(rule.minor, MINOR_BITS) {
        return None;
    }
    let (major, minor) = (rule.major.unwrap_or(0) << MINOR_BITS, rule.minor.unwrap_or(0));
    // First what is zero for the device, and for no other; less than 2^63.
    let mut code = match (rule.major, rule.minor) {
        (None, Some(_)) => vec![
            Instruction::set_unsigned(OTHER, !0 << MINOR_BITS),
            Instruction::immediate(Xor, OTHER, -1),
            Instruction::registers(And, OTHER, key),
            Instruction::immediate(Xor, OTHER, minor.cast_signed()),
        ],
        _ => vec![Instruction::set_unsigned(OTHER, major | minor), Instruction::registers(Xor, OTHER, key)],
    };
    match (rule.major, rule.minor) {
        (_, Some(_)) => {}
        (Some(_), None) => code.push(Instruction::immediate(ShiftRight, OTHER, MINOR_BITS.cast_signed())),
        (None, None) => code.push(Instruction::immediate(ShiftRight, OTHER, 32)),
    }
    // The sign of its negative, for each access. (Not a mask by a signed shift: the verifier of Linux 6.18 takes that for two
    // numbers, and follows both.)
    code.extend([
        Instruction::immediate(Negate, OTHER, 0),
        Instruction::immediate(ShiftRight, OTHER, 63),
        Instruction::immediate(Multiply, OTHER, i32::from(Access::ALL.0)),
    ]);
    Some(code)
}

/// Takes what the rule decides from what is asked for.
fn decide(rule: &Rule) -> Vec<Instruction> {
    use Operation::{And, Or, Xor};
    let access = i32::from(rule.access.0);
    let mut code = Vec::new();
    if rule.allow {
        if rule.access != Access::ALL {
            code.push(Instruction::immediate(Or, OTHER, i32::from(Access::ALL.0) & !access));
        }
        code.push(Instruction::registers(And, ASKED, OTHER));
    } else {
        code.extend([
            Instruction::immediate(Xor, OTHER, i32::from(Access::ALL.0)),
            Instruction::immediate(And, OTHER, access),
            Instruction::registers(And, OTHER, ASKED),
            Instruction::registers(Or, REFUSED, OTHER),
        ]);
    }
    code
}

/// Puts the rules in force in a cgroup. In one that is not `new`, what was attached stays in force until they are: the only program
/// there is replaced in one step, and several (another runtime's) are detached after the new one is attached.
pub(in super::super) fn install(rules: &DeviceRules, dir: &Dir, new: bool) -> Result<()> {
    let error = |step| move |source: Errno| CgroupError::Devices { step, path: dir.path().to_owned(), source };
    let existing = if new { Vec::new() } else { attached(dir).map_err(error("query"))? };
    if !rules.allow_everything() {
        let program = DeviceProgram::load(&assemble(rules)).map_err(error("load"))?;
        if let [old] = existing.as_slice() {
            return program.replace(dir.as_fd(), old).map_err(error("replace"));
        }
        program.attach(dir.as_fd()).map_err(error("attach"))?;
    }
    existing.iter().try_for_each(|old| old.detach(dir.as_fd())).map_err(error("detach"))
}

fn attached(dir: &Dir) -> std::result::Result<Vec<DeviceProgram>, Errno> {
    let mut programs = Vec::new();
    for id in device_programs(dir.as_fd())? {
        match DeviceProgram::by_id(id) {
            Ok(program) => programs.push(program),
            // Gone meanwhile.
            Err(Errno::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(programs)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::tests::rules;
    use super::*;

    /// Runs a program: kind (1 block, 2 char), accesses, major, minor.
    fn run(code: &[Instruction], kind: u64, asked: u64, major: u64, minor: u64) -> bool {
        let context = [kind | asked << 16, major, minor];
        let mut registers = [0_u64; 6];
        for Instruction { code: operation, registers: names, offset, immediate } in code {
            let (dst, src) = (usize::from(names & 15), usize::from(names >> 4));
            let number = i64::from(*immediate).cast_unsigned();
            let operand = if operation & 8 == 0 { number } else { registers[src] };
            let register = &mut registers[dst];
            match operation {
                0x61 => *register = context[*offset as usize / 4],
                0xb4 => *register = number & 0xffff_ffff,
                0x07 => *register = register.wrapping_add(operand),
                0x27 => *register = register.wrapping_mul(operand),
                0x47 | 0x4f => *register |= operand,
                0x57 | 0x5f => *register &= operand,
                0x67 => *register <<= operand,
                0x77 => *register >>= operand,
                0x87 => *register = register.wrapping_neg(),
                0xa7 | 0xaf => *register ^= operand,
                0xb7 | 0xbf => *register = operand,
                0x95 => return registers[0] != 0,
                _ => panic!("instruction {operation:#x}"),
            }
        }
        panic!("it has no end")
    }

    /// For each access on its own, and so for all of them: what the last rule that concerns it says.
    fn read(rules: &DeviceRules, kind: u64, asked: u64, major: u64, minor: u64) -> bool {
        [1_u8, 2, 4].iter().filter(|bit| asked & u64::from(**bit) != 0).all(|bit| {
            let concerned = rules.0.iter().rev().find(|rule| {
                let same_kind = match rule.kind {
                    Kind::Any => true,
                    Kind::Block => kind == 1,
                    Kind::Char => kind == 2,
                };
                let same = |rule: Option<u32>, number: u64| rule.is_none_or(|rule| u64::from(rule) == number);
                same_kind && same(rule.major, major) && same(rule.minor, minor) && rule.access.0 & bit != 0
            });
            concerned.is_some_and(|rule| rule.allow)
        })
    }

    #[test]
    fn the_program_does_what_the_rules_say() {
        let cases = [
            json!([]),
            json!([{"allow": true}]),
            json!([{"allow": true}, {"allow": false, "type": "c", "major": 1, "minor": 3, "access": "w"}]),
            json!([{"allow": true, "type": "c", "major": 1, "access": "r"}, {"allow": true, "type": "c", "minor": 11, "access": "w"}]),
            json!([{"allow": true, "type": "b", "major": 8}, {"allow": false, "type": "b", "major": 8, "minor": 1, "access": "rw"},
                {"allow": true, "type": "b", "major": 8, "minor": 1, "access": "r"}]),
            json!([{"allow": true, "type": "a", "major": 1, "minor": 11, "access": "m"}]),
            json!([{"allow": true, "type": "b", "minor": 1, "access": "rw"}, {"allow": false, "type": "c", "minor": 3}]),
            json!([{"allow": true, "type": "c", "major": 4095, "minor": 1_048_575}, {"allow": true, "type": "b", "major": 4096},
                {"allow": true, "type": "b", "major": 8, "minor": 1_048_576}, {"allow": false, "access": "m"}]),
            json!([{"allow": true, "type": "c", "major": 2048}, {"allow": false, "type": "c", "major": 2048, "minor": 5, "access": "r"}]),
        ];
        for case in cases {
            let rules = rules(case.clone()).unwrap();
            let code = assemble(&rules);
            for kind in [1, 2] {
                for asked in 1..8 {
                    for (major, minor) in [
                        (1, 3),
                        (1, 11),
                        (8, 0),
                        (8, 1),
                        (136, 7),
                        (5, 1),
                        (0, 0),
                        (2048, 5),
                        (4095, 1_048_575),
                        (0, 3),
                    ] {
                        let expected = read(&rules, kind, asked, major, minor);
                        assert_eq!(
                            run(&code, kind, asked, major, minor),
                            expected,
                            "{case} {kind} {asked} {major}:{minor}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_verifier_takes_it() {
        assert!(nix::unistd::geteuid().is_root(), "this test needs root");
        let many: Vec<_> = (0..200)
            .map(|minor| json!({"allow": minor % 2 == 0, "type": "c", "major": 7, "minor": minor, "access": "rw"}))
            .collect();
        for case in [json!([]), json!(many), json!([{"allow": true}, {"allow": false, "type": "b"}])] {
            DeviceProgram::load(&assemble(&rules(case).unwrap())).unwrap();
        }
    }
}
