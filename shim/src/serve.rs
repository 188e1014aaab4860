//! Being the shim: set up, serve, and leave when nothing is pending.
//!
//! Whether this is dhow's own way or containerd's is seen by `shim.json`, which our command line writes into the bundle.

use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use containerd_shim_protos::shim_async::create_task;
use dhow_api::documents::{Document, ShimConfig};
use dhow_api::server::{Services, Serving};
use dhow_api::shim_ttrpc_async::create_shim;
use dhow_api::{paths, socket};
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Args;
use crate::attach::Attachments;
use crate::control::ShimService;
use crate::error::{Error, Result};
use crate::events::Publisher;
use crate::options::Options;
use crate::process::Stage;
use crate::shim::{Mode, OwnMode, Shim};
use crate::task::TaskService;
use crate::{adopt, reap};

const TASK_V3: &str = "containerd.task.v3.Task";
const TASK_V2: &str = "containerd.task.v2.Task";

/// A container that nobody starts, with nobody connected, is given up after this.
const ABANDONED: Duration = Duration::from_secs(30);

/// A shim that nobody has asked for a container, with nobody connected, ends after this.
const UNUSED: Duration = Duration::from_secs(2);

/// How long the socket is quiet before the end.
const QUIET: Duration = Duration::from_millis(20);

/// How long callers that are still connected when all is done hold up the end.
const LINGER: Duration = Duration::from_secs(5);

/// How long attached clients that read slowly do.
const LINGER_ATTACHED: Duration = Duration::from_secs(30);

/// How long events may take to reach containerd in the end.
const FLUSH: Duration = Duration::from_secs(10);

/// Runs the shim until it is done.
///
/// # Errors
///
/// Only when it could not begin.
pub fn run(args: &Args) -> Result<()> {
    // Containers are born as copies of this process: what leads from one to our file must not be writable. Whoever
    // started us as the libraries do has seen to it, and then the kernel knows us by a descriptor's number only.
    dhow_sys::exe::protect().map_err(Error::sys("protect our own program"))?;
    dhow_sys::process::set_name("containerd-shim-dhow-v2").map_err(Error::sys("set our name"))?;
    let listener = dhow_sys::listen_fds::take().map_err(Error::sys("take the listening socket over"))?;
    let listener = listener.ok_or_else(|| Error::NotFound { what: "the listening socket (LISTEN_FDS)".to_owned() })?;
    dhow_sys::process::set_child_subreaper(true).map_err(Error::sys("become a subreaper"))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|source| Error::EventLoop { source })?;
    runtime.block_on(serve(args, listener.into()))
}

async fn serve(args: &Args, listener: UnixListener) -> Result<()> {
    let bundle = match &args.bundle {
        Some(bundle) => bundle.clone(),
        None => std::env::current_dir().map_err(Error::file("find", Path::new(".")))?,
    };
    let (shim, socket) = set_up(args, &bundle, &listener)?;
    reap::start(&shim)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|source| Error::EventLoop { source })?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|source| Error::EventLoop { source })?;
    // Before the first request, so that nobody sees an empty shim where a container runs.
    adopt::container(&shim)?;
    let serving = Serving::start(listener, &socket, services(&shim))?;
    let mut done = shim.done.subscribe();
    loop {
        tokio::select! {
            _done = done.wait_for(|done| *done) => break,
            () = abandoned(&shim, &serving) => {
                if give_up(&shim) {
                    break;
                }
            }
            _ = terminate.recv() => if shim.lock().container.is_none() { break },
            _ = interrupt.recv() => if shim.lock().container.is_none() { break },
        }
    }
    leave(&shim, &serving).await;
    Ok(())
}

