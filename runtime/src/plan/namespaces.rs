//! `linux.namespaces`, the mappings of a user namespace and the offsets of a time namespace.

use std::collections::BTreeMap;
use std::path::PathBuf;

use dhow_sys::clone::Namespaces;

use crate::config::{IdMapping, Linux};
use crate::{Error, Result};

/// Which namespaces the container has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NamespacePlan {
    /// New ones.
    pub new: Namespaces,
    /// Existing ones, a user namespace first: it gives the right to join the others.
    pub join: Vec<Joined>,
    /// Mappings of a new user namespace.
    pub uid_mappings: Vec<IdMapping>,
    /// Mappings of a new user namespace.
    pub gid_mappings: Vec<IdMapping>,
    /// Offsets of a new time namespace.
    pub clocks: Vec<Clock>,
}

/// A namespace to join.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// Exactly one.
    pub kind: Namespaces,
    /// Its file.
    pub path: PathBuf,
    /// For messages.
    pub field: String,
}

/// An offset of a clock, in the words of /proc/PID/timens_offsets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// `monotonic` or `boottime`.
    pub name: &'static str,
    /// Seconds.
    pub seconds: i64,
    /// Nanoseconds.
    pub nanoseconds: u32,
}

/// The specification's name, the bit, runc's name in state.json, the name in /proc/PID/ns.
pub(crate) const KINDS: [(&str, Namespaces, &str, &str); 8] = [
    ("user", Namespaces::USER, "NEWUSER", "user"),
    ("ipc", Namespaces::IPC, "NEWIPC", "ipc"),
    ("uts", Namespaces::UTS, "NEWUTS", "uts"),
    ("network", Namespaces::NETWORK, "NEWNET", "net"),
    ("pid", Namespaces::PID, "NEWPID", "pid"),
    ("cgroup", Namespaces::CGROUP, "NEWCGROUP", "cgroup"),
    ("time", Namespaces::TIME, "NEWTIME", "time"),
    ("mount", Namespaces::MOUNT, "NEWNS", "mnt"),
];

impl NamespacePlan {
    pub(crate) fn new(linux: &Linux) -> Result<Self> {
        let mut plan = Self::default();
        let mut seen = Namespaces::NONE;
        for (i, namespace) in linux.namespaces.iter().enumerate() {
            let field = format!("linux.namespaces[{i}]");
            let (_, kind, ..) = *KINDS
                .iter()
                .find(|k| k.0 == namespace.kind)
                .ok_or_else(|| Error::config(format!("{field}.type"), format!("{:?} is unknown", namespace.kind)))?;
            if seen.contains(kind) {
                return Err(Error::config(field, format!("{} is there twice", namespace.kind)));
            }
            seen |= kind;
            if namespace.path.is_empty() {
                plan.new |= kind;
            } else if namespace.path.starts_with('/') {
                plan.join.push(Joined { kind, path: PathBuf::from(&namespace.path), field: format!("{field}.path") });
            } else {
                return Err(Error::config(format!("{field}.path"), "is not absolute"));
            }
        }
        for (field, paths) in [("maskedPaths", &linux.masked_paths), ("readonlyPaths", &linux.readonly_paths)] {
            if !seen.contains(Namespaces::MOUNT) && !paths.is_empty() {
                return Err(Error::config(format!("linux.{field}"), "needs a mount namespace of the container's own"));
            }
        }
        let order = |kind| KINDS.iter().position(|k| k.1 == kind);
        plan.join.sort_by_key(|j| order(j.kind));
        plan.mappings(linux)?;
        plan.clocks(linux)?;
        Ok(plan)
    }

    /// Whether the container has one of its own, new or joined.
    #[must_use]
    pub fn has(&self, kind: Namespaces) -> bool {
        self.all().contains(kind)
    }

    /// All kinds, new and joined.
    #[must_use]
    pub fn all(&self) -> Namespaces {
        self.join.iter().fold(self.new, |all, j| all | j.kind)
    }

    /// The one of this kind to join.
    #[must_use]
    pub fn joined(&self, kind: Namespaces) -> Option<&Joined> {
        self.join.iter().find(|j| j.kind == kind)
    }

    /// The files of a process's namespaces, by runc's names.
    pub(crate) fn paths(&self, pid: i32) -> BTreeMap<String, PathBuf> {
        let path = |name: &str| PathBuf::from(format!("/proc/{pid}/ns/{name}"));
        KINDS.iter().map(|(_, _, key, name)| ((*key).to_owned(), path(name))).collect()
    }

    fn mappings(&mut self, linux: &Linux) -> Result<()> {
        self.uid_mappings = super::mappings(format_args!("linux.uidMappings"), &linux.uid_mappings)?;
        self.gid_mappings = super::mappings(format_args!("linux.gidMappings"), &linux.gid_mappings)?;
        let (new, none) = (self.new.contains(Namespaces::USER), self.uid_mappings.is_empty());
        if new && (none || self.gid_mappings.is_empty()) {
            return Err(Error::config("linux.uidMappings", "a new user namespace needs uid and gid mappings"));
        }
        // Engines repeat the mappings of a namespace that is joined; those of one that is not there are a mistake.
        if !none && !self.has(Namespaces::USER) {
            return Err(Error::config("linux.uidMappings", "there is no user namespace"));
        }
        Ok(())
    }

    fn clocks(&mut self, linux: &Linux) -> Result<()> {
        for (clock, offset) in &linux.time_offsets {
            let field = || format!("linux.timeOffsets.{clock}");
            let name = match clock.as_str() {
                "monotonic" => "monotonic",
                "boottime" => "boottime",
                _ => return Err(Error::config(field(), "is no clock that can be set")),
            };
            if !self.new.contains(Namespaces::TIME) {
                return Err(Error::config(field(), "there is no new time namespace"));
            }
            self.clocks.push(Clock { name, seconds: offset.secs, nanoseconds: offset.nanosecs });
        }
        Ok(())
    }
}
