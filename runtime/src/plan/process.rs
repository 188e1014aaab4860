//! A process: who it is, what it may, how it runs. The same for a container's first one and for exec.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CString;
use std::fmt;
use std::path::PathBuf;

use dhow_sys::caps::{self, CapSet};
use dhow_sys::sched;
use dhow_sys::tty::Size;
use nix::sys::resource::Resource;

use crate::config::{self, Linux};
use crate::{Error, Result};

/// A process.
#[derive(Debug, Clone)]
pub struct Process {
    /// Program and arguments; at least the program.
    pub args: Vec<CString>,
    /// `KEY=value`, every key once, the last one given.
    pub env: Vec<CString>,
    /// Absolute.
    pub cwd: PathBuf,
    /// Gets a terminal.
    pub terminal: bool,
    /// Of that size.
    pub size: Option<Size>,
    /// User id in the container.
    pub uid: u32,
    /// Group id in the container.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Those of the runtime stay instead.
    pub keeps_groups: bool,
    /// Mask of the modes of new files.
    pub umask: u32,
    /// None: those that the runtime has.
    pub capabilities: Option<Capabilities>,
    /// Resource limits.
    pub rlimits: Vec<Rlimit>,
    /// No gain of privileges by exec.
    pub no_new_privs: bool,
    /// For the kernel's choice of a victim.
    pub oom_score_adj: Option<i32>,
    /// AppArmor profile.
    pub apparmor: Option<String>,
    /// SELinux label.
    pub selinux: Option<String>,
    /// CPU scheduling.
    pub scheduler: Option<sched::Attributes>,
    /// Disk scheduling: class and priority.
    pub io_priority: Option<(u16, u16)>,
    /// CPUs while the process is prepared, and when it runs; for exec.
    pub affinity: (Option<Vec<usize>>, Option<Vec<usize>>),
    /// Memory policy: mode with flags, nodes.
    pub memory_policy: Option<(u32, Vec<u32>)>,
    /// 32-bit personality.
    pub linux32: Option<bool>,
}

/// The five sets.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Bounding.
    pub bounding: CapSet,
    /// Effective.
    pub effective: CapSet,
    /// Permitted.
    pub permitted: CapSet,
    /// Inheritable: what config.json says, never more.
    pub inheritable: CapSet,
    /// Ambient.
    pub ambient: CapSet,
}

/// A resource limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    /// Which.
    pub resource: Resource,
    /// What counts.
    pub soft: u64,
    /// Up to which.
    pub hard: u64,
}

impl Process {
    /// Judges a process document; `field` is where it stands.
    ///
    /// # Errors
    /// [`Error::Config`] with the field.
    pub fn new(process: &config::Process, field: &str, warnings: &mut Vec<String>) -> Result<Self> {
        if process.args.is_empty() {
            return Err(Error::config(format!("{field}.args"), "must not be empty"));
        }
        if !process.cwd.starts_with('/') || process.cwd.contains('\0') {
            return Err(Error::config(format!("{field}.cwd"), format!("{:?} is not an absolute path", process.cwd)));
        }
        let user = &process.user;
        let groups = user.additional_gids.iter().enumerate();
        let groups = groups.map(|(i, gid)| id(format_args!("{field}.user.additionalGids[{i}]"), *gid));
        if process.oom_score_adj.is_some_and(|score| !(-1000..=1000).contains(&score)) {
            return Err(Error::config(format!("{field}.oomScoreAdj"), "must be between -1000 and 1000"));
        }
        Ok(Self {
            args: strings(format_args!("{field}.args"), &process.args)?,
            env: environment(field, &process.env)?,
            cwd: PathBuf::from(&process.cwd),
            terminal: process.terminal,
            size: process.console_size.map(|s| Size { rows: clamp(s.height), columns: clamp(s.width) }),
            uid: id(format_args!("{field}.user.uid"), user.uid)?,
            gid: id(format_args!("{field}.user.gid"), user.gid)?,
            groups: groups.collect::<Result<_>>()?,
            keeps_groups: false,
            umask: user.umask.unwrap_or(0o022) & 0o777,
            capabilities: process.capabilities.as_ref().map(|c| capabilities(c, warnings)),
            rlimits: rlimits(field, &process.rlimits)?,
            no_new_privs: process.no_new_privileges,
            oom_score_adj: process.oom_score_adj,
            apparmor: some(&process.apparmor_profile),
            selinux: some(&process.selinux_label),
            scheduler: process.scheduler.as_ref().map(|s| scheduler(field, s)).transpose()?,
            io_priority: process.io_priority.as_ref().map(|p| io_priority(field, p)).transpose()?,
            affinity: match &process.exec_cpu_affinity {
                None => (None, None),
                Some(a) => (
                    cpus(&format!("{field}.execCPUAffinity.initial"), &a.initial)?,
                    cpus(&format!("{field}.execCPUAffinity.final"), &a.last)?,
                ),
            },
            memory_policy: None,
            linux32: None,
        })
    }

