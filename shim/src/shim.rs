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
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use containerd_shim_protos::events::task as event;
use dhow_api::documents::{Document, LogConfig, ShimConfig, Stdin};
use dhow_api::{Timestamp, paths, task};
use dhow_runtime::{CreateRequest, ExecRequest, RestoreRequest, RootfsSource, Runtime, Stdio};
use tokio::sync::{Notify, watch};

use crate::attach::Attachments;
use crate::error::{Error, Result};
use crate::events::{Event, Publisher};
use crate::io::{self, Ends, LogFile, Names, ProcessIo, SharedLog};
use crate::options::Options;
use crate::process::{Ended, Pending, Process, Stage, until_ended};
use crate::run_state::RunState;
use crate::{checkpoint, keeper, oom, reap};

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
    creating: bool,
    /// The container.
    pub(crate) container: Option<Container>,
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

/// A process that the runtime made, with our ends of its stdio.
pub(crate) struct Made {
    pub(crate) process: dhow_runtime::Created,
    pub(crate) io: Arc<ProcessIo>,
    pub(crate) own_pid_namespace: bool,
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
            state: Mutex::new(State { runtime, options, creating: false, container: None, log: None }),
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

    /// Makes the container, up to the point before its own program.
    pub(crate) async fn create(self: &Arc<Self>, request: task::CreateTaskRequest) -> Result<i32> {
        {
            let mut state = self.lock();
            if state.creating || state.container.is_some() {
                return Err(Error::Exists { what: format!("container {}", self.id) });
            }
            state.creating = true;
        }
        let created = self.create_claimed(&request).await;
        self.lock().creating = false;
        if let Err(error) = &created {
            self.creation_failed(error);
        }
        created
    }

