//! Saving the container, and starting it from what was saved: containerd's options to the runtime's, which has criu do it.
//!
//! ```text
//! Checkpoint ─ runtime, criu ─▶ images ─┬ exit: the processes are gone; their end is told as any other
//!                                       └ else: it goes on, paused if it was
//! Create(images) ─ Saved, without a process ─ Start ─ Restoring ─ runtime, criu ─┬ done: Running
//!                                                                               └ failed: Saved, as before
//! ```

use std::path::{Path, PathBuf};
use std::sync::Arc;

use containerd_shim_protos::events::task as event;
use containerd_shim_protos::shim::oci::CheckpointOptions;
use dhow_api::{Timestamp, task};
use dhow_runtime::{CgroupMode, CheckpointRequest, CriuOptions, Runtime};
use protobuf::Message;
use protobuf::well_known_types::any::Any;

use crate::error::{Error, Result};
use crate::events::Event;
use crate::oom;
use crate::process::Stage;
use crate::shim::Shim;

impl Shim {
    /// Saves the container. It goes on afterwards, unless the options say that it exits.
    pub(crate) fn checkpoint(&self, request: &task::CheckpointTaskRequest) -> Result<()> {
        let options = parse(request.options.as_ref())?;
        let images = match (request.path.as_str(), options.image_path.as_str()) {
            ("", "") => return Err(Error::Request { field: "path", problem: "it is missing".to_owned() }),
            ("", path) | (path, _) => PathBuf::from(path),
        };
        let mut work = WorkDirectory::Kept(options.work_path.clone().into());
        self.with_container(|container, runtime| {
            if options.work_path.is_empty() {
                work = WorkDirectory::Ours(container.bundle.join(WORK));
            }
            Ok(runtime.checkpoint(&self.id, dump(&options, images.clone(), work.path())?)?)
        })?;
        work.remove();
        self.publish(&Event::Checkpointed(event::TaskCheckpointed {
            container_id: self.id.clone(),
            checkpoint: images.to_string_lossy().into_owned(),
            ..Default::default()
        }));
        Ok(())
    }

    /// Brings the saved container back, as the start of the one that Create has promised. If it fails the container is
    /// saved as before, and no process of it is left.
    pub(crate) async fn start_saved(self: &Arc<Self>, images: PathBuf) -> Result<i32> {
        let (bundle, names, run) = self.with_container(|container, _| {
            container.init.stage = Stage::Restoring;
            Ok((container.bundle.clone(), container.init.names.clone(), container.run.clone()))
        })?;
        let made = self.make(&bundle, &names, &run, Some(&images)).await;
        let (pid, pidfd) = self.with_container(|container, runtime| {
            let taken_over = made.and_then(|made| {
                container.own_pid_namespace = made.own_pid_namespace;
                let taken_over = self.take_over(&mut container.init, made.process, made.io);
                taken_over.inspect_err(|_| self.take_down(runtime))
            });
            let pidfd = taken_over.inspect_err(|_| container.init.stage = Stage::Saved(images))?;
            container.init.stage = Stage::Running;
            container.run.started_at = Some(Timestamp::now());
            Ok((container.init.pid, pidfd))
        })?;
        self.follow(String::new(), pidfd);
        oom::watch(self);
        self.publish(&Event::Start(event::TaskStart {
            container_id: self.id.clone(),
            pid: pid.unsigned_abs(),
            ..Default::default()
        }));
        Ok(pid)
    }

    /// Ends what criu has brought back already and nobody would follow.
    fn take_down(&self, runtime: &Runtime) {
        if let Err(error) = runtime.delete(&self.id, true) {
            log::error!("end a container that could not be taken over: {}", error.chain());
        }
    }
}

/// How a saved container is brought back. What it was saved with it may have again.
pub(crate) fn restore(images: &Path, bundle: &Path) -> CriuOptions {
    CriuOptions {
        image_path: images.to_owned(),
        work_path: Some(bundle.join(WORK)),
        tcp_established: true,
        ext_unix_sk: true,
        file_locks: true,
        ..CriuOptions::default()
    }
}