fn set_up(args: &Args, bundle: &Path, listener: &UnixListener) -> Result<(Arc<Shim>, PathBuf)> {
    let bundle = paths::Bundle::new(bundle);
    let (mode, options, events, socket) = match ShimConfig::load(&bundle.shim_config()) {
        Ok(config) => {
            let run_root = paths::RunRoot::new(&config.runroot);
            let dir = run_root.shim(&args.id);
            // Before anything of a predecessor is replaced.
            adopt::check(&run_root.runtime(), &dir, &args.id)?;
            let attachments = Attachments::listen(&dir.attach_socket())?;
            dhow_api::documents::replace(&dir.pid(), std::process::id().to_string().as_bytes())
                .map_err(Error::file("write", &dir.pid()))?;
            let (options, socket) = (Options::at(run_root.runtime()), dir.socket());
            let own = OwnMode { config, bundle, dir, attachments };
            (Mode::Own(Box::new(own)), options, Publisher::nobody(), socket)
        }
        Err(error) if error.is(dhow_api::Kind::NotFound) => {
            let events = match std::env::var("TTRPC_ADDRESS") {
                Ok(address) if !address.is_empty() => Publisher::to(&address),
                _ => Publisher::nobody(),
            };
            let address = listener.local_addr().map_err(Error::file("find", Path::new("the listening socket")))?;
            let socket = address.as_pathname().map(Path::to_owned).unwrap_or_default();
            (Mode::Engine, Options::recall(bundle.path(), &args.namespace), events, socket)
        }
        Err(error) => return Err(error.into()),
    };
    Ok((Shim::new(args.id.clone(), args.namespace.clone(), mode, options, events), socket))
}

/// Task under both its names (the messages are the same), and our own.
fn services(shim: &Arc<Shim>) -> Services {
    let mut services = create_task(Arc::new(TaskService(shim.clone())));
    if let Some(task) = create_task(Arc::new(TaskService(shim.clone()))).remove(TASK_V3) {
        services.insert(TASK_V2.to_owned(), task);
    }
    services.extend(create_shim(Arc::new(ShimService(shim.clone()))));
    services
}

/// Returns when nobody has started the container for a while and nobody is there who could.
async fn abandoned(shim: &Shim, serving: &Serving) {
    if shim.own().is_none() {
        return std::future::pending().await;
    }
    loop {
        let created = shim.lock().container.as_ref().map(|container| matches!(container.init.stage, Stage::Created));
        let (patience, waits) = match created {
            None => (UNUSED, true),
            Some(waits) => (ABANDONED, waits),
        };
        serving.quiet_for(patience).await;
        let still = shim.lock().container.as_ref().map(|container| matches!(container.init.stage, Stage::Created));
        if waits && still == created && serving.connections() == 0 {
            return;
        }
        tokio::time::sleep(patience).await;
    }
}

/// Ends a container that was never started; its end cleans up. Says whether there is none.
fn give_up(shim: &Shim) -> bool {
    let ended = shim.with_container(|container, _| {
        let error = "the container was created and never started".to_owned();
        container.start_error.get_or_insert((128, error));
        container.init.signal(libc::SIGKILL)
    });
    if let Err(error) = &ended {
        log::info!("nothing to do: {error}");
    }
    ended.is_err()
}

async fn leave(shim: &Shim, serving: &Serving) {
    let begin = Instant::now();
    let pending = || {
        let attached = shim.own().is_some_and(|own| own.attachments.count() > 0);
        (serving.connections() > 0 && begin.elapsed() < LINGER) || (attached && begin.elapsed() < LINGER_ATTACHED)
    };
    while serving.calls() > 0 || pending() {
        tokio::time::sleep(Duration::from_millis(2)).await;
        if begin.elapsed() > LINGER_ATTACHED {
            break;
        }
    }
    if tokio::time::timeout(FLUSH, shim.events.flush()).await.is_err() {
        log::error!("containerd does not take the last events");
    }
    let Some(own) = shim.own() else { return serving.unlink() };
    // Whoever starts a shim holds this lock. It has reached us then, loses the connection, and starts a new one.
    let _lock = socket::Lock::try_take(&own.dir.socket());
    if let Err(error) = std::fs::remove_dir_all(own.dir.path()) {
        log::warn!("remove {}: {error}", own.dir.path().display());
    }
    // Nobody can connect any more; whoever just has is answered, unless it does not read.
    let _elapsed = tokio::time::timeout(LINGER_ATTACHED, serving.quiet_for(QUIET)).await;
}
