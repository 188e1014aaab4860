//! What the parts of dhow say to each other, and how they find each other.
//!
//! * the messages: [`snapshots`], [`network`], [`shim`] and containerd's [`task`];
//! * for callers: [`clients`] (typed), [`rpc`] (any method), [`service`] (connect, or start what is not there);
//! * for services: [`server`], and [`error::status`] for what they answer;
//! * beside ttrpc: [`attach`] (a process's stdio), [`documents`] and [`events`] (shared files), [`paths`] (where things lie);
//! * [`defaults`]: what an engine tells a runtime unless its user says otherwise.
#![forbid(unsafe_code)]

pub mod attach;
pub mod clients;
pub mod defaults;
pub mod documents;
pub mod error;
pub mod events;
mod generated;
pub mod paths;
pub mod rpc;
pub mod server;
pub mod service;
pub mod socket;
mod timestamp;

pub use error::{Error, Kind};
pub use generated::{network, shim, snapshots};
pub use generated::{network_ttrpc, shim_ttrpc, snapshots_ttrpc};
pub use generated::{network_ttrpc_async, shim_ttrpc_async, snapshots_ttrpc_async};
pub use timestamp::{NotATime, Timestamp};

/// The messages of containerd's Task service.
pub mod task {
    pub use containerd_shim_protos::api::*;
}
