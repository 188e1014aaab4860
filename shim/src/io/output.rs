//! Where a process's output goes: the log, containerd's fifo, and the clients that are attached.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dhow_api::attach::Stream;
use tokio::io::Interest;
use tokio::sync::{mpsc, watch};

use super::{SharedLog, Watched};

/// Pieces that wait for a client. A piece is at most what one read gives (64 KiB).
const QUEUED: usize = 8;

/// How long a client that does not read holds up the end of a process that has ended.
const PATIENCE: Duration = Duration::from_secs(10);

/// What a client gets.
#[derive(Debug, Clone)]
pub(crate) enum Piece {
    /// Output.
    Data(Stream, Arc<[u8]>),
    /// There will be no more.
    End,
}

/// A client's side of its queue. Dropping it detaches.
pub(crate) type Queue = mpsc::Receiver<Piece>;

/// The receivers of one process's output.
#[derive(Debug)]
pub(crate) struct Output {
    log: Option<SharedLog>,
    sink: Mutex<Option<Watched>>,
    clients: Mutex<Vec<Client>>,
    next: AtomicU64,
    ended: watch::Receiver<bool>,
}

#[derive(Debug, Clone)]
struct Client {
    id: u64,
    stdout: bool,
    stderr: bool,
    queue: mpsc::Sender<Piece>,
}

impl Output {
    pub(crate) fn new(log: Option<SharedLog>, sink: Option<Watched>, ended: watch::Receiver<bool>) -> Self {
        Self { log, sink: Mutex::new(sink), clients: Mutex::default(), next: AtomicU64::new(0), ended }
    }

    /// Adds a client; it gets what is written from now on.
    pub(crate) fn attach(&self, stdout: bool, stderr: bool) -> Queue {
        let (queue, receiver) = mpsc::channel(QUEUED);
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().push(Client { id, stdout, stderr, queue });
        receiver
    }

    /// Hands a piece of output to everyone; waits for attached clients whose queue is full.
    pub(crate) async fn deliver(&self, stream: Stream, bytes: &[u8]) {
        if let Some(log) = &self.log {
            log.lock().unwrap_or_else(PoisonError::into_inner).write(stream, bytes);
        }
        let sink = self.sink().clone();
        if let Some(sink) = sink {
            self.write_to_sink(&sink, bytes).await;
        }
        let clients: Vec<_> = self
            .lock()
            .iter()
            .filter(|client| if stream == Stream::Stderr { client.stderr } else { client.stdout })
            .cloned()
            .collect();
        if clients.is_empty() {
            return;
        }
        let bytes: Arc<[u8]> = bytes.into();
        for client in clients {
            self.send(&client, Piece::Data(stream, bytes.clone())).await;
        }
    }

    /// A stream has ended.
    pub(crate) fn end_of(&self, stream: Stream) {
        if let Some(log) = &self.log {
            log.lock().unwrap_or_else(PoisonError::into_inner).flush(stream);
        }
    }

    /// All streams have ended: tells the clients, and by its end the reader of the fifo: docker deletes a task only then.
    pub(crate) async fn finish(&self) {
        *self.sink() = None;
        let clients = std::mem::take(&mut *self.lock());
        for client in clients {
            self.send(&client, Piece::End).await;
        }
    }

    async fn send(&self, client: &Client, piece: Piece) {
        let sent = tokio::select! {
            sent = client.queue.send(piece) => sent.is_ok(),
            () = self.patience() => false,
        };
        if !sent {
            self.lock().retain(|other| other.id != client.id);
        }
    }

    /// Returns when the process ended a while ago.
    async fn patience(&self) {
        let mut ended = self.ended.clone();
        if ended.wait_for(|ended| *ended).await.is_ok() {
            tokio::time::sleep(PATIENCE).await;
        }
    }

    async fn write_to_sink(&self, sink: &Watched, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let wrote = tokio::select! {
                wrote = sink.async_io(Interest::WRITABLE, |fd| Ok(nix::unistd::write(fd, bytes)?)) => wrote,
                () = self.patience() => return,
            };
            match wrote {
                Ok(length) => bytes = &bytes[length..],
                // We hold the fifo's other end open ourselves: this is not its reader going away, it is broken.
                Err(_) => return,
            }
        }
    }

    fn sink(&self) -> std::sync::MutexGuard<'_, Option<Watched>> {
        self.sink.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Client>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
