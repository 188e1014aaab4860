//! A direct reading of a profile, slow and plain, and profiles to read.

use std::collections::BTreeMap;

use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompOperator, LinuxSyscall};
use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::json;

use super::super::{Architecture, architectures, syscalls};
use super::interpreter::Call;

/// A profile as a person reads it.
pub(super) struct Reading<'a> {
    profile: &'a LinuxSeccomp,
    architectures: Vec<Architecture>,
    /// The rules that concern a number of an architecture, in order, with the name that they concern it by.
    rules: BTreeMap<(u32, u32), Vec<Concerned<'a>>>,
    last: BTreeMap<(u32, u32), u32>,
}

/// A rule, and what the first argument has to be when it concerns a multiplexer.
type Concerned<'a> = (&'a LinuxSyscall, Option<u64>);

/// i386's multiplexers: the call, and what the first argument has to be.
fn multiplexed(name: &str) -> Option<(u32, u64)> {
    let socket = ["socket", "bind", "connect", "listen", "accept"].iter().position(|n| *n == name);
    let ipc = [("semop", 1), ("semget", 2), ("shmat", 21)].into_iter().find(|(n, _)| *n == name);
    socket.map(|n| (102, n as u64 + 1)).or(ipc.map(|(_, n)| (117, n)))
}

impl<'a> Reading<'a> {
    pub(super) fn new(profile: &'a LinuxSeccomp, native: Architecture) -> Self {
        let architectures = architectures(profile, native);
        let mut rules: BTreeMap<_, Vec<_>> = BTreeMap::new();
        let mut last = BTreeMap::new();
        for arch in &architectures {
            for rule in profile.syscalls().iter().flatten() {
                for name in rule.names() {
                    if let Some(number) = syscalls::number(name, *arch) {
                        rules.entry((arch.audit(), number)).or_default().push((rule, None));
                        if number & 0x3fff_ffff < 0xf_0000 {
                            let highest = last.entry((arch.audit(), arch.number_bit())).or_insert(number);
                            *highest = number.max(*highest);
                        }
                    }
                    if let (Architecture::X86, Some((number, call))) = (arch, multiplexed(name)) {
                        rules.entry((arch.audit(), number)).or_default().push((rule, Some(call)));
                    }
                }
            }
        }
        Self { profile, architectures, rules, last }
    }

    /// What holds where no rule does.
    pub(super) fn default(&self) -> u32 {
        self.profile.default_action().as_u32(self.profile.default_errno_ret())
    }

    pub(super) fn answer(&self, call: &Call) -> u32 {
        const KILL_PROCESS: u32 = 0x8000_0000;
        let x86_64 = call.audit == Architecture::X86_64.audit();
        let bit = if x86_64 { call.number & 0x4000_0000 } else { 0 };
        let default = self.default();
        if !self.architectures.iter().any(|arch| arch.audit() == call.audit) {
            return KILL_PROCESS;
        }
        if call.number == u32::MAX {
            return default;
        }
        if x86_64 && call.number >= 0x4000_0000 && !self.architectures.contains(&Architecture::X32) {
            return KILL_PROCESS;
        }
        let rules = self.rules.get(&(call.audit, call.number)).map(Vec::as_slice).unwrap_or_default();
        let effective: Vec<_> =
            rules.iter().map(|(rule, mux)| (rule, *mux, rule.action().as_u32(rule.errno_ret()))).collect();
        let unconditional = effective.iter().find(|(rule, mux, answer)| {
            rule.args().as_ref().is_none_or(Vec::is_empty) && mux.is_none() && *answer != default
        });
        if let Some((.., answer)) = unconditional {
            return *answer;
        }
        let matching = effective.iter().find(|(rule, mux, answer)| {
            *answer != default && matches(rule.args().as_deref().unwrap_or_default(), *mux, call)
        });
        if let Some((.., answer)) = matching {
            return *answer;
        }
        let refuses = !matches!(
            self.profile.default_action(),
            LinuxSeccompAction::ScmpActAllow | LinuxSeccompAction::ScmpActLog | LinuxSeccompAction::ScmpActTrace
        );
        // Between the last ordinary call and the private ones of ARM there is room for new ones.
        let room = call.number != u32::MAX && (call.audit != Architecture::Arm.audit() || call.number < 0xf_0000);
        match self.last.get(&(call.audit, bit)) {
            Some(last) if refuses && rules.is_empty() && call.number > *last && room => 0x5_0026,
            _ => default,
        }
    }

    /// The rules of this number.
    pub(super) fn concerned(&self, audit: u32, number: u32) -> Vec<&LinuxSyscall> {
        self.rules.get(&(audit, number)).into_iter().flatten().map(|(rule, _)| *rule).collect()
    }

    /// Whether a rule of this number compares with something beyond 32 bits.
    pub(super) fn compares_widely(&self, audit: u32, number: u32) -> bool {
        let rules = self.rules.get(&(audit, number)).into_iter().flatten();
        let mut args = rules.flat_map(|(rule, _)| rule.args().as_deref().unwrap_or_default());
        args.any(|arg| arg.value().max(arg.value_two().unwrap_or(0)) > u64::from(u32::MAX))
    }

