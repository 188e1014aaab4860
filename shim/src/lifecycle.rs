//! What happens when the container's first process has ended.
//!
//! ```text
//! containerd   TaskExit, answer Wait; containerd deletes
//! dhow         exit.json ─┬ restart policy says yes: answer Wait, wait (100 ms, doubling, at most a minute), make it anew
//!                         └ no: delete in the runtime ─ Detach ∥ Remove ─ with auto_remove: remove the directory
//!                               ─ answer Wait ─ done
//! ```
//!
//! Wait is answered after the cleaning up, so that whoever waited finds the name and the ports free. A cleaning up that
//! is cut is done again by whoever adopts the container, and every step of it is idempotent.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use containerd_shim_protos::events::task::TaskExit;
use dhow_api::documents::{Document, ExitRecord, RestartPolicy};
use dhow_api::service::{self, ServiceSpec};
use dhow_api::{Kind, Timestamp, error, network, snapshots};
use dhow_api::{network_ttrpc_async::NetworkClient, snapshots_ttrpc_async::SnapshotsClient};

use crate::error::{Error, Result};
use crate::events::Event;
use crate::oom;
use crate::process::{Ended, Process, Stage};
use crate::shim::{OwnMode, Shim};

/// The first pause before a restart, and the longest.
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// A container that ran for longer than this starts with the first pause again.
const LONG_RUN: i64 = 10;

/// How long the other services may take.
const SERVICE_TIMEOUT: Duration = Duration::from_secs(30);

/// How long execs may take to end when the first process has.
const EXEC_GRACE: Duration = Duration::from_secs(2);

impl Shim {
    /// The first process has ended and its output is where it belongs.
    pub(crate) async fn init_ended(self: &Arc<Self>, ended: Ended) {
        self.wait_for_execs().await;
        match self.own() {
            Some(own) => self.own_init_ended(own, ended).await,
            None => self.engine_init_ended(ended),
        }
    }

    /// containerd expects the ends of all other processes before that of the first.
    async fn wait_for_execs(&self) {
        let waits = self.with_container(|container, _| {
            Ok(if container.own_pid_namespace {
                let running = container.execs.values().filter(|exec| matches!(exec.stage, Stage::Running));
                running.map(|exec| exec.ended.subscribe()).collect()
            } else {
                Vec::new()
            })
        });
        let all = async {
            for mut wait in waits.unwrap_or_default() {
                // An error means that the exec was deleted.
                let _ended = wait.wait_for(Option::is_some).await;
            }
        };
        if tokio::time::timeout(EXEC_GRACE, all).await.is_err() {
            log::warn!("a process has outlived its pid namespace");
        }
    }

    fn engine_init_ended(&self, ended: Ended) {
        let pid = self.with_container(|container, _| {
            container.init.stage = Stage::Stopped(ended);
            Ok(container.init.pid)
        });
        let Ok(pid) = pid else { return };
        oom::tell(self);
        self.publish(&Event::Exit(TaskExit {
            container_id: self.id.clone(),
            id: self.id.clone(),
            pid: pid.unsigned_abs(),
            exit_status: ended.code,
            exited_at: Some(ended.at.to_message()).into(),
            ..Default::default()
        }));
        self.announce(ended);
    }

    async fn own_init_ended(self: &Arc<Self>, own: &OwnMode, ended: Ended) {
        let oom_killed = oom::killed(&self.lock().options.root, &self.id);
        let facts = self.with_container(|container, _| Ok((container.run.clone(), container.start_error.clone())));
        let Ok((run, start_error)) = facts else { return };
        let (exit_code, error) = match start_error {
            Some((code, error)) => (code, Some(error)),
            None => (ended.code, None),
        };
        let record = ExitRecord {
            exit_code,
            signal: ended.signal,
            oom_killed,
            started_at: run.started_at,
            finished_at: ended.at,
            error,
            restarts: run.restarts,
        };
        store(own, &record);
        self.tell_end(&record);
        let restart = !run.stopping && run.started_at.is_some() && wants_restart(own.config.restart, &record);
        if restart {
            self.with_container(|container, _| {
                container.init.stage = Stage::Stopped(ended);
                Ok(())
            })
            .unwrap_or_default();
            self.announce(ended);
            tokio::spawn(self.clone().restart(record, delay(&record_run(&run.started_at, ended.at), run.restarts)));
        } else {
            self.conclude(own, record).await;
        }
    }

