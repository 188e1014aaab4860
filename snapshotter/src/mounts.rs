//! How a snapshot is mounted. Nothing is mounted here: whoever runs the container does that, detached.

use std::path::Path;
use std::sync::Arc;

use dhow_layer::OverlayXattrs;

use crate::disk::Disk;
use crate::index::Snapshot;
use crate::record::Kind;

/// The label that asks for a writable layer that need not survive a power loss (overlayfs's `volatile`): any value but
/// `false`.
pub const VOLATILE_LABEL: &str = "dhow.snapshot/volatile";

/// Keys under which unpackers prepare (containerd's and ours).
const EXTRACT_PREFIX: &str = "extract-";

/// One mount, as containerd's API has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// `overlay` or `bind`.
    pub kind: &'static str,
    /// The directory of a bind mount.
    pub source: String,
    /// As mount(8) writes them, one each. In `lowerdir` a colon or backslash of a path stands behind a backslash.
    pub options: Vec<String>,
}

/// The mount of an active snapshot or view over its chain of parents (nearest first).
pub(crate) fn mounts(disk: &Disk, snapshot: &Snapshot, chain: &[Arc<Snapshot>]) -> Vec<Mount> {
    let active = snapshot.record.kind == Kind::Active;
    // Unpackers translate whiteouts only when they see an overlay's upper directory.
    let unpacking = active && snapshot.record.name.starts_with(EXTRACT_PREFIX);
    vec![match chain {
        [] if !unpacking => bind(&disk.fs(snapshot.id), active),
        [only] if !active => bind(&disk.fs(only.id), false),
        _ => overlay(disk, snapshot, chain, active),
    }]
}

fn bind(dir: &Path, writable: bool) -> Mount {
    let access = if writable { "rw" } else { "ro" };
    Mount { kind: "bind", source: text(dir), options: vec![access.to_owned(), "rbind".to_owned()] }
}

fn overlay(disk: &Disk, snapshot: &Snapshot, chain: &[Arc<Snapshot>], active: bool) -> Mount {
    // Without an index a lower layer may be in several mounts, and may be changed by nobody; the other two are features
    // that a kernel may turn on by itself and that would make an upper directory refer to files that no layer carries.
    let mut options = vec!["index=off".to_owned()];
    match disk.xattrs() {
        OverlayXattrs::Trusted => options.extend(["redirect_dir=off".to_owned(), "metacopy=off".to_owned()]),
        OverlayXattrs::User => options.push("userxattr".to_owned()),
    }
    if active {
        options.push(format!("workdir={}", text(&disk.work(snapshot.id))));
        options.push(format!("upperdir={}", text(&disk.fs(snapshot.id))));
    }
    let mut lower = Vec::new();
    for layer in chain {
        lower.push(escape(&text(&disk.fs(layer.id))));
        if layer.record.opaque {
            break;
        }
    }
    // A view needs two lower layers, or one and nothing to hide it behind.
    if lower.is_empty() || (!active && lower.len() == 1) {
        lower.push(escape(&text(&disk.empty())));
    }
    options.push(format!("lowerdir={}", lower.join(":")));
    if active && snapshot.record.labels.get(VOLATILE_LABEL).is_some_and(|value| value != "false") {
        options.push("volatile".to_owned());
    }
    Mount { kind: "overlay", source: "overlay".to_owned(), options }
}

/// Roots are checked to be UTF-8 when they are opened.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn escape(path: &str) -> String {
    path.replace('\\', "\\\\").replace(':', "\\:")
}
