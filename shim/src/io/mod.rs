//! A process's stdio, from its descriptors to whoever reads and writes them.
//!
//! ```text
//! dhow, no terminal   process ═ fifo (it holds it open both ways) ─ pump ─┬ log
//!                     process ═ fifo ─────────────────────────── stdin    ├ attached client ─ queue ─ socket
//! dhow, terminal      process ═ pty ─ pump ───────────────────────────────┘
//! containerd          process ═ containerd's own fifos: we hold stdin open until CloseIO and do nothing else
//! containerd, -t      process ═ pty ─ pump ─ containerd's fifo
//! ```
//!
//! Slow readers: the log never blocks; a client that is attached holds the process up once its queue is full, as a
//! terminal does; one that has left holds nobody up. Without log and clients output is read and thrown away.

mod log_file;
mod output;
mod prepare;
mod stdin;

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use dhow_api::attach::Stream;
use dhow_sys::tty;
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub(crate) use log_file::LogFile;
pub(crate) use output::{Output, Piece, Queue};
pub(crate) use prepare::{Ends, Names, Own, adopt, for_engine, own_exec, own_init};
pub(crate) use stdin::StdinSink;

use crate::error::{Error, Result};

/// A log that the two streams of a process share.
pub(crate) type SharedLog = Arc<Mutex<LogFile>>;

/// A descriptor in the event loop.
pub(crate) type Watched = Arc<AsyncFd<OwnedFd>>;

/// How long a process's end waits for a terminal to say that nobody has it open any more.
const TERMINAL_GRACE: Duration = Duration::from_millis(200);

/// The stdio of one process.
#[derive(Debug)]
pub(crate) struct ProcessIo {
    /// Where its output goes.
    pub(crate) output: Arc<Output>,
    /// Where its input comes from.
    pub(crate) stdin: StdinSink,
    terminal: bool,
    console: OnceLock<Watched>,
    terminal_source: Mutex<Option<OwnedFd>>,
    ended: watch::Sender<bool>,
    pumps: Mutex<Vec<JoinHandle<()>>>,
}

impl ProcessIo {
    /// Starts to move bytes, between pipes; a terminal is connected when it is there. Must be called in the event loop.
    pub(crate) fn start(ends: Ends, terminal: bool, log: Option<SharedLog>) -> Result<Arc<Self>> {
        let (ended, end) = watch::channel(false);
        let sink = ends.terminal_sink.map(watched).transpose()?;
        let output = Arc::new(Output::new(log, sink, end.clone()));
        let stdin = match ends.stdin {
            Some(stdin) => StdinSink::open(watched(stdin)?),
            None if terminal => StdinSink::waiting(),
            None => StdinSink::closed(),
        };
        stdin.hold(ends.held);
        let mut pumps = Vec::new();
        for (source, stream) in [(ends.stdout, Stream::Stdout), (ends.stderr, Stream::Stderr)] {
            if let Some(source) = source {
                pumps.push(tokio::spawn(pump(watched(source)?, stream, output.clone(), end.clone(), false)));
            }
        }
        Ok(Arc::new(Self {
            output,
            stdin,
            terminal,
            console: OnceLock::new(),
            terminal_source: Mutex::new(ends.terminal_source),
            ended,
            pumps: Mutex::new(pumps),
        }))
    }

    /// Connects the process's terminal, once.
    pub(crate) fn connect(self: &Arc<Self>, console: OwnedFd) -> Result<()> {
        let console = watched(console)?;
        let end = self.ended.subscribe();
        let mut pumps = lock(&self.pumps);
        pumps.push(tokio::spawn(pump(console.clone(), Stream::Stdout, self.output.clone(), end.clone(), true)));
        if let Some(source) = lock(&self.terminal_source).take() {
            pumps.push(tokio::spawn(stdin::feed(watched(source)?, Arc::downgrade(self), end)));
        }
        self.stdin.connect(console.clone());
        // The second console of a process would be a bug of the caller's; the first one stays.
        let _second = self.console.set(console);
        Ok(())
    }

