//! Making the container, from a request of its engine's to a process that waits for its program.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use containerd_shim_protos::events::task as event;
use dhow_api::documents::Stdin;
use dhow_api::task;
use dhow_runtime::{CreateRequest, RestoreRequest, RootfsSource, Stdio};

use crate::error::{Error, Result};
use crate::events::Event;
use crate::io::{self, Ends, Names, ProcessIo};
use crate::options::Options;
use crate::process::{Process, Stage};
use crate::run_state::{self, RunState};
use crate::shim::{Container, Mode, Shim};
use crate::{checkpoint, keeper, oom};

/// A process that the runtime made, with our ends of its stdio.
pub(crate) struct Made {
    pub(crate) process: dhow_runtime::Created,
    pub(crate) io: Arc<ProcessIo>,
    pub(crate) own_pid_namespace: bool,
}

impl Shim {
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
            pid_namespace: run_state::pid_namespace(),
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
        let io = ProcessIo::start(ends, names.terminal, self.log())?;
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
}

/// How the first process's stdin is made.
fn own_stdin(stdin: Stdin) -> io::Own {
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
