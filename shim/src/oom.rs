//! Memory running out: of the container, which is told to containerd, and of the machine, which should not cost us the
//! shim: a few hundred KiB that a whole container hangs on.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use containerd_shim_protos::events::task::TaskOOM;
use dhow_runtime::cgroup::Cgroup;
use serde::Deserialize;

use crate::events::Event;
use crate::io::watched;
use crate::shim::Shim;

/// Our own score once a container is made.
const PROTECTED: &str = "-998";

/// The score that we came with, which is what a container gets that asks for none.
static INHERITED: std::sync::OnceLock<String> = std::sync::OnceLock::new();

/// Makes the kernel spare this process; without the right to, it stays as it is.
pub(crate) fn protect() {
    let path = Path::new("/proc/self/oom_score_adj");
    if INHERITED.get().is_none() {
        let score = std::fs::read_to_string(path).unwrap_or_default();
        INHERITED.get_or_init(|| score.trim().to_owned());
    }
    if let Err(error) = std::fs::write(path, PROTECTED) {
        log::debug!("protect the shim from the out-of-memory killer: {error}");
    }
}

/// Runs what makes processes with the score that they shall inherit, and protects us (when we do that) afterwards.
pub(crate) fn unprotected<T>(protected: bool, make: impl FnOnce() -> T) -> T {
    if protected && let Some(score) = INHERITED.get() {
        // Lowering a score is what needs a right; this raises it.
        let _raised = std::fs::write("/proc/self/oom_score_adj", score);
    }
    let made = make();
    if protected {
        protect();
    }
    made
}

/// Gives an exec the first process's score, unless it asks for one.
pub(crate) fn same_as(init: i32, process: &mut dhow_runtime::config::Process) {
    if process.oom_score_adj.is_none() {
        let score = std::fs::read_to_string(format!("/proc/{init}/oom_score_adj"));
        process.oom_score_adj = score.ok().and_then(|score| score.trim().parse().ok());
    }
}

/// Whether the kernel has killed a process of the container for want of memory.
pub(crate) fn killed(runtime_root: &Path, id: &str) -> bool {
    kills(runtime_root, id) > 0
}

fn kills(runtime_root: &Path, id: &str) -> u64 {
    cgroup(runtime_root, id).and_then(|cgroup| cgroup.oom_kills().ok()).unwrap_or(0)
}

/// The container's cgroup.
pub(crate) fn cgroup(runtime_root: &Path, id: &str) -> Option<Cgroup> {
    #[derive(Deserialize)]
    struct State {
        cgroup_paths: BTreeMap<String, PathBuf>,
    }
    let bytes = std::fs::read(runtime_root.join(id).join("state.json")).ok()?;
    let state: State = serde_json::from_slice(&bytes).ok()?;
    Cgroup::open(&state.cgroup_paths).ok()
}

/// Tells containerd whenever the container runs out of memory.
pub(crate) fn watch(shim: &Arc<Shim>) {
    if shim.own().is_some() {
        return;
    }
    let root = shim.lock().options.root.clone();
    // Without a memory controller or limit there is nothing to watch.
    let Some(Ok(watch)) = cgroup(&root, &shim.id).map(|cgroup| cgroup.watch_oom()) else { return };
    shim.lock().oom_told = Some(0);
    let shim = Arc::downgrade(shim);
    tokio::spawn(async move {
        let Ok(descriptor) = watch.as_fd().try_clone_to_owned() else { return };
        let Ok(descriptor) = watched(descriptor) else { return };
        loop {
            let Ok(mut ready) = descriptor.readable().await else { return };
            ready.clear_ready();
            let Some(shim) = shim.upgrade() else { return };
            // The same watch fires when the cgroup is removed.
            if watch.drain().is_err() || shim.lock().container.is_none() {
                return;
            }
            tell(&shim);
        }
    });
}

/// Tells containerd of what was killed since the last time. Also to be called before it hears of the container's end, which it
/// explains: v1 wakes the watch when memory is out, which may be before anything is killed.
pub(crate) fn tell(shim: &Shim) {
    let root = {
        let state = shim.lock();
        if state.oom_told.is_none() {
            return;
        }
        state.options.root.clone()
    };
    let kills = kills(&root, &shim.id);
    let news = {
        let told = &mut shim.lock().oom_told;
        let before = told.unwrap_or(0);
        *told = Some(kills.max(before));
        kills > before
    };
    if news {
        shim.publish(&Event::Oom(TaskOOM { container_id: shim.id.clone(), ..Default::default() }));
    }
}
