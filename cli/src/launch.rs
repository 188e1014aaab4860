//! Starting a container that was made: its documents for runtime and shim, then Create, attachment, Start.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use dhow_api::documents::{Document, LogConfig, ShimConfig, Stdin};
use dhow_api::snapshots::Mount;
use dhow_api::task::{CreateTaskRequest, DeleteRequest, Mount as TaskMount, ShutdownRequest, StartRequest};
use dhow_api::{Error as ApiError, Kind};

use crate::container::{Container, Status};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::parse::signal;
use crate::rootfs::users::Files;
use crate::rootfs::view::View;
use crate::shims::Services;
use crate::snapshot::Layers;
use crate::spec::{self, Environment};
use crate::stdio::{Attachment, Session};
use crate::{events, files, plan, terminal, volumes};

/// A container that is about to run.
#[derive(Debug)]
pub(crate) struct Launch<'a> {
    ctx: &'a Context,
    /// The container.
    pub container: &'a mut Container,
    /// Its snapshot's mounts.
    pub mounts: &'a [Mount],
    /// What the caller wants to be attached to, if anything.
    pub attachment: Option<Attachment>,
}

/// A container that runs.
#[derive(Debug)]
pub(crate) struct Launched {
    /// Its shim.
    pub services: Services,
    /// The attachment that was asked for.
    pub session: Option<Session>,
}

impl<'a> Launch<'a> {
    /// Of a container whose network is attached (see `container.record.attached`).
    pub(crate) fn new(ctx: &'a Context, container: &'a mut Container, mounts: &'a [Mount]) -> Self {
        Self { ctx, container, mounts, attachment: None }
    }

    /// Writes config.json, shim.json and the record, starts the shim and in it the container. When it fails the shim has
    /// been told to go, and the record, unless it goes with the container (--rm), says that it was not started.
    pub(crate) fn start(mut self) -> Result<Launched> {
        let started = self.container.record.started.replace(dhow_api::Timestamp::now().to_string());
        let launched = self.write_documents().and_then(|()| self.run_shim());
        if launched.is_err() {
            self.container.record.started = started;
            // With --rm the shim is removing everything now, if it has come that far, or the caller will.
            if !self.container.record.host.auto_remove
                && let Err(error) = self.container.save()
            {
                log::warn!("{}", dhow_api::error::chain(&error));
            }
        }
        launched
    }

    fn write_documents(&mut self) -> Result<()> {
        let environment = self.environment()?;
        let (record, bundle) = (&self.container.record, &self.container.bundle);
        let config = spec::build(record, bundle, &environment)?;
        files::write_json(&bundle.config(), "config.json", &config)?;
        self.shim_config()?.store(&bundle.shim_config())?;
        self.container.save()
    }

    fn environment(&self) -> Result<Environment> {
        let record = &self.container.record;
        let fail = |source| Error::InContainer { action: "open", path: "/".into(), source };
        let view = View::open(&Layers::of(self.mounts).all()).map_err(fail)?;
        let added = record.host.group_add.as_deref().unwrap_or_default();
        let user = Files::read(&view)?.resolve(&record.config.user, added)?;
        let files = match record.network.mode.strip_prefix("container:") {
            Some(other) => self.ctx.root.container(other).path().to_owned(),
            None => self.container.bundle.path().to_owned(),
        };
        Ok(Environment {
            user,
            netns: Some(&record.attached.netns).filter(|path| !path.is_empty()).map(PathBuf::from),
            pidns: self.namespace_of(&record.host.pid_mode, "pid")?,
            ipcns: self.namespace_of(&record.host.ipc_mode, "ipc")?,
            shm: self.shm()?,
            init: self.init()?,
            files: Some(files),
            console: terminal::size().filter(|_| self.attachment.is_some()).map(|size| (size.rows, size.columns)),
        })
    }

    /// The program of `--init`: the shim's file. As docker's: of no use where another process is process 1.
    fn init(&self) -> Result<Option<PathBuf>> {
        let host = &self.container.record.host;
        let own = matches!(host.pid_mode.as_str(), "" | "private");
        let wanted = host.init == Some(true) && own;
        Ok(wanted.then(|| dhow_api::service::locate_binary("containerd-shim-dhow-v2")).transpose()?)
    }

