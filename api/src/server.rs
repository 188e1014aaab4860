//! Serving ttrpc on a unix socket: whom to talk to, when to leave.
//!
//! One thread runs the sockets (tokio, current_thread). Handlers that block go through [`blocking`]. Peers that are
//! neither root nor our own user are hung up on before a byte of theirs is read.
//!
//! A service without work leaves by itself. Nobody may be handed a dead socket meanwhile, so it goes in this order:
//!
//! ```text
//! quiet for N seconds ─ try lock (a starter at work? stay) ─ unlink the socket, if it is still ours
//!                     ─ serve what the queue still holds until quiet ─ exit (unlocks)
//! ```
//!
//! A caller that connected in the very last moment has its request unread, gets ECONNRESET and asks again
//! ([`crate::rpc`]). "Quiet" is: no call in flight, no answer that waits for its reader, and no connection made and no byte
//! received or sent in that time.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use futures_core::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::time::{Instant, Sleep, sleep, sleep_until};
use ttrpc::r#async::{MethodHandler, Service, TtrpcContext};

use crate::{Error, Kind, error, socket};

/// Services by full name, as the generated `create_…` functions make them.
pub type Services = HashMap<String, Service>;

/// Threads that [`blocking`] may use at once.
const BLOCKING_THREADS: usize = 16;

/// How long a retiring server must be quiet before it goes.
const GRACE: Duration = Duration::from_millis(50);

/// How long a server that was told to stop waits for calls in flight.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Pause after a failed accept (no descriptors left).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How a service's process listens and when it ends.
#[derive(Debug, Clone)]
pub struct Options {
    /// The socket's path. Bound unless a listening socket was passed on (`LISTEN_FDS`).
    pub socket: PathBuf,
    /// Leave after this time without work; `None` stays.
    pub idle: Option<Duration>,
}

/// Runs a service until it is idle for long enough, or SIGTERM or SIGINT comes. For `main`; blocks.
///
/// `services` is called inside the event loop.
///
/// # Errors
///
/// [`Error::Listen`], with `AddrInUse` when a living server has the socket; [`Error::EventLoop`]; [`Error::Serve`].
pub fn run(options: &Options, services: impl FnOnce() -> Services) -> Result<(), Error> {
    let passed = dhow_sys::listen_fds::take()
        .map_err(|errno| Error::Listen { socket: options.socket.clone(), source: errno.into() })?;
    let listener = match passed {
        Some(fd) => StdListener::from(fd),
        None => socket::listen(&options.socket)?,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(BLOCKING_THREADS)
        .build()
        .map_err(|source| Error::EventLoop { source })?;
    runtime.block_on(async {
        let serving = Serving::start(listener, &options.socket, services())?;
        serving.until_done(options.idle).await
    })
}

/// Runs a blocking handler's body on a thread of its own.
///
/// # Errors
///
/// The body's own; `Internal` when it panicked.
pub async fn blocking<T: Send + 'static>(body: impl FnOnce() -> ttrpc::Result<T> + Send + 'static) -> ttrpc::Result<T> {
    match tokio::task::spawn_blocking(body).await {
        Ok(result) => result,
        Err(join) => Err(error::status(Kind::Internal, &join)),
    }
}

/// A server at work. Dropping it does not stop it; the process's end does.
pub struct Serving {
    socket: PathBuf,
    ours: Option<(u64, u64)>,
    activity: Arc<Activity>,
    _server: ttrpc::r#async::Server,
}

impl std::fmt::Debug for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serving")
            .field("socket", &self.socket)
            .field("activity", &self.activity)
            .finish_non_exhaustive()
    }
}

impl Serving {
    /// Begins to serve; must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`], [`Error::Serve`].
    pub fn start(listener: StdListener, socket: &Path, services: Services) -> Result<Self, Error> {
        let fail = |source| Error::Listen { socket: socket.to_owned(), source };
        listener.set_nonblocking(true).map_err(fail)?;
        let listener = UnixListener::from_std(listener).map_err(fail)?;
        let activity = Arc::new(Activity::new());
        let incoming = Incoming { listener, activity: activity.clone(), pause: None };
        let mut server = ttrpc::r#async::Server::new()
            .add_listener(ttrpc::r#async::transport::Listener::new(incoming))
            .register_service(counted(services, &activity));
        // ttrpc's start is async in name only: it spawns the accepting task and is ready at once.
        let started = Box::pin(server.start());
        match poll_once(started) {
            Some(Ok(())) => {}
            Some(Err(error)) => return Err(Error::Serve { socket: socket.to_owned(), message: error.to_string() }),
            None => return Err(Error::Serve { socket: socket.to_owned(), message: "start is pending".to_owned() }),
        }
        Ok(Self { socket: socket.to_owned(), ours: inode(socket), activity, _server: server })
    }

    /// Calls in flight, and answers that wait for their reader.
    #[must_use]
    pub fn calls(&self) -> usize {
        self.activity.calls.load(Ordering::SeqCst)
    }

    /// Connections that are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.activity.connections.load(Ordering::SeqCst)
    }

    /// Waits until there was neither a call in flight nor anything received for that long.
    pub async fn quiet_for(&self, time: Duration) {
        self.activity.quiet_for(Some(time)).await;
    }

