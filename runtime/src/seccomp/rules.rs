//! A profile, checked: what each system call of an architecture leads to.

use dhow_sys::seccomp::{Action, Instruction};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall};
use seccompiler::{BpfProgram, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompRule};

use super::arch::Architecture;
use super::error::SeccompError;
use super::instruction::{jump_if_equal, load, ret};
use super::syscalls::Numbers;

/// Calls by which the container's process hands the listener over after the filter is in force: with sendmsg it would wait for
/// the agent that does not have the listener yet. runc refuses write for the same reason.
const HANDOVER: [&str; 2] = ["sendmsg", "write"];

/// What a filter answers with: an action and its data in one word (`SECCOMP_RET_*`).
pub(super) type Answer = u32;

/// The rules of a profile in their order, and what holds where none matches.
#[derive(Debug)]
pub(super) struct Rules {
    /// For calls that no rule matches.
    pub(super) default: Answer,
    /// Whether a call newer than the profile should say that it does not exist, where the default refuses it.
    pub(super) hide_newer: bool,
    rules: Vec<Rule>,
}

#[derive(Debug)]
struct Rule {
    calls: Vec<Call>,
    answer: Answer,
    /// Sets of conditions, one of which has to hold. Empty: the rule always matches.
    alternatives: Vec<Vec<Condition>>,
}

/// A system call that a rule names.
#[derive(Debug)]
struct Call {
    numbers: Numbers,
    /// Another way to it, on i386.
    mux: Option<Mux>,
}

/// A condition on one argument.
#[derive(Debug, Clone, Copy)]
struct Condition {
    index: u8,
    operator: Operator,
    value: u64,
}

#[derive(Debug, Clone, Copy)]
enum Operator {
    NotEqual,
    Less,
    LessOrEqual,
    Equal,
    GreaterOrEqual,
    Greater,
    MaskedEqual { mask: u64 },
}

/// What one system call leads to.
#[derive(Debug)]
pub(super) enum Verdict {
    /// Always the same.
    Always(Answer),
    /// It depends on the arguments: instructions that always answer.
    Checked(Vec<Instruction>),
}

impl Rules {
    /// Reads the profile's rules.
    pub(super) fn new(profile: &LinuxSeccomp) -> Result<Self, SeccompError> {
        if profile.default_action() == LinuxSeccompAction::ScmpActNotify {
            return Err(SeccompError::NotifyDefault);
        }
        let default = answer(profile.default_action(), profile.default_errno_ret(), || "defaultErrnoRet".to_owned())?;
        let rules = profile.syscalls().iter().flatten().enumerate();
        let rules = rules.map(|(index, syscall)| Rule::new(index, syscall)).collect::<Result<_, _>>()?;
        // A tracer is expected to deal with calls it does not know, so only refusals are turned into "no such call".
        let hide_newer = !matches!(
            profile.default_action(),
            LinuxSeccompAction::ScmpActAllow | LinuxSeccompAction::ScmpActLog | LinuxSeccompAction::ScmpActTrace
        );
        Ok(Self { default, hide_newer, rules })
    }

    /// The verdicts on an architecture's calls, by ascending number (without x32's bit), and the greatest number that any
    /// rule names. Calls that only the default concerns are left out.
    ///
    /// Where several rules concern a call, the first without conditions wins; else they are tried in their order.
    /// libseccomp, and so runc, has the same precedence, except that it reorders conditions that overlap.
    pub(super) fn verdicts(&self, arch: Architecture) -> (Vec<(u32, Verdict)>, Option<u32>) {
        let mut concerned: Vec<(u32, usize, Option<Mux>)> = Vec::with_capacity(512);
        let mut last = None;
        for (index, rule) in self.rules.iter().enumerate() {
            // As runc does: a rule that says what holds anyway is none, or it would win over conditions. Its calls are known.
            let redundant = rule.answer == self.default;
            for call in &rule.calls {
                // One that this architecture does not have is skipped, as profiles are written for many kernels.
                if let Some(number) = call.numbers.on(arch) {
                    if number <= arch.last_ordinary() {
                        last = last.max(Some(number));
                    }
                    if !redundant {
                        concerned.push((number, index, None));
                    }
                }
                if arch == Architecture::X86
                    && !redundant
                    && let Some(mux) = call.mux
                {
                    concerned.push((mux.number, index, Some(mux)));
                }
            }
        }
        concerned.sort_unstable_by_key(|(number, index, _)| (*number, *index));
        let mut bodies = Bodies { width: ArgumentWidth::of(arch), cache: vec![None; self.rules.len()] };
        let verdicts =
            concerned.chunk_by(|a, b| a.0 == b.0).map(|same| (same[0].0, self.verdict(same, &mut bodies))).collect();
        (verdicts, last)
    }

