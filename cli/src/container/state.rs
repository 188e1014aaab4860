//! What state a container is in, from files alone: no service is asked, so that a thousand containers list quickly
//! and a dead shim changes nothing about the truth.
//!
//! ```text
//! RUNROOT/runtime/<id>/state.json  names a living process ─▶ running, paused or (its program not yet executed) created
//! else exit.json                                           ─▶ exited
//! else container.json says it was started, shim is gone    ─▶ exited, code unknown (255): a boot, or everything was killed
//! else                                                     ─▶ created
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use dhow_api::documents::{Document, ExitRecord};
use dhow_api::paths::{Bundle, RunRoot};
use jiff::Timestamp;
use serde::Deserialize;

use super::record::Record;
use crate::files;
use crate::output::human;

/// docker's names of states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Status {
    /// Never started, or about to be.
    Created,
    /// Its first process lives.
    Running,
    /// Frozen.
    Paused,
    /// Between two runs of a restart policy.
    Restarting,
    /// Ended.
    Exited,
    /// Half removed.
    Dead,
}

impl Status {
    /// In lower case, as JSON and filters have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Dead => "dead",
        }
    }
}

/// The state at one moment.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct State {
    /// Which.
    pub status: Status,
    /// The first process's pid; 0 when there is none.
    pub pid: i32,
    /// That process's start time, in clock ticks since boot; 0 when there is none.
    pub start_time: u64,
    /// When it was last started.
    pub started: Option<Timestamp>,
    /// The end, if it has ended.
    pub exit: Option<ExitRecord>,
}

/// What we read of the runtime's state.json.
#[derive(Debug, Deserialize)]
struct RuntimeState {
    #[serde(default)]
    init_process_pid: i32,
    #[serde(default)]
    init_process_start: u64,
    #[serde(default)]
    cgroup_paths: BTreeMap<String, String>,
}

impl State {
    /// The state of the container with this record.
    pub(crate) fn of(record: &Record, bundle: &Bundle, runroot: &RunRoot) -> Self {
        let runtime = runroot.runtime().join(&record.id);
        if let Some(alive) = alive(&runtime) {
            return alive;
        }
        let nothing = Self { status: Status::Created, pid: 0, start_time: 0, started: None, exit: None };
        let shim_lives = shim_pid(runroot, &record.id).is_some();
        match ExitRecord::load(&bundle.exit()) {
            Ok(exit) => {
                let started = exit.started_at.and_then(|at| Timestamp::new(at.seconds(), at.nanos() as i32).ok());
                let again = shim_lives && restarts(record, &exit);
                let status = if again { Status::Restarting } else { Status::Exited };
                Self { status, started, exit: Some(exit), ..nothing }
            }
            // While its shim lives it is about to start, or to write down how it ended.
            Err(_none) if shim_lives || record.started.is_none() => nothing,
            Err(_none) => {
                let started = record.started.as_deref().and_then(|text| text.parse().ok());
                Self { status: Status::Exited, started, ..nothing }
            }
        }
    }

    /// Whether its first process lives.
    pub(crate) fn is_up(&self) -> bool {
        matches!(self.status, Status::Running | Status::Paused)
    }

    /// The exit code; 0 for what has not ended, 255 where nobody knows.
    pub(crate) fn exit_code(&self) -> u32 {
        match (&self.exit, self.status) {
            (Some(exit), _) => exit.exit_code,
            (None, Status::Exited) => UNKNOWN_CODE,
            _ => 0,
        }
    }

    /// When it ended.
    pub(crate) fn finished(&self) -> Option<Timestamp> {
        let at = self.exit.as_ref()?.finished_at;
        Timestamp::new(at.seconds(), at.nanos() as i32).ok()
    }

    /// The STATUS column of `ps`.
    pub(crate) fn words(&self, now: Timestamp) -> String {
        let up = || self.started.map_or_else(String::new, |at| human::span(human::between(at, now)));
        match self.status {
            Status::Created => "Created".to_owned(),
            Status::Dead => "Dead".to_owned(),
            Status::Running => format!("Up {}", up()),
            Status::Paused => format!("Up {} (Paused)", up()),
            Status::Exited | Status::Restarting => {
                let ended =
                    self.finished().or(self.started).map_or_else(|| "some time ago".into(), |at| human::ago(at, now));
                let word = if self.status == Status::Restarting { "Restarting" } else { "Exited" };
                format!("{word} ({}) {ended}", self.exit_code())
            }
        }
    }
}

const UNKNOWN_CODE: u32 = 255;

/// The state by the runtime's file, if the process it names lives.
fn alive(runtime: &Path) -> Option<State> {
    let state = runtime_state(&runtime.join("state.json"))?;
    let pid = state.init_process_pid;
    if pid <= 0 {
        return None;
    }
    let stat = dhow_sys::process::stat(pid)?;
    if stat.is_dead() || stat.start_time != state.init_process_start {
        return None;
    }
    let status = if !stat.has_executed {
        Status::Created
    } else if is_frozen(&state.cgroup_paths) {
        Status::Paused
    } else {
        Status::Running
    };
    let started = since_boot(stat.start_time);
    Some(State { status, pid, start_time: stat.start_time, started, exit: None })
}

