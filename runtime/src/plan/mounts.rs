//! `mounts`.

use std::path::{Component, Path, PathBuf};

use dhow_sys::clone::Namespaces;
use dhow_sys::mountopt::Options;

use super::{NamespacePlan, idmap_option};
use crate::config::{IdMapping, Spec};
use crate::{Error, Result};

/// A mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// In the container: absolute, without `..`.
    pub destination: PathBuf,
    /// What is mounted.
    pub kind: MountKind,
    /// On the host and absolute for a bind mount; else what the file system takes.
    pub source: String,
    /// A bind mount's source lies in the container's root, at this path there: it is looked for when the mounts before this
    /// one are made.
    pub within: Option<PathBuf>,
    /// Sorted.
    pub options: Options,
    /// For an id-mapped mount.
    pub idmap: Option<IdMap>,
    /// `mounts[i]`, for messages.
    pub field: String,
}

/// What is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MountKind {
    /// A part of the host's tree.
    Bind,
    /// The container's cgroup, whichever version the host has.
    Cgroup,
    /// A new tmpfs.
    Tmpfs,
    /// proc or sysfs: only on an ordinary directory.
    Pseudo(String),
    /// Any other file system type.
    Other(String),
    /// Nothing new: attributes of what is there already.
    Remount,
}

/// Mappings of an id-mapped mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdMap {
    /// Users; none: the container's.
    pub uid: Vec<IdMapping>,
    /// Groups; none: the container's.
    pub gid: Vec<IdMapping>,
    /// Also what is mounted below.
    pub recursive: bool,
}

pub(super) fn all(spec: &Spec, bundle: &Path, rootfs: &Path, namespaces: &NamespacePlan) -> Result<Vec<Mount>> {
    let label = spec.linux.as_ref().map_or("", |linux| &linux.mount_label);
    let one = |(i, mount)| {
        let mut mount = one(mount, format!("mounts[{i}]"), bundle, namespaces, label)?;
        if mount.kind == MountKind::Bind && rootfs != Path::new("/") {
            let within = Path::new(&mount.source).strip_prefix(rootfs).ok();
            mount.within = within.map(|path| normal(&path.to_string_lossy()));
        }
        if rootfs != Path::new("/")
            && let Ok(inside) = mount.destination.strip_prefix(rootfs)
        {
            // An old habit that runc allows: named as the host sees it.
            mount.destination = Path::new("/").join(inside);
        }
        Ok(mount)
    };
    spec.mounts.iter().enumerate().map(one).collect()
}

fn one(
    mount: &crate::config::Mount,
    field: String,
    bundle: &Path,
    namespaces: &NamespacePlan,
    label: &str,
) -> Result<Mount> {
    if mount.destination.is_empty() || mount.destination.contains('\0') {
        return Err(Error::config(format!("{field}.destination"), "is empty"));
    }
    let mut options = Options::parse(&mount.options);
    let kind = match mount.kind.as_str() {
        "bind" | "rbind" => MountKind::Bind,
        _ if options.bind.is_some() => MountKind::Bind,
        _ if options.remount => MountKind::Remount,
        "cgroup" | "cgroup2" => MountKind::Cgroup,
        "tmpfs" => MountKind::Tmpfs,
        "proc" | "sysfs" => MountKind::Pseudo(mount.kind.clone()),
        "" => return Err(Error::config(format!("{field}.type"), "is empty, and no option says bind")),
        other => MountKind::Other(other.to_owned()),
    };
    let source = match kind {
        MountKind::Bind if mount.source.is_empty() => {
            return Err(Error::config(format!("{field}.source"), "a bind mount needs one"));
        }
        // Engines give relative sources; they are the bundle's.
        MountKind::Bind => bundle.join(&mount.source).to_string_lossy().into_owned(),
        _ => mount.source.clone(),
    };
    let labelled = match &kind {
        MountKind::Tmpfs => true,
        // Its files have the labels of those who make them.
        MountKind::Other(name) => name != "mqueue",
        _ => false,
    };
    if labelled && !label.is_empty() && !options.data.iter().any(|(key, _)| key == "context") {
        options.data.push(("context".into(), Some(label.to_owned())));
    }
    let idmap = idmap(mount, &mut options, &field, namespaces, &kind)?;
    Ok(Mount { destination: normal(&mount.destination), kind, source, within: None, options, idmap, field })
}

