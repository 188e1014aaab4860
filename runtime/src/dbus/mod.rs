//! A client of D-Bus, as small as asking systemd for a unit needs: one connection, one call at a time, and one signal.
//!
//! No thread and no process: whoever clones a container's process must have one thread only, which a general library's
//! connection does not leave. What comes in is bounded in size and in time, and what is not understood is an error.
//!
//! * `address`: where a bus is; `connection`: the conversation
//! * `value`: what is sent, with its signature; `wire`: both directions in bytes (little endian)

mod address;
mod connection;
mod error;
mod value;
mod wire;

pub(crate) use address::Address;
pub(crate) use connection::{Call, Connection};
pub use error::BusError;
pub(crate) use value::Value;
pub(crate) use wire::Message;

/// What this module returns.
pub(crate) type Result<T> = std::result::Result<T, BusError>;
