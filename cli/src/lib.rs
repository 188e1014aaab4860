//! dhow: pull, run, commit and push.
//!
//! The command line composes the other parts and owns no mechanism: images come from the image crate, snapshots,
//! networks and containers from their services over ttrpc. One file per command is in `commands`; what several of them
//! share lies beside it:
//!
//! ```text
//! flags ─▶ plan ─▶ make (directory, name, snapshot ∥ network, volumes) ─▶ launch (spec, shim, Create, Start) ─▶ stdio
//!                   └ container: the record, names, the truth about the state      rootfs: the layers, read unmounted
//! ```
#![forbid(unsafe_code)]

mod app;
mod archive;
mod commands;
mod container;
mod context;
mod error;
mod events;
mod files;
mod flags;
mod images;
mod inspect;
mod launch;
mod leftovers;
mod logger;
mod make;
mod names;
mod output;
mod parse;
mod plan;
mod remove;
mod rootfs;
mod shims;
mod signals;
mod sink;
mod sizes;
mod snapshot;
mod spec;
mod stdio;
mod terminal;
mod volumes;

pub use app::run;
