//! The device filter of cgroup v2: a program that the kernel asks at every open and mknod of a device.
//!
//! ```text
//! R2 = kind, R3 = accesses asked for, R4 = major, R5 = minor
//! for each rule, the last one first:
//!     does it concern this device?  if not: the next rule
//!     refuses any access still asked for?  answer 0
//!     allows some?  take them out of R3; nothing left?  answer 1
//! answer 0
//! ```

use std::os::fd::AsFd;

use dhow_sys::Errno;
use dhow_sys::bpf::{DeviceProgram, Instruction, Register, device_programs};

use super::super::dir::Dir;
use super::super::error::{CgroupError, Result};
use super::{Access, DeviceRules, Kind, Rule};

const KIND: Register = Register::R2;
const ASKED: Register = Register::R3;
const MAJOR: Register = Register::R4;
const MINOR: Register = Register::R5;
/// The context at the start; free once everything is loaded.
const SCRATCH: Register = Register::R1;

/// The program that decides by these rules.
pub(super) fn assemble(rules: &DeviceRules) -> Vec<Instruction> {
    let mut code = vec![
        // struct bpf_cgroup_dev_ctx: the kind in the lower half of the first word, the accesses in the upper one.
        Instruction::load_word(KIND, SCRATCH, 0),
        Instruction::copy(ASKED, KIND),
        Instruction::and(KIND, 0xffff),
        Instruction::shift_right(ASKED, 16),
        Instruction::load_word(MAJOR, SCRATCH, 4),
        Instruction::load_word(MINOR, SCRATCH, 8),
    ];
    for rule in rules.0.iter().rev() {
        code.extend(assemble_rule(rule));
        if rule.is_about_everything() {
            // Nothing gets past it.
            return code;
        }
    }
    code.extend(answer(false));
    code
}

fn assemble_rule(rule: &Rule) -> Vec<Instruction> {
    let access = i32::from(rule.access.0);
    let decision = match (rule.allow, rule.access) {
        (allow, Access::ALL) => answer(allow).to_vec(),
        (true, _) => {
            let rest = i32::from(Access::ALL.0 & !rule.access.0);
            let [set, exit] = answer(true);
            vec![Instruction::and(ASKED, rest), Instruction::jump_if_not_equal(ASKED, 0, 2), set, exit]
        }
        (false, _) => {
            let [set, exit] = answer(false);
            vec![
                Instruction::copy(SCRATCH, ASKED),
                Instruction::and(SCRATCH, access),
                Instruction::jump_if_equal(SCRATCH, 0, 2),
                set,
                exit,
            ]
        }
    };
    let kind = match rule.kind {
        Kind::Any => None,
        Kind::Block => Some(1),
        Kind::Char => Some(2),
    };
    // Device numbers are compared as 64 bit registers with a sign-extended immediate: equal for all below 2^31, and the
    // kernel has no greater ones (12 and 20 bits).
    let tests = [(KIND, kind), (MAJOR, rule.major.map(u32::cast_signed)), (MINOR, rule.minor.map(u32::cast_signed))];
    let tests: Vec<_> = tests.into_iter().filter_map(|(register, value)| Some((register, value?))).collect();
    let mut code = Vec::with_capacity(tests.len() + decision.len());
    for (n, (register, value)) in tests.iter().enumerate() {
        let over = tests.len() - n - 1 + decision.len();
        let over = i16::try_from(over).expect("a rule has at most eight instructions");
        code.push(Instruction::jump_if_not_equal(*register, *value, over));
    }
    code.extend(decision);
    code
}

fn answer(allow: bool) -> [Instruction; 2] {
    [Instruction::set(Register::R0, i32::from(allow)), Instruction::exit()]
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
        let mut counter = 0;
        loop {
            let Instruction { code: operation, registers: names, offset, immediate } = code[counter];
            counter += 1;
            let (dst, src) = (usize::from(names & 15), usize::from(names >> 4));
            let value = i64::from(immediate).cast_unsigned();
            match operation {
                0x61 => registers[dst] = context[offset as usize / 4],
                0xb7 => registers[dst] = value,
                0xbf => registers[dst] = registers[src],
                0x54 => registers[dst] &= value & 0xffff_ffff,
                0x74 => registers[dst] >>= value,
                0x15 if registers[dst] == value => counter += offset as usize,
                0x55 if registers[dst] != value => counter += offset as usize,
                0x15 | 0x55 => {}
                0x95 => return registers[0] != 0,
                _ => panic!("instruction {operation:#x}"),
            }
        }
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
        ];
        for case in cases {
            let rules = rules(case.clone()).unwrap();
            let code = assemble(&rules);
            for kind in [1, 2] {
                for asked in 1..8 {
                    for (major, minor) in [(1, 3), (1, 11), (8, 0), (8, 1), (136, 7), (5, 1), (0, 0)] {
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