/// Options of another type are for another shim, and as good as none.
fn parse(options: Option<&Any>) -> Result<CheckpointOptions> {
    let ours = |any: &&Any| any.type_url.rsplit('/').next() == Some("containerd.runc.v1.CheckpointOptions");
    let Some(any) = options.filter(ours) else { return Ok(CheckpointOptions::default()) };
    CheckpointOptions::parse_from_bytes(&any.value)
        .map_err(|error| Error::Request { field: "options", problem: error.to_string() })
}

fn dump(options: &CheckpointOptions, images: PathBuf, work: &Path) -> Result<CheckpointRequest> {
    if let Some(other) = options.empty_namespaces.iter().find(|kind| *kind != "network") {
        let problem = format!("namespace {other:?} is not supported");
        return Err(Error::Request { field: "empty_namespaces", problem });
    }
    let manage_cgroups = match options.cgroups_mode.as_str() {
        "" => CgroupMode::Default,
        "ignore" => CgroupMode::Ignore,
        "soft" => CgroupMode::Soft,
        "full" => CgroupMode::Full,
        "strict" => CgroupMode::Strict,
        other => {
            let problem = format!("{other:?} is none of ignore, soft, full, strict");
            return Err(Error::Request { field: "cgroups_mode", problem });
        }
    };
    Ok(CheckpointRequest {
        criu: CriuOptions {
            image_path: images,
            work_path: Some(work.to_owned()),
            tcp_established: options.open_tcp,
            ext_unix_sk: options.external_unix_sockets,
            shell_job: options.terminal,
            file_locks: options.file_locks,
            manage_cgroups,
            ..CriuOptions::default()
        },
        leave_running: !options.exit,
        ..CheckpointRequest::default()
    })
}

/// Where criu writes its log.
enum WorkDirectory {
    /// Where the caller wants it.
    Kept(PathBuf),
    /// In the bundle; of use to somebody only if it failed.
    Ours(PathBuf),
}

impl WorkDirectory {
    fn path(&self) -> &Path {
        let (Self::Kept(path) | Self::Ours(path)) = self;
        path
    }

    fn remove(&self) {
        if let Self::Ours(path) = self
            && let Err(error) = std::fs::remove_dir_all(path)
        {
            log::warn!("remove {}: {error}", path.display());
        }
    }
}

/// criu's log, in the bundle.
const WORK: &str = "criu-work";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::any;

    #[test]
    fn the_options_are_those_of_runc_s_shim() {
        let asked = |change: &dyn Fn(&mut CheckpointOptions)| {
            let mut options = CheckpointOptions::default();
            change(&mut options);
            dump(&parse(Some(&any(&options))).unwrap(), "/images".into(), Path::new("/work"))
        };
        let plain = asked(&|_| {}).unwrap();
        assert!(plain.leave_running && !plain.criu.tcp_established && !plain.criu.shell_job);
        assert_eq!(
            (plain.criu.image_path.as_path(), plain.criu.manage_cgroups),
            ("/images".as_ref(), CgroupMode::Default)
        );
        let all = asked(&|options| {
            options.exit = true;
            options.open_tcp = true;
            options.external_unix_sockets = true;
            options.terminal = true;
            options.file_locks = true;
            options.empty_namespaces = vec!["network".to_owned()];
            options.cgroups_mode = "soft".to_owned();
        })
        .unwrap();
        let criu = &all.criu;
        assert!(!all.leave_running && criu.tcp_established && criu.ext_unix_sk && criu.shell_job && criu.file_locks);
        assert_eq!(criu.manage_cgroups, CgroupMode::Soft);
        let field = |refused: Result<CheckpointRequest>| match refused.unwrap_err() {
            Error::Request { field, .. } => field,
            other => panic!("{other}"),
        };
        assert_eq!(field(asked(&|options| options.cgroups_mode = "hard".to_owned())), "cgroups_mode");
        assert_eq!(field(asked(&|options| options.empty_namespaces = vec!["pid".to_owned()])), "empty_namespaces");
        let mut strange = any(&CheckpointOptions { exit: true, ..Default::default() });
        "somebody.else/Options".clone_into(&mut strange.type_url);
        assert!(!parse(Some(&strange)).unwrap().exit && !parse(None).unwrap().exit);
    }
}