    fn verdict(&self, concerned: &[(u32, usize, Option<Mux>)], bodies: &mut Bodies) -> Verdict {
        let unconditional =
            concerned.iter().find(|(_, index, mux)| mux.is_none() && self.rules[*index].alternatives.is_empty());
        if let Some((_, index, _)) = unconditional {
            return Verdict::Always(self.rules[*index].answer);
        }
        let mut code = Vec::new();
        let mut rest = concerned;
        while let [(_, index, mux), more @ ..] = rest {
            let rule = &self.rules[*index];
            let equals = rest.iter().map_while(|(_, other, mux)| rule.equal_to(&self.rules[*other], *mux));
            let values: Vec<u32> = equals.take(MAX_CHOICES).collect();
            if values.len() > 1
                && let Some(condition) = rule.single_equal()
            {
                bodies.choice(condition, &values, rule.answer, &mut code);
                rest = &rest[values.len()..];
                continue;
            }
            match mux {
                None => code.extend_from_slice(bodies.of(*index, rule)),
                Some(mux) => code.extend(bodies.assemble(&mux.alternatives(rule), rule.answer)),
            }
            rest = more;
        }
        code.push(ret(self.default));
        Verdict::Checked(code)
    }
}

/// So many values can be compared in a row that every conditional jump still reaches its end.
const MAX_CHOICES: usize = 250;

impl Call {
    /// `None` for a name that no architecture has.
    fn named(name: &str) -> Option<Self> {
        Numbers::of(name).map(|numbers| Self { numbers, mux: Mux::of(name) })
    }
}

impl Rule {
    fn new(index: usize, syscall: &LinuxSyscall) -> Result<Self, SeccompError> {
        if syscall.names().is_empty() {
            return Err(SeccompError::NoNames { rule: index });
        }
        if syscall.action() == LinuxSeccompAction::ScmpActNotify
            && let Some(name) = syscall.names().iter().find(|name| HANDOVER.contains(&name.as_str()))
        {
            return Err(SeccompError::NotifyHandover { rule: index, name: name.clone() });
        }
        let answer = answer(syscall.action(), syscall.errno_ret(), || format!("syscalls[{index}].errnoRet"))?;
        let args = syscall.args().as_deref().unwrap_or_default();
        let conditions =
            args.iter().enumerate().map(|(arg, a)| Condition::new(index, arg, a)).collect::<Result<Vec<_>, _>>()?;
        // As runc does since ever: conditions on the same argument can't all hold, so then each stands for itself.
        let repeated = (0..conditions.len()).any(|n| conditions[..n].iter().any(|c| c.index == conditions[n].index));
        let alternatives = match (conditions.is_empty(), repeated) {
            (true, _) => Vec::new(),
            (_, true) => conditions.into_iter().map(|condition| vec![condition]).collect(),
            (_, false) => vec![conditions],
        };
        let calls = syscall.names().iter().filter_map(|name| Call::named(name)).collect();
        Ok(Self { calls, answer, alternatives })
    }

    /// The rule's only condition, when that is for equality.
    fn single_equal(&self) -> Option<Condition> {
        match self.alternatives.as_slice() {
            [conditions] => match conditions.as_slice() {
                [condition @ Condition { operator: Operator::Equal, .. }] => Some(*condition),
                _ => None,
            },
            _ => None,
        }
    }

    /// The lower half of the value that `other` compares with, when it says the same as this rule but for that.
    fn equal_to(&self, other: &Self, mux: Option<Mux>) -> Option<u32> {
        let (ours, theirs) = (self.single_equal()?, other.single_equal()?);
        let same = ours.index == theirs.index && ours.value >> 32 == theirs.value >> 32 && self.answer == other.answer;
        (same && mux.is_none()).then_some(theirs.value as u32)
    }
}