    /// Adds what an annotation of crun's asks for, which podman gives for `--group-add keep-groups`.
    pub(crate) fn set_annotated(&mut self, annotations: &BTreeMap<String, String>) {
        self.keeps_groups = annotations.get("run.oci.keep_original_groups").is_some_and(|value| value == "1");
    }

    /// Adds what the specification keeps in `linux` although it is the process's.
    pub(crate) fn set_machine(&mut self, linux: &Linux) -> Result<()> {
        self.memory_policy = linux.memory_policy.as_ref().map(memory_policy).transpose()?.flatten();
        self.linux32 = match &linux.personality {
            None => None,
            Some(p) if !p.flags.is_empty() => {
                return Err(Error::config("linux.personality.flags", "none is defined"));
            }
            Some(p) => match p.domain.as_str() {
                "LINUX" => Some(false),
                "LINUX32" => Some(true),
                other => return Err(Error::config("linux.personality.domain", format!("{other:?} is unknown"))),
            },
        };
        Ok(())
    }

    /// The value of a variable of its environment.
    #[must_use]
    pub fn variable(&self, key: &str) -> Option<&[u8]> {
        self.env.iter().find_map(|e| e.to_bytes().strip_prefix(key.as_bytes())?.strip_prefix(b"="))
    }
}