/// Reads what is wanted of state.json. Its last member is the whole configuration with its filter, tens of kilobytes;
/// over a thousand containers parsing that would be most of the time, so it is cut off unread where it can be.
fn runtime_state(path: &Path) -> Option<RuntimeState> {
    let file = File::open(path).ok()?;
    let mut head = Vec::with_capacity(HEAD);
    file.take(HEAD as u64).read_to_end(&mut head).ok()?;
    let cut = CONFIG.len();
    if let Some(at) = head.windows(cut).position(|window| window == CONFIG) {
        head.truncate(at);
        head.push(b'}');
        return serde_json::from_slice(&head).ok();
    }
    serde_json::from_slice(&files::read(path).ok()?).ok()
}

/// The cgroups that the runtime made for a container.
pub(crate) fn cgroups(runtime: &Path) -> Vec<String> {
    runtime_state(&runtime.join("state.json")).map_or_else(Vec::new, |state| state.cgroup_paths.into_values().collect())
}

const HEAD: usize = 8192;
const CONFIG: &[u8] = b",\"config\":";

fn is_frozen(cgroups: &BTreeMap<String, String>) -> bool {
    let read = |path: String| fs::read_to_string(path).unwrap_or_default();
    // v1 has a path per controller, v2 one with an empty name.
    let paths = cgroups.get("freezer").into_iter().chain(cgroups.get("")).chain(cgroups.get("unified"));
    paths.into_iter().any(|path| {
        read(format!("{path}/cgroup.freeze")).trim() == "1" || read(format!("{path}/freezer.state")).starts_with("FR")
    })
}

/// The pid of the container's shim, if that lives.
pub(crate) fn shim_pid(runroot: &RunRoot, id: &str) -> Option<i32> {
    let text = fs::read_to_string(runroot.shim(id).pid()).ok()?;
    let pid = text.trim().parse().ok()?;
    let stat = dhow_sys::process::stat(pid)?;
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    // Pids are used again: only a process with a shim's name counts.
    (!stat.is_dead() && name.starts_with("containerd-shim")).then_some(pid)
}

/// Whether the restart policy starts it again after this end.
fn restarts(record: &Record, exit: &ExitRecord) -> bool {
    use dhow_api::documents::RestartPolicy as Policy;
    match record.restart() {
        Policy::No => false,
        Policy::Always | Policy::UnlessStopped => true,
        Policy::OnFailure { max } => exit.exit_code != 0 && max.is_none_or(|max| exit.restarts < max),
    }
}

/// A moment given in clock ticks since boot (proc(5), 100 to the second on every Linux).
pub(crate) fn since_boot(ticks: u64) -> Option<Timestamp> {
    let clock = |id| nix::time::clock_gettime(id).ok();
    let (now, up) = (clock(nix::time::ClockId::CLOCK_REALTIME)?, clock(nix::time::ClockId::CLOCK_BOOTTIME)?);
    let nanos = |spec: nix::sys::time::TimeSpec| i128::from(spec.tv_sec()) * 1_000_000_000 + i128::from(spec.tv_nsec());
    let at = nanos(now) - nanos(up) + i128::from(ticks) * 10_000_000;
    Timestamp::from_nanosecond(at).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(started: Option<&str>) -> Record {
        Record { id: "abc".into(), started: started.map(str::to_owned), ..Record::default() }
    }

    #[test]
    fn from_files() {
        let dir = tempfile::tempdir().unwrap();
        let bundle = Bundle::new(dir.path().join("c"));
        let runroot = RunRoot::new(dir.path().join("run"));
        let runtime = runroot.runtime().join("abc");
        fs::create_dir_all(bundle.path()).unwrap();
        fs::create_dir_all(&runtime).unwrap();
        assert_eq!(State::of(&record(None), &bundle, &runroot).status, Status::Created);
        let gone = State::of(&record(Some("2026-01-01T00:00:00Z")), &bundle, &runroot);
        assert_eq!((gone.status, gone.exit_code()), (Status::Exited, 255));

        let pid = std::process::id();
        let start = dhow_sys::process::stat(pid as i32).unwrap().start_time;
        let write = |start: u64| {
            let state = format!("{{\"init_process_pid\":{pid},\"init_process_start\":{start},\"config\":{{}}}}");
            fs::write(runtime.join("state.json"), state).unwrap();
        };
        write(start);
        let up = State::of(&record(None), &bundle, &runroot);
        assert_eq!((up.status, up.pid), (Status::Running, pid as i32));
        assert!(human::between(up.started.unwrap(), Timestamp::now()) < 3600);
        // The same pid, another process.
        write(start + 1);
        assert_eq!(State::of(&record(None), &bundle, &runroot).status, Status::Created);

        fs::write(bundle.exit(), r#"{"exit_code":3,"finished_at":"2026-01-01T00:00:00.000000000Z"}"#).unwrap();
        let ended = State::of(&record(None), &bundle, &runroot);
        assert_eq!((ended.status, ended.exit_code()), (Status::Exited, 3));
        let now = "2026-01-01T00:00:05Z".parse().unwrap();
        assert_eq!(ended.words(now), "Exited (3) 5 seconds ago");
    }
}
