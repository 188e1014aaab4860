//! `linux.resources`, as values for the kernel's files.
//!
//! [`v1`] and [`v2`] turn the resources into one list of [`Setting`]s, without touching anything: a value that makes no sense
//! is found before anything is made, and the whole translation is tested without a kernel. [`apply`] then writes the list,
//! each value with one open, write and close below a directory handle.
//!
//! The files are written by us and not with cgroups-rs, which takes as many system calls for what it does but writes what it
//! can't know to be wanted (`memory.swap.max` without `swap`), drops what it does not know (burst, idle, rsvd, unified, a
//! limit that is lifted), swallows errors, and can't say which field was refused.

pub(super) mod systemd;
pub(super) mod v1;
pub(super) mod v2;
mod values;

use std::borrow::Cow;

use dhow_sys::Errno;

use super::dir::Dir;
use super::error::{CgroupError, Result};

/// One field of the resources, and what to write for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Setting {
    /// In dotted notation, for errors.
    field: Cow<'static, str>,
    /// File and value. Of several, the first whose file exists.
    choices: Vec<(Cow<'static, str>, Value)>,
    /// What to do when no such file exists.
    missing: Missing,
}

/// What a file gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// This.
    Text(String),
    /// This CPU period beside the quota that is there (`cpu.max` has both).
    PeriodBesideQuota(u64),
}

/// What the absence of a file means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    /// The limit can't be had.
    Error,
    /// The kernel has no such limit, so there is nothing to lift, or what the file adds was not asked for.
    Ignore,
}

/// All that the resources ask for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Settings {
    list: Vec<Setting>,
    /// Refuse all of it when more memory than this is in use (`checkBeforeUpdate`).
    usage_below: Option<u64>,
}

impl Settings {
    #[expect(clippy::needless_pass_by_value, reason = "a number or a string that the call has just made")]
    fn add(&mut self, field: impl Into<Cow<'static, str>>, file: impl Into<Cow<'static, str>>, value: impl ToString) {
        self.push(field, vec![(file.into(), Value::Text(value.to_string()))], Missing::Error);
    }

    #[expect(clippy::needless_pass_by_value, reason = "a number or a string that the call has just made")]
    fn add_optional(
        &mut self,
        field: impl Into<Cow<'static, str>>,
        file: impl Into<Cow<'static, str>>,
        value: impl ToString,
    ) {
        self.push(field, vec![(file.into(), Value::Text(value.to_string()))], Missing::Ignore);
    }

    fn push(
        &mut self,
        field: impl Into<Cow<'static, str>>,
        choices: Vec<(Cow<'static, str>, Value)>,
        missing: Missing,
    ) {
        self.list.push(Setting { field: field.into(), choices, missing });
    }

    #[cfg(test)]
    fn lines(&self) -> Vec<String> {
        let line = |setting: &Setting| {
            let choices: Vec<_> =
                setting.choices.iter().map(|(file, value)| format!("{file}={}", value.text())).collect();
            choices.join("|")
        };
        self.list.iter().map(line).collect()
    }

    /// Says no to what must not even be tried, of which nothing has been written yet.
    pub(super) fn refuse<'d>(&self, dir: &impl Fn(&str) -> Option<&'d Dir>) -> Result<()> {
        match (self.usage_below, dir("memory").and_then(|dir| dir.number("memory.current"))) {
            (Some(limit), Some(usage)) if usage > limit => Err(CgroupError::LimitBelowUsage { limit, usage }),
            _ => Ok(()),
        }
    }

    /// Writes all of it; `dir` gives the directory that has a controller's files.
    ///
    /// Two limits of one controller can depend on each other (a memory limit has to be below that with swap, a quota above
    /// its burst), in either order. So what the kernel finds invalid is tried once more after the rest.
    pub(super) fn apply<'d>(&self, dir: impl Fn(&str) -> Option<&'d Dir>) -> Result<()> {
        self.refuse(&dir)?;
        let mut later = Vec::new();
        for setting in &self.list {
            match setting.write(&dir) {
                Err(CgroupError::Limit { source: Errno::EINVAL, .. }) => later.push(setting),
                result => result?,
            }
        }
        later.into_iter().try_for_each(|setting| setting.write(&dir))
    }
}

