//! Published and exposed ports: `--publish [IP:][HOST]:CONTAINER[/PROTOCOL]` with ranges, and `--expose`.

use std::fmt;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::Invalid;

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Protocol {
    /// TCP, the default.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
}

impl Protocol {
    fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "tcp" => Some(Self::Tcp),
            "udp" => Some(Self::Udp),
            "sctp" => Some(Self::Sctp),
            _ => None,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Sctp => "sctp",
        })
    }
}

/// A port of the container, written `80/tcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ContainerPort {
    /// 1 to 65,535.
    pub port: u16,
    /// Its protocol.
    pub protocol: Protocol,
}

impl fmt::Display for ContainerPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.port, self.protocol)
    }
}

/// One published port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// The address on the host; none means all.
    pub host_ip: Option<IpAddr>,
    /// The port on the host; none: a free one is picked.
    pub host_port: Option<u16>,
    /// The last of several ports on the host of which a free one is picked.
    pub host_last: Option<u16>,
    /// The port in the container.
    pub container: ContainerPort,
}

const WHAT: &str = "--publish";

/// Parses one `--publish` value; a range gives one mapping per port.
pub(crate) fn parse(text: &str) -> Result<Vec<Mapping>, Invalid> {
    let refuse = |why: &str| Invalid::new(WHAT, text, why);
    let (ports, protocol) = match text.rsplit_once('/') {
        Some((ports, name)) => {
            (ports, Protocol::parse(name).ok_or_else(|| refuse("the protocol is none of tcp, udp, sctp"))?)
        }
        None => (text, Protocol::Tcp),
    };
    let (before, container) = ports.rsplit_once(':').unwrap_or(("", ports));
    let (ip, host) = split_host(before).ok_or_else(|| refuse("the address in brackets does not end"))?;
    let host_ip = match ip {
        "" => None,
        ip => Some(ip.parse::<IpAddr>().map_err(|_bad| refuse("the host address is not an IP address"))?),
    };
    let (first, last) = range(container).ok_or_else(|| refuse("the container port is not a port or range of ports"))?;
    if host.is_empty() {
        return Ok((first..=last)
            .map(|port| Mapping {
                host_ip,
                host_port: None,
                host_last: None,
                container: ContainerPort { port, protocol },
            })
            .collect());
    }
    let (host_first, host_last) =
        host_range(host).ok_or_else(|| refuse("the host port is not a port or range of ports"))?;
    if first == last && host_last > host_first && host_first > 0 {
        let container = ContainerPort { port: first, protocol };
        return Ok(vec![Mapping { host_ip, host_port: Some(host_first), host_last: Some(host_last), container }]);
    }
    if host_last - host_first != last - first {
        return Err(refuse("the ranges of host and container ports differ in length"));
    }
    Ok((first..=last)
        .enumerate()
        .map(|(i, port)| {
            let host_port = host_first + i as u16;
            Mapping {
                host_ip,
                host_port: (host_port != 0).then_some(host_port),
                host_last: None,
                container: ContainerPort { port, protocol },
            }
        })
        .collect())
}

/// Parses `--expose`: `80`, `53/udp`, `8000-8010/tcp`.
pub(crate) fn parse_exposed(text: &str) -> Result<Vec<ContainerPort>, Invalid> {
    let refuse = || Invalid::new("--expose", text, "PORT[-PORT][/PROTOCOL] is expected");
    let (ports, protocol) = match text.split_once('/') {
        Some((ports, name)) => (ports, Protocol::parse(name).ok_or_else(refuse)?),
        None => (text, Protocol::Tcp),
    };
    let (first, last) = range(ports).ok_or_else(refuse)?;
    Ok((first..=last).map(|port| ContainerPort { port, protocol }).collect())
}

/// Splits `IP:HOST`, `[IPV6]:HOST`, `HOST` or nothing.
fn split_host(text: &str) -> Option<(&str, &str)> {
    if let Some(rest) = text.strip_prefix('[') {
        let (ip, host) = rest.split_once(']')?;
        return Some((ip, host.strip_prefix(':').unwrap_or(host)));
    }
    match text.rsplit_once(':') {
        Some(split) => Some(split),
        None if text.contains('.') => Some((text, "")),
        None => Some(("", text)),
    }
}

/// A port or `FIRST-LAST`; zero is refused.
fn range(text: &str) -> Option<(u16, u16)> {
    host_range(text).filter(|(first, _)| *first != 0)
}

/// As [`range`], where zero (any free port) may stand alone.
fn host_range(text: &str) -> Option<(u16, u16)> {
    let port = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u16>().ok()).flatten();
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (port(first)?, port(last)?),
        None => (port(text)?, port(text)?),
    };
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> String {
        let list = parse(text).unwrap();
        list.iter()
            .map(|m| {
                let ip = m.host_ip.map_or("*".to_owned(), |ip| ip.to_string());
                let port = m.host_port.map_or("?".to_owned(), |port| port.to_string());
                let last = m.host_last.map_or(String::new(), |port| format!("-{port}"));
                format!("{ip} {port}{last} {}", m.container)
            })
            .collect::<Vec<_>>()
            .join(", ")
    }

    #[test]
    fn mappings() {
        for (text, want) in [
            ("80", "* ? 80/tcp"),
            ("8080:80", "* 8080 80/tcp"),
            ("8080:80/udp", "* 8080 80/udp"),
            ("0:80", "* ? 80/tcp"),
            (":80", "* ? 80/tcp"),
            ("127.0.0.1:8080:80", "127.0.0.1 8080 80/tcp"),
            ("127.0.0.1::80", "127.0.0.1 ? 80/tcp"),
            ("127.0.0.1:80", "127.0.0.1 ? 80/tcp"),
            ("[::1]:8080:80", "::1 8080 80/tcp"),
            ("::1:8080:80", "::1 8080 80/tcp"),
            ("8000-8001:80-81", "* 8000 80/tcp, * 8001 81/tcp"),
            ("80-81", "* ? 80/tcp, * ? 81/tcp"),
            ("8000-8010:80/udp", "* 8000-8010 80/udp"),
        ] {
            assert_eq!(shown(text), want, "{text}");
        }
        for bad in [
            "",
            "a",
            "0",
            "80:",
            "80:0",
            "1:2:3:4x",
            "65536",
            "8000-8002:80-81",
            "0-10:80",
            "80/icmp",
            "x:80:80",
            "81-80",
            "+1:80",
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn exposed() {
        let list: Vec<_> = parse_exposed("53-54/udp").unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(list, ["53/udp", "54/udp"]);
        assert!(parse_exposed("0").is_err());
        assert!(parse_exposed("x/tcp").is_err());
    }
}
