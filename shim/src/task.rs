//! containerd's Task service: requests to calls of [`Shim`], its errors to codes.

use std::sync::Arc;

use async_trait::async_trait;
use containerd_shim_protos::events::task as event;
use containerd_shim_protos::shim::oci::ProcessDetails;
use containerd_shim_protos::shim_async::Task;
use dhow_api::{Kind, error, task};
use oci_spec::runtime::LinuxResources;
use protobuf::EnumOrUnknown;
use protobuf::well_known_types::empty::Empty;
use ttrpc::r#async::TtrpcContext;

use crate::error::{Error, Result};
use crate::events::{Event, any};
use crate::process::{Ended, Stage};
use crate::shim::Shim;
use crate::stats;

/// The service's handlers.
pub(crate) struct TaskService(pub(crate) Arc<Shim>);

type Answer<T> = ttrpc::Result<T>;

fn answer<T>(result: Result<T>) -> Answer<T> {
    result.map_err(|error| {
        log::debug!("{}", error.chain());
        error.status()
    })
}

/// Runs to its end even when the caller hangs up: half a Create would leave half a container.
async fn uncancelled<T: Send + 'static>(work: impl Future<Output = Result<T>> + Send + 'static) -> Answer<T> {
    match tokio::spawn(work).await {
        Ok(result) => answer(result),
        Err(join) => Err(error::status(Kind::Internal, &join)),
    }
}

#[async_trait]
impl Task for TaskService {
    async fn create(&self, _: &TtrpcContext, request: task::CreateTaskRequest) -> Answer<task::CreateTaskResponse> {
        let shim = self.0.clone();
        let pid = uncancelled(async move { shim.create(request).await }).await?;
        Ok(task::CreateTaskResponse { pid: pid.unsigned_abs(), ..Default::default() })
    }

    async fn start(&self, _: &TtrpcContext, request: task::StartRequest) -> Answer<task::StartResponse> {
        let shim = self.0.clone();
        let pid = uncancelled(async move { shim.start(&request.exec_id).await }).await?;
        Ok(task::StartResponse { pid: pid.unsigned_abs(), ..Default::default() })
    }

    async fn exec(&self, _: &TtrpcContext, request: task::ExecProcessRequest) -> Answer<Empty> {
        answer(self.0.exec(&request).map(|()| Empty::new()))
    }

    async fn delete(&self, _: &TtrpcContext, request: task::DeleteRequest) -> Answer<task::DeleteResponse> {
        let shim = self.0.clone();
        uncancelled(async move { shim.delete(&request.exec_id).await }).await
    }

    async fn state(&self, _: &TtrpcContext, request: task::StateRequest) -> Answer<task::StateResponse> {
        answer(self.0.state_of(&request.exec_id))
    }

    async fn pids(&self, _: &TtrpcContext, _: task::PidsRequest) -> Answer<task::PidsResponse> {
        answer(self.0.pids())
    }

    async fn kill(&self, _: &TtrpcContext, request: task::KillRequest) -> Answer<Empty> {
        answer(self.0.kill(&request).map(|()| Empty::new()))
    }

    async fn pause(&self, _: &TtrpcContext, _: task::PauseRequest) -> Answer<Empty> {
        answer(self.0.freeze(true).map(|()| Empty::new()))
    }

    async fn resume(&self, _: &TtrpcContext, _: task::ResumeRequest) -> Answer<Empty> {
        answer(self.0.freeze(false).map(|()| Empty::new()))
    }

    async fn resize_pty(&self, _: &TtrpcContext, request: task::ResizePtyRequest) -> Answer<Empty> {
        answer(self.0.resize(&request).map(|()| Empty::new()))
    }

    async fn close_io(&self, _: &TtrpcContext, request: task::CloseIORequest) -> Answer<Empty> {
        answer(self.0.with_container(|container, _| {
            let process = container.process(&request.exec_id)?;
            if let Some(io) = process.io.as_ref().filter(|io| request.stdin && !io.has_terminal()) {
                io.stdin.close();
            }
            Ok(Empty::new())
        }))
    }

    async fn update(&self, _: &TtrpcContext, request: task::UpdateTaskRequest) -> Answer<Empty> {
        answer(self.0.update(&request).map(|()| Empty::new()))
    }