impl Setting {
    fn write<'d>(&self, dir: &impl Fn(&str) -> Option<&'d Dir>) -> Result<()> {
        let mut last = None;
        for (file, value) in &self.choices {
            let controller = file.split_once('.').map_or(&**file, |(controller, _)| controller);
            let unavailable =
                || CgroupError::NoController { field: self.field.to_string(), controller: controller.to_owned() };
            let Some(dir) = dir(controller) else {
                last = Some(unavailable());
                continue;
            };
            let text = value.resolve(dir, file);
            match dir.write(file, &text) {
                Ok(()) => return Ok(()),
                Err(source) => {
                    let (field, path) = (self.field.to_string(), dir.path().join(&**file));
                    let error = CgroupError::Limit { field, path, value: text, source };
                    if source != Errno::ENOENT {
                        return Err(error);
                    }
                    // Engines take "no such file" for the container's program.
                    last = Some(if lacks(dir, controller) { unavailable() } else { error });
                }
            }
        }
        match (last, self.missing) {
            (Some(error), Missing::Error) => Err(error),
            _ => Ok(()),
        }
    }
}

/// Whether a cgroup of v2 has no such controller. On v1 a directory has its controllers' files by nature.
fn lacks(dir: &Dir, controller: &str) -> bool {
    dir.read("cgroup.controllers").is_ok_and(|enabled| enabled.split_whitespace().all(|name| name != controller))
}

impl Value {
    fn resolve(&self, dir: &Dir, file: &str) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::PeriodBesideQuota(period) => {
                let current = dir.read(file).unwrap_or_default();
                format!("{} {period}", current.split_whitespace().next().unwrap_or("max"))
            }
        }
    }

    #[cfg(test)]
    fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::PeriodBesideQuota(period) => format!("? {period}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::LinuxResources;
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::mutation::{changed, changes, damaged, damages, rounds};

    /// A bit of everything, in texts and in numbers.
    fn resources() -> serde_json::Value {
        let device = json!([{"major": 8, "minor": 0, "rate": 1000}]);
        json!({
            "memory": {"limit": 8192, "swap": 12288, "reservation": 2048, "swappiness": 60, "checkBeforeUpdate": true,
                "kernel": 1, "kernelTCP": 1, "disableOOMKiller": true},
            "cpu": {"shares": 1024, "quota": 25500, "period": 50000, "burst": 5, "idle": 0, "cpus": "0,9-10", "mems": "0",
                "realtimeRuntime": 5, "realtimePeriod": 10},
            "pids": {"limit": 7},
            "blockIO": {"weight": 100, "leafWeight": 10, "weightDevice": [{"major": 8, "minor": 0, "weight": 500}],
                "throttleReadBpsDevice": device, "throttleWriteBpsDevice": device,
                "throttleReadIOPSDevice": device, "throttleWriteIOPSDevice": device},
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}],
            "network": {"classID": 1, "priorities": [{"name": "lo", "priority": 5}]},
            "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10}},
            "unified": {"memory.high": "1000000", "cpu.max": "5000 10000", "cpu.weight": "7", "cpuset.cpus": "0-1", "pids.max": "9"}
        })
    }

    proptest! {
        #![proptest_config(rounds(1000))]

        #[test]
        fn changed_resources_become_files_and_properties_or_are_refused(changes in changes(), damages in damages()) {
            let text = changed(resources(), &changes).to_string();
            let Ok(resources) = serde_json::from_slice::<LinuxResources>(&damaged(text.as_bytes(), &damages)) else {
                return Ok(());
            };
            for settings in [v1::settings(&resources), v2::settings(&resources)] {
                match settings {
                    Ok(settings) => prop_assert!(settings.list.iter().all(|s| !s.field.is_empty() && !s.choices.is_empty())),
                    Err(error) => prop_assert!(error.to_string().starts_with("linux.resources."), "{error}"),
                }
            }
            for (unified, version) in [(false, 230), (true, 241), (true, 257)] {
                drop(systemd::properties(&resources, &systemd::Machine { unified, version }, systemd::Current::default()));
            }
        }
    }

    #[test]
    fn a_controller_that_is_not_there_is_named() {
        let root = tempfile::tempdir().unwrap();
        std::fs::write(root.path().join("cgroup.controllers"), "cpu memory\n").unwrap();
        let dir = Dir::open(root.path()).unwrap();
        let refused = |file: &'static str| {
            let mut settings = Settings::default();
            settings.add("linux.resources.x", file, 1);
            settings.apply(|_| Some(&dir)).unwrap_err().to_string()
        };
        assert_eq!(refused("pids.max"), "linux.resources.x: the requested cgroup controller `pids` is not available");
        assert!(refused("memory.new").contains("memory.new"), "a file that is newer than the kernel");
    }
}
