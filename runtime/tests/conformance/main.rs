//! What the runtime specification and runc's callers expect, held against our binary and against runc. Needs root,
//! busybox and runc.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "test code: clippy counts helpers as product code"
)]

mod attacks;
mod checkpoint;
mod command_line;
mod concurrency;
mod faults;
mod life;
mod messages;
mod mounts;
mod namespaces;
mod process;
mod rootless;
mod support;
