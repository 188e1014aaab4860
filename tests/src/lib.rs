//! What the end-to-end tests share: a sandbox per test, an instance of dhow in it, registries, images, and a way to compare trees.
//!
//! A test is an ordinary `#[test]` whose body is a closure given to [`isolated`]. The harness runs it in a process of
//! its own, inside mount, network and process namespaces of its own, and fails it when anything is left over at its
//! end. So it runs alike under `cargo test` and under nextest, alone or beside others.
//!
//! The binaries under test come from `DHOW_BIN_DIR`, else from `debug` in the target directory (`cargo build`).
#![forbid(unsafe_code)]
#![allow(clippy::panic, reason = "helpers of tests report by panicking")]

pub mod bundle;
pub mod command;
pub mod fake_registry;
pub mod fixtures;
pub mod http;
pub mod image;
pub mod instance;
pub mod leaks;
pub mod registry;
pub mod sandbox;
pub mod tarball;
pub mod terminal;
pub mod tree;

pub use command::{Call, Ran, Running, tool};
pub use fixtures::{BUSYBOX, DEBIAN};
pub use instance::Instance;
pub use leaks::Census;
pub use registry::Registry;
pub use sandbox::{Cgroups, Sandbox, isolated, isolated_with};
pub use terminal::Terminal;

use std::time::{Duration, Instant};

/// How long anything that should come is waited for before its test fails. Far longer than it takes: what comes late on a
/// machine that others keep busy is not a fault, and who waits for what comes does not wait for the end of this.
pub const LIMIT: Duration = Duration::from_secs(300);

/// Waits until `ready` returns something, looking again every few milliseconds; panics after [`LIMIT`].
///
/// For states of other processes that announce nothing; where there is an event to wait for, wait for that.
#[track_caller]
pub fn eventually<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + LIMIT;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < end, "{what}: not within {LIMIT:?}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
