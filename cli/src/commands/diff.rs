//! `dhow diff`

use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::app::Run;
use crate::container::Record;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::rootfs::view::{Entry, Node, View};
use crate::snapshot::{self, Layers};

/// Show what a container changed in its files: A added, C changed, D deleted
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let container = ctx.containers().find(&self.container)?;
        let layers = Layers::of(&snapshot::mounts(ctx, container.id())?);
        let fail = |source| Error::InContainer { action: "read", path: "/".into(), source };
        let Some(upper) = layers.upper.clone() else { return Ok(0) };
        let below = View::open(&layers.lowers).map_err(fail)?;
        let now = View::open(&layers.all()).map_err(fail)?;
        let mut changes = Vec::new();
        compare(&upper, &below, &now, Path::new("/"), &mut changes).map_err(fail)?;
        changes.retain(|(kind, path)| !is_mount_point(&container.record, *kind, path));
        ctx.print(|out| {
            changes
                .iter()
                .try_for_each(|(kind, path)| writeln!(out, "{kind} {}", path.display()).map_err(Error::output))
        })?;
        Ok(0)
    }
}

/// Lists what differs at and below `path`: only what the upper directory names can.
fn compare(upper: &Path, below: &View, now: &View, path: &Path, changes: &mut Vec<(char, PathBuf)>) -> io::Result<()> {
    let layer = View::open(&[upper.to_owned()])?;
    let Node::Directory(directory) = layer.lookup(path, false)?.node else { return Ok(()) };
    // Whiteouts are no names of the union, but of the directory itself.
    let mut names = directory.names()?;
    if let Ok(Entry { node: Node::Directory(old), .. }) = below.lookup(path, false) {
        for name in old.names()? {
            if !names.contains(&name) && lookup(now, &path.join(&name))?.is_none() {
                names.push(name);
            }
        }
    }
    names.sort();
    for name in names {
        let full = path.join(&name);
        let (before, after) = (lookup(below, &full)?, lookup(now, &full)?);
        let kind = match (&before, &after) {
            (None, Some(_)) => 'A',
            (Some(_), None) => 'D',
            (Some(_), Some(_)) => 'C',
            (None, None) => continue,
        };
        changes.push((kind, full.clone()));
        if after.is_some_and(|entry| entry.is_dir()) && is_dir(&layer, &full) {
            compare(upper, below, now, &full, changes)?;
        }
    }
    Ok(())
}

fn lookup(view: &View, path: &Path) -> io::Result<Option<Entry>> {
    match view.lookup(path, false) {
        Ok(entry) => Ok(Some(entry)),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}

fn is_dir(view: &View, path: &Path) -> bool {
    view.lookup(path, false).is_ok_and(|entry| entry.is_dir())
}

/// What the runtime makes for a mount is no change of the container's.
fn is_mount_point(record: &Record, kind: char, path: &Path) -> bool {
    const OWN: [&str; 11] = [
        "/proc",
        "/sys",
        "/dev",
        "/dev/pts",
        "/dev/shm",
        "/dev/mqueue",
        "/dev/console",
        "/etc/hosts",
        "/etc/hostname",
        "/etc/resolv.conf",
        "/sys/fs/cgroup",
    ];
    let mounted = record.mounts.iter().any(|m| Path::new(&m.destination) == path);
    OWN.iter().any(|own| path == OsStr::new(own)) || (mounted && kind == 'A')
}

#[cfg(test)]
mod tests {
    use std::fs;

    use nix::sys::stat::{Mode, SFlag, mknod};

    use super::*;

    #[test]
    fn changes() {
        assert!(nix::unistd::geteuid().is_root(), "whiteouts need root");
        let dir = tempfile::tempdir().unwrap();
        let (upper, lower) = (dir.path().join("upper"), dir.path().join("lower"));
        fs::create_dir_all(upper.join("d/new")).unwrap();
        fs::create_dir_all(lower.join("d")).unwrap();
        fs::write(lower.join("d/changed"), "1").unwrap();
        fs::write(upper.join("d/changed"), "2").unwrap();
        fs::write(lower.join("gone"), "").unwrap();
        mknod(&upper.join("gone"), SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
        fs::write(lower.join("same"), "").unwrap();
        let (below, now) =
            (View::open(std::slice::from_ref(&lower)).unwrap(), View::open(&[upper.clone(), lower]).unwrap());
        let mut changes = Vec::new();
        compare(&upper, &below, &now, Path::new("/"), &mut changes).unwrap();
        let shown: Vec<_> = changes.iter().map(|(kind, path)| format!("{kind} {}", path.display())).collect();
        assert_eq!(shown, ["C /d", "C /d/changed", "A /d/new", "D /gone"]);
    }
}
