//! Published ports: how they are written, and whether the host has one free.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::str::FromStr;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, getsockname, setsockopt, socket, sockopt,
};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, invalid};

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

/// A port of the host that leads to a port of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Port {
    /// The protocol on both sides.
    pub transport: Transport,
    /// The host's address; none: every address.
    pub host: Option<IpAddr>,
    /// The host's port; 0 in a request: any free one.
    pub host_port: u16,
    /// The container's port.
    pub container_port: u16,
}

impl Transport {
    /// The protocol's number (IANA).
    pub fn number(self) -> u8 {
        match self {
            Self::Tcp => 6,
            Self::Udp => 17,
            Self::Sctp => 132,
        }
    }

    /// The protocol's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        }
    }
}

impl FromStr for Transport {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "tcp" | "" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            "sctp" => Ok(Self::Sctp),
            _ => Err(invalid("protocol", text, "want tcp, udp or sctp")),
        }
    }
}

impl Port {
    /// A port as a request has it. `host` may be empty or unspecified: every address.
    pub fn parse(transport: &str, host: &str, host_port: u32, container_port: u32) -> Result<Self> {
        let number = |port: u32| u16::try_from(port).map_err(|_error| invalid("port", port.to_string(), "above 65535"));
        let container_port = number(container_port)?;
        if container_port == 0 {
            return Err(invalid("container port", "0", "want 1 to 65535"));
        }
        let host = match host {
            "" => None,
            text => Some(text.parse::<IpAddr>().map_err(|_error| invalid("host address", text, "not an IP address"))?),
        };
        if let Some(address @ IpAddr::V6(_)) = host {
            return Err(invalid("host address", address.to_string(), "ports are published on IPv4 addresses so far"));
        }
        let host = host.filter(|address| !address.is_unspecified());
        Ok(Self { transport: transport.parse()?, host, host_port: number(host_port)?, container_port })
    }

    /// Whether the port is published on 127.0.0.1, alone or among others.
    pub(crate) fn covers_loopback(&self) -> bool {
        self.host.is_none_or(|address| address.is_loopback())
    }
}

/// The host's side, as docker writes it.
impl fmt::Display for Port {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.host.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        write!(formatter, "{}/{}", SocketAddr::new(host, self.host_port), self.transport.as_str())
    }
}

/// Asks the host whether nobody of its own listens on a port; picks one when the port is 0. Returns the port, or none when
/// it is in use.
///
/// The answer is a snapshot: nothing is left bound, as there is no process of ours that would outlive the call and hold
/// it. A program that binds the port later is not refused, and gets only what is not for the port (docker's proxy process
/// per port exists to refuse it).
pub(crate) fn probe(port: &Port) -> Result<Option<u16>> {
    let unusable = |errno: Errno| Error::PortUnusable { port: *port, source: io::Error::from(errno) };
    let (kind, protocol) = match port.transport {
        Transport::Tcp => (SockType::Stream, SockProtocol::Tcp),
        Transport::Udp => (SockType::Datagram, SockProtocol::Udp),
        Transport::Sctp => (SockType::Stream, SockProtocol::Sctp),
    };
    match socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, protocol) {
        Ok(descriptor) => try_bind(&descriptor, port),
        // A kernel without the protocol has no listeners either. Ports are picked from one range for all.
        Err(Errno::EPROTONOSUPPORT | Errno::ESOCKTNOSUPPORT) if port.transport == Transport::Sctp => {
            if port.host_port == 0 {
                probe(&Port { transport: Transport::Udp, ..*port })
            } else {
                Ok(Some(port.host_port))
            }
        }
        Err(errno) => Err(unusable(errno)),
    }
}

fn try_bind(descriptor: &OwnedFd, port: &Port) -> Result<Option<u16>> {
    let unusable = |errno: Errno| Error::PortUnusable { port: *port, source: io::Error::from(errno) };
    if port.transport == Transport::Tcp {
        // A connection in TIME_WAIT is no listener. For UDP the option would let two sockets share a port.
        setsockopt(descriptor, sockopt::ReuseAddr, &true).map_err(unusable)?;
    }
    let host = port.host.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
    let address = SockaddrStorage::from(SocketAddr::new(host, port.host_port));
    match bind(descriptor.as_raw_fd(), &address) {
        Ok(()) => {}
        Err(Errno::EADDRINUSE) => return Ok(None),
        Err(errno) => return Err(unusable(errno)),
    }
    let bound: SockaddrStorage = getsockname(descriptor.as_raw_fd()).map_err(unusable)?;
    Ok(Some(bound.as_sockaddr_in().map_or(port.host_port, nix::sys::socket::SockaddrIn::port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_as_docker_writes() {
        let port = Port::parse("udp", "127.0.0.1", 5353, 53).unwrap();
        assert_eq!(port.to_string(), "127.0.0.1:5353/udp");
        assert!(port.covers_loopback());
        assert_eq!(Port::parse("", "0.0.0.0", 80, 80).unwrap().host, None);
        assert!(!Port::parse("", "10.1.2.3", 80, 80).unwrap().covers_loopback());
        for (transport, host, host_port, container_port) in [
            ("icmp", "", 1, 1),
            ("tcp", "nowhere", 1, 1),
            ("tcp", "", 65536, 1),
            ("tcp", "", 1, 0),
            ("tcp", "::1", 1, 1),
        ] {
            assert!(Port::parse(transport, host, host_port, container_port).is_err(), "{transport} {host}");
        }
    }

    #[test]
    fn sees_listeners_of_the_host() {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let taken = tcp.local_addr().unwrap().port();
        for (host, free) in [(None, false), (Some("127.0.0.1"), false), (Some("127.0.0.2"), true)] {
            let host = host.map(|text| text.parse().unwrap());
            let port = Port { transport: Transport::Tcp, host, host_port: taken, container_port: 80 };
            assert_eq!(probe(&port).unwrap().is_some(), free, "{port}");
        }
        let udp = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let host_port = udp.local_addr().unwrap().port();
        let port = Port { transport: Transport::Udp, host: None, host_port, container_port: 53 };
        assert_eq!(probe(&port).unwrap(), None);
    }

    #[test]
    fn ignores_closed_connections() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let client = std::net::TcpStream::connect(address).unwrap();
        let (server, _) = listener.accept().unwrap();
        // The side that closes first stays in TIME_WAIT with the listener's port.
        drop(server);
        drop(client);
        drop(listener);
        let port = Port { transport: Transport::Tcp, host: None, host_port: address.port(), container_port: 80 };
        assert_eq!(probe(&port).unwrap(), Some(address.port()));
    }

    #[test]
    fn picks_a_port() {
        for transport in [Transport::Tcp, Transport::Udp, Transport::Sctp] {
            let port = Port { transport, host: None, host_port: 0, container_port: 80 };
            assert!(probe(&port).unwrap().unwrap() > 1023);
        }
        let nowhere = Port {
            transport: Transport::Tcp,
            host: Some("192.0.2.1".parse().unwrap()),
            host_port: 1,
            container_port: 1,
        };
        assert_eq!(probe(&nowhere).unwrap_err().kind(), dhow_api::Kind::FailedPrecondition);
    }
}
