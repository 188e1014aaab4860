//! A container's writable snapshot, and what its mounts say about the layers' directories.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use dhow_api::Kind;
use dhow_api::snapshots::{Mount, MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, UsageRequest};

use crate::context::Context;
use crate::error::{Error, Result};

/// Makes the writable snapshot of a new container.
pub(crate) fn prepare(ctx: &Context, id: &str, chain: Option<&str>) -> Result<Vec<Mount>> {
    let request = PrepareSnapshotRequest {
        key: id.to_owned(),
        parent: chain.unwrap_or_default().to_owned(),
        ..Default::default()
    };
    Ok(ctx.snapshots().prepare(&request)?.mounts)
}

/// The mounts of an existing container's snapshot.
pub(crate) fn mounts(ctx: &Context, id: &str) -> Result<Vec<Mount>> {
    let request = MountsRequest { key: id.to_owned(), ..Default::default() };
    Ok(ctx.snapshots().mounts(&request)?.mounts)
}

/// Removes it; that there is none is fine.
pub(crate) fn remove(ctx: &Context, key: &str) -> Result<()> {
    let request = RemoveSnapshotRequest { key: key.to_owned(), ..Default::default() };
    match ctx.snapshots().remove(&request) {
        Err(error) if !error.is(Kind::NotFound) => Err(error.into()),
        _ => Ok(()),
    }
}

/// Bytes that a snapshot takes by itself.
pub(crate) fn usage(ctx: &Context, key: &str) -> Result<u64> {
    let request = UsageRequest { key: key.to_owned(), ..Default::default() };
    Ok(u64::try_from(ctx.snapshots().usage(&request)?.size).unwrap_or(0))
}

/// The whole tree of a container's snapshot as a read-only mount that nobody else sees, also while the container runs.
pub(crate) fn mount_read_only(ctx: &Context, id: &str) -> Result<OwnedFd> {
    let mut mounts = mounts(ctx, id)?;
    for mount in &mut mounts {
        frozen(mount);
    }
    let mounts: Vec<_> = mounts
        .into_iter()
        .map(|m| dhow_sys::rootfs::Mount { kind: m.type_, source: m.source, target: m.target, options: m.options })
        .collect();
    dhow_sys::rootfs::detached(&mounts).map_err(|source| Error::Mount { name: id.to_owned(), source })
}

/// Makes the upper directory of an overlay one more lower one: nothing is written, and a directory that another mount
/// writes to may be a lower one (not a second time an upper one).
fn frozen(mount: &mut Mount) {
    let upper = mount.options.iter().find_map(|option| option.strip_prefix("upperdir=")).map(str::to_owned);
    if let Some(upper) = upper {
        let upper = upper.replace('\\', "\\\\").replace(':', "\\:");
        mount.options.retain(|option| !["upperdir=", "workdir=", "volatile"].iter().any(|own| option.starts_with(own)));
        for option in &mut mount.options {
            if let Some(lower) = option.strip_prefix("lowerdir=") {
                *option = format!("lowerdir={upper}:{lower}");
            }
        }
    }
    mount.options.retain(|option| option != "rw");
    mount.options.push("ro".to_owned());
}

/// The directories of a snapshot's layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Layers {
    /// Where the container writes.
    pub upper: Option<PathBuf>,
    /// Below it, topmost first.
    pub lowers: Vec<PathBuf>,
}

impl Layers {
    /// From the mounts.
    pub(crate) fn of(mounts: &[Mount]) -> Self {
        let mut layers = Self { upper: None, lowers: Vec::new() };
        for mount in mounts {
            if matches!(mount.type_.as_str(), "bind" | "rbind") {
                layers.upper = Some(mount.source.clone().into());
            }
            for option in &mount.options {
                if let Some(path) = option.strip_prefix("upperdir=") {
                    layers.upper = Some(path.into());
                } else if let Some(list) = option.strip_prefix("lowerdir=") {
                    layers.lowers.extend(split_lowers(list));
                } else if let Some(path) = option.strip_prefix("lowerdir+=") {
                    layers.lowers.push(path.into());
                }
            }
        }
        layers
    }

    /// All, topmost first.
    pub(crate) fn all(&self) -> Vec<PathBuf> {
        self.upper.iter().chain(&self.lowers).cloned().collect()
    }
}

/// Splits overlayfs's list at colons that no backslash escapes.
fn split_lowers(list: &str) -> Vec<PathBuf> {
    let mut parts = vec![String::new()];
    let mut chars = list.chars();
    while let Some(c) = chars.next() {
        let last = parts.len() - 1;
        match c {
            '\\' => parts[last].extend(chars.next()),
            ':' => parts.push(String::new()),
            c => parts[last].push(c),
        }
    }
    parts.into_iter().filter(|part| !part.is_empty()).map(PathBuf::from).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let mount = |options: &[&str]| Mount {
            type_: "overlay".into(),
            options: options.iter().map(|o| (*o).to_owned()).collect(),
            ..Default::default()
        };
        let layers = Layers::of(&[mount(&["lowerdir=/b:/a\\:x", "upperdir=/u", "workdir=/w"])]);
        assert_eq!(layers.all(), ["/u", "/b", "/a:x"].map(PathBuf::from));
        let layers = Layers::of(&[mount(&["upperdir=/u", "lowerdir+=/b", "lowerdir+=/a"])]);
        assert_eq!(layers.all(), ["/u", "/b", "/a"].map(PathBuf::from));
        let mut read_only = mount(&["index=off", "workdir=/w", "upperdir=/u:1", "lowerdir=/b:/a"]);
        frozen(&mut read_only);
        assert_eq!(read_only.options, ["index=off", "lowerdir=/u\\:1:/b:/a", "ro"]);
    }
}