    async fn wait(&self, _: &TtrpcContext, request: task::WaitRequest) -> Answer<task::WaitResponse> {
        let ended = answer(self.0.wait(&request.exec_id).await)?;
        Ok(task::WaitResponse {
            exit_status: ended.code,
            exited_at: Some(ended.at.to_message()).into(),
            ..Default::default()
        })
    }

    async fn stats(&self, _: &TtrpcContext, _: task::StatsRequest) -> Answer<task::StatsResponse> {
        let root = self.0.lock().options.root.clone();
        let stats = answer(stats::of(&root, &self.0.id))?;
        Ok(task::StatsResponse { stats: Some(stats).into(), ..Default::default() })
    }

    async fn connect(&self, _: &TtrpcContext, _: task::ConnectRequest) -> Answer<task::ConnectResponse> {
        let pid = self.0.with_container(|container, _| Ok(container.init.pid)).unwrap_or_default();
        Ok(task::ConnectResponse { shim_pid: std::process::id(), task_pid: pid.unsigned_abs(), ..Default::default() })
    }

    async fn shutdown(&self, _: &TtrpcContext, _: task::ShutdownRequest) -> Answer<Empty> {
        // One shim may serve several containers elsewhere; so containerd asks even while there is one, and is ignored.
        if self.0.lock().container.is_none() {
            self.0.done.send_replace(true);
        }
        Ok(Empty::new())
    }

    async fn checkpoint(&self, _: &TtrpcContext, request: task::CheckpointTaskRequest) -> Answer<Empty> {
        answer(self.0.checkpoint(&request).map(|()| Empty::new()))
    }
}

impl Shim {
    async fn wait(&self, exec_id: &str) -> Result<Ended> {
        let mut ended = self.with_container(|container, _| Ok(container.process(exec_id)?.ended.subscribe()))?;
        let ended = ended.wait_for(Option::is_some).await;
        let ended = ended.ok().and_then(|ended| *ended);
        ended.ok_or_else(|| Error::NotFound { what: "process (deleted)".to_owned() })
    }

    async fn delete(&self, exec_id: &str) -> Result<task::DeleteResponse> {
        let (pid, ended, io) = self.with_container(|container, runtime| {
            let process = container.process(exec_id)?;
            let ended = match &process.stage {
                Stage::Stopped(ended) => *ended,
                Stage::Registered(_) | Stage::Saved(_) => Ended::without_a_start(),
                Stage::Restoring | Stage::Created | Stage::Running => {
                    return Err(Error::State { verb: "delete", state: process.state() });
                }
            };
            let (pid, io) = (process.pid, process.io.clone());
            if exec_id.is_empty() {
                runtime.delete(&self.id, true)?;
            }
            Ok((pid, ended, io))
        })?;
        if exec_id.is_empty() {
            // In dhow's own way the container is gone by itself; there is nothing to forget before the shim ends.
            if self.own().is_none() {
                self.lock().container = None;
            }
        } else {
            self.with_container(|container, _| Ok(container.execs.remove(exec_id)))?;
            if let Some(io) = io {
                io.finish().await;
            }
        }
        self.publish(&Event::Delete(event::TaskDelete {
            container_id: self.id.clone(),
            pid: pid.unsigned_abs(),
            exit_status: ended.code,
            exited_at: Some(ended.at.to_message()).into(),
            id: exec_id.to_owned(),
            ..Default::default()
        }));
        Ok(task::DeleteResponse {
            pid: pid.unsigned_abs(),
            exit_status: ended.code,
            exited_at: Some(ended.at.to_message()).into(),
            ..Default::default()
        })
    }