impl Condition {
    fn new(rule: usize, arg: usize, spec: &LinuxSeccompArg) -> Result<Self, SeccompError> {
        let index = u8::try_from(spec.index()).ok().filter(|index| *index < 6);
        let index = index.ok_or(SeccompError::ArgumentIndex { rule, arg, index: spec.index() })?;
        let (operator, value) = match spec.op() {
            LinuxSeccompOperator::ScmpCmpNe => (Operator::NotEqual, spec.value()),
            LinuxSeccompOperator::ScmpCmpLt => (Operator::Less, spec.value()),
            LinuxSeccompOperator::ScmpCmpLe => (Operator::LessOrEqual, spec.value()),
            LinuxSeccompOperator::ScmpCmpEq => (Operator::Equal, spec.value()),
            LinuxSeccompOperator::ScmpCmpGe => (Operator::GreaterOrEqual, spec.value()),
            LinuxSeccompOperator::ScmpCmpGt => (Operator::Greater, spec.value()),
            LinuxSeccompOperator::ScmpCmpMaskedEq => {
                (Operator::MaskedEqual { mask: spec.value() }, spec.value_two().unwrap_or(0))
            }
        };
        Ok(Self { index, operator, value })
    }

    fn compile(self, width: ArgumentWidth) -> SeccompCondition {
        // On an architecture with narrow arguments the upper half of a value means nothing: -1 may be written either way.
        let cut = |value: u64| if width == ArgumentWidth::Narrow { value & 0xffff_ffff } else { value };
        let operator = match self.operator {
            Operator::NotEqual => SeccompCmpOp::Ne,
            Operator::Less => SeccompCmpOp::Lt,
            Operator::LessOrEqual => SeccompCmpOp::Le,
            Operator::Equal => SeccompCmpOp::Eq,
            Operator::GreaterOrEqual => SeccompCmpOp::Ge,
            Operator::Greater => SeccompCmpOp::Gt,
            Operator::MaskedEqual { mask } => SeccompCmpOp::MaskedEq(cut(mask)),
        };
        let length = match width {
            ArgumentWidth::Narrow => SeccompCmpArgLen::Dword,
            ArgumentWidth::Wide => SeccompCmpArgLen::Qword,
        };
        SeccompCondition::new(self.index, length, operator, cut(self.value))
            .expect("the index was checked to be below 6")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ArgumentWidth {
    Narrow,
    Wide,
}

impl ArgumentWidth {
    fn of(arch: Architecture) -> Self {
        if arch.is_narrow() { Self::Narrow } else { Self::Wide }
    }
}

/// The compiled conditions of each rule, for one width of arguments.
struct Bodies {
    width: ArgumentWidth,
    cache: Vec<Option<Vec<Instruction>>>,
}

impl Bodies {
    /// Instructions that answer when the rule matches, and else run on to what follows.
    fn of(&mut self, index: usize, rule: &Rule) -> &[Instruction] {
        if self.cache[index].is_none() {
            self.cache[index] = Some(self.assemble(&rule.alternatives, rule.answer));
        }
        self.cache[index].as_deref().unwrap_or_default()
    }

    /// One comparison after the other, for rules that differ only in a value (docker's list of socket families): a fourth of
    /// what the rules would take one by one.
    fn choice(&self, condition: Condition, values: &[u32], answer: Answer, code: &mut Vec<Instruction>) {
        let lower = 16 + 8 * u32::from(condition.index);
        let after = |left: usize| u8::try_from(left).expect("no more than MAX_CHOICES values");
        if self.width == ArgumentWidth::Wide {
            let upper = u32::try_from(condition.value >> 32).expect("half of a value");
            code.push(load(lower + 4));
            code.push(jump_if_equal(upper, 0, after(values.len() + 2)));
        }
        code.push(load(lower));
        for (n, value) in values.iter().enumerate() {
            let left = values.len() - n - 1;
            code.push(jump_if_equal(*value, after(left), u8::from(left == 0)));
        }
        code.push(ret(answer));
    }

    fn assemble(&self, alternatives: &[Vec<Condition>], answer: Answer) -> Vec<Instruction> {
        let mut code = Vec::new();
        for conditions in alternatives {
            let conditions = conditions.iter().map(|condition| condition.compile(self.width)).collect();
            let rule = SeccompRule::new(conditions).expect("an alternative has at least one condition");
            // seccompiler's own filter object knows one action and one architecture; its compiler of one rule's conditions
            // is what we take: it runs on to the next instruction when they hold and skips it when they don't.
            let body = BpfProgram::from(rule);
            code.extend(body.iter().map(|i| Instruction { code: i.code, jt: i.jt, jf: i.jf, k: i.k }));
            code.push(ret(answer));
        }
        code
    }
}

/// A call that i386 can also make through socketcall(2) or ipc(2), which have the call's number in their first argument.
/// Without this a profile that refuses `socket` would be circumvented by 32 bit programs.
#[derive(Debug, Clone, Copy)]
struct Mux {
    number: u32,
    call: u64,
    mask: u64,
}

impl Mux {
    fn of(name: &str) -> Option<Self> {
        const SOCKETCALL: u32 = 102;
        const IPC: u32 = 117;
        if let Some(position) = SOCKET_CALLS.iter().position(|known| *known == name) {
            return Some(Self { number: SOCKETCALL, call: position as u64 + 1, mask: u64::MAX });
        }
        // The upper half of ipc's first argument is a version.
        IPC_CALLS.iter().find(|(known, _)| *known == name).map(|(_, call)| Self {
            number: IPC,
            call: *call,
            mask: 0xffff,
        })
    }

    /// The rule as it applies to the multiplexer. Its other arguments lie in memory that a filter can't read, so conditions
    /// on them compare what they find in the registers, as libseccomp has it.
    fn alternatives(self, rule: &Rule) -> Vec<Vec<Condition>> {
        let this = Condition { index: 0, operator: Operator::MaskedEqual { mask: self.mask }, value: self.call };
        let rest = |conditions: &[Condition]| {
            std::iter::once(this).chain(conditions.iter().copied().filter(|condition| condition.index != 0)).collect()
        };
        if rule.alternatives.is_empty() {
            return vec![vec![this]];
        }
        rule.alternatives.iter().map(|conditions| rest(conditions)).collect()
    }
}

/// By their number in socketcall(2), from 1 (`linux/net.h`).
const SOCKET_CALLS: [&str; 20] = [
    "socket",
    "bind",
    "connect",
    "listen",
    "accept",
    "getsockname",
    "getpeername",
    "socketpair",
    "send",
    "recv",
    "sendto",
    "recvfrom",
    "shutdown",
    "setsockopt",
    "getsockopt",
    "sendmsg",
    "recvmsg",
    "accept4",
    "recvmmsg",
    "sendmmsg",
];

/// By their number in ipc(2) (`linux/ipc.h`).
const IPC_CALLS: [(&str, u64); 12] = [
    ("semop", 1),
    ("semget", 2),
    ("semctl", 3),
    ("semtimedop", 4),
    ("msgsnd", 11),
    ("msgrcv", 12),
    ("msgget", 13),
    ("msgctl", 14),
    ("shmat", 21),
    ("shmdt", 22),
    ("shmget", 23),
    ("shmctl", 24),
];

fn answer(action: LinuxSeccompAction, errno: Option<u32>, field: impl Fn() -> String) -> Result<Answer, SeccompError> {
    let plain = |kernel: Action| match errno {
        None => Ok(kernel as u32),
        Some(_) => Err(SeccompError::ErrnoWithout { field: field(), action }),
    };
    let with_errno = |kernel: Action, max: u32| {
        let value = errno.unwrap_or(libc::EPERM.unsigned_abs());
        if value > max {
            Err(SeccompError::ErrnoRange { field: field(), value, max })
        } else {
            Ok(kernel as u32 | value)
        }
    };
    match action {
        LinuxSeccompAction::ScmpActKill | LinuxSeccompAction::ScmpActKillThread => plain(Action::KillThread),
        LinuxSeccompAction::ScmpActKillProcess => plain(Action::KillProcess),
        LinuxSeccompAction::ScmpActTrap => plain(Action::Trap),
        // The kernel cuts greater ones down to 4095 (MAX_ERRNO).
        LinuxSeccompAction::ScmpActErrno => with_errno(Action::Errno, 4095),
        LinuxSeccompAction::ScmpActTrace => with_errno(Action::Trace, 0xffff),
        LinuxSeccompAction::ScmpActNotify => plain(Action::UserNotif),
        LinuxSeccompAction::ScmpActLog => plain(Action::Log),
        LinuxSeccompAction::ScmpActAllow => plain(Action::Allow),
    }
}