    /// Everybody may know.
    fn announce(&self, ended: Ended) {
        let told = self.with_container(|container, _| {
            container.init.ended.send_replace(Some(ended));
            Ok(())
        });
        if told.is_err() {
            log::debug!("the container was deleted while it ended");
        }
    }

    /// A Create that failed: nothing will come after it.
    pub(crate) fn creation_failed(self: &Arc<Self>, error: &Error) {
        let record = ExitRecord {
            exit_code: error.exit_code(),
            signal: None,
            oom_killed: false,
            started_at: None,
            finished_at: Timestamp::now(),
            error: Some(error.chain()),
            restarts: 0,
        };
        if self.own().is_some() {
            let this = self.clone();
            tokio::spawn(async move {
                if let Some(own) = this.own() {
                    store(own, &record);
                    this.conclude(own, record).await;
                }
            });
        }
    }

    /// Cleans up, and lets everybody know.
    pub(crate) async fn conclude(&self, own: &OwnMode, mut record: ExitRecord) {
        let runtime = self.lock().runtime.clone();
        let deleted = runtime.delete(&self.id, true).map_err(Error::from);
        let (detached, removed) = tokio::join!(self.detach(own), self.remove_snapshot(own));
        if own.config.network && detached.is_ok() {
            self.tell_disconnected(own);
        }
        let cleared = if own.config.auto_remove { remove_files(own) } else { Ok(()) };
        if own.config.auto_remove && cleared.is_ok() {
            self.tell("destroy", &[]);
        }
        let failures: Vec<_> = [deleted, detached, removed, cleared].into_iter().filter_map(Result::err).collect();
        if !failures.is_empty() {
            let text = failures.iter().map(Error::chain).collect::<Vec<_>>().join("; ");
            log::error!("clean up: {text}");
            record.error.get_or_insert(format!("clean up: {text}"));
            if own.bundle.path().is_dir() {
                store(own, &record);
            }
        }
        let ended = Ended { code: record.exit_code, signal: record.signal, at: record.finished_at };
        let stopped = self.with_container(|container, _| {
            container.init.stage = Stage::Stopped(ended);
            Ok(())
        });
        if stopped.is_ok() {
            self.announce(ended);
        }
        self.done.send_replace(true);
    }

    async fn detach(&self, own: &OwnMode) -> Result<()> {
        if !own.config.network {
            return Ok(());
        }
        let client = NetworkClient::new(connect(&ServiceSpec::netplug(&own.config.root, &own.config.runroot))?);
        let mut request = network::DetachRequest::new();
        request.container_id.clone_from(&self.id);
        let answer = client.detach(ttrpc::context::with_duration(SERVICE_TIMEOUT), &request).await;
        answer.map(drop).map_err(|answer| error::from_ttrpc("dhow.network.v1.Network/Detach", answer).into())
    }

