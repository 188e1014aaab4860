//! A conversation: who we are, then calls and their answers, and the signals that come in between.
//!
//! ```text
//! us                                              bus
//! NUL AUTH EXTERNAL, DATA, BEGIN ───────────────▶          all at once: nothing in it depends on an answer
//!                                ◀─────────────── DATA, OK GUID
//! Hello, AddMatch, call          ───────────────▶
//!                                ◀─────────────── signal…, answer
//! ```

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::wire::{self, Message, field};
use super::{Address, BusError, Result, Value};

/// A method to be called.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) destination: &'static str,
    pub(crate) path: &'static str,
    pub(crate) interface: &'static str,
    pub(crate) method: &'static str,
}

const fn bus(method: &'static str) -> Call {
    const NAME: &str = "org.freedesktop.DBus";
    Call { destination: NAME, path: "/org/freedesktop/DBus", interface: NAME, method }
}

/// A connection to a bus, or to a service itself.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: UnixStream,
    serial: u32,
    /// How long an answer may take.
    patience: Duration,
    direct: bool,
    /// What has come while an answer was waited for.
    signals: VecDeque<Message>,
}

/// All at once: nothing in it depends on an answer.
const GREETING: &[u8] = b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n";
/// More signals than could be meant for us while one answer is waited for.
const MOST_SIGNALS: usize = 4096;

impl Connection {
    /// Connects to the first of the addresses at which somebody answers; every answer may take as long as `patience`.
    ///
    /// # Errors
    /// Nobody answers; the bus does not let us in.
    pub(crate) fn open(addresses: &[Address], patience: Duration) -> Result<Self> {
        let mut failed = BusError::Address { address: String::new() };
        for address in addresses {
            match address.connect(patience) {
                Ok(stream) => {
                    let direct = address.is_direct();
                    let mut connection = Self { stream, serial: 0, patience, direct, signals: VecDeque::new() };
                    connection.authenticate()?;
                    if !direct {
                        connection.call(bus("Hello"), &[])?;
                    }
                    return Ok(connection);
                }
                Err(source) => failed = BusError::Connect { address: address.to_string(), source },
            }
        }
        Err(failed)
    }

    /// From now on signals that match this rule are kept for [`Self::signal`].
    pub(crate) fn listen(&mut self, rule: &str) -> Result<()> {
        // Whoever is connected directly hears everything.
        if self.direct { Ok(()) } else { self.call(bus("AddMatch"), &[rule.into()]).map(drop) }
    }

    /// Calls a method and waits for its answer.
    ///
    /// # Errors
    /// [`BusError::Answer`] when it is one of failure; [`BusError::Timeout`].
    pub(crate) fn call(&mut self, call: Call, arguments: &[Value]) -> Result<Message> {
        self.serial += 1;
        let mut fields = vec![
            (field::PATH, Value::ObjectPath(call.path.into())),
            (field::INTERFACE, call.interface.into()),
            (field::MEMBER, call.method.into()),
        ];
        if !self.direct {
            fields.push((field::DESTINATION, call.destination.into()));
        }
        let bytes = wire::encode(wire::CALL, self.serial, &fields, arguments);
        let deadline = Instant::now() + self.patience;
        self.send(&bytes, call.method)?;
        loop {
            let message = self.receive(deadline, call.method)?;
            match message.kind {
                wire::RETURN if message.answers == Some(self.serial) => return Ok(message),
                wire::ERROR if message.answers == Some(self.serial) => {
                    let text = message.explanation();
                    return Err(BusError::Answer { call: call.method, name: message.error, text });
                }
                wire::SIGNAL if self.signals.len() < MOST_SIGNALS => self.signals.push_back(message),
                wire::SIGNAL => return Err(BusError::Malformed { problem: "too many signals and no answer" }),
                _ => {}
            }
        }
    }

    /// The next signal of this name from `sender`, for which `waiting_for` is the reason.
    ///
    /// # Errors
    /// [`BusError::Timeout`].
    pub(crate) fn signal(
        &mut self,
        (interface, member): (&str, &str),
        sender: &str,
        deadline: Instant,
        waiting_for: &'static str,
    ) -> Result<Message> {
        loop {
            let message = match self.signals.pop_front() {
                Some(message) => message,
                None => self.receive(deadline, waiting_for)?,
            };
            // Anybody on the bus can send us a signal of any name.
            let ours = message.interface == interface && message.member == member && message.sender == sender;
            if message.kind == wire::SIGNAL && ours {
                return Ok(message);
            }
        }
    }

    /// The bus learns from the socket who we are; an id of our own would be wrong in a user namespace.
    fn authenticate(&mut self) -> Result<()> {
        const LONGEST: usize = 1024;
        self.send(GREETING, "AUTH")?;
        let deadline = Instant::now() + self.patience;
        let mut said = Vec::new();
        // It says nothing after its OK until it is asked.
        loop {
            let text = String::from_utf8_lossy(&said);
            let mut lines = text.split_inclusive("\r\n").filter(|line| line.ends_with("\r\n"));
            if let Some(answer) = lines.find(|line| line.trim_end() != "DATA") {
                let refused = || BusError::Refused { said: answer.trim_end().to_owned() };
                return if answer.starts_with("OK ") { Ok(()) } else { Err(refused()) };
            }
            let mut buffer = [0; LONGEST];
            let read = self.read(&mut buffer, deadline, "AUTH")?;
            said.extend_from_slice(&buffer[..read]);
            if said.len() > LONGEST {
                return Err(BusError::Malformed { problem: "an endless greeting" });
            }
        }
    }

    fn receive(&mut self, deadline: Instant, waiting_for: &'static str) -> Result<Message> {
        let mut bytes = vec![0; wire::FIXED];
        self.fill(&mut bytes, deadline, waiting_for)?;
        let fixed = bytes.first_chunk().expect("it was made that long");
        let length = wire::length(fixed)?;
        bytes.resize(length, 0);
        self.fill(&mut bytes[wire::FIXED..], deadline, waiting_for)?;
        wire::decode(&bytes)
    }

    fn fill(&mut self, mut buffer: &mut [u8], deadline: Instant, waiting_for: &'static str) -> Result<()> {
        while !buffer.is_empty() {
            let read = self.read(buffer, deadline, waiting_for)?;
            buffer = &mut buffer[read..];
        }
        Ok(())
    }

    fn read(&mut self, buffer: &mut [u8], deadline: Instant, waiting_for: &'static str) -> Result<usize> {
        let broken = |source| BusError::Broken { doing: "read from the bus", source };
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(BusError::Timeout { call: waiting_for, waited: self.patience });
            }
            self.stream.set_read_timeout(Some(left)).map_err(broken)?;
            match self.stream.read(buffer) {
                Ok(0) => return Err(broken(ErrorKind::UnexpectedEof.into())),
                Ok(read) => return Ok(read),
                Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
                Err(source) => return Err(broken(source)),
            }
        }
    }

    fn send(&mut self, bytes: &[u8], call: &'static str) -> Result<()> {
        // The socket's own limit for sending is that of its connecting.
        self.stream.write_all(bytes).map_err(|source| match source.kind() {
            ErrorKind::WouldBlock => BusError::Timeout { call, waited: self.patience },
            _ => BusError::Broken { doing: "write to the bus", source },
        })
    }
}

#[cfg(test)]
mod tests;