fn clamp(n: u64) -> u16 {
    u16::try_from(n).unwrap_or(u16::MAX)
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

/// 2³²-1 means "leave as it is" to the kernel: it is no id.
fn id(field: fmt::Arguments<'_>, value: i64) -> Result<u32> {
    let known = u32::try_from(value).ok().filter(|id| *id != u32::MAX);
    known.ok_or_else(|| {
        Error::config(field.to_string(), format!("{value} is no id: it must be between 0 and 4294967294"))
    })
}

fn strings(field: fmt::Arguments<'_>, list: &[String]) -> Result<Vec<CString>> {
    let one = |(i, text): (usize, &String)| {
        CString::new(text.as_str()).map_err(|_nul| Error::config(format!("{field}[{i}]"), "has a NUL in it"))
    };
    list.iter().enumerate().map(one).collect()
}

fn environment(field: &str, list: &[String]) -> Result<Vec<CString>> {
    let all = strings(format_args!("{field}.env"), list)?;
    let key = |entry: &CString| entry.to_bytes().split(|b| *b == b'=').next().unwrap_or_default().to_vec();
    let mut kept: Vec<CString> = Vec::with_capacity(all.len() + 3);
    for (i, entry) in all.into_iter().enumerate() {
        if !entry.to_bytes().contains(&b'=') || entry.to_bytes().starts_with(b"=") {
            return Err(Error::config(format!("{field}.env[{i}]"), format!("{entry:?} is not KEY=value")));
        }
        let name = key(&entry);
        match kept.iter().position(|e| key(e) == name) {
            Some(at) => kept[at] = entry,
            None => kept.push(entry),
        }
    }
    Ok(kept)
}

fn capabilities(given: &config::Capabilities, warnings: &mut Vec<String>) -> Capabilities {
    let mut set = |names: &[String]| {
        names.iter().fold(CapSet::EMPTY, |set, name| match caps::number(name) {
            Some(number) => set.with(number),
            None => {
                let warning = format!("ignoring unknown capability {name:?}");
                if !warnings.contains(&warning) {
                    warnings.push(warning);
                }
                set
            }
        })
    };
    let sets = Capabilities {
        bounding: set(&given.bounding),
        effective: set(&given.effective),
        permitted: set(&given.permitted),
        inheritable: set(&given.inheritable),
        ambient: set(&given.ambient),
    };
    // Engines have left all of them out since CVE-2022-29162, and still list ambient ones: that is a habit and no mistake.
    let habit = sets.inheritable == CapSet::EMPTY;
    for (number, name) in (0..).zip(caps::names()) {
        if !habit && sets.ambient.has(number) && !sets.permitted.and(sets.inheritable).has(number) {
            warnings.push(format!("can't raise ambient capability {name}: operation not permitted"));
        }
    }
    sets
}

const RLIMITS: [(&str, Resource); 16] = [
    ("RLIMIT_AS", Resource::RLIMIT_AS),
    ("RLIMIT_CORE", Resource::RLIMIT_CORE),
    ("RLIMIT_CPU", Resource::RLIMIT_CPU),
    ("RLIMIT_DATA", Resource::RLIMIT_DATA),
    ("RLIMIT_FSIZE", Resource::RLIMIT_FSIZE),
    ("RLIMIT_LOCKS", Resource::RLIMIT_LOCKS),
    ("RLIMIT_MEMLOCK", Resource::RLIMIT_MEMLOCK),
    ("RLIMIT_MSGQUEUE", Resource::RLIMIT_MSGQUEUE),
    ("RLIMIT_NICE", Resource::RLIMIT_NICE),
    ("RLIMIT_NOFILE", Resource::RLIMIT_NOFILE),
    ("RLIMIT_NPROC", Resource::RLIMIT_NPROC),
    ("RLIMIT_RSS", Resource::RLIMIT_RSS),
    ("RLIMIT_RTPRIO", Resource::RLIMIT_RTPRIO),
    ("RLIMIT_RTTIME", Resource::RLIMIT_RTTIME),
    ("RLIMIT_SIGPENDING", Resource::RLIMIT_SIGPENDING),
    ("RLIMIT_STACK", Resource::RLIMIT_STACK),
];

fn rlimits(field: &str, list: &[config::Rlimit]) -> Result<Vec<Rlimit>> {
    let mut limits: Vec<Rlimit> = Vec::with_capacity(list.len());
    for (i, limit) in list.iter().enumerate() {
        let field = format!("{field}.rlimits[{i}]");
        let known = RLIMITS.iter().find(|r| r.0 == limit.kind);
        let (_, resource) =
            *known.ok_or_else(|| Error::config(format!("{field}.type"), format!("{:?} is unknown", limit.kind)))?;
        if limits.iter().any(|l| l.resource == resource) {
            return Err(Error::config(format!("{field}.type"), format!("{} is there twice", limit.kind)));
        }
        if limit.soft > limit.hard {
            return Err(Error::config(format!("{field}.soft"), "is above the hard limit"));
        }
        limits.push(Rlimit { resource, soft: limit.soft, hard: limit.hard });
    }
    Ok(limits)
}

fn scheduler(field: &str, given: &config::Scheduler) -> Result<sched::Attributes> {
    let policy = match given.policy.as_str() {
        "SCHED_OTHER" => 0,
        "SCHED_FIFO" => 1,
        "SCHED_RR" => 2,
        "SCHED_BATCH" => 3,
        "SCHED_ISO" => 4,
        "SCHED_IDLE" => 5,
        "SCHED_DEADLINE" => sched::DEADLINE,
        other => return Err(Error::config(format!("{field}.scheduler.policy"), format!("{other:?} is unknown"))),
    };
    let mut flags = 0;
    for flag in &given.flags {
        flags |= match flag.as_str() {
            "SCHED_FLAG_RESET_ON_FORK" => 0x01,
            "SCHED_FLAG_RECLAIM" => 0x02,
            "SCHED_FLAG_DL_OVERRUN" => 0x04,
            "SCHED_FLAG_KEEP_POLICY" => 0x08,
            "SCHED_FLAG_KEEP_PARAMS" => 0x10,
            "SCHED_FLAG_UTIL_CLAMP_MIN" => 0x20,
            "SCHED_FLAG_UTIL_CLAMP_MAX" => 0x40,
            other => return Err(Error::config(format!("{field}.scheduler.flags"), format!("{other:?} is unknown"))),
        };
    }
    if !(-20..=19).contains(&given.nice) {
        return Err(Error::config(format!("{field}.scheduler.nice"), "must be between -20 and 19"));
    }
    let priority = u32::try_from(given.priority)
        .map_err(|_range| Error::config(format!("{field}.scheduler.priority"), "must not be negative"))?;
    Ok(sched::Attributes {
        policy,
        flags,
        nice: given.nice,
        priority,
        runtime: given.runtime,
        deadline: given.deadline,
        period: given.period,
    })
}

fn io_priority(field: &str, given: &config::IoPriority) -> Result<(u16, u16)> {
    let class = match given.class.as_str() {
        "IOPRIO_CLASS_RT" => 1,
        "IOPRIO_CLASS_BE" => 2,
        "IOPRIO_CLASS_IDLE" => 3,
        other => return Err(Error::config(format!("{field}.ioPriority.class"), format!("{other:?} is unknown"))),
    };
    let priority = u16::try_from(given.priority).ok().filter(|p| *p <= 7);
    let error = || Error::config(format!("{field}.ioPriority.priority"), "must be between 0 and 7");
    Ok((class, priority.ok_or_else(error)?))
}

fn memory_policy(given: &config::MemoryPolicy) -> Result<Option<(u32, Vec<u32>)>> {
    let invalid = |field: &str, what: &str, value: &str| {
        Error::config(format!("linux.memoryPolicy.{field}"), format!("invalid memory policy {what} {value:?}"))
    };
    let mut mode = match given.mode.as_str() {
        "MPOL_DEFAULT" => 0,
        "MPOL_PREFERRED" => 1,
        "MPOL_BIND" => 2,
        "MPOL_INTERLEAVE" => 3,
        "MPOL_LOCAL" => 4,
        "MPOL_PREFERRED_MANY" => 5,
        "MPOL_WEIGHTED_INTERLEAVE" => 6,
        // An empty object asks for nothing.
        "" if given.nodes.is_empty() && given.flags.is_empty() => return Ok(None),
        other => return Err(invalid("mode", "mode", other)),
    };
    for flag in &given.flags {
        mode |= match flag.as_str() {
            "MPOL_F_NUMA_BALANCING" => 1 << 13,
            "MPOL_F_RELATIVE_NODES" => 1 << 14,
            "MPOL_F_STATIC_NODES" => 1 << 15,
            other => return Err(invalid("flags", "flag", other)),
        };
    }
    let nodes = cpus("nodes", &given.nodes).map_err(|_named| invalid("nodes", "node", &given.nodes))?;
    Ok(Some((mode, nodes.unwrap_or_default().into_iter().filter_map(|n| u32::try_from(n).ok()).collect())))
}

/// A list like `0-3,7`.
fn cpus(field: &str, list: &str) -> Result<Option<Vec<usize>>> {
    let error = || Error::config(field, format!("{list:?} is no list like 0-3,7"));
    // Each once: a short list can name the same ones over and over.
    let mut cpus = BTreeSet::new();
    for part in list.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.trim().parse().map_err(|_number| error())?;
        let last: usize = last.trim().parse().map_err(|_number| error())?;
        if last < first || last > 8191 {
            return Err(error());
        }
        cpus.extend(first..=last);
    }
    Ok((!cpus.is_empty()).then(|| cpus.into_iter().collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        assert_eq!(cpus("f", "0-2, 7").unwrap(), Some(vec![0, 1, 2, 7]));
        assert_eq!(cpus("f", "").unwrap(), None);
        assert!(cpus("f", "3-1").is_err() && cpus("f", "a").is_err() && cpus("f", "0-999999999").is_err());
    }

    #[test]
    fn the_last_variable_wins() {
        let env: Vec<String> = ["A=1", "B=2", "A=3"].iter().map(ToString::to_string).collect();
        assert_eq!(environment("p", &env).unwrap(), [CString::from(c"A=3"), CString::from(c"B=2")]);
        assert!(environment("p", &["=x".into()]).is_err());
    }

    #[test]
    fn unknown_capabilities_are_warned_of_once() {
        let names = vec!["CAP_CHOWN".to_owned(), "CAP_MOON".to_owned()];
        let given = config::Capabilities { bounding: names.clone(), permitted: names, ..Default::default() };
        let mut warnings = Vec::new();
        let sets = capabilities(&given, &mut warnings);
        assert_eq!(sets.bounding, CapSet(1));
        assert_eq!(warnings, [r#"ignoring unknown capability "CAP_MOON""#]);
    }

    #[test]
    fn what_is_not_inheritable_is_not_ambient() {
        let names = vec!["CAP_CHOWN".to_owned(), "CAP_KILL".to_owned()];
        let inheritable = vec!["CAP_KILL".to_owned()];
        let given =
            config::Capabilities { ambient: names.clone(), permitted: names, inheritable, ..Default::default() };
        let mut warnings = Vec::new();
        capabilities(&given, &mut warnings);
        assert_eq!(warnings, ["can't raise ambient capability CAP_CHOWN: operation not permitted"]);
    }
}
