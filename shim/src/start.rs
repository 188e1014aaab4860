//! Starting the program of the container that was made.

use std::sync::Arc;

use containerd_shim_protos::events::task as event;
use dhow_api::Timestamp;

use crate::error::{Error, Result};
use crate::events::Event;
use crate::process::Stage;
use crate::shim::Shim;

impl Shim {
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
}
