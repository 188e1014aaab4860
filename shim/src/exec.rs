//! Further processes in the container, from being registered to their end.

use std::sync::Arc;

use containerd_shim_protos::events::task as event;
use dhow_api::{Timestamp, task};
use dhow_runtime::{ExecRequest, Stdio};

use crate::error::{Error, Result};
use crate::events::Event;
use crate::io::{self, Ends, Names, ProcessIo};
use crate::oom;
use crate::process::{Ended, Pending, Process, Stage};
use crate::shim::Shim;

impl Shim {
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

    /// Starts a registered process.
    pub(crate) async fn start_exec(self: &Arc<Self>, exec_id: &str) -> Result<i32> {
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

    /// A further process has ended and its output is where it belongs.
    pub(crate) fn exec_ended(&self, exec_id: &str, ended: Ended) {
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
}
