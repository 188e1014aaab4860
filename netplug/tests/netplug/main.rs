//! The whole of netplug against the real kernel, each test on a host of its own (network and mount namespaces). Needs root,
//! and `ip`, `nft` and `strace` as instruments.
#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "a test fails by it")]

mod faults;
mod firewall;
mod host;
mod networks;
mod ports;
mod service;
