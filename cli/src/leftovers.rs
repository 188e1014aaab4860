//! What is left when nothing uses it any more: downloads of killed commands, layers half unpacked, layers of an image that never
//! got its name, empty cgroups.
//!
//! Whoever adds images holds the store's lock, also against us: what no image has while we hold it belongs to nobody who
//! lives.

use std::path::Path;

use dhow_api::snapshots::{CleanupRequest, Info, ListSnapshotsRequest};
use dhow_image::{Digest, Quiet};

use crate::context::Context;
use crate::error::Result;
use crate::spec::CGROUP_PARENT;
use crate::{sink, snapshot};

/// Removes everything of neither an image nor a container, and waits until its space is free. Waits for running pulls.
/// Returns the bytes of snapshots.
pub(crate) fn prune(ctx: &Context) -> Result<u64> {
    let bytes = {
        let quiet = ctx.store()?.quiet()?;
        quiet.gc()?;
        let live = quiet.live_chains()?;
        remove_snapshots(ctx, |name| Digest::parse(name).is_ok_and(|chain| live.contains(&chain)))?
    };
    await_deletion(ctx)?;
    Ok(bytes)
}

/// Removes what killed pulls have half unpacked. Does nothing while somebody pulls.
pub(crate) fn sweep(ctx: &Context) -> Result<()> {
    match ctx.store()?.try_quiet()? {
        Some(quiet) => sweep_in(ctx, &quiet),
        None => Ok(()),
    }
}

/// The same, for who is alone already.
pub(crate) fn sweep_in(ctx: &Context, _quiet: &Quiet<'_>) -> Result<()> {
    remove_snapshots(ctx, |name| !name.starts_with(sink::EXTRACT)).map(drop)
}

/// Removes the cgroups that containers' cgroups are made in, where none is left. A container that is being made meanwhile makes
/// them anew.
pub(crate) fn cgroup_parents() {
    let root = Path::new("/sys/fs/cgroup");
    let hierarchies = root.read_dir().into_iter().flatten().flatten().map(|entry| entry.path());
    for hierarchy in hierarchies.chain([root.to_owned()]) {
        // The kernel refuses while there are containers, of this root or another; mostly there is nothing.
        std::fs::remove_dir(hierarchy.join(CGROUP_PARENT)).ok();
    }
}

/// Waits until all that was removed is gone from the disk.
pub(crate) fn await_deletion(ctx: &Context) -> Result<()> {
    ctx.snapshots().cleanup(&CleanupRequest::default())?;
    Ok(())
}

/// Removes the snapshots of no container that are not to be kept, children first. Returns their bytes.
fn remove_snapshots(ctx: &Context, keep: impl Fn(&str) -> bool) -> Result<u64> {
    let mut bytes = 0;
    loop {
        let list = ctx.snapshots().list(&ListSnapshotsRequest::default())?.info;
        // After the list: a container has its directory before its snapshot.
        let containers = ctx.containers().ids()?;
        let parents: Vec<&str> = list.iter().map(|info| info.parent.as_str()).collect();
        let idle = |info: &&Info| {
            !keep(&info.name) && !containers.contains(&info.name) && !parents.contains(&info.name.as_str())
        };
        let mut progress = false;
        for leaf in list.iter().filter(idle) {
            let held = snapshot::usage(ctx, &leaf.name).unwrap_or(0);
            match snapshot::remove(ctx, &leaf.name) {
                Ok(()) => {
                    bytes += held;
                    progress = true;
                }
                Err(error) => log::debug!("the snapshot {} stays: {}", leaf.name, dhow_api::error::chain(&error)),
            }
        }
        // Each round frees parents, and what a killed command had still asked the snapshotter for.
        if !progress {
            return Ok(bytes);
        }
    }
}
