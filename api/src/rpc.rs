//! A synchronous ttrpc client without threads: one call at a time per connection, connections kept in a small pool.
//!
//! ttrpc's own synchronous client starts two threads per connection and wakes a hundred times a second; the command
//! line lives for milliseconds and makes a handful of calls. The wire format is ttrpc's (PROTOCOL.md of
//! containerd/ttrpc), each frame:
//!
//! ```text
//! length u32be | stream u32be (odd, growing) | type u8 (1 request, 2 response) | flags u8 | protobuf, at most 4 MiB
//! ```
//!
//! A service may go away at any time (it idles out, it is killed). Where the kernel proves that a request was never
//! taken (`EPIPE`, or `ECONNRESET`: the peer closed with our bytes unread) the call is made once more on a new
//! connection, which starts the service when that is how the client was made. A connection that ends after the request
//! was taken is an error: nobody knows what became of it.

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout};
use protobuf::Message;

use crate::service::ServiceSpec;
use crate::{Error, Kind, service, socket};

const HEADER: usize = 10;
const REQUEST: u8 = 1;
const RESPONSE: u8 = 2;
const LONGEST: usize = 4 << 20;
const POOLED: usize = 8;

/// A service and the connections to it. Made without connecting; may be shared by threads, each call has a connection
/// of its own.
#[derive(Debug)]
pub struct Client {
    target: Target,
    pool: Mutex<Vec<Connection>>,
}

#[derive(Debug)]
enum Target {
    Socket(PathBuf),
    Service(ServiceSpec),
}

impl Client {
    /// A client of whoever listens at the path.
    #[must_use]
    pub fn at(path: impl Into<PathBuf>) -> Self {
        Self { target: Target::Socket(path.into()), pool: Mutex::default() }
    }

    /// A client of a service that is started when nobody listens.
    #[must_use]
    pub fn of(service: ServiceSpec) -> Self {
        Self { target: Target::Service(service), pool: Mutex::default() }
    }

    /// The socket's path.
    #[must_use]
    pub fn socket(&self) -> &Path {
        match &self.target {
            Target::Socket(path) => path,
            Target::Service(spec) => &spec.socket,
        }
    }

    /// Connects now, so that the first call finds a connection (and a service that has begun to start).
    ///
    /// # Errors
    ///
    /// As [`Client::call`].
    pub fn warm_up(&self) -> Result<(), Error> {
        let connection = self.checkout()?;
        self.put_back(connection);
        Ok(())
    }

    /// Calls a method and waits for its answer; `None` waits for ever.
    ///
    /// # Errors
    ///
    /// [`Error::Answer`] for the service's own errors; [`Error::Timeout`], [`Error::Lost`], and those of connecting and
    /// starting.
    pub fn call<Q: Message, A: Message>(
        &self,
        service: &str,
        method: &str,
        request: &Q,
        timeout: Option<Duration>,
    ) -> Result<A, Error> {
        let name = format!("{service}/{method}");
        let malformed = |error: protobuf::Error| Error::Protocol { method: name.clone(), what: error.to_string() };
        let mut envelope = ttrpc::Request::new();
        envelope.service = service.to_owned();
        envelope.method = method.to_owned();
        envelope.timeout_nano = timeout.map_or(0, |t| i64::try_from(t.as_nanos()).unwrap_or(i64::MAX));
        envelope.payload = request.write_to_bytes().map_err(malformed)?;
        let envelope = envelope.write_to_bytes().map_err(malformed)?;
        if envelope.len() > LONGEST {
            return Err(Error::Protocol { method: name, what: format!("a request of {} bytes", envelope.len()) });
        }
        let answer = self.exchange(&name, &envelope, timeout)?;
        let answer = ttrpc::Response::parse_from_bytes(&answer).map_err(malformed)?;
        match answer.status.as_ref() {
            Some(status) if status.code() != ttrpc::Code::OK => Err(Error::Answer {
                method: name,
                kind: Kind::from_code(status.code()),
                message: status.message().to_owned(),
            }),
            _ => A::parse_from_bytes(&answer.payload).map_err(malformed),
        }
    }