    /// The directory behind /dev/shm where containers share it: of the one that is `shareable`, made here, or of the one that is
    /// joined.
    fn shm(&self) -> Result<Option<PathBuf>> {
        let record = &self.container.record;
        let of = |id: &str| self.ctx.runroot.shim(id).path().join("shm");
        match record.host.ipc_mode.strip_prefix("container:") {
            Some(id) => {
                let other = self.ctx.containers().find(id)?;
                match other.record.host.ipc_mode.as_str() {
                    "shareable" => Ok(Some(of(other.id()))),
                    "host" => Ok(Some("/dev/shm".into())),
                    _ => {
                        let why = "its IPC is private; make it with --ipc shareable to let others join";
                        Err(Error::State { name: other.record.name.clone(), state: other.state().status.name(), why })
                    }
                }
            }
            None if record.host.ipc_mode == "shareable" => {
                let path = of(&record.id);
                files::make_dir(&path)?;
                let mode = std::fs::Permissions::from_mode(0o1777);
                std::fs::set_permissions(&path, mode).map_err(Error::file("change the mode of", &path))?;
                Ok(Some(path))
            }
            None => Ok(None),
        }
    }

    /// The namespace of the running container that `mode` (`container:ID`) names.
    fn namespace_of(&self, mode: &str, kind: &str) -> Result<Option<PathBuf>> {
        let Some(id) = mode.strip_prefix("container:") else { return Ok(None) };
        let other = self.ctx.containers().find(id)?;
        let state = other.state();
        if !state.is_up() {
            let why = "its namespace cannot be joined while it is not running";
            return Err(Error::State { name: other.record.name, state: state.status.name(), why });
        }
        Ok(Some(format!("/proc/{}/ns/{kind}", state.pid).into()))
    }

    fn shim_config(&self) -> Result<ShimConfig> {
        let record = &self.container.record;
        let mut config = ShimConfig::new(self.ctx.root.path(), self.ctx.runroot.path());
        config.log = match record.host.log_config.kind.as_str() {
            "none" => LogConfig::None,
            _ => {
                let (max_size, max_files) = plan::log_bounds(&record.host.log_config);
                LogConfig::JsonFile { path: None, max_size, max_files }
            }
        };
        config.stdin = match (record.config.open_stdin, record.config.stdin_once) {
            (false, _) => Stdin::Closed,
            (true, true) => Stdin::Once,
            (true, false) => Stdin::Open,
        };
        config.auto_remove = record.host.auto_remove;
        if record.host.auto_remove {
            config.also_remove = volumes::anonymous(self.ctx, record);
            config.also_remove.push(self.ctx.containers().names().path(&record.name));
        }
        config.snapshot = Some(record.id.clone());
        config.network = true;
        config.restart = record.restart();
        config.event_attributes = events::attributes(record);
        config.networks = record.attached.interfaces.iter().map(|interface| interface.network.clone()).collect();
        if !record.config.stop_signal.is_empty() {
            config.stop_signal = signal::parse(&record.config.stop_signal)?;
        }
        if let Some(timeout) = record.config.stop_timeout {
            config.stop_timeout = u32::try_from(timeout).unwrap_or(u32::MAX);
        }
        Ok(config)
    }

    fn run_shim(&mut self) -> Result<Launched> {
        let id = self.container.id().to_owned();
        let services = Services::of(self.ctx, &id);
        let attempt = || -> Result<Option<Session>> {
            services.task.create(&self.create_request()).map_err(start_failure)?;
            let session = self.attachment.clone().map(|wanted| Session::open(&services, wanted)).transpose()?;
            let request = StartRequest { id: id.clone(), ..Default::default() };
            services.task.start(&request).map_err(start_failure)?;
            Ok(session)
        };
        match attempt() {
            Ok(session) => Ok(Launched { services, session }),
            Err(error) => {
                give_up(&services, &id);
                Err(error)
            }
        }
    }

    fn create_request(&self) -> CreateTaskRequest {
        let rootfs = self.mounts.iter().map(|mount| TaskMount {
            type_: mount.type_.clone(),
            source: mount.source.clone(),
            target: mount.target.clone(),
            options: mount.options.clone(),
            ..Default::default()
        });
        CreateTaskRequest {
            id: self.container.id().to_owned(),
            bundle: self.container.bundle.path().to_string_lossy().into_owned(),
            rootfs: rootfs.collect(),
            terminal: self.container.record.config.tty,
            ..Default::default()
        }
    }
}

