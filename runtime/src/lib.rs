//! The OCI runtime: one container, by the runtime specification 1.3.
//!
//! config.json ([`config`]) becomes an immutable [`plan`], and the plan is executed by two short lists of steps: one for a
//! container's first process, one for exec. [`Runtime`] is the whole of it for callers: the shim as a library,
//! `dhow-runtime` (its binary) with runc's command line.
//!
//! Everything is synchronous. The process that calls [`Runtime::create`] or [`Runtime::exec`] must have one thread only:
//! it is cloned, and becomes the parent of the container's processes.
//!
//! On disk, below the runtime's root (mode 0700):
//!
//! ```text
//! ROOT/<id>/              locked (flock) by whoever creates, starts, updates or deletes the container
//! ROOT/<id>/state.json    what is known of the container, replaced by rename
//! ROOT/<id>/start.sock    exists until the container is started: its first process listens there
//! ROOT/<id>/criu-root/    during a restore: where criu finds the root, in a mount namespace of its own
//! ROOT/<id>/notify/         with systemd's NOTIFY_SOCKET only: mounted in the container, holds notify.sock
//! ```
#![forbid(unsafe_code)]

mod birth;
pub mod cgroup;
mod checkpoint;
mod child;
pub mod config;
mod control;
mod create;
mod dbus;
mod descriptors;
mod error;
mod exec;
pub mod features;
mod handshake;
mod hooks;
mod idmap;
mod inspect;
mod intel_rdt;
mod lsm;
mod mountinfo;
#[cfg(test)]
#[path = "../tests/mutation/mod.rs"]
mod mutation;
mod net_devices;
mod notify;
mod parent;
mod pid_file;
pub mod plan;
mod request;
mod runtime;
pub mod seccomp;
mod sources;
mod start;
mod state;

pub use cgroup::Buses;
pub use checkpoint::{CgroupMode, CheckpointRequest, CriuOptions, RestoreRequest};
pub use dbus::BusError;
pub use error::{Error, Kind, plain};
pub use intel_rdt::{BandwidthInfo, CacheInfo, Occupancy, Shares, Traffic};
pub use request::{ContainerState, CreateRequest, Created, ExecRequest, Held, Listing, RootfsSource, Started, Stdio};
pub use runtime::{CgroupDriver, Rootless, Runtime};
pub use state::Status;

/// The version of the runtime specification that is followed.
pub const SPEC_VERSION: &str = "1.3.0";

/// What operations return.
pub type Result<T> = std::result::Result<T, Error>;