    async fn remove_snapshot(&self, own: &OwnMode) -> Result<()> {
        let Some(key) = own.config.snapshot.as_ref().filter(|_| own.config.auto_remove) else { return Ok(()) };
        let client = SnapshotsClient::new(connect(&ServiceSpec::snapshotter(&own.config.root, &own.config.runroot))?);
        let mut request = snapshots::RemoveSnapshotRequest::new();
        request.key.clone_from(key);
        let answer = client.remove(ttrpc::context::with_duration(SERVICE_TIMEOUT), &request).await;
        match answer.map_err(|answer| error::from_ttrpc("containerd.services.snapshots.v1.Snapshots/Remove", answer)) {
            Ok(_) => Ok(()),
            Err(gone) if gone.is(Kind::NotFound) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes the container anew after a pause, unless it is told to stop meanwhile.
    async fn restart(self: Arc<Self>, record: ExitRecord, pause: Duration) {
        let Some(own) = self.own() else { return };
        let runtime = self.lock().runtime.clone();
        if let Err(error) = runtime.delete(&self.id, true) {
            log::warn!("before a restart: {}", error.chain());
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = self.stop.notified() => return self.conclude(own, record).await,
        }
        if let Err(error) = self.make_anew().await {
            log::error!("restart: {}", error.chain());
            let record = ExitRecord { exit_code: error.exit_code(), error: Some(error.chain()), ..record };
            store(own, &record);
            self.conclude(own, record).await;
        }
    }

    async fn make_anew(self: &Arc<Self>) -> Result<()> {
        let (bundle, names, mut run) = self.with_container(|container, _| {
            Ok((container.bundle.clone(), container.init.names.clone(), container.run.clone()))
        })?;
        let made = self.make(&bundle, &names, &run, None).await?;
        run.restarts += 1;
        run.started_at = None;
        let mut init = Process::new(String::new(), names, Stage::Created);
        let pidfd = self.take_over(&mut init, made.process, made.io)?;
        self.with_container(|container, _| {
            container.execs.clear();
            container.init = init;
            container.paused = false;
            // Told to stop while it was made: the signal finds the new process.
            run.stopping = container.run.stopping;
            container.run = run.clone();
            Ok(())
        })?;
        self.follow(String::new(), pidfd);
        if run.stopping {
            return self.with_container(|container, _| container.init.signal(libc::SIGKILL));
        }
        self.remember(&run);
        // A failed start has been recorded; the end of the process concludes.
        if let Err(error) = self.start("").await {
            log::error!("restart: {}", error.chain());
        }
        Ok(())
    }
}

/// A connection of the asynchronous client's to a service, which is started when it does not run.
fn connect(service: &ServiceSpec) -> Result<ttrpc::r#async::Client> {
    let stream = service::connect_or_start(service)?;
    let socket = ttrpc::r#async::transport::Socket::try_from(stream).map_err(|source| Error::EventLoop { source })?;
    Ok(ttrpc::r#async::Client::new(socket))
}

fn store(own: &OwnMode, record: &ExitRecord) {
    if let Err(error) = record.store(&own.bundle.exit()) {
        log::error!("{}", error::chain(&error));
    }
}

/// The container's directory goes first: with it the claims on what else is removed end.
fn remove_files(own: &OwnMode) -> Result<()> {
    let own_directory = std::iter::once(own.bundle.path());
    own_directory.chain(own.config.also_remove.iter().map(PathBuf::as_path)).try_for_each(remove)
}

/// Removes a file, or a directory with all in it; that there is none is fine.
fn remove(path: &Path) -> Result<()> {
    let is_directory = path.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
    let removed = if is_directory { std::fs::remove_dir_all(path) } else { std::fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", path)(error)),
        _ => Ok(()),
    }
}

fn wants_restart(policy: RestartPolicy, record: &ExitRecord) -> bool {
    match policy {
        RestartPolicy::No => false,
        RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
        RestartPolicy::OnFailure { max } => record.exit_code != 0 && max.is_none_or(|max| record.restarts < max),
    }
}

/// Seconds that it ran for.
fn record_run(started: &Option<Timestamp>, ended: Timestamp) -> i64 {
    started.map_or(0, |started| ended.seconds() - started.seconds())
}

fn delay(ran: &i64, restarts: u32) -> Duration {
    if *ran >= LONG_RUN { FIRST_DELAY } else { LONGEST_DELAY.min(FIRST_DELAY * 2_u32.saturating_pow(restarts.min(20))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_a_minute() {
        for (ran, restarts, expected) in [
            (0, 0, 100),
            (0, 1, 200),
            (9, 3, 800),
            (0, 9, 51_200),
            (0, 10, 60_000),
            (0, u32::MAX, 60_000),
            (10, 9, 100),
        ] {
            assert_eq!(delay(&ran, restarts), Duration::from_millis(expected), "{ran} {restarts}");
        }
    }

    #[test]
    fn policies() {
        let record = |exit_code, restarts| ExitRecord {
            exit_code,
            restarts,
            signal: None,
            oom_killed: false,
            started_at: None,
            finished_at: Timestamp::new(0, 0),
            error: None,
        };
        let on_failure = |max| RestartPolicy::OnFailure { max };
        for (policy, exit_code, restarts, expected) in [
            (RestartPolicy::No, 1, 0, false),
            (RestartPolicy::Always, 0, 99, true),
            (RestartPolicy::UnlessStopped, 1, 0, true),
            (on_failure(None), 0, 0, false),
            (on_failure(None), 1, 99, true),
            (on_failure(Some(2)), 1, 1, true),
            (on_failure(Some(2)), 1, 2, false),
        ] {
            assert_eq!(
                wants_restart(policy, &record(exit_code, restarts)),
                expected,
                "{policy} {exit_code} {restarts}"
            );
        }
    }
}