    fn exchange(&self, method: &str, envelope: &[u8], timeout: Option<Duration>) -> Result<Vec<u8>, Error> {
        let mut repeated = false;
        loop {
            let mut connection = self.checkout()?;
            let source = match connection.exchange(envelope, timeout.map(|t| Instant::now() + t)) {
                Ok(answer) => {
                    self.put_back(connection);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            match source.kind() {
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset if !repeated => repeated = true,
                io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
                    return Err(match &self.target {
                        Target::Service(spec) => spec.died(),
                        Target::Socket(_) => Error::Lost { method: method.to_owned(), source },
                    });
                }
                io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => {
                    return Err(Error::Timeout { method: method.to_owned(), after: timeout.unwrap_or_default() });
                }
                io::ErrorKind::InvalidData => {
                    return Err(Error::Protocol { method: method.to_owned(), what: source.to_string() });
                }
                _ => return Err(Error::Lost { method: method.to_owned(), source }),
            }
        }
    }

    /// A pooled connection that is still open, or a new one.
    fn checkout(&self) -> Result<Connection, Error> {
        while let Some(connection) = self.lock_pool().pop() {
            if connection.is_quiet() {
                return Ok(connection);
            }
        }
        let stream = match &self.target {
            Target::Socket(path) => socket::connect(path)?,
            Target::Service(spec) => service::connect_or_start(spec)?,
        };
        Ok(Connection { stream, next: 1 })
    }

    fn put_back(&self, connection: Connection) {
        let mut pool = self.lock_pool();
        if pool.len() < POOLED {
            pool.push(connection);
        }
    }

    fn lock_pool(&self) -> std::sync::MutexGuard<'_, Vec<Connection>> {
        self.pool.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Debug)]
struct Connection {
    stream: UnixStream,
    next: u32,
}

impl Connection {
    /// Whether the connection is open and nothing unexpected waits in it.
    fn is_quiet(&self) -> bool {
        let mut fds = [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
        nix::poll::poll(&mut fds, PollTimeout::ZERO) == Ok(0)
    }

    fn exchange(&mut self, envelope: &[u8], deadline: Option<Instant>) -> io::Result<Vec<u8>> {
        let stream = self.next;
        self.next = self.next.checked_add(2).ok_or(io::ErrorKind::BrokenPipe)?;
        let mut frame = Vec::with_capacity(HEADER + envelope.len());
        frame.extend_from_slice(&(envelope.len() as u32).to_be_bytes());
        frame.extend_from_slice(&stream.to_be_bytes());
        frame.extend_from_slice(&[REQUEST, 0]);
        frame.extend_from_slice(envelope);
        self.stream.set_write_timeout(remaining(deadline)?)?;
        self.stream.write_all(&frame)?;
        let mut header = [0; HEADER];
        self.read_exact(&mut header, deadline)?;
        let [l0, l1, l2, l3, s0, s1, s2, s3, kind, _flags] = header;
        let length = u32::from_be_bytes([l0, l1, l2, l3]) as usize;
        if kind != RESPONSE || u32::from_be_bytes([s0, s1, s2, s3]) != stream || length > LONGEST {
            let what = format!("unexpected frame of type {kind} and {length} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        let mut payload = vec![0; length];
        self.read_exact(&mut payload, deadline)?;
        Ok(payload)
    }

    fn read_exact(&mut self, mut buffer: &mut [u8], deadline: Option<Instant>) -> io::Result<()> {
        while !buffer.is_empty() {
            self.stream.set_read_timeout(remaining(deadline)?)?;
            match self.stream.read(buffer) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(n) => buffer = &mut buffer[n..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn remaining(deadline: Option<Instant>) -> io::Result<Option<Duration>> {
    match deadline {
        None => Ok(None),
        Some(deadline) => match deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
            left => Ok(Some(left)),
        },
    }
}
