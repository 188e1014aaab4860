//! Networks of containers: bridges, addresses, published ports, and the files that name them.
//!
//! The library is [`Netplug`], synchronous and stateless: the truth is on disk (`store`), the kernel is brought to it, and a
//! process may die at any instant. [`service`] answers ttrpc with it.
//!
//! No other program is run: links, addresses and routes go over rtnetlink, the firewall over nfnetlink as one transaction
//! per change. `docs/network.md` tells users how it meets the firewalls of others.
#![forbid(unsafe_code)]

mod attach;
mod attachment;
mod bridge;
mod check;
mod detach;
mod error;
mod files;
mod instance;
mod lease;
mod listener;
mod mac;
mod names;
mod netlink;
mod netns;
mod netplug;
mod network;
mod nft;
mod port;
mod prefix;
pub mod service;
mod store;
mod sysctl;

pub use attachment::{AttachRequest, Attachment, Interface, Mode};
pub use error::{Error, Result};
pub use files::{ExtraHost, FilesRequest};
pub use mac::Mac;
pub use names::{ContainerId, NetworkName};
pub use netplug::Netplug;
pub use network::{Driver, Network, NetworkRequest, Subnet};
pub use port::{Port, Transport};
pub use prefix::Prefix;
