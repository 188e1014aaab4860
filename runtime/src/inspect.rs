//! What containers there are, and how they are.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::cgroup::{Cgroup, FreezerState};
use crate::state::{Lock, State};
use crate::{ContainerState, Error, Listing, Result, Status};

/// Asks the kernel how a container is.
pub(crate) fn status(root: &Path, state: &State) -> Status {
    if state.init_process_pid == 0 {
        // Whoever makes it holds its lock. One that was killed leaves no process behind.
        return if Lock::is_held(root, &state.id) { Status::Creating } else { Status::Stopped };
    }
    let Some(first) = state.living() else { return Status::Stopped };
    // What was restored goes on without having executed anything.
    if !first.has_executed && !state.restored {
        // It can be frozen, too, but what matters is that its program does not run yet. start.sock is no sign of that: it
        // stays when the one who starts it is killed.
        return Status::Created;
    }
    let frozen = Cgroup::open(&state.cgroup_paths).and_then(|c| c.freezer_state());
    if matches!(frozen, Ok(FreezerState::Frozen)) { Status::Paused } else { Status::Running }
}

/// See [`crate::Runtime::state`].
pub(crate) fn state(root: &Path, id: &str) -> Result<ContainerState> {
    let state = State::load(root, id)?;
    describe(root, &state)
}

/// See [`crate::Runtime::list`].
pub(crate) fn list(root: &Path) -> Result<Listing> {
    let mut listing = Listing::default();
    let entries = match std::fs::read_dir(root) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(listing),
        other => other.map_err(Error::file("read", root))?,
    };
    for entry in entries {
        let entry = entry.map_err(Error::file("read", root))?;
        if !entry.file_type().is_ok_and(|t| t.is_dir()) {
            continue;
        }
        let id = entry.file_name().to_string_lossy().into_owned();
        match state(root, &id) {
            Ok(state) => listing.containers.push(state),
            // Deleted while we were reading.
            Err(Error::NotFound { .. }) => {}
            Err(e) => listing.broken.push((id, e)),
        }
    }
    listing.containers.sort_by(|a, b| a.id.cmp(&b.id));
    listing.broken.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(listing)
}

/// The field of config.json that the state repeats.
#[derive(Deserialize)]
struct Brief {
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

fn describe(root: &Path, state: &State) -> Result<ContainerState> {
    let bad = |e: serde_json::Error| Error::BadState { id: state.id.clone(), problem: e.to_string() };
    let brief: Brief = serde_json::from_str(state.config.get()).map_err(bad)?;
    let status = status(root, state);
    let gone = matches!(status, Status::Stopped | Status::Creating);
    Ok(ContainerState {
        oci_version: crate::SPEC_VERSION.into(),
        id: state.id.clone(),
        pid: if gone { 0 } else { state.init_process_pid },
        status,
        bundle: state.bundle.to_string_lossy().into_owned(),
        rootfs: state.rootfs.to_string_lossy().into_owned(),
        created: state.created.clone(),
        annotations: brief.annotations.unwrap_or_default(),
        owner: user_name(state.owner),
    })
}

/// As the host's /etc/passwd has it; a number where it has none.
fn user_name(uid: u32) -> String {
    if uid == 0 {
        return "root".into();
    }
    let number = uid.to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let name =
        users.lines().map(|line| line.split(':').collect::<Vec<_>>()).find(|user| user.get(2) == Some(&&*number));
    name.map_or_else(|| format!("#{uid}"), |user| user[0].to_owned())
}
