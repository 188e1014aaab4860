//! The attach socket: the second connection of a client, over which a process's stdio flows.
//!
//! `Shim.Attach` makes a ticket: a token for the client, and a place in the process's output from that moment on, so
//! that nothing is lost between the answer and the connection. A ticket is good once and for a few seconds.

use std::collections::HashMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dhow_api::attach::{self, Decoder, DetachScanner, End, Frame, Stream};
use dhow_api::socket;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;

use crate::error::{Error, Result};
use crate::io::{Piece, ProcessIo, Queue};

/// How long a token waits for its client.
const TICKET_LIFE: Duration = Duration::from_secs(10);

/// Tokens are 32 hex digits.
const TOKEN_LENGTH: usize = 32;

/// What a client may do.
#[derive(Debug)]
pub(crate) struct Ticket {
    /// The process's stdio.
    pub(crate) io: Arc<ProcessIo>,
    /// Its output.
    pub(crate) queue: Queue,
    /// Whether what it sends goes to stdin.
    pub(crate) stdin: bool,
    /// Whether stdin ends when it leaves.
    pub(crate) closes_stdin: bool,
    /// Looks for the detach keys.
    pub(crate) keys: Option<DetachScanner>,
}

/// The socket, the tickets and the connections.
#[derive(Debug)]
pub(crate) struct Attachments {
    socket: PathBuf,
    tickets: Mutex<HashMap<String, Ticket>>,
    open: AtomicUsize,
}

impl Attachments {
    /// Listens; must be called in the event loop.
    pub(crate) fn listen(path: &Path) -> Result<Arc<Self>> {
        let listener = socket::bind(path)?;
        let listen = || {
            listener.set_nonblocking(true)?;
            UnixListener::from_std(listener)
        };
        let listener = listen().map_err(|source| Error::EventLoop { source })?;
        let this = Arc::new(Self { socket: path.to_owned(), tickets: Mutex::default(), open: AtomicUsize::new(0) });
        tokio::spawn(this.clone().accept(listener));
        Ok(this)
    }

    /// Where clients connect.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// Clients that are connected or may still come.
    pub(crate) fn count(&self) -> usize {
        self.open.load(Ordering::SeqCst) + self.lock().len()
    }

    /// Registers a client to come; returns its token.
    pub(crate) fn admit(self: &Arc<Self>, ticket: Ticket) -> Result<String> {
        let token = new_token()?;
        self.lock().insert(token.clone(), ticket);
        let (this, expired) = (self.clone(), token.clone());
        tokio::spawn(async move {
            tokio::time::sleep(TICKET_LIFE).await;
            let _unused = this.lock().remove(&expired);
        });
        Ok(token)
    }

    async fn accept(self: Arc<Self>, listener: UnixListener) {
        loop {
            match listener.accept().await {
                Ok((stream, _)) if stream.peer_cred().is_ok_and(|peer| socket::trusted(peer.uid())) => {
                    tokio::spawn(self.clone().serve(stream));
                }
                Ok(_stranger) => {}
                Err(error) => {
                    log::warn!("accept an attachment: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    async fn serve(self: Arc<Self>, mut stream: UnixStream) {
        let token = tokio::time::timeout(TICKET_LIFE, read_token(&mut stream)).await;
        let Ok(Some(token)) = token else { return };
        let ticket = {
            let mut tickets = self.lock();
            let ticket = tickets.remove(&token);
            if ticket.is_some() {
                self.open.fetch_add(1, Ordering::SeqCst);
            }
            ticket
        };
        let Some(ticket) = ticket else { return };
        let _open = OpenGuard(&self.open);
        relay(stream, ticket).await;
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Ticket>> {
        self.tickets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct OpenGuard<'a>(&'a AtomicUsize);

impl Drop for OpenGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// Why the client's side of an attachment is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// The detach keys were typed.
    Detached,
    /// It hung up, or sent what is no frame.
    Gone,
}

async fn relay(stream: UnixStream, ticket: Ticket) {
    let Ticket { io, queue, stdin, closes_stdin, keys } = ticket;
    let (reader, mut writer) = stream.into_split();
    let detach = Notify::new();
    let left = tokio::select! {
        // The process has ended, the client cannot be written to, or it has detached and was told so.
        () = write_output(&mut writer, queue, &detach) => None,
        left = read_input(reader, &io, stdin, keys, &detach) => Some(left),
    };
    if closes_stdin && left == Some(Left::Gone) {
        io.stdin.close();
    }
}

async fn write_output(writer: &mut OwnedWriteHalf, mut queue: Queue, detach: &Notify) {
    loop {
        let piece = tokio::select! {
            biased;
            () = detach.notified() => return write_end(writer, End::Detached).await,
            piece = queue.recv() => piece,
        };
        match piece {
            Some(Piece::Data(stream, bytes)) => {
                let header = attach::header(stream, bytes.len());
                if writer.write_all(&header).await.is_err() || writer.write_all(&bytes).await.is_err() {
                    return;
                }
            }
            Some(Piece::End) => return write_end(writer, End::Exited).await,
            None => return,
        }
    }
}

async fn write_end(writer: &mut OwnedWriteHalf, end: End) {
    let mut frame = attach::header(Stream::End, 1).to_vec();
    frame.push(end as u8);
    // The client may be gone; then there is nobody to tell.
    let _told = writer.write_all(&frame).await;
    let _shut = writer.shutdown().await;
}

async fn read_input(
    mut reader: OwnedReadHalf,
    io: &Arc<ProcessIo>,
    stdin: bool,
    mut keys: Option<DetachScanner>,
    detach: &Notify,
) -> Left {
    let mut decoder = Decoder::default();
    let mut buffer = [0; 4096];
    loop {
        loop {
            match decoder.next_frame() {
                Ok(Some(Frame::Stdin(bytes))) if stdin => {
                    let Some(keys) = &mut keys else {
                        io.stdin.write(&bytes).await;
                        continue;
                    };
                    let scanned = keys.feed(&bytes);
                    io.stdin.write(&scanned.pass).await;
                    if scanned.detach {
                        detach.notify_one();
                        // The writer says goodbye and ends both.
                        std::future::pending::<()>().await;
                        return Left::Detached;
                    }
                }
                Ok(Some(Frame::StdinEnd)) if stdin => {
                    if !io.has_terminal() {
                        io.stdin.close();
                    }
                }
                Ok(Some(_not_for_us)) => {}
                Ok(None) => break,
                Err(_bad) => return Left::Gone,
            }
        }
        match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => return Left::Gone,
            Ok(length) => decoder.push(&buffer[..length]),
        }
    }
}

async fn read_token(stream: &mut UnixStream) -> Option<String> {
    let mut line = [0; TOKEN_LENGTH + 1];
    stream.read_exact(&mut line).await.ok()?;
    let (token, newline) = line.split_at(TOKEN_LENGTH);
    if newline == b"\n" { String::from_utf8(token.to_vec()).ok() } else { None }
}

fn new_token() -> Result<String> {
    let path = Path::new("/dev/urandom");
    let mut bytes = [0; TOKEN_LENGTH / 2];
    std::fs::File::open(path).and_then(|mut file| file.read_exact(&mut bytes)).map_err(Error::file("read", path))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
