//! One process per container that is its parent: `containerd-shim-dhow-v2`.
//!
//! It owns the container's stdio and log, tells how it ended, restarts it when asked, and cleans up. It serves
//! containerd's Task service (v2 and v3) and dhow's own Shim service on one socket, on one thread.
//!
//! * [`serve`] is the shim itself; [`bootstrap`] is how containerd starts one and cleans up after one;
//! * [`init`] is process 1 of a container with `--init`, another program in the same file;
//! * inside: `shim` (the state), `create`, `start`, `exec` and `lifecycle` (its transitions, to the end), `adopt` (taking
//!   over), `checkpoint` (saving and bringing back), `io` (stdio and log), `attach` (clients' second connection), `task`
//!   and `control` (the services), `events` (to containerd).
#![forbid(unsafe_code)]

mod adopt;
pub mod args;
mod attach;
pub mod bootstrap;
mod checkpoint;
mod control;
mod create;
mod error;
mod event_log;
mod events;
mod exec;
pub mod init;
mod io;
mod keeper;
mod lifecycle;
mod oom;
mod options;
mod process;
mod reap;
mod run_state;
pub mod serve;
mod shim;
mod start;
mod stats;
mod task;

pub use error::{Error, Result};
