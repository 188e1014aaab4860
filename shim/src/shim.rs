//! The shim itself: one container, its processes, and what is done to them.
//!
//! Everything happens on one thread. The state sits in a mutex that is never held across an await; calls into the
//! runtime block the loop for the milliseconds that they take, which is what lets the runtime clone processes safely.
//!
//! ```text
//! Create ─ Created ─ Start ─ Running ─ (pidfd readable) ─ Stopped ┬ containerd: Delete, Shutdown
//!                                                                 └ dhow: see lifecycle.rs
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dhow_api::documents::{Document, LogConfig, ShimConfig};
use dhow_api::paths;
use dhow_runtime::Runtime;
use tokio::sync::{Notify, watch};

use crate::attach::Attachments;
use crate::error::{Error, Result};
use crate::events::{Event, Publisher};
use crate::io::{self, LogFile, SharedLog};
use crate::options::Options;
use crate::process::{Process, until_ended};
use crate::reap;
use crate::run_state::RunState;

/// The shim of one container.
#[derive(Debug)]
pub(crate) struct Shim {
    /// The container's id.
    pub(crate) id: String,
    /// containerd's namespace, or `dhow`.
    pub(crate) namespace: String,
    /// Whose shim it is.
    pub(crate) mode: Mode,
    /// Where events go.
    pub(crate) events: Publisher,
    /// Set when there is nothing left to do.
    pub(crate) done: watch::Sender<bool>,
    /// A waiting restart shall not happen.
    pub(crate) stop: Notify,
    state: Mutex<State>,
}

/// Whose shim it is.
#[derive(Debug)]
pub(crate) enum Mode {
    /// dhow's own command line: the shim owns the stdio and cleans up.
    Own(Box<OwnMode>),
    /// containerd: it does.
    Engine,
}

/// What there is in dhow's own way only.
#[derive(Debug)]
pub(crate) struct OwnMode {
    /// shim.json.
    pub(crate) config: ShimConfig,
    /// The container's directory.
    pub(crate) bundle: paths::Bundle,
    /// The shim's directory.
    pub(crate) dir: paths::ShimDir,
    /// Who is attached.
    pub(crate) attachments: Arc<Attachments>,
}

/// What changes.
#[derive(Debug)]
pub(crate) struct State {
    /// The runtime.
    pub(crate) runtime: Runtime,
    /// What it was made from.
    pub(crate) options: Options,
    /// A Create is at work.
    pub(crate) creating: bool,
    /// The container.
    pub(crate) container: Option<Container>,
    /// Of how many processes killed for want of memory containerd knows; none: nobody watches.
    pub(crate) oom_told: Option<u64>,
    /// The log, from the first Create on.
    log: Option<SharedLog>,
}

/// The container.
#[derive(Debug)]
pub(crate) struct Container {
    /// Its bundle.
    pub(crate) bundle: PathBuf,
    /// Its first process.
    pub(crate) init: Process,
    /// Those that were exec'ed, by exec id.
    pub(crate) execs: BTreeMap<String, Process>,
    /// Whether its processes are frozen.
    pub(crate) paused: bool,
    /// Whether the end of the first process ends all.
    pub(crate) own_pid_namespace: bool,
    /// What a successor must know.
    pub(crate) run: RunState,
    /// Why it did not start.
    pub(crate) start_error: Option<(u32, String)>,
}

impl Container {
    /// The first process, or an exec.
    pub(crate) fn process(&mut self, exec_id: &str) -> Result<&mut Process> {
        if exec_id.is_empty() {
            return Ok(&mut self.init);
        }
        self.execs.get_mut(exec_id).ok_or_else(|| Error::NotFound { what: format!("process {exec_id}") })
    }
}

impl Shim {
    pub(crate) fn new(id: String, namespace: String, mode: Mode, options: Options, events: Publisher) -> Arc<Self> {
        let runtime = options.runtime();
        Arc::new(Self {
            id,
            namespace,
            mode,
            events,
            done: watch::Sender::new(false),
            stop: Notify::new(),
            state: Mutex::new(State { runtime, options, creating: false, container: None, oom_told: None, log: None }),
        })
    }

    /// The state; never held across an await.
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What dhow's own way has.
    pub(crate) fn own(&self) -> Option<&OwnMode> {
        match &self.mode {
            Mode::Own(own) => Some(own),
            Mode::Engine => None,
        }
    }

    pub(crate) fn publish(&self, event: &Event) {
        self.events.publish(&self.namespace, event);
    }

    /// The container, for as long as the closure takes.
    pub(crate) fn with_container<T>(&self, f: impl FnOnce(&mut Container, &Runtime) -> Result<T>) -> Result<T> {
        let mut state = self.lock();
        let State { runtime, container, .. } = &mut *state;
        let container = container.as_mut().ok_or_else(|| Error::NotFound { what: format!("container {}", self.id) })?;
        f(container, runtime)
    }

    /// Follows a process to its end, which may make the next one: hence a box, as the types would not end either.
    pub(crate) fn follow(self: &Arc<Self>, exec_id: String, pidfd: io::Watched) {
        let watch: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(self.clone().watch(exec_id, pidfd));
        tokio::spawn(watch);
    }

    async fn watch(self: Arc<Self>, exec_id: String, pidfd: io::Watched) {
        let ended = until_ended(&pidfd).await;
        let io = self.with_container(|container, runtime| {
            if exec_id.is_empty() && !container.own_pid_namespace {
                // Nothing ends what the first process left behind, and it would hold the fifos open.
                if let Err(error) = runtime.kill(&self.id, libc::SIGKILL, true) {
                    log::debug!("end the rest of the container: {error}");
                }
            }
            Ok(container.process(&exec_id)?.io.clone())
        });
        if let Ok(Some(io)) = io {
            io.finish().await;
        }
        if exec_id.is_empty() {
            self.init_ended(ended).await;
        } else {
            self.exec_ended(&exec_id, ended);
        }
        reap::orphans(&self);
    }

    /// Writes down what a successor must know.
    pub(crate) fn remember(&self, run: &RunState) {
        let Some(own) = self.own() else { return };
        if let Err(error) = run.store(&own.dir.path().join("run.json")) {
            log::error!("{}", dhow_api::error::chain(&error));
        }
    }

    /// Opens the log, once.
    pub(crate) fn open_log(&self, own: &OwnMode) -> Result<()> {
        let LogConfig::JsonFile { path, max_size, max_files } = &own.config.log else { return Ok(()) };
        let mut state = self.lock();
        if state.log.is_none() {
            let path = path.clone().unwrap_or_else(|| own.bundle.log());
            state.log = Some(Arc::new(Mutex::new(LogFile::open(&path, *max_size, *max_files)?)));
        }
        Ok(())
    }

    /// The log, when there is one.
    pub(crate) fn log(&self) -> Option<SharedLog> {
        self.lock().log.clone()
    }
}
