//! `linux.cgroupsPath`: where a container's cgroup lies.

use std::path::{Component, Path, PathBuf};

use super::error::{CgroupError, Result};
use super::layout::Hierarchy;

/// A cgroup's place in every hierarchy. `..` and `.` are gone, so that it can't lead out of the hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CgroupPath {
    /// From the root of the hierarchy.
    Absolute(PathBuf),
    /// From the caller's own cgroup.
    Relative(PathBuf),
}

impl CgroupPath {
    /// Reads `cgroupsPath`; a container without one has a cgroup with its name.
    pub(super) fn new(cgroups_path: &str, id: &str) -> Result<Self> {
        let problem = |problem| CgroupError::Path { path: cgroups_path.to_owned(), problem };
        if cgroups_path.contains(['\n', '\0']) {
            return Err(problem("has a line break or NUL in it"));
        }
        let raw = Path::new(if cgroups_path.is_empty() { id } else { cgroups_path });
        let clean = clean(raw);
        if clean.as_os_str().is_empty() {
            return Err(problem("is the root of the hierarchy"));
        }
        Ok(if raw.is_absolute() { Self::Absolute(clean) } else { Self::Relative(clean) })
    }

    /// Whether it begins at the caller's own cgroup.
    pub(super) fn is_relative(&self) -> bool {
        matches!(self, Self::Relative(_))
    }

    /// The directory in a hierarchy.
    pub(super) fn within(&self, hierarchy: &Hierarchy) -> PathBuf {
        match self {
            Self::Absolute(path) => hierarchy.mount.join(path),
            Self::Relative(path) => {
                // Of a v2 cgroup that has processes none can be made that has controllers: the place is beside the caller's.
                let own = if hierarchy.is_unified() {
                    hierarchy.own.parent().unwrap_or(&hierarchy.own)
                } else {
                    &hierarchy.own
                };
                hierarchy.mount.join(clean(own)).join(path)
            }
        }
    }
}

/// The path without its root, `.` and `..`; a `..` at the top stays at the top.
pub(super) fn clean(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for component in path.components() {
        match component {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => {
                clean.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stay_inside() {
        use CgroupPath::{Absolute, Relative};
        for (path, expected) in [
            ("", Relative("box".into())),
            ("/a/b", Absolute("a/b".into())),
            ("/a/../../b", Absolute("b".into())),
            ("../../a/./b", Relative("a/b".into())),
            ("a:b:c", Relative("a:b:c".into())),
        ] {
            assert_eq!(CgroupPath::new(path, "box").unwrap(), expected, "{path}");
        }
        for path in ["/", "/..", "..", "a\nb"] {
            assert!(CgroupPath::new(path, "box").is_err(), "{path:?}");
        }
    }

    #[test]
    fn relative_paths_begin_at_the_callers_cgroup() {
        let hierarchy = |controller: &str| Hierarchy {
            controllers: vec![controller.to_owned()],
            mount: "/m".into(),
            own: "/user/shell".into(),
        };
        let path = CgroupPath::new("x", "").unwrap();
        assert_eq!(path.within(&hierarchy("cpu")), Path::new("/m/user/shell/x"));
        assert_eq!(path.within(&hierarchy("")), Path::new("/m/user/x"));
        assert_eq!(CgroupPath::new("/x", "").unwrap().within(&hierarchy("")), Path::new("/m/x"));
    }
}