    /// Waits until the service may end: idle for that long, or SIGTERM or SIGINT; the socket is gone then.
    ///
    /// # Errors
    ///
    /// [`Error::EventLoop`] when the signals cannot be watched.
    pub async fn until_done(self, idle: Option<Duration>) -> Result<(), Error> {
        let watch = |kind| signal(kind).map_err(|source| Error::EventLoop { source });
        let mut terminate = watch(SignalKind::terminate())?;
        let mut interrupt = watch(SignalKind::interrupt())?;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
                () = self.activity.quiet_for(idle) => {
                    let Ok(_lock) = socket::Lock::try_take(&self.socket) else {
                        self.activity.touch();
                        continue;
                    };
                    self.unlink();
                    let _elapsed = tokio::time::timeout(STOP_LIMIT, self.activity.quiet_for(Some(GRACE))).await;
                    return Ok(());
                }
            }
            let _lock = socket::Lock::try_take(&self.socket);
            self.unlink();
            // The error is that calls are still in flight after the limit; they lose.
            let _elapsed = tokio::time::timeout(STOP_LIMIT, self.activity.quiet_for(Some(GRACE))).await;
            return Ok(());
        }
    }

    /// Removes the socket's name, unless another server has taken it over.
    pub fn unlink(&self) {
        if self.ours.is_some() && inode(&self.socket) == self.ours {
            // Fails only when it is gone already, which is as good.
            let _removed = std::fs::remove_file(&self.socket);
        }
    }
}

/// What a server has to do, seen from outside.
#[derive(Debug)]
struct Activity {
    calls: AtomicUsize,
    connections: AtomicUsize,
    last: Mutex<Instant>,
    call_ended: Notify,
}

impl Activity {
    fn new() -> Self {
        Self {
            calls: AtomicUsize::new(0),
            connections: AtomicUsize::new(0),
            last: Mutex::new(Instant::now()),
            call_ended: Notify::new(),
        }
    }

    fn touch(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn begin_call(self: &Arc<Self>) -> InFlight {
        self.calls.fetch_add(1, Ordering::SeqCst);
        InFlight(self.clone())
    }

    /// Returns when nothing has happened for that long; never for `None`.
    async fn quiet_for(&self, time: Option<Duration>) {
        let Some(time) = time else { return std::future::pending().await };
        loop {
            while self.calls.load(Ordering::SeqCst) > 0 {
                self.call_ended.notified().await;
            }
            let quiet_at = *self.last.lock().unwrap_or_else(PoisonError::into_inner) + time;
            if quiet_at <= Instant::now() {
                return;
            }
            sleep_until(quiet_at).await;
        }
    }
}

/// A call in flight; a handler that is cancelled (its caller hung up) ends it too.
struct InFlight(Arc<Activity>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.touch();
        self.0.calls.fetch_sub(1, Ordering::SeqCst);
        self.0.call_ended.notify_one();
    }
}

fn counted(services: Services, activity: &Arc<Activity>) -> Services {
    services
        .into_iter()
        .map(|(name, service)| {
            let wrap = |handler| {
                Box::new(Counted { handler, activity: activity.clone() }) as Box<dyn MethodHandler + Send + Sync>
            };
            let methods = service.methods.into_iter().map(|(method, handler)| (method, wrap(handler))).collect();
            (name, Service { methods, streams: service.streams })
        })
        .collect()
}

struct Counted {
    handler: Box<dyn MethodHandler + Send + Sync>,
    activity: Arc<Activity>,
}

#[async_trait]
impl MethodHandler for Counted {
    async fn handler(&self, context: TtrpcContext, request: ttrpc::Request) -> ttrpc::Result<ttrpc::Response> {
        let _in_flight = self.activity.begin_call();
        self.handler.handler(context, request).await
    }
}

/// The accepted connections of trusted peers.
struct Incoming {
    listener: UnixListener,
    activity: Arc<Activity>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl Stream for Incoming {
    type Item = io::Result<Peer>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(pause) = &mut self.pause {
                ready!(pause.as_mut().poll(cx));
                self.pause = None;
            }
            match ready!(self.listener.poll_accept(cx)) {
                Ok((stream, _)) => {
                    self.activity.touch();
                    match stream.peer_cred() {
                        Ok(peer) if socket::trusted(peer.uid()) => {
                            let activity = self.activity.clone();
                            activity.connections.fetch_add(1, Ordering::SeqCst);
                            return Poll::Ready(Some(Ok(Peer { stream, activity, answering: None })));
                        }
                        Ok(peer) => log::warn!("refused a connection of uid {}", peer.uid()),
                        Err(error) => log::warn!("refused a connection without credentials: {error}"),
                    }
                }
                Err(error) => {
                    log::warn!("accept: {error}");
                    self.pause = Some(Box::pin(sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }
}

/// A connection whose bytes count as activity.
struct Peer {
    stream: UnixStream,
    activity: Arc<Activity>,
    /// The rest of an answer that the socket has no room for: its call has ended for us, but not for the caller.
    answering: Option<InFlight>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.activity.connections.fetch_sub(1, Ordering::SeqCst);
    }
}

impl AsyncRead for Peer {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let result = ready!(Pin::new(&mut self.stream).poll_read(cx, buffer));
        self.activity.touch();
        Poll::Ready(result)
    }
}

impl AsyncWrite for Peer {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        match &result {
            Poll::Pending if self.answering.is_none() => self.answering = Some(self.activity.begin_call()),
            Poll::Pending => {}
            Poll::Ready(_) => {
                self.answering = None;
                self.activity.touch();
            }
        }
        result
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

fn poll_once<F: Future + Unpin>(mut future: F) -> Option<F::Output> {
    let mut context = Context::from_waker(std::task::Waker::noop());
    match Pin::new(&mut future).poll(&mut context) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

fn inode(path: &Path) -> Option<(u64, u64)> {
    std::fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}
