//! One program out of the verdicts of every architecture.
//!
//! ```text
//! A = arch
//! for each architecture of the kernel:  A == it?  →  its block
//! kill the process
//!
//! block:  A = number
//!         binary search over ranges of numbers with the same verdict
//!         leaf: return, or check the arguments and return
//! ```
//!
//! x86_64 and x32 have one architecture number and one block: x32's calls are the range with bit 30.
//! A search takes some seven comparisons where a list of rules takes hundreds; for calls that are always allowed the
//! kernel (5.11) does not even run the program.

use dhow_sys::seccomp::{Action, Instruction, MAX_INSTRUCTIONS};

use super::arch::{Architecture, X32_BIT};
use super::error::SeccompError;
use super::instruction::{jump, jump_if_at_least, jump_if_equal, load, ret};
use super::rules::{Answer, Rules, Verdict};

/// The program for `architectures`, of which the first is the kernel's own.
pub(super) fn program(rules: &Rules, architectures: &[Architecture]) -> Result<Vec<Instruction>, SeccompError> {
    let with_x32 = architectures.contains(&Architecture::X32);
    let mut code = Vec::with_capacity(1024);
    code.push(load(DATA_ARCH));
    for arch in architectures.iter().copied().filter(|arch| *arch != Architecture::X32) {
        let mut block = vec![load(DATA_NUMBER)];
        Search::append(&ranges(rules, arch, with_x32), &mut block);
        // The next architecture's test is too far for a conditional jump.
        code.push(jump_if_equal(arch.audit(), 1, 0));
        code.push(jump(block.len()));
        code.append(&mut block);
    }
    // A program of an architecture that the profile does not name.
    code.push(ret(Action::KillProcess as Answer));
    if code.len() > MAX_INSTRUCTIONS {
        return Err(SeccompError::TooLong { length: code.len(), max: MAX_INSTRUCTIONS });
    }
    Ok(code)
}

/// From this number on (up to the next range) the verdict holds.
struct Range {
    start: u32,
    verdict: Verdict,
}

fn ranges(rules: &Rules, arch: Architecture, with_x32: bool) -> Vec<Range> {
    let mut ranges = Ranges(Vec::with_capacity(256));
    ranges.add_architecture(rules, arch);
    if arch == Architecture::X86_64 {
        if with_x32 {
            ranges.add_architecture(rules, Architecture::X32);
        } else {
            // Not named: as any other architecture. Else x32 would circumvent a profile that refuses single calls.
            ranges.push(X32_BIT, Verdict::Always(Action::KillProcess as Answer));
        }
    }
    // A tracer's way to skip a call: the number -1.
    ranges.push(u32::MAX, Verdict::Always(rules.default));
    ranges.0
}

struct Ranges(Vec<Range>);

impl Ranges {
    fn add_architecture(&mut self, rules: &Rules, arch: Architecture) {
        let bit = arch.number_bit();
        let (verdicts, last) = rules.verdicts(arch);
        // As runc does: a call newer than any that the profile names is not refused but unknown, so that the C library
        // falls back to what it used before.
        let newer = match last {
            Some(last) if rules.hide_newer => last + 1..arch.last_ordinary() + 1,
            _ => X32_BIT..X32_BIT,
        };
        let unknown = Action::Errno as Answer | libc::ENOSYS.unsigned_abs();
        let fill = |ranges: &mut Self, from: u32, to: u32| {
            let parts = [
                (from, rules.default),
                (newer.start.max(from), unknown),
                (newer.end.max(from), rules.default),
                (to, 0),
            ];
            for pair in parts.windows(2) {
                if pair[0].0 < pair[1].0.min(to) {
                    ranges.push(pair[0].0 | bit, Verdict::Always(pair[0].1));
                }
            }
        };
        let mut next = 0;
        for (number, verdict) in verdicts {
            fill(self, next, number);
            self.push(number | bit, verdict);
            next = number + 1;
        }
        fill(self, next, X32_BIT);
    }

    fn push(&mut self, start: u32, verdict: Verdict) {
        if let (Some(Range { verdict: Verdict::Always(last), .. }), Verdict::Always(new)) = (self.0.last(), &verdict)
            && last == new
        {
            return;
        }
        self.0.push(Range { start, verdict });
    }
}

/// The search for a number among ranges, assembled from its end to its beginning: jumps lead forward only, so that whatever
/// one leads to is there already, and an answer that many ranges share is there once.
#[derive(Default)]
struct Search {
    /// The last instruction first. Where an instruction is, is told by its index here.
    reversed: Vec<Instruction>,
    answers: Vec<(Answer, usize)>,
}

impl Search {
    /// Appends the search for the number in A to `code`.
    fn append(ranges: &[Range], code: &mut Vec<Instruction>) {
        let mut search = Self { reversed: Vec::with_capacity(2 * ranges.len()), answers: Vec::new() };
        search.among(ranges);
        code.extend(search.reversed.into_iter().rev());
    }

    /// Where the search among these ranges begins; if there are several or it is new, at the very beginning.
    fn among(&mut self, ranges: &[Range]) -> usize {
        let (lower, upper) = ranges.split_at(ranges.len() / 2);
        match (lower, upper) {
            (_, []) => self.answer(Action::KillProcess as Answer),
            ([], [Range { verdict: Verdict::Always(answer), .. }, ..]) => self.answer(*answer),
            ([], [Range { verdict: Verdict::Checked(check), .. }, ..]) => {
                self.reversed.extend(check.iter().rev());
                self.reversed.len() - 1
            }
            (_, [first, ..]) => {
                let (above, below) = (self.among(upper), self.among(lower));
                // Bringing the second near may move the first one step away.
                let below = self.near(below, 1);
                let above = self.near(above, 0);
                let distance = |search: &Self, to: usize| {
                    u8::try_from(search.distance(to)).expect("what is near is at most 255 instructions away")
                };
                let (above, below) = (distance(self, above), distance(self, below));
                self.push(jump_if_at_least(first.start, above, below))
            }
        }
    }

    fn answer(&mut self, answer: Answer) -> usize {
        match self.answers.iter().find(|(other, _)| *other == answer) {
            Some((_, at)) => *at,
            None => {
                let at = self.push(ret(answer));
                self.answers.push((answer, at));
                at
            }
        }
    }

    /// How many instructions the next one would skip to come there.
    fn distance(&self, to: usize) -> usize {
        self.reversed.len() - to - 1
    }

    /// The same place, or one from where it goes on there, in the reach of a conditional jump even when `more` instructions
    /// come in between.
    fn near(&mut self, to: usize, more: usize) -> usize {
        if self.distance(to) + more <= usize::from(u8::MAX) {
            return to;
        }
        match self.answers.iter_mut().find(|(answer, _)| self.reversed[to] == ret(*answer)) {
            // An answer is as short as a jump to it, and of use to those that follow.
            Some((answer, at)) => {
                self.reversed.push(ret(*answer));
                *at = self.reversed.len() - 1;
                *at
            }
            None => self.push(jump(self.distance(to))),
        }
    }

    fn push(&mut self, instruction: Instruction) -> usize {
        self.reversed.push(instruction);
        self.reversed.len() - 1
    }
}

/// Offsets in `struct seccomp_data`.
const DATA_NUMBER: u32 = 0;
const DATA_ARCH: u32 = 4;