    /// The terminal's other end.
    pub(crate) fn console(&self) -> Option<Watched> {
        self.console.get().cloned()
    }

    /// Sets the terminal's size. Without a terminal there is nothing to do: runc's shim makes no error of it either.
    pub(crate) fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        let Some(console) = self.console.get() else { return Ok(()) };
        tty::set_size(std::os::fd::AsFd::as_fd(console.get_ref()), tty::Size { rows, columns })
            .map_err(Error::sys("set the terminal's size"))
    }

    /// Whether it has a terminal.
    pub(crate) fn has_terminal(&self) -> bool {
        self.terminal
    }

    /// The process has ended: takes what it still wrote to where it belongs, and lets clients go.
    pub(crate) async fn finish(&self) {
        // Fails only when nobody waits for it.
        let _receivers = self.ended.send(true);
        self.stdin.close();
        let pumps = std::mem::take(&mut *lock(&self.pumps));
        for pump in pumps {
            // A pump that panicked has nothing more to give.
            let _ended = pump.await;
        }
        self.output.finish().await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts a descriptor into the event loop.
#[expect(
    deprecated,
    reason = "its successor is unsafe for types that could lie about their descriptor; OwnedFd cannot"
)]
pub(crate) fn watched(fd: OwnedFd) -> Result<Watched> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = fcntl(&fd, FcntlArg::F_GETFL).map_err(Error::sys("make a descriptor non-blocking"))?;
    let flags = OFlag::from_bits_retain(flags) | OFlag::O_NONBLOCK;
    fcntl(&fd, FcntlArg::F_SETFL(flags)).map_err(Error::sys("make a descriptor non-blocking"))?;
    AsyncFd::new(fd).map(Arc::new).map_err(|source| Error::EventLoop { source })
}

/// Moves a process's output until nobody can write there any more, or the process has ended and nothing is left.
async fn pump(source: Watched, stream: Stream, output: Arc<Output>, mut end: watch::Receiver<bool>, terminal: bool) {
    /// What a pipe holds; read at once so that a writer is woken once.
    const CHUNK: usize = 64 * 1024;
    // Allocated while there is something to read only: an idle shim is as small as it can be.
    let mut buffer = Vec::new();
    let mut woken_for_nothing = 0;
    loop {
        buffer.resize(CHUNK, 0);
        match nix::unistd::read(source.get_ref(), &mut buffer) {
            Ok(0) => break,
            Ok(length) => {
                woken_for_nothing = 0;
                output.deliver(stream, &buffer[..length]).await;
                // One busy process must not keep the loop from everything else.
                tokio::task::yield_now().await;
            }
            Err(nix::errno::Errno::EINTR) => {}
            Err(nix::errno::Errno::EAGAIN) => {
                buffer = Vec::new();
                let ended = *end.borrow_and_update();
                if ended && !terminal {
                    break;
                }
                if ended {
                    // What was written to a terminal arrives by a kernel worker, after the process's end even.
                    if tokio::time::timeout(TERMINAL_GRACE, ready(&source)).await.is_err() {
                        break;
                    }
                    continue;
                }
                // A terminal that was hung up and opened again looks ready for ever.
                woken_for_nothing += 1;
                if woken_for_nothing > 3 {
                    tokio::time::sleep(TERMINAL_GRACE / 10).await;
                }
                tokio::select! {
                    () = ready(&source) => {}
                    // An error would mean that the process is gone too.
                    _changed = end.changed() => {}
                }
            }
            // A terminal that no process has open; the program may open it again.
            Err(nix::errno::Errno::EIO) if terminal && !*end.borrow_and_update() => {
                buffer = Vec::new();
                let _ended = tokio::time::timeout(TERMINAL_GRACE, end.changed()).await;
            }
            Err(_) => break,
        }
    }
    output.end_of(stream);
}

/// Waits until the descriptor may be read.
async fn ready(source: &Watched) {
    if let Ok(mut guard) = source.readable().await {
        guard.clear_ready_matching(tokio::io::Ready::READABLE);
    }
}