    /// Arguments around the values that the rules of this number compare with.
    pub(super) fn interesting_arguments(&self, audit: u32, number: u32) -> Vec<[u64; 6]> {
        let mut all = vec![[0; 6]];
        for (rule, mux) in self.rules.get(&(audit, number)).into_iter().flatten() {
            let mut base = [0; 6];
            base[0] = mux.unwrap_or(0);
            all.push(base);
            let args = rule.args().as_deref().unwrap_or_default();
            for arg in args {
                base[arg.index()] = if arg.op() == LinuxSeccompOperator::ScmpCmpMaskedEq {
                    arg.value() & arg.value_two().unwrap_or(0)
                } else {
                    arg.value()
                };
            }
            if let Some(call) = mux {
                base[0] = *call;
            }
            all.push(base);
            for arg in args {
                for change in [1, u64::MAX, 1 << 32, 1 << 63] {
                    let mut near = base;
                    near[arg.index()] = near[arg.index()].wrapping_add(change);
                    all.push(near);
                }
            }
        }
        if [Architecture::X86.audit(), Architecture::Arm.audit()].contains(&audit) {
            all.iter_mut().flatten().for_each(|argument| *argument &= 0xffff_ffff);
        }
        all
    }
}

fn matches(args: &[LinuxSeccompArg], mux: Option<u64>, call: &Call) -> bool {
    let narrow = [Architecture::X86.audit(), Architecture::Arm.audit()].contains(&call.audit);
    let cut = |value: u64| if narrow { value & 0xffff_ffff } else { value };
    let holds = |arg: &LinuxSeccompArg| {
        if mux.is_some() && arg.index() == 0 {
            return true;
        }
        let (actual, value) = (call.arguments[arg.index()], cut(arg.value()));
        match arg.op() {
            LinuxSeccompOperator::ScmpCmpNe => actual != value,
            LinuxSeccompOperator::ScmpCmpLt => actual < value,
            LinuxSeccompOperator::ScmpCmpLe => actual <= value,
            LinuxSeccompOperator::ScmpCmpEq => actual == value,
            LinuxSeccompOperator::ScmpCmpGe => actual >= value,
            LinuxSeccompOperator::ScmpCmpGt => actual > value,
            LinuxSeccompOperator::ScmpCmpMaskedEq => actual & value == arg.value_two().unwrap_or(0) & value,
        }
    };
    let first = match (mux, call.number) {
        (Some(expected), 117) => call.arguments[0] & 0xffff == expected,
        (Some(expected), _) => call.arguments[0] == expected,
        (None, _) => true,
    };
    let repeated = (0..args.len()).any(|n| args[..n].iter().any(|arg| arg.index() == args[n].index()));
    first && if repeated { args.iter().any(holds) } else { args.iter().all(holds) }
}

/// Profiles of all shapes.
pub(super) fn profiles() -> impl Strategy<Value = LinuxSeccomp> {
    let default = prop::sample::select(vec![
        json!({"defaultAction": "SCMP_ACT_ALLOW"}),
        json!({"defaultAction": "SCMP_ACT_ERRNO"}),
        json!({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38}),
        json!({"defaultAction": "SCMP_ACT_KILL_PROCESS"}),
        json!({"defaultAction": "SCMP_ACT_LOG"}),
        json!({"defaultAction": "SCMP_ACT_TRACE", "defaultErrnoRet": 7}),
    ]);
    let arches =
        ["SCMP_ARCH_NATIVE", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_ARM", "SCMP_ARCH_AARCH64", "SCMP_ARCH_MIPS"];
    (default, prop::sample::subsequence(arches.to_vec(), 0..=6), vec(rules(), 0..40)).prop_map(
        |(mut profile, architectures, rules)| {
            profile["architectures"] = json!(architectures);
            profile["syscalls"] = json!(rules);
            serde_json::from_value(profile).unwrap()
        },
    )
}

fn rules() -> impl Strategy<Value = serde_json::Value> {
    let mut known: Vec<&'static str> = syscalls::names().collect();
    // More often than others: calls with many rules, and with multiplexers.
    known.extend(["clone", "socket", "bind", "semop", "shmat", "personality", "no_such_call"].repeat(20));
    // The calls that `multiplexed` above does not know.
    known.retain(|name| {
        ![
            "getsockname",
            "getpeername",
            "socketpair",
            "send",
            "recv",
            "shutdown",
            "msg",
            "sem",
            "shm",
            "accept4",
            "getsockopt",
        ]
        .iter()
        .chain(&["setsockopt"])
        .any(|prefix| name.starts_with(prefix) && multiplexed(name).is_none())
    });
    let names = vec(prop::sample::select(known), 1..30);
    (actions(), names, prop_oneof![3 => Just(Vec::new()), 2 => vec(arguments(), 1..4)]).prop_map(
        |(mut rule, names, args)| {
            rule["names"] = json!(names);
            rule["args"] = json!(args);
            rule
        },
    )
}

/// What a rule can lead to.
pub(super) fn actions() -> impl Strategy<Value = serde_json::Value> {
    prop::sample::select(vec![
        json!({"action": "SCMP_ACT_ALLOW"}),
        json!({"action": "SCMP_ACT_ERRNO"}),
        json!({"action": "SCMP_ACT_ERRNO", "errnoRet": 13}),
        json!({"action": "SCMP_ACT_KILL"}),
        json!({"action": "SCMP_ACT_KILL_PROCESS"}),
        json!({"action": "SCMP_ACT_TRAP"}),
        json!({"action": "SCMP_ACT_LOG"}),
        json!({"action": "SCMP_ACT_TRACE", "errnoRet": 99}),
    ])
}

/// A condition of a rule.
pub(super) fn arguments() -> impl Strategy<Value = serde_json::Value> {
    let operator = prop::sample::select(vec!["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"]);
    let value = || prop_oneof![0_u64..20, any::<u32>().prop_map(u64::from), any::<u64>(), Just(u64::MAX), Just(0)];
    (0_usize..6, operator, value(), prop::option::of(value())).prop_map(|(index, operator, value, second)| {
        json!({"index": index, "op": format!("SCMP_CMP_{operator}"), "value": value, "valueTwo": second})
    })
}
