//! The services of a container's shim. Where none runs one is started: for a container that is about to start, and for
//! one whose shim was killed, which the new one adopts.

use dhow_api::clients::{Shim, Task};

use crate::context::Context;

/// The services of one container's shim.
#[derive(Debug)]
pub(crate) struct Services {
    /// containerd's.
    pub task: Task,
    /// Our own.
    pub shim: Shim,
}

impl Services {
    /// Nothing is connected or started before the first call.
    pub(crate) fn of(ctx: &Context, id: &str) -> Self {
        let (root, runroot) = (ctx.root.path(), ctx.runroot.path());
        Self { task: Task::or_start(root, runroot, id), shim: Shim::or_start(root, runroot, id) }
    }
}