    fn state_of(&self, exec_id: &str) -> Result<task::StateResponse> {
        self.with_container(|container, _| {
            let (bundle, paused) = (container.bundle.to_string_lossy().into_owned(), container.paused);
            let process = container.process(exec_id)?;
            let status = match &process.stage {
                Stage::Registered(_) | Stage::Saved(_) | Stage::Restoring | Stage::Created => task::Status::CREATED,
                Stage::Running if paused => task::Status::PAUSED,
                Stage::Running => task::Status::RUNNING,
                Stage::Stopped(_) => task::Status::STOPPED,
            };
            let ended = process.stopped();
            Ok(task::StateResponse {
                id: self.id.clone(),
                exec_id: exec_id.to_owned(),
                bundle,
                pid: process.pid.unsigned_abs(),
                status: EnumOrUnknown::new(status),
                stdin: process.names.stdin.clone(),
                stdout: process.names.stdout.clone(),
                stderr: process.names.stderr.clone(),
                terminal: process.names.terminal,
                exit_status: ended.map_or(0, |ended| ended.code),
                exited_at: ended.map(|ended| ended.at.to_message()).into(),
                ..Default::default()
            })
        })
    }

    fn pids(&self) -> Result<task::PidsResponse> {
        self.with_container(|container, runtime| {
            let pids = runtime.pids(&self.id)?;
            let info = |pid: i32| {
                let exec = container.execs.values().find(|exec| exec.pid == pid)?;
                Some(any(&ProcessDetails { exec_id: exec.exec_id.clone(), ..Default::default() }))
            };
            let processes = pids.into_iter().map(|pid| task::ProcessInfo {
                pid: pid.unsigned_abs(),
                info: info(pid).into(),
                ..Default::default()
            });
            Ok(task::PidsResponse { processes: processes.collect(), ..Default::default() })
        })
    }

    fn kill(&self, request: &task::KillRequest) -> Result<()> {
        let signal = i32::try_from(request.signal)
            .map_err(|_too_large| Error::Request { field: "signal", problem: format!("{} is none", request.signal) })?;
        let stops = self.own().is_some_and(|own| signal == libc::SIGKILL || signal == own.config.stop_signal);
        let remember = self.with_container(|container, runtime| {
            if !request.exec_id.is_empty() {
                return container.process(&request.exec_id)?.signal(signal).map(|()| None);
            }
            let ended = container.init.stopped().is_some();
            // A container between two runs of its restart policy is stopped and goes on: it can be told not to.
            let between = ended && self.own().is_some() && !*self.done.borrow();
            if ended && !between {
                return Err(Error::NotFound { what: "process (already finished)".to_owned() });
            }
            // Before the signal, as the end of the process looks at it.
            container.run.stopping |= stops;
            if between {
                self.stop.notify_one();
            } else {
                runtime.kill(&self.id, signal, request.all)?;
            }
            Ok(stops.then(|| container.run.clone()))
        })?;
        if request.exec_id.is_empty() {
            self.tell("kill", &[("signal", signal.to_string())]);
        }
        if let Some(run) = remember {
            self.remember(&run);
        }
        Ok(())
    }

    fn freeze(&self, freeze: bool) -> Result<()> {
        self.with_container(|container, runtime| {
            if freeze {
                runtime.pause(&self.id)?;
            } else {
                runtime.resume(&self.id)?;
            }
            container.paused = freeze;
            Ok(())
        })?;
        self.tell(if freeze { "pause" } else { "unpause" }, &[]);
        let container_id = self.id.clone();
        self.publish(&if freeze {
            Event::Paused(event::TaskPaused { container_id, ..Default::default() })
        } else {
            Event::Resumed(event::TaskResumed { container_id, ..Default::default() })
        });
        Ok(())
    }

    fn resize(&self, request: &task::ResizePtyRequest) -> Result<()> {
        let side = |value: u32, field| {
            u16::try_from(value)
                .map_err(|_too_large| Error::Request { field, problem: format!("{value} is too large") })
        };
        let (rows, columns) = (side(request.height, "height")?, side(request.width, "width")?);
        self.with_container(|container, _| {
            let process = container.process(&request.exec_id)?;
            let state = process.state();
            process.io.as_ref().ok_or(Error::State { verb: "resize", state })?.resize(rows, columns)
        })
    }

    fn update(&self, request: &task::UpdateTaskRequest) -> Result<()> {
        let bytes = request.resources.as_ref().map(|resources| resources.value.as_slice()).unwrap_or_default();
        let resources: LinuxResources = serde_json::from_slice(bytes)
            .map_err(|error| Error::Request { field: "resources", problem: error.to_string() })?;
        self.with_container(|_, runtime| Ok(runtime.update(&self.id, &resources)?))
    }
}