    async fn create_claimed(self: &Arc<Self>, request: &task::CreateTaskRequest) -> Result<i32> {
        if request.id != self.id {
            return Err(Error::Request { field: "id", problem: format!("this is the shim of {}", self.id) });
        }
        // What adopts a container of dhow's own knows nothing of one that is yet to be brought back.
        if !request.checkpoint.is_empty() && self.own().is_some() {
            return Err(Error::Unsupported { what: "restoring a checkpoint".to_owned() });
        }
        let bundle = match (request.bundle.as_str(), self.own()) {
            ("", Some(own)) => own.bundle.path().to_owned(),
            ("", None) => return Err(Error::Request { field: "bundle", problem: "it is missing".to_owned() }),
            (bundle, _) => bundle.into(),
        };
        if matches!(self.mode, Mode::Engine) {
            let options = Options::from_request(request.options.as_ref(), &self.namespace)?;
            options.remember(&bundle)?;
            let mut state = self.lock();
            state.runtime = options.runtime();
            state.options = options;
        }
        if let Some(own) = self.own() {
            // What a previous run left would be taken for the end of this one.
            remove_if_there(&own.bundle.exit())?;
            self.open_log(own)?;
        }
        let names = Names {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        let run = RunState {
            terminal: request.terminal,
            rootfs: request.rootfs.iter().map(Into::into).collect(),
            ..RunState::default()
        };
        let images = Some(&request.checkpoint).filter(|path| !path.is_empty()).map(PathBuf::from);
        let made = match &images {
            Some(_) => None,
            None => Some(self.make(&bundle, &names, &run, None).await?),
        };
        let pid = made.as_ref().map_or(0, |made| made.process.pid);
        self.publish(&Event::Create(event::TaskCreate {
            container_id: self.id.clone(),
            bundle: bundle.to_string_lossy().into_owned(),
            rootfs: request.rootfs.clone(),
            io: Some(event::TaskIO {
                stdin: names.stdin.clone(),
                stdout: names.stdout.clone(),
                stderr: names.stderr.clone(),
                terminal: names.terminal,
                ..Default::default()
            })
            .into(),
            checkpoint: request.checkpoint.clone(),
            pid: pid.unsigned_abs(),
            ..Default::default()
        }));
        let mut init = Process::new(String::new(), names, images.map_or(Stage::Created, Stage::Saved));
        let own_pid_namespace = made.as_ref().is_none_or(|made| made.own_pid_namespace);
        let pidfd = made.map(|made| self.take_over(&mut init, made.process, made.io)).transpose()?;
        self.remember(&run);
        self.lock().container = Some(Container {
            bundle,
            init,
            execs: BTreeMap::new(),
            paused: false,
            own_pid_namespace,
            run,
            start_error: None,
        });
        if let Some(pidfd) = pidfd {
            self.follow(String::new(), pidfd);
            oom::watch(self);
        }
        Ok(pid)
    }

    /// Lets the runtime make the first process, or bring it back from saved images.
    pub(crate) async fn make(
        &self,
        bundle: &Path,
        names: &Names,
        run: &RunState,
        images: Option<&Path>,
    ) -> Result<Made> {
        let config = bundle.join("config.json");
        let spec = std::fs::read(&config).map_err(Error::file("read", &config))?;
        let spec = dhow_runtime::config::Spec::from_json(&spec)?;
        let (stdio, ends) = match self.own() {
            Some(_) if names.terminal && names.are_ours() => (Stdio::Terminal, Ends::default()),
            Some(own) if names.are_ours() => io::own_init(&own.dir.io(), own_stdin(own.config.stdin))?,
            _ => io::for_engine(names).await?,
        };
        let io = ProcessIo::start(ends, names.terminal, self.lock().log.clone())?;
        let mounts: Vec<_> = run.rootfs.iter().map(Into::into).collect();
        let rootfs = if mounts.is_empty() {
            RootfsSource::Config
        } else {
            make_rootfs_directory(bundle, &spec)?;
            let mount = dhow_sys::rootfs::detached(&mounts).map_err(|source| Error::Rootfs { source })?;
            RootfsSource::DetachedMount(mount)
        };
        let (runtime, options) = {
            let state = self.lock();
            (state.runtime.clone(), state.options.clone())
        };
        let request = CreateRequest {
            id: self.id.clone(),
            bundle: bundle.to_owned(),
            stdio,
            rootfs,
            no_pivot: options.no_pivot,
            no_new_keyring: options.no_new_keyring,
            ..CreateRequest::default()
        };
        let created = match images {
            None => oom::unprotected(self.own().is_some(), || runtime.create(request))?,
            Some(images) => {
                // It has the keyring that it was saved with.
                let create = CreateRequest { no_new_keyring: true, ..request };
                let criu = checkpoint::restore(images, bundle);
                runtime.restore(&RestoreRequest { create, criu, ..RestoreRequest::default() })?
            }
        };
        for warning in &created.warnings {
            log::warn!("{warning}");
        }
        let namespaces = spec.linux.iter().flat_map(|linux| &linux.namespaces);
        let own_pid_namespace = namespaces.into_iter().any(|ns| ns.kind == "pid" && ns.path.is_empty());
        Ok(Made { process: created, io, own_pid_namespace })
    }

    /// Makes a process of the runtime's ours: its terminal, its pidfd in the event loop.
    pub(crate) fn take_over(
        &self,
        process: &mut Process,
        created: dhow_runtime::Created,
        io: Arc<ProcessIo>,
    ) -> Result<io::Watched> {
        if let Some(console) = created.console {
            io.connect(console)?;
        }
        let pidfd = io::watched(created.pidfd)?;
        if let Some(own) = self.own().filter(|_| process.exec_id.is_empty()) {
            keeper::start(&own.dir, &pidfd, &io)?;
        }
        process.pid = created.pid;
        process.pidfd = Some(pidfd.clone());
        process.io = Some(io);
        Ok(pidfd)
    }

    /// Starts the container's program, or an exec.
    pub(crate) async fn start(self: &Arc<Self>, exec_id: &str) -> Result<i32> {
        if !exec_id.is_empty() {
            return self.start_exec(exec_id).await;
        }
        let saved = self.with_container(|container, _| match &container.init.stage {
            Stage::Saved(images) => Ok(Some(images.clone())),
            _ => Ok(None),
        });
        match saved? {
            Some(images) => self.start_saved(images).await,
            None => self.start_init(),
        }
    }

    fn start_init(self: &Arc<Self>) -> Result<i32> {
        let (pid, run) = self
            .with_container(|container, runtime| {
                match container.init.stage {
                    Stage::Created => {}
                    _ => return Err(Error::State { verb: "start", state: container.init.state() }),
                }
                if let Err(error) = runtime.start(&self.id) {
                    let error = Error::from(error);
                    // The process is ending; its end finds here what to record.
                    container.start_error = Some((error.exit_code(), error.chain()));
                    return Err(error);
                }
                container.init.stage = Stage::Running;
                container.run.started_at = Some(Timestamp::now());
                Ok((container.init.pid, container.run.clone()))
            })
            .inspect_err(|_| self.kill_unstarted())?;
        self.remember(&run);
        self.tell("start", &[]);
        self.publish(&Event::Start(event::TaskStart {
            container_id: self.id.clone(),
            pid: pid.unsigned_abs(),
            ..Default::default()
        }));
        Ok(pid)
    }

    /// Makes sure that a process that could not be started ends.
    fn kill_unstarted(&self) {
        let killed = self.with_container(|container, _| {
            if container.start_error.is_some() { container.init.signal(libc::SIGKILL) } else { Ok(()) }
        });
        if let Err(error) = killed {
            log::debug!("end a process that could not be started: {error}");
        }
    }

    /// Registers a further process.
    pub(crate) fn exec(&self, request: &task::ExecProcessRequest) -> Result<()> {
        let exec_id = &request.exec_id;
        if exec_id.is_empty() {
            return Err(Error::Request { field: "exec_id", problem: "it is missing".to_owned() });
        }
        let document = request.spec.as_ref().map(|spec| spec.value.as_slice()).unwrap_or_default();
        let mut process = dhow_runtime::config::Process::from_json(document)?;
        process.terminal = request.terminal;
        let command = process.args.join(" ");
        let names = Names {
            stdin: request.stdin.clone(),
            stdout: request.stdout.clone(),
            stderr: request.stderr.clone(),
            terminal: request.terminal,
        };
        self.with_container(|container, _| {
            if container.execs.contains_key(exec_id) {
                return Err(Error::Exists { what: format!("process {exec_id}") });
            }
            if container.init.stopped().is_some() {
                return Err(Error::State { verb: "exec in", state: "stopped" });
            }
            let ours = self.own().is_some() && names.are_ours();
            let (stdio, io) = match (ours, names.terminal) {
                (false, _) => (None, None),
                (true, true) => (Some(Stdio::Terminal), Some(ProcessIo::start(Ends::default(), true, None)?)),
                (true, false) => {
                    let (stdio, ends) = io::own_exec(io::Own::WithStdin)?;
                    (Some(stdio), Some(ProcessIo::start(ends, false, None)?))
                }
            };
            oom::same_as(container.init.pid, &mut process);
            let pending = Box::new(Pending { process, stdio, stdin_wanted: false });
            let mut registered = Process::new(exec_id.clone(), names, Stage::Registered(pending));
            registered.io = io;
            container.execs.insert(exec_id.clone(), registered);
            Ok(())
        })?;
        self.tell(&format!("exec_create: {command}"), &[("execID", exec_id.clone())]);
        self.publish(&Event::ExecAdded(event::TaskExecAdded {
            container_id: self.id.clone(),
            exec_id: exec_id.clone(),
            ..Default::default()
        }));
        Ok(())
    }

    async fn start_exec(self: &Arc<Self>, exec_id: &str) -> Result<i32> {
        let (pending, names, io) = self.with_container(|container, _| {
            let process = container.process(exec_id)?;
            let state = process.state();
            match std::mem::replace(&mut process.stage, Stage::Created) {
                Stage::Registered(pending) => Ok((*pending, process.names.clone(), process.io.clone())),
                other => {
                    process.stage = other;
                    Err(Error::State { verb: "start", state })
                }
            }
        })?;
        let command = pending.process.args.join(" ");
        self.tell(&format!("exec_start: {command}"), &[("execID", exec_id.to_owned())]);
        let started = self.run_exec(exec_id, pending, &names, io).await;
        match started {
            Ok(pid) => {
                self.publish(&Event::ExecStarted(event::TaskExecStarted {
                    container_id: self.id.clone(),
                    exec_id: exec_id.to_owned(),
                    pid: pid.unsigned_abs(),
                    ..Default::default()
                }));
                Ok(pid)
            }
            Err(error) => {
                self.exec_failed(exec_id, &error).await;
                Err(error)
            }
        }
    }

    async fn run_exec(
        self: &Arc<Self>,
        exec_id: &str,
        pending: Pending,
        names: &Names,
        io: Option<Arc<ProcessIo>>,
    ) -> Result<i32> {
        let (stdio, io) = match (pending.stdio, io) {
            (Some(stdio), Some(io)) => {
                if !pending.stdin_wanted && !names.terminal {
                    io.stdin.close();
                }
                (stdio, io)
            }
            _ => {
                let (stdio, ends) = io::for_engine(names).await?;
                (stdio, ProcessIo::start(ends, names.terminal, None)?)
            }
        };
        let runtime = self.lock().runtime.clone();
        let request = ExecRequest::new(pending.process, stdio);
        let created = runtime.exec(&self.id, request)?;
        let pid = created.pid;
        let pidfd = self.with_container(|container, _| {
            let process = container.process(exec_id)?;
            process.stage = Stage::Running;
            self.take_over(process, created, io)
        })?;
        self.follow(exec_id.to_owned(), pidfd);
        Ok(pid)
    }

    async fn exec_failed(&self, exec_id: &str, error: &Error) {
        let ended = Ended { code: error.exit_code(), signal: None, at: Timestamp::now() };
        let io = self.with_container(|container, _| {
            let process = container.process(exec_id)?;
            process.stage = Stage::Stopped(ended);
            process.ended.send_replace(Some(ended));
            Ok(process.io.take())
        });
        if let Ok(Some(io)) = io {
            io.finish().await;
        }
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

    fn exec_ended(&self, exec_id: &str, ended: Ended) {
        let pid = self.with_container(|container, _| {
            let process = container.process(exec_id)?;
            process.stage = Stage::Stopped(ended);
            Ok(process.pid)
        });
        let Ok(pid) = pid else { return };
        self.tell("exec_die", &[("execID", exec_id.to_owned()), ("exitCode", ended.code.to_string())]);
        self.publish(&Event::Exit(event::TaskExit {
            container_id: self.id.clone(),
            id: exec_id.to_owned(),
            pid: pid.unsigned_abs(),
            exit_status: ended.code,
            exited_at: Some(ended.at.to_message()).into(),
            ..Default::default()
        }));
        let told = self.with_container(|container, _| {
            let process = container.process(exec_id)?;
            process.ended.send_replace(Some(ended));
            Ok(())
        });
        if told.is_err() {
            log::debug!("process {exec_id} was deleted while it ended");
        }
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

/// How the first process's stdin is made.
pub(crate) fn own_stdin(stdin: Stdin) -> io::Own {
    match stdin {
        Stdin::Closed => io::Own::NoStdin,
        Stdin::Open | Stdin::Once => io::Own::WithStdin,
    }
}

/// The directory that a mounted root covers, in the container's own mount namespace.
fn make_rootfs_directory(bundle: &Path, spec: &dhow_runtime::config::Spec) -> Result<()> {
    let path = spec.root.as_ref().map_or("rootfs", |root| root.path.as_str());
    let path = bundle.join(path);
    match std::fs::create_dir(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(Error::file("make", &path)(error)),
        _ => Ok(()),
    }
}

/// Removes a file that may not exist.
pub(crate) fn remove_if_there(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", path)(error)),
        _ => Ok(()),
    }
}
