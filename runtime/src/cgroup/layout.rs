//! Which cgroup hierarchies this machine has, and where.
//!
//! Pure v2 is one statfs(2). On v1 the hierarchies are those of /proc/self/cgroup, looked for where every distribution
//! mounts them (/sys/fs/cgroup/CONTROLLERS), and in the mount table only when one is not there.

use std::path::{Path, PathBuf};

use dhow_sys::{Errno, process};
use nix::sys::statfs::{CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC, FsType, statfs};

use super::error::{CgroupError, Result};
use crate::mountinfo::{self, Mount};

/// Where cgroup file systems are mounted.
pub(super) const MOUNT: &str = "/sys/fs/cgroup";

/// Whether the host has cgroup v2 and nothing else.
pub fn is_unified() -> bool {
    is_type(Path::new(MOUNT), CGROUP2_SUPER_MAGIC)
}

/// The hierarchies that there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Layout {
    /// Only v2.
    Unified(Hierarchy),
    /// v1, with v2 beside it on most machines (then the last one, without controllers).
    Legacy(Vec<Hierarchy>),
}

/// One hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hierarchy {
    /// The controllers of a v1 hierarchy (or `name=…`); the empty name is v2's.
    pub(super) controllers: Vec<String>,
    /// Its root directory.
    pub(super) mount: PathBuf,
    /// The caller's own cgroup in it, as an absolute path below `mount`.
    pub(super) own: PathBuf,
}

impl Layout {
    /// Looks at this machine. On pure v2 the caller's own cgroup is looked up only when it is needed.
    pub(super) fn detect(own: bool) -> Result<Self> {
        let mount = Path::new(MOUNT);
        if is_unified() {
            let own = if own { own_unified()? } else { PathBuf::from("/") };
            return Ok(Self::Unified(Hierarchy { controllers: vec![String::new()], mount: mount.to_owned(), own }));
        }
        let mut mounts = None;
        let mut hierarchies = Vec::new();
        for line in proc_file("/proc/self/cgroup")?.lines() {
            let Some((controllers, own)) = parse_line(line) else { continue };
            let Some(mount) = find(&controllers, &mut mounts)? else { continue };
            hierarchies.push(Hierarchy { controllers, mount, own });
        }
        // The order of a create and of an attach: v2 last, as it is only there to be killed by.
        hierarchies.sort_by_key(|hierarchy| hierarchy.is_unified());
        if hierarchies.is_empty() { Err(CgroupError::NotMounted) } else { Ok(Self::Legacy(hierarchies)) }
    }

    /// All hierarchies.
    pub(super) fn hierarchies(&self) -> &[Hierarchy] {
        match self {
            Self::Unified(hierarchy) => std::slice::from_ref(hierarchy),
            Self::Legacy(hierarchies) => hierarchies,
        }
    }
}

impl Hierarchy {
    /// Whether it is v2.
    pub(super) fn is_unified(&self) -> bool {
        self.controllers.iter().all(String::is_empty)
    }
}

/// The caller's cgroup on v2.
fn own_unified() -> Result<PathBuf> {
    let text = proc_file("/proc/self/cgroup")?;
    Ok(text.lines().find_map(|line| line.strip_prefix("0::")).map_or_else(|| "/".into(), PathBuf::from))
}

/// `3:cpu,cpuacct:/user.slice` → the controllers and the path.
fn parse_line(line: &str) -> Option<(Vec<String>, PathBuf)> {
    let mut fields = line.splitn(3, ':');
    let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    Some((controllers.split(',').map(str::to_owned).collect(), PathBuf::from(path)))
}

fn find(controllers: &[String], mounts: &mut Option<Vec<Mount>>) -> Result<Option<PathBuf>> {
    let unified = controllers.iter().all(String::is_empty);
    let magic = if unified { CGROUP2_SUPER_MAGIC } else { CGROUP_SUPER_MAGIC };
    let joined = if unified { "unified".to_owned() } else { controllers.join(",") };
    let usual = Path::new(MOUNT).join(joined.strip_prefix("name=").unwrap_or(&joined));
    if is_type(&usual, magic) {
        return Ok(Some(usual));
    }
    let mounts = match mounts {
        Some(mounts) => mounts,
        None => mounts.insert(mountinfo::parse(proc_file("/proc/self/mountinfo")?.as_bytes())),
    };
    Ok(mounts.iter().find(|mount| has(mount, controllers, unified)).map(|mount| mount.path.clone()))
}

/// Whether a mount is this hierarchy's.
fn has(mount: &Mount, controllers: &[String], unified: bool) -> bool {
    match mount.kind.as_str() {
        "cgroup2" => unified,
        "cgroup" => !unified && controllers.iter().all(|controller| mount.options.contains(controller)),
        _ => false,
    }
}

fn is_type(path: &Path, magic: FsType) -> bool {
    match statfs(path) {
        Ok(stat) => stat.filesystem_type() == magic,
        Err(Errno::ENOENT) | Err(_) => false,
    }
}

fn proc_file(path: &'static str) -> Result<String> {
    process::read_proc(path).map_err(|source| CgroupError::Proc { path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_proc_self_cgroup() {
        let parse =
            |line| parse_line(line).map(|(controllers, path)| (controllers.join("+"), path.display().to_string()));
        for (line, expected) in [
            ("12:cpu,cpuacct:/a:b", Some(("cpu+cpuacct", "/a:b"))),
            ("1:name=systemd:/", Some(("name=systemd", "/"))),
            ("0::/user.slice", Some(("", "/user.slice"))),
            ("nonsense", None),
        ] {
            assert_eq!(parse(line), expected.map(|(c, p)| (c.to_owned(), p.to_owned())), "{line}");
        }
    }

    #[test]
    fn mounts_of_hierarchies() {
        let names = |list: &[&str]| list.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let table = "35 24 0:30 / /cg/cpu rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
                     36 24 0:31 / /cg/unified rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let mounts = mountinfo::parse(table.as_bytes());
        let [v1, v2] = mounts.as_slice() else { panic!("{mounts:?}") };
        assert!(has(v1, &names(&["cpu", "cpuacct"]), false) && !has(v1, &names(&["memory"]), false));
        assert!(has(v2, &names(&[""]), true) && !has(v2, &names(&["cpu"]), false));
    }

    #[test]
    fn this_machine_has_cgroups() {
        let layout = Layout::detect(true).unwrap();
        assert!(layout.hierarchies().iter().all(|hierarchy| hierarchy.mount.starts_with(MOUNT)), "{layout:?}");
    }
}
