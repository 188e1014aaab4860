//! dhow's own service of a shim: attaching, the log's position, health.

use std::sync::{Arc, PoisonError};

use async_trait::async_trait;
use dhow_api::attach::DetachKeys;
use dhow_api::documents::Stdin;
use dhow_api::shim::{
    AttachRequest, AttachResponse, HealthRequest, HealthResponse, LogPositionRequest, LogPositionResponse,
};
use dhow_api::shim_ttrpc_async::Shim as Service;
use ttrpc::r#async::TtrpcContext;

use crate::attach::Ticket;
use crate::error::{Error, Result};
use crate::process::Stage;
use crate::shim::Shim;

/// The service's handlers.
pub(crate) struct ShimService(pub(crate) Arc<Shim>);

#[async_trait]
impl Service for ShimService {
    async fn attach(&self, _: &TtrpcContext, request: AttachRequest) -> ttrpc::Result<AttachResponse> {
        self.0.attach(&request).map_err(|error| error.status())
    }

    async fn log_position(&self, _: &TtrpcContext, _: LogPositionRequest) -> ttrpc::Result<LogPositionResponse> {
        let Some(log) = self.0.log() else {
            return Err(Error::NotFound { what: "a log of this container".to_owned() }.status());
        };
        let position = log.lock().unwrap_or_else(PoisonError::into_inner).position();
        Ok(LogPositionResponse {
            path: position.path.to_string_lossy().into_owned(),
            offset: position.offset,
            generation: position.generation,
            ..Default::default()
        })
    }

    async fn health(&self, _: &TtrpcContext, _: HealthRequest) -> ttrpc::Result<HealthResponse> {
        Ok(HealthResponse { status: "none".to_owned(), ..Default::default() })
    }
}

impl Shim {
    fn attach(&self, request: &AttachRequest) -> Result<AttachResponse> {
        let Some(own) = self.own() else {
            return Err(Error::Unsupported { what: "attaching to a container of containerd's".to_owned() });
        };
        let keys: DetachKeys = request.detach_keys.parse().map_err(|error: dhow_api::attach::BadKeys| {
            Error::Request { field: "detach_keys", problem: error.to_string() }
        })?;
        let ticket = self.with_container(|container, _| {
            let process = container.process(&request.exec_id)?;
            if process.stopped().is_some() {
                return Err(Error::State { verb: "attach to", state: "stopped" });
            }
            if let Stage::Registered(pending) = &mut process.stage {
                pending.stdin_wanted |= request.stdin;
            }
            let is_exec = !process.exec_id.is_empty();
            let io = process.io.clone().ok_or(Error::State { verb: "attach to", state: "without stdio of ours" })?;
            let terminal = io.has_terminal();
            Ok(Ticket {
                queue: io.output.attach(request.stdout, request.stderr),
                io,
                stdin: request.stdin,
                closes_stdin: request.stdin && !terminal && (is_exec || own.config.stdin == Stdin::Once),
                keys: (request.stdin && terminal).then(|| keys.scanner()),
            })
        })?;
        let token = own.attachments.admit(ticket)?;
        Ok(AttachResponse {
            socket: own.attachments.socket().to_string_lossy().into_owned(),
            token,
            ..Default::default()
        })
    }
}
