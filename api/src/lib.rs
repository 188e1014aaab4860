//! What the parts of dhow say to each other.
#![forbid(unsafe_code)]

mod generated;

pub use generated::{network, shim, snapshots};
pub use generated::{network_ttrpc, shim_ttrpc, snapshots_ttrpc};
pub use generated::{network_ttrpc_async, shim_ttrpc_async, snapshots_ttrpc_async};
