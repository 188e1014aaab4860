//! What can go wrong in a network, one variant per failed operation.

use std::io;
use std::net::IpAddr;
use std::path::PathBuf;

use dhow_api::Kind;
use dhow_api::error::chain;

use crate::port::Port;
use crate::prefix::Prefix;

/// A result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed operation with its operands.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A request says something that cannot be.
    #[error("invalid {what} {value:?}: {reason}")]
    Invalid {
        /// Which field of the request.
        what: &'static str,
        /// What it said.
        value: String,
        /// What is wrong with that.
        reason: String,
    },
    /// No network has this name or id.
    #[error("network {name} not found")]
    UnknownNetwork {
        /// The name as asked.
        name: String,
    },
    /// The name of a new network is taken.
    #[error("network {name} exists already")]
    NetworkExists {
        /// The name as asked.
        name: String,
    },
    /// bridge, host and none are always there.
    #[error("network {name} is predefined and cannot be removed")]
    Predefined {
        /// The name as asked.
        name: String,
    },
    /// Containers are attached to a network that was to be removed.
    #[error("network {name} has {containers} attached container(s)")]
    NetworkBusy {
        /// The network.
        name: String,
        /// How many.
        containers: usize,
    },
    /// A subnet overlaps another network or a route of the host.
    #[error("subnet {subnet} overlaps {with}")]
    SubnetOverlaps {
        /// The wanted subnet.
        subnet: Prefix,
        /// What it overlaps, in words.
        with: String,
    },
    /// Every subnet that networks are given by themselves is in use on this host.
    #[error("no free subnet is left: name one")]
    SubnetsExhausted,
    /// Every address of the network is leased.
    #[error("network {network}: no free address is left in {subnet}")]
    AddressesExhausted {
        /// The network.
        network: String,
        /// Its subnet.
        subnet: Prefix,
    },
    /// The wanted address is leased to another container.
    #[error("address {address} is taken by container {owner}")]
    AddressTaken {
        /// The wanted address.
        address: IpAddr,
        /// The container that has it.
        owner: String,
    },
    /// The wanted host port is in use.
    #[error("port {port} is already allocated: {owner}")]
    PortTaken {
        /// The wanted host side.
        port: Port,
        /// Who has it, in words.
        owner: String,
    },
    /// The host side of a published port cannot be bound at all.
    #[error("cannot publish port {port}")]
    PortUnusable {
        /// The wanted host side.
        port: Port,
        /// What bind(2) said.
        source: io::Error,
    },
    /// The container has a network already.
    #[error("container {container} is attached already")]
    AlreadyAttached {
        /// The container.
        container: String,
    },
    /// The container has no network.
    #[error("container {container} is not attached")]
    NotAttached {
        /// The container.
        container: String,
    },
    /// Something that Attach made is no longer there.
    #[error("container {container}: {what} is gone")]
    Gone {
        /// The container.
        container: String,
        /// What is missing.
        what: String,
    },
    /// An interface name is taken by a link that is not ours.
    #[error("interface {name} exists and is not a bridge of this instance")]
    ForeignLink {
        /// The interface.
        name: String,
    },
    /// A file operation failed.
    #[error("{operation} {}", path.display())]
    File {
        /// The system call or what it was for.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A record on disk cannot be read as one.
    #[error("parse {}", path.display())]
    Record {
        /// The record.
        path: PathBuf,
        /// Where it is wrong.
        source: serde_json::Error,
    },
    /// A record cannot be written as JSON.
    #[error("serialize {}", path.display())]
    Serialize {
        /// The record.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A netlink socket failed.
    #[error("netlink: {operation}")]
    Socket {
        /// open, send, receive.
        operation: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The kernel refused one request.
    #[error("{request}{}", kernel_says(message))]
    Refused {
        /// The request, in words.
        request: String,
        /// The kernel's own text, may be empty.
        message: String,
        /// The error code.
        source: io::Error,
    },
    /// The kernel's answer does not follow the protocol.
    #[error("netlink: malformed answer to {request}")]
    Malformed {
        /// The request, in words.
        request: String,
    },
    /// The firewall was changed by others each time that we tried to.
    #[error("the nftables ruleset kept changing while {0} was being changed")]
    Contended(String),
    /// A request is larger than netlink can carry.
    #[error("{request} is too large for one netlink attribute")]
    TooLarge {
        /// The request, in words.
        request: String,
    },
    /// A network namespace could not be made or entered.
    #[error("{operation} network namespace")]
    Namespace {
        /// The system call or what it was for.
        operation: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The random number generator failed.
    #[error("read random bytes")]
    Random(#[source] getrandom::Error),
    /// Teardown went on past these errors.
    #[error("{}", .0.iter().map(|error| chain(error)).collect::<Vec<_>>().join("; "))]
    Teardown(Vec<Self>),
}

impl Error {
    /// What a caller decides by; a gRPC code over ttrpc.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Invalid { .. } => Kind::InvalidArgument,
            Self::UnknownNetwork { .. } | Self::NotAttached { .. } => Kind::NotFound,
            Self::NetworkExists { .. }
            | Self::AddressTaken { .. }
            | Self::PortTaken { .. }
            | Self::AlreadyAttached { .. } => Kind::AlreadyExists,
            Self::Predefined { .. }
            | Self::NetworkBusy { .. }
            | Self::SubnetOverlaps { .. }
            | Self::PortUnusable { .. }
            | Self::ForeignLink { .. }
            | Self::Gone { .. } => Kind::FailedPrecondition,
            Self::SubnetsExhausted | Self::AddressesExhausted { .. } => Kind::ResourceExhausted,
            Self::File { source, .. }
            | Self::Socket { source, .. }
            | Self::Refused { source, .. }
            | Self::Namespace { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                Kind::PermissionDenied
            }
            _ => Kind::Internal,
        }
    }

    /// The kernel's error code of a refused request.
    pub(crate) fn code(&self) -> Option<i32> {
        match self {
            Self::Refused { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }

    /// One error of several; none is no error.
    pub(crate) fn several(mut errors: Vec<Self>) -> Result<()> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Teardown(errors)),
        }
    }
}

/// Makes a [`Error::File`] of an [`io::Error`].
pub(crate) fn file(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::File { operation, path, source }
}

/// Makes an [`Error::Invalid`].
pub(crate) fn invalid(what: &'static str, value: impl Into<String>, reason: impl Into<String>) -> Error {
    Error::Invalid { what, value: value.into(), reason: reason.into() }
}

fn kernel_says(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(" ({message})") }
}
