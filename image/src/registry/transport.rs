//! Sockets under ureq: TCP and TLS with waits that can be cancelled and end when a peer is silent for too long.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::AsFd;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, SockaddrStorage};
use rustls::{AlertDescription, ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};

use super::tls::{self, TlsSettings};
use super::url::{Scheme, host_of, port_of};
use crate::cancel::{Cancel, TICK};
use crate::error::Error;

/// Why a connection failed, carried through ureq inside an [`io::Error`].
#[derive(Debug)]
pub(super) enum Fault {
    Cancelled,
    /// The peer does not speak TLS.
    NotTls,
    Untrusted(String),
    /// The TLS settings for the host could not be made.
    Settings(Error),
    Tls(String),
    NoSuchHost,
    Silent(Duration),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cancelled => f.write_str("interrupted"),
            Self::NotTls => f.write_str("it does not speak TLS"),
            Self::Untrusted(reason) | Self::Tls(reason) => f.write_str(reason),
            Self::Settings(error) => error.fmt(f),
            Self::NoSuchHost => f.write_str("no such host"),
            Self::Silent(limit) => write!(f, "no answer for {} s", limit.as_secs()),
        }
    }
}

impl std::error::Error for Fault {}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        Self::other(fault)
    }
}

/// Makes connections.
#[derive(Debug)]
pub(super) struct Dialer {
    pub(super) tls: TlsSettings,
    pub(super) cancel: Cancel,
    pub(super) idle: Duration,
}

impl Connector for Dialer {
    type Out = Stream;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<()>) -> Result<Option<Stream>, ureq::Error> {
        let mut last = io::Error::from(Fault::NoSuchHost);
        for address in details.addrs.iter() {
            match self.dial(*address) {
                Ok(socket) => return self.wrap(details, socket).map(Some).map_err(ureq::Error::Io),
                Err(error) => last = error,
            }
            if self.cancel.is_cancelled() {
                break;
            }
        }
        Err(ureq::Error::Io(last))
    }
}

impl Dialer {
    fn dial(&self, address: SocketAddr) -> io::Result<Socket> {
        let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket::socket(family, SockType::Stream, flags, None)?;
        match socket::connect(std::os::fd::AsRawFd::as_raw_fd(&fd), &SockaddrStorage::from(address)) {
            Ok(()) => {}
            Err(Errno::EINPROGRESS | Errno::EINTR) => {
                wait(fd.as_fd(), PollFlags::POLLOUT, CONNECT_TIMEOUT, &self.cancel)?;
                let failed = socket::getsockopt(&fd, socket::sockopt::SocketError)?;
                if failed != 0 {
                    return Err(io::Error::from_raw_os_error(failed));
                }
            }
            Err(errno) => return Err(errno.into()),
        }
        let stream = TcpStream::from(fd);
        stream.set_nodelay(true)?;
        Ok(Socket { stream, cancel: self.cancel.clone(), idle: self.idle })
    }

    fn wrap(&self, details: &ConnectionDetails<'_>, mut socket: Socket) -> io::Result<Stream> {
        let buffers = LazyBuffers::new(BUFFER, BUFFER);
        if !details.needs_tls() {
            return Ok(Stream { buffers, kind: Kind::Plain(socket) });
        }
        let authority = details.uri.authority().map_or("", |authority| authority.as_str());
        let config = self.tls.of(authority).map_err(|error| io::Error::from(Fault::Settings(error)))?;
        let name = ServerName::try_from(host_of(authority).to_owned())
            .map_err(|error| io::Error::from(Fault::Tls(error.to_string())))?;
        let mut connection =
            ClientConnection::new(config, name).map_err(|error| io::Error::from(Fault::Tls(error.to_string())))?;
        while connection.is_handshaking() {
            connection.complete_io(&mut socket).map_err(handshake_fault)?;
        }
        Ok(Stream { buffers, kind: Kind::Tls(Box::new(StreamOwned::new(connection, socket))) })
    }
}

/// A TLS error in the middle of things: with TLS 1.3 that is where a server says what it thinks of our certificate.
fn tls_fault(error: io::Error) -> io::Error {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::AlertReceived(alert)) => Fault::Tls(refusal(*alert)).into(),
        Some(other) => Fault::Tls(other.to_string()).into(),
        None => error,
    }
}

fn refusal(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::BadCertificate
        | AlertDescription::CertificateRequired
        | AlertDescription::UnknownCA
        | AlertDescription::CertificateUnknown => "it wants a client certificate that it trusts".into(),
        other => format!("it ends TLS with the alert {other:?}"),
    }
}

fn handshake_fault(error: io::Error) -> io::Error {
    if error.get_ref().is_some_and(|inner| inner.is::<Fault>()) {
        return error;
    }
    let fault = match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(reason)) => Fault::Untrusted(tls::explain(reason)),
        Some(rustls::Error::InvalidMessage(_)) => Fault::NotTls,
        Some(rustls::Error::AlertReceived(alert)) => Fault::Tls(refusal(*alert)),
        Some(other) => Fault::Tls(other.to_string()),
        // Some servers hang up on what is no HTTP.
        None if matches!(error.kind(), ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset) => Fault::NotTls,
        None => return error,
    };
    fault.into()
}

