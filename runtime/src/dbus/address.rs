//! Addresses of buses: `unix:path=/run/dbus/system_bus_socket,guid=…;unix:abstract=…`.

use std::fmt;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt};
use nix::sys::time::TimeVal;

use super::{BusError, Result};

/// A Unix socket on which a bus, or systemd itself, listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Address {
    place: Place,
    /// A peer and no bus: nobody has a name there.
    direct: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    Path(String),
    Abstract(String),
}

impl Address {
    /// A bus that listens at this path.
    pub(crate) fn bus(path: impl Into<String>) -> Self {
        Self { place: Place::Path(path.into()), direct: false }
    }

    /// A service that listens at this path itself.
    pub(crate) fn direct(path: impl Into<String>) -> Self {
        Self { place: Place::Path(path.into()), direct: true }
    }

    /// The addresses in a list as the environment has it. Kinds other than Unix sockets are left out.
    ///
    /// # Errors
    /// None is left.
    pub(crate) fn list(text: &str) -> Result<Vec<Self>> {
        let one = |address: &str| {
            let mut places = address.strip_prefix("unix:")?.split(',').filter_map(|pair| pair.split_once('='));
            places.find_map(|(key, value)| match key {
                "path" => Some(Place::Path(unescape(value)?)),
                "abstract" => Some(Place::Abstract(unescape(value)?)),
                _ => None,
            })
        };
        let list: Vec<_> = text.split(';').filter_map(one).map(|place| Self { place, direct: false }).collect();
        if list.is_empty() { Err(BusError::Address { address: text.to_owned() }) } else { Ok(list) }
    }

    /// Whether it is a peer and no bus.
    pub(crate) fn is_direct(&self) -> bool {
        self.direct
    }

    /// Connects. A listener that takes nobody makes it fail after `limit`.
    pub(crate) fn connect(&self, limit: Duration) -> std::io::Result<UnixStream> {
        let address = match &self.place {
            Place::Path(path) => UnixAddr::new(path.as_str()),
            Place::Abstract(name) => UnixAddr::new_abstract(name.as_bytes()),
        }?;
        let socket: OwnedFd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
        let seconds = i64::try_from(limit.as_secs().max(1)).unwrap_or(i64::MAX);
        setsockopt(&socket, sockopt::SendTimeout, &TimeVal::new(seconds, 0))?;
        connect(socket.as_raw_fd(), &address)?;
        Ok(socket.into())
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.place {
            Place::Path(path) => f.write_str(path),
            Place::Abstract(name) => write!(f, "@{name}"),
        }
    }
}

/// `%2f` is a slash.
fn unescape(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        bytes.push(u8::from_str_radix(part.get(..2)?, 16).ok()?);
        bytes.extend_from_slice(part.get(2..)?.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists() {
        let names = |text: &str| Address::list(text).unwrap().iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names("unix:path=/run/user/1000/bus"), ["/run/user/1000/bus"]);
        assert_eq!(names("tcp:host=a,port=1;unix:guid=7,abstract=/tmp/d%2dbus;unix:path=/b"), ["@/tmp/d-bus", "/b"]);
        for none in ["", "unix:", "unix:tmpdir=/tmp", "tcp:host=a", "unix:path=%2", "unix:path=%é"] {
            assert!(Address::list(none).is_err(), "{none:?}");
        }
    }
}