fn idmap(
    mount: &crate::config::Mount,
    options: &mut Options,
    field: &str,
    namespaces: &NamespacePlan,
    kind: &MountKind,
) -> Result<Option<IdMap>> {
    let mut uid = super::mappings(format_args!("{field}.uidMappings"), &mount.uid_mappings)?;
    let mut gid = super::mappings(format_args!("{field}.gidMappings"), &mount.gid_mappings)?;
    let with_value =
        |(key, value): &(String, Option<String>)| matches!(key.as_str(), "idmap" | "ridmap") && value.is_some();
    if let (MountKind::Bind, Some(at)) = (kind, options.data.iter().position(with_value)) {
        let (key, value) = options.data.remove(at);
        options.idmap = Some(key == "ridmap");
        if uid.is_empty() && gid.is_empty() {
            let problem = |problem| Error::config(format!("{field}.options"), format!("{key}: {problem}"));
            let container = (&*namespaces.uid_mappings, &*namespaces.gid_mappings);
            let given = idmap_option::parse(&value.unwrap_or_default(), container).map_err(problem)?;
            let judged = |given| super::mappings(format_args!("{field}.options"), given);
            (uid, gid) = (judged(&given.0)?, judged(&given.1)?);
        }
    }
    if options.idmap.is_none() && uid.is_empty() && gid.is_empty() {
        return Ok(None);
    }
    if *kind != MountKind::Bind {
        return Err(Error::config(format!("{field}.uidMappings"), "only a bind mount can be id-mapped"));
    }
    if uid.is_empty() != gid.is_empty() {
        return Err(Error::config(format!("{field}.uidMappings"), "uid and gid mappings go together"));
    }
    if uid.is_empty() && !namespaces.has(Namespaces::USER) {
        return Err(Error::config(format!("{field}.options"), "idmap without mappings needs a user namespace"));
    }
    Ok(Some(IdMap { uid, gid, recursive: options.idmap.unwrap_or(false) }))
}

/// Absolute, without `.` and `..`. Symlinks are the image's business: they are followed inside the root when it is mounted.
fn normal(path: &str) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            _ => {}
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels() {
        let spec = r#"{"linux":{"mountLabel":"a:b:c,d"},"mounts":[
            {"destination":"/t","type":"tmpfs"},{"destination":"/p","type":"proc"},{"destination":"/q","type":"mqueue"},
            {"destination":"/u","type":"devpts","options":["context=x"]}]}"#;
        let spec = Spec::from_json(spec.as_bytes()).unwrap();
        let mounts = all(&spec, Path::new("/b"), Path::new("/b/r"), &NamespacePlan::default()).unwrap();
        let label = |text: &str| vec![("context".to_owned(), Some(text.to_owned()))];
        let data: Vec<_> = mounts.into_iter().map(|mount| mount.options.data).collect();
        assert_eq!(data, [label("a:b:c,d"), Vec::new(), Vec::new(), label("x")]);
    }

    #[test]
    fn sources_in_the_root_are_told_apart() {
        let spec = r#"{"mounts":[{"destination":"/a","type":"bind","source":"/b/r/x/../y"},
            {"destination":"/b","type":"bind","source":"r"},{"destination":"/c","type":"bind","source":"/b/rr"}]}"#;
        let spec = Spec::from_json(spec.as_bytes()).unwrap();
        let within = |rootfs: &str| -> Vec<Option<PathBuf>> {
            let mounts = all(&spec, Path::new("/b"), Path::new(rootfs), &NamespacePlan::default()).unwrap();
            mounts.into_iter().map(|mount| mount.within).collect()
        };
        assert_eq!(within("/b/r/"), [Some("/y".into()), Some("/".into()), None]);
        assert_eq!(within("/"), [None, None, None]);
        let spec = r#"{"mounts":[{"destination":"/b/r/x","type":"tmpfs"},{"destination":"/b/r","type":"tmpfs"}]}"#;
        let spec = Spec::from_json(spec.as_bytes()).unwrap();
        let mounts = all(&spec, Path::new("/b"), Path::new("/b/r"), &NamespacePlan::default()).unwrap();
        let destinations: Vec<PathBuf> = mounts.into_iter().map(|mount| mount.destination).collect();
        assert_eq!(destinations, [Path::new("/x"), Path::new("/")]);
    }

    #[test]
    fn destinations() {
        for (given, expected) in
            [("/proc", "/proc"), ("a/b/", "/a/b"), ("/../etc/./x/..", "/etc"), ("/", "/"), ("//proc/", "/proc")]
        {
            assert_eq!(normal(given), Path::new(expected));
        }
    }
}