/// A non-blocking socket whose reads and writes wait with an eye on the cancel flag.
#[derive(Debug)]
struct Socket {
    stream: TcpStream,
    cancel: Cancel,
    idle: Duration,
}

impl Socket {
    fn wait(&self, flags: PollFlags) -> io::Result<()> {
        wait(self.stream.as_fd(), flags, self.idle, &self.cancel)
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            if self.cancel.is_cancelled() {
                return Err(Fault::Cancelled.into());
            }
            match self.stream.read(buffer) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(PollFlags::POLLIN)?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            if self.cancel.is_cancelled() {
                return Err(Fault::Cancelled.into());
            }
            match self.stream.write(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.wait(PollFlags::POLLOUT)?,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until `fd` is ready, `limit` has passed or `cancel` is set.
fn wait(fd: std::os::fd::BorrowedFd<'_>, flags: PollFlags, limit: Duration, cancel: &Cancel) -> io::Result<()> {
    let end = Instant::now() + limit;
    loop {
        if cancel.is_cancelled() {
            return Err(Fault::Cancelled.into());
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(Fault::Silent(limit).into());
        }
        let pause = PollTimeout::try_from(left.min(TICK)).unwrap_or(PollTimeout::ZERO);
        match nix::poll::poll(&mut [PollFd::new(fd, flags)], pause) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// A connection, as ureq wants it.
pub(super) struct Stream {
    buffers: LazyBuffers,
    kind: Kind,
}

enum Kind {
    Plain(Socket),
    Tls(Box<StreamOwned<ClientConnection, Socket>>),
}

impl Transport for Stream {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), ureq::Error> {
        let output = &self.buffers.output()[..amount];
        match &mut self.kind {
            Kind::Plain(socket) => socket.write_all(output)?,
            Kind::Tls(stream) => {
                stream.write_all(output).and_then(|()| stream.flush()).map_err(tls_fault)?;
            }
        }
        Ok(())
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, ureq::Error> {
        let input = self.buffers.input_append_buf();
        let amount = match &mut self.kind {
            Kind::Plain(socket) => socket.read(input)?,
            Kind::Tls(stream) => match stream.read(input) {
                Ok(amount) => amount,
                // Closed without a goodbye: ureq sees from the length whether something is missing.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => 0,
                Err(error) => return Err(tls_fault(error).into()),
            },
        };
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    /// Whether an idle connection can be used again: nothing unasked has come, not even its end.
    fn is_open(&mut self) -> bool {
        match &mut self.kind {
            Kind::Plain(socket) => {
                matches!(socket.stream.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
            }
            Kind::Tls(stream) => {
                // TLS 1.3 sends session tickets when it likes: those are no content.
                loop {
                    match stream.conn.read_tls(&mut stream.sock.stream) {
                        Ok(0) => return false,
                        Ok(_) => match stream.conn.process_new_packets() {
                            Ok(state) if state.plaintext_bytes_to_read() == 0 && !state.peer_has_closed() => {}
                            _ => return false,
                        },
                        Err(error) => return error.kind() == ErrorKind::WouldBlock,
                    }
                }
            }
        }
    }

    fn is_tls(&self) -> bool {
        matches!(self.kind, Kind::Tls(_))
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream").field("tls", &self.is_tls()).finish_non_exhaustive()
    }
}

/// Resolves names on a thread, so that a slow name server does not keep a cancelled pull waiting.
#[derive(Debug)]
pub(super) struct Names {
    pub(super) cancel: Cancel,
}

impl Resolver for Names {
    fn resolve(&self, uri: &Uri, _: &Config, _: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let authority = uri.authority().map_or("", |authority| authority.as_str());
        let scheme = if uri.scheme_str() == Some("https") { Scheme::Https } else { Scheme::Http };
        let port = port_of(authority).unwrap_or(if scheme == Scheme::Https { 443 } else { 80 });
        let mut found = self.empty();
        for address in self.lookup(host_of(authority), port)?.into_iter().take(MAX_ADDRESSES) {
            found.push(address);
        }
        Ok(found)
    }
}

impl Names {
    fn lookup(&self, host: &str, port: u16) -> Result<Vec<SocketAddr>, ureq::Error> {
        if let Ok(address) = host.parse() {
            return Ok(vec![SocketAddr::new(address, port)]);
        }
        // RFC 6761 section 6.3: localhost is always loopback, whatever a name server says.
        if super::url::is_loopback(host) {
            return Ok(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]);
        }
        let (sender, receiver) = mpsc::channel();
        let name: Arc<str> = host.into();
        std::thread::spawn(move || {
            // The receiver may be gone: cancelled.
            drop(sender.send((&*name, port).to_socket_addrs().map(Iterator::collect)));
        });
        loop {
            match receiver.recv_timeout(TICK) {
                Ok(Ok(addresses)) => return Ok(addresses),
                Err(mpsc::RecvTimeoutError::Timeout) if !self.cancel.is_cancelled() => {}
                Err(mpsc::RecvTimeoutError::Timeout) => return Err(io::Error::from(Fault::Cancelled).into()),
                Ok(Err(_)) | Err(mpsc::RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::from(Fault::NoSuchHost).into());
                }
            }
        }
    }
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const BUFFER: usize = 128 << 10;
/// What ureq's list holds.
const MAX_ADDRESSES: usize = 16;