/// Tells a shim whose container did not start to clean up and go. It may have gone by itself.
fn give_up(services: &Services, id: &str) {
    let delete = DeleteRequest { id: id.to_owned(), ..Default::default() };
    let shutdown = ShutdownRequest { id: id.to_owned(), now: true, ..Default::default() };
    let outcomes = [services.task.delete(&delete).map(drop), services.task.shutdown(&shutdown).map(drop)];
    for error in outcomes.into_iter().filter_map(std::result::Result::err) {
        log::debug!("clearing up after a failed start: {}", dhow_api::error::chain(&error));
    }
}

/// The failure of Create, Start or Exec with docker's exit code: 127 when the program is not there, 126 when it cannot
/// be executed, 125 for everything else.
pub(crate) fn start_failure(error: ApiError) -> Error {
    let ApiError::Answer { kind, message, .. } = &error else { return error.into() };
    let text = message.to_lowercase();
    let has = |parts: &[&str]| parts.iter().any(|part| text.contains(part));
    // Only where the program itself is meant: a missing bind source is our caller's mistake, not the program's.
    let program = has(&["exec", "process.cwd"]);
    let code = if *kind == Kind::NotFound || (program && has(&["not found", "no such file"])) {
        127
    } else if program
        && has(&["permission denied", "not executable", "exec format error", "is a directory", "not a directory"])
    {
        126
    } else {
        return error.into();
    };
    Error::Start { message: message.clone(), code }
}

/// Attaches the network of a container that was made earlier and starts it again: same snapshot, same log.
pub(crate) fn again(ctx: &Context, container: &mut Container, attachment: Option<Attachment>) -> Result<Launched> {
    let _lock = container.lock()?;
    let state = container.state();
    match state.status {
        Status::Running => {
            return Err(Error::State {
                name: container.record.name.clone(),
                state: "running",
                why: "it is started already",
            });
        }
        Status::Paused => {
            let why = "cannot start a paused container, try unpause instead";
            return Err(Error::State { name: container.record.name.clone(), state: "paused", why });
        }
        _ => {}
    }
    crate::remove::await_shim(ctx, container.id())?;
    crate::remove::runtime_leftovers(ctx, container.id())?;
    let mounts = std::thread::scope(|scope| {
        let (record, bundle) = (&container.record, container.bundle.path());
        let network = scope.spawn(move || {
            let container_id = record.id.clone();
            ctx.network().detach(&dhow_api::network::DetachRequest { container_id, ..Default::default() })?;
            crate::make::attach(ctx, record, bundle)
        });
        let mounts = crate::snapshot::mounts(ctx, container.id());
        let attached = network.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        Ok::<_, Error>((mounts?, crate::make::given(&attached?)))
    })?;
    let (mounts, attached) = mounts;
    container.record.attached = attached;
    events::connected(ctx, &container.record);
    // The old end must not be taken for the new one; it comes back when there is no new one.
    let exit = files::read(&container.bundle.exit()).ok();
    files::remove_if_there(&container.bundle.exit())?;
    let mut launch = Launch::new(ctx, container, &mounts);
    launch.attachment = attachment;
    let launched = launch.start();
    if launched.is_err() {
        if let Some(exit) = exit {
            let path = container.bundle.exit();
            files::write(&path, &exit).map_err(Error::file("write", path))?;
        }
        crate::remove::detach(ctx, container.id())?;
    }
    launched
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_of_failed_starts() {
        let code = |kind: Kind, message: &str| {
            let error = ApiError::Answer { method: "S/Create".into(), kind, message: message.into() };
            start_failure(error).exit_code(125)
        };
        for (kind, message, want) in [
            (Kind::NotFound, "exec \"nope\": not found in PATH", 127),
            (Kind::Internal, "execute /x: No such file or directory", 127),
            (Kind::InvalidArgument, "process.cwd /x: no such file or directory", 127),
            (Kind::PermissionDenied, "execute /etc/passwd: Permission denied", 126),
            (Kind::Internal, "execute /x: Exec format error", 126),
            (Kind::Internal, "mount /x: No such file or directory", 125),
            (Kind::Internal, "open cgroup: Permission denied", 125),
        ] {
            assert_eq!(code(kind, message), want, "{message}");
        }
    }
}
