//! Overlay snapshots: directories stacked by names, over ttrpc or as a library.
//!
//! A *snapshot* is active (writable), a view (read-only) or committed (immutable, may have children). Semantics, states and
//! error codes are those of containerd's snapshotters, so that containerd can drive this one.
//!
//! # On disk
//!
//! ```text
//! ROOT/snapshots/                 0700
//!     lock                        flock of the one process that may work here
//!     empty/                      an empty directory: the lower layer of a layer that has none
//!     <n>/snapshot.json           the record: name, parent, kind, labels, times
//!     <n>/fs, <n>/work            overlayfs's upper and work directory; a committed snapshot has only fs
//!     <n>/settle.json             what Commit must do with an unpacked layer (written by its unpacker)
//!     tmp/<n>                     a snapshot in the making
//!     trash/<anything>            removed, deletion follows
//! ```
//!
//! # Invariants
//!
//! * A snapshot exists iff `<n>/snapshot.json` does: the directory comes by one rename out of `tmp` and goes by one rename
//!   into `trash`; Commit and Update replace the record by one rename. Cut anywhere, the next start finds either state.
//! * A committed record is on disk only after everything the snapshot holds is: one flush of the file system before the
//!   rename, the record's own flush after. Active snapshots are not flushed.
//! * Nobody waits for a deletion, a flush or a directory walk of another: the index's lock is held for memory and single
//!   renames alone.
#![forbid(unsafe_code)]

mod disk;
mod error;
mod filter;
mod flush;
mod index;
mod mounts;
mod record;
mod service;
mod snapshotter;
mod trash;

pub use error::{Error, Result};
pub use filter::Filter;
pub use mounts::{Mount, VOLATILE_LABEL};
pub use record::{Kind, Labels, Usage};
pub use service::services;
pub use snapshotter::{Info, LabelChange, Snapshotter};
