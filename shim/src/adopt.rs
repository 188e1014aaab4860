//! Taking over a container whose shim was killed.
//!
//! The container runs on: it holds its fifos open itself. A new shim finds it by the pid and start time in the runtime's
//! state, opens the other ends of the fifos by name, and goes on. What was exec'ed is lost to it: those processes run on
//! without anybody who reads them. A container that has ended meanwhile is concluded, with code 255 where the kernel
//! does not tell the real one. All this only in the pid namespace in which the container was made.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use dhow_api::Timestamp;
use dhow_api::documents::{Document, ExitRecord};
use dhow_api::paths::ShimDir;
use dhow_runtime::Status;
use dhow_sys::pidfd;
use serde::Deserialize;

use crate::error::{Error, Result};
use crate::io::{self, Names, ProcessIo};
use crate::process::{Process, Stage};
use crate::run_state::{self, RunState};
use crate::shim::{Container, OwnMode, Shim};
use crate::{keeper, oom};

/// What we need of the runtime's state.json.
#[derive(Deserialize)]
struct RuntimeState {
    init_process_pid: i32,
    init_process_start: u64,
}

/// Refuses a container that may run in another pid namespace: its pid means nothing here, or somebody else, and who can not
/// see it would take it for ended and clean up what runs.
pub(crate) fn check(runtime_root: &Path, dir: &ShimDir, id: &str) -> Result<()> {
    let run = run_state(dir);
    let (Some(theirs), Some(ours)) = (run.pid_namespace, run_state::pid_namespace()) else { return Ok(()) };
    if theirs == ours || runtime_state(runtime_root, id)?.is_none() {
        return Ok(());
    }
    match oom::cgroup(runtime_root, id).map(|cgroup| cgroup.is_populated()) {
        // It has ended, perhaps with its pid namespace.
        Some(Ok(Some(false))) => Ok(()),
        _ => Err(Error::PidNamespace { theirs, ours }),
    }
}

fn run_state(dir: &ShimDir) -> RunState {
    RunState::load(&dir.path().join("run.json")).unwrap_or_default()
}

/// Looks for a container that is there already, and takes it over or concludes it.
pub(crate) fn container(shim: &Arc<Shim>) -> Result<()> {
    let Some(own) = shim.own() else { return Ok(()) };
    let root = shim.lock().options.root.clone();
    let Some(state) = runtime_state(&root, &shim.id)? else { return Ok(()) };
    let run = run_state(&own.dir);
    let alive = pidfd::open_checked(state.init_process_pid, state.init_process_start)
        .map_err(Error::sys("open the container's first process"))?;
    match alive {
        Some(pidfd) => take_over(shim, own, state.init_process_pid, pidfd, run),
        None => {
            conclude(shim, &run);
            Ok(())
        }
    }
}

fn runtime_state(root: &Path, id: &str) -> Result<Option<RuntimeState>> {
    let path = root.join(id).join("state.json");
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::file("read", &path)(error)),
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|source| dhow_api::Error::Document { document: "runtime state", path, source }.into())
}

fn take_over(shim: &Arc<Shim>, own: &OwnMode, pid: i32, pidfd: std::os::fd::OwnedFd, run: RunState) -> Result<()> {
    log::info!("adopting the container, whose first process is {pid}");
    shim.open_log(own)?;
    let status = shim.lock().runtime.state(&shim.id)?.status;
    let kept = keeper::recall(&own.dir);
    let mut ends = if run.terminal { io::Ends::default() } else { io::adopt(&own.dir.io())? };
    if let Some(stdin) = kept.as_ref().and_then(|kept| kept.stdin()) {
        ends.stdin = Some(stdin);
    }
    let io = ProcessIo::start(ends, run.terminal, shim.log())?;
    if let Some(console) = kept.as_ref().and_then(|kept| kept.console()) {
        io.connect(console)?;
    }
    if let Some(kept) = kept {
        kept.go_on_for(&io);
    }
    let names = Names { terminal: run.terminal, ..Names::default() };
    let stage = if status == Status::Created { Stage::Created } else { Stage::Running };
    let mut init = Process::new(String::new(), names, stage);
    let pidfd = io::watched(pidfd)?;
    init.pid = pid;
    init.pidfd = Some(pidfd.clone());
    init.io = Some(io);
    shim.lock().container = Some(Container {
        bundle: own.bundle.path().to_owned(),
        init,
        execs: BTreeMap::new(),
        paused: status == Status::Paused,
        own_pid_namespace: true,
        run,
        start_error: None,
    });
    oom::protect();
    shim.follow(String::new(), pidfd);
    Ok(())
}

/// The container ended while nobody was there, or its shim was killed while it cleaned up.
fn conclude(shim: &Arc<Shim>, run: &RunState) {
    log::info!("the container has ended without a shim");
    let shim = shim.clone();
    let (started_at, restarts) = (run.started_at, run.restarts);
    tokio::spawn(async move {
        let Some(own) = shim.own() else { return };
        let told = ExitRecord::load(&own.bundle.exit());
        let unseen = told.is_err();
        let record = told.unwrap_or_else(|_| ExitRecord {
            exit_code: 255,
            signal: None,
            oom_killed: false,
            started_at,
            finished_at: Timestamp::now(),
            error: Some("the shim was gone when the container ended: its exit code is unknown".to_owned()),
            restarts,
        });
        if let Err(error) = record.store(&own.bundle.exit()) {
            log::error!("{}", dhow_api::error::chain(&error));
        }
        if unseen {
            shim.tell_end(&record);
        }
        shim.conclude(own, record).await;
    });
}
