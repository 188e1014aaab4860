//! Volumes: `ROOT/volumes/<name>/_data`, with `volume.json` beside it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use dhow_api::paths::Bundle;
use serde::{Deserialize, Serialize};

use crate::container::Containers;
use crate::container::record::{MountPoint, Record};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::parse::{Invalid, mount};
use crate::rootfs::copy::{self, Keep};
use crate::rootfs::view::{Node, View};
use crate::{events, files, names};

/// docker's description of a volume.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Volume {
    /// RFC 3339.
    pub created_at: String,
    /// Always `local`.
    pub driver: String,
    /// From the user.
    pub labels: BTreeMap<String, String>,
    /// The directory with the content.
    pub mountpoint: PathBuf,
    /// Its name.
    pub name: String,
    /// From the user.
    pub options: BTreeMap<String, String>,
    /// Always `local`.
    pub scope: String,
    /// Made for one container, without a name of a user's.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub anonymous: bool,
}

const RECORD: &str = "volume.json";
const DATA: &str = "_data";
/// In a container's directory: the names of the anonymous volumes that it is given.
const CLAIM: &str = "volumes.json";

/// Makes a volume; says whether it is new. One that exists is left as it is.
pub(crate) fn create(ctx: &Context, name: &str, labels: BTreeMap<String, String>, anonymous: bool) -> Result<bool> {
    mount::volume_name(name).map_err(|why| Invalid::new("volume name", name, why))?;
    let dir = ctx.root.volumes().join(name);
    files::make_dir(&ctx.root.volumes())?;
    let new = match fs::DirBuilder::new().mode(0o700).create(&dir) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => false,
        Err(source) => return Err(Error::File { action: "create", path: dir, source }),
    };
    let data = dir.join(DATA);
    // A killed command may have left a directory without these: both steps are repeated, neither overwrites.
    match fs::DirBuilder::new().mode(0o755).create(&data) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            return Err(Error::File { action: "create", path: data, source: error });
        }
        _ => {}
    }
    let record = dir.join(RECORD);
    if !record.exists() {
        let volume = Volume {
            created_at: jiff::Timestamp::now().to_string(),
            driver: "local".into(),
            labels,
            mountpoint: data,
            name: name.to_owned(),
            scope: "local".into(),
            anonymous,
            ..Volume::default()
        };
        files::write_json(&record, "a volume's record", &volume)?;
        events::volume(ctx, "create", name);
    }
    Ok(new)
}

/// All volumes, by name.
pub(crate) fn list(ctx: &Context) -> Result<Vec<Volume>> {
    let path = ctx.root.volumes();
    let entries = match fs::read_dir(&path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(Error::File { action: "list", path, source }),
    };
    let mut list: Vec<Volume> = entries
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter_map(|name| inspect(ctx, &name).ok())
        .collect();
    list.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(list)
}

/// One volume.
pub(crate) fn inspect(ctx: &Context, name: &str) -> Result<Volume> {
    if mount::volume_name(name).is_err() {
        return Err(Error::NoSuchVolume(name.to_owned()));
    }
    let path = ctx.root.volumes().join(name).join(RECORD);
    files::read_json(&path, "volume record")?.ok_or_else(|| Error::NoSuchVolume(name.to_owned()))
}

/// Removes a volume that no container uses.
pub(crate) fn remove(ctx: &Context, name: &str) -> Result<()> {
    inspect(ctx, name)?;
    let users = users(ctx.containers(), name)?;
    if !users.is_empty() {
        return Err(Error::VolumeInUse { name: name.to_owned(), users });
    }
    files::remove_dir_if_there(&ctx.root.volumes().join(name))?;
    events::volume(ctx, "destroy", name);
    Ok(())
}

/// Removes the anonymous volumes of a container that goes; what another container uses as well stays.
pub(crate) fn remove_anonymous(ctx: &Context, record: &Record) -> Result<()> {
    let mut errors = Vec::new();
    for mount in record.mounts.iter().filter(|m| m.kind == "volume" && m.anonymous && !m.name.is_empty()) {
        match remove(ctx, &mount.name) {
            Ok(()) | Err(Error::VolumeInUse { .. } | Error::NoSuchVolume(_)) => {}
            Err(error) => errors.push(error),
        }
    }
    Error::of_all(errors)
}

/// The directories of a container's anonymous volumes.
pub(crate) fn anonymous(ctx: &Context, record: &Record) -> Vec<PathBuf> {
    let own = record.mounts.iter().filter(|m| m.kind == "volume" && m.anonymous && !m.name.is_empty());
    own.map(|mount| ctx.root.volumes().join(&mount.name)).collect()
}

/// The containers that mount a volume, by id.
pub(crate) fn users(containers: &Containers, name: &str) -> Result<Vec<String>> {
    let list = containers.list()?;
    Ok(list.into_iter().filter(|c| c.record.volumes().any(|v| v == name)).map(|c| c.record.id).collect())
}

/// Makes what the mounts of a new container need: volumes (with the image's content in new ones) and the host
/// directories of `--volume`. Returns the names of volumes that were made, for the case that the rest fails.
pub(crate) fn provide(ctx: &Context, record: &mut Record, layers: &[PathBuf]) -> Result<Vec<String>> {
    let mut made = Vec::new();
    let mut nameless: Vec<&mut MountPoint> =
        record.mounts.iter_mut().filter(|m| m.kind == "volume" && m.name.is_empty()).collect();
    for mount in &mut nameless {
        mount.name = names::new_id()?;
    }
    if !nameless.is_empty() {
        let names: Vec<&str> = nameless.iter().map(|mount| mount.name.as_str()).collect();
        files::write_json(&ctx.root.container(&record.id).path().join(CLAIM), "the names of volumes", &names)?;
    }
    let provided = record.mounts.iter_mut().try_for_each(|mount| match mount.kind.as_str() {
        "bind" => bind_source(mount),
        "volume" => volume(ctx, mount, layers, &mut made),
        _ => Ok(()),
    });
    match provided {
        Ok(()) => Ok(made),
        Err(error) => {
            discard(ctx, &made);
            Err(error)
        }
    }
}

/// Removes the anonymous volumes of a container that a killed command left half made, where it has noted their names before
/// it made them.
pub(crate) fn remove_claimed(ctx: &Context, bundle: &Bundle) -> Result<()> {
    let names: Option<Vec<String>> = files::read_json(&bundle.path().join(CLAIM), "list of volumes")?;
    for name in names.unwrap_or_default() {
        if mount::volume_name(&name).is_ok() {
            files::remove_dir_if_there(&ctx.root.volumes().join(name))?;
        }
    }
    Ok(())
}

/// Takes back volumes that were made for a container that did not come to be.
pub(crate) fn discard(ctx: &Context, made: &[String]) {
    for name in made {
        if let Err(error) = files::remove_dir_if_there(&ctx.root.volumes().join(name)) {
            log::warn!("removing the volume {name}: {}", dhow_api::error::chain(&error));
        }
    }
}

fn bind_source(mount: &mut MountPoint) -> Result<()> {
    let path = Path::new(&mount.source);
    let create = mount.options.iter().any(|o| o == "create");
    if !path.exists() {
        if !create {
            let why = "the path does not exist on the host";
            return Err(Invalid::new("mount source", &mount.source, why).into());
        }
        fs::create_dir_all(path).map_err(Error::file("create", path))?;
    }
    // Links are resolved now: what is mounted later is what was there when the user said so.
    let resolved = fs::canonicalize(path).map_err(Error::file("resolve", path))?;
    mount.source = resolved.to_string_lossy().into_owned();
    Ok(())
}

fn volume(ctx: &Context, mount: &mut MountPoint, layers: &[PathBuf], made: &mut Vec<String>) -> Result<()> {
    if create(ctx, &mount.name, BTreeMap::new(), mount.anonymous)? {
        made.push(mount.name.clone());
    }
    let data = ctx.root.volume_data(&mount.name);
    mount.source = data.to_string_lossy().into_owned();
    let empty = fs::read_dir(&data).map_err(Error::file("list", &data))?.next().is_none();
    if empty && !mount.options.iter().any(|o| o == "nocopy") {
        copy_up(layers, &mount.destination, &data)?;
    }
    Ok(())
}

/// Fills an empty volume with what the image has at the place where it is mounted.
fn copy_up(layers: &[PathBuf], path: &str, data: &Path) -> Result<()> {
    let fail = |source| Error::InContainer { action: "copy", path: path.to_owned(), source };
    let view = View::open(layers).map_err(fail)?;
    let found = match view.lookup(path.as_ref(), true) {
        Ok(found) => found,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => return Ok(()),
        Err(source) => return Err(fail(source)),
    };
    let Node::Directory(directory) = found.node else { return Ok(()) };
    let target = File::open(data).map_err(Error::file("open", data))?;
    copy::contents(&directory, target.as_fd(), Keep::All).map_err(fail)?;
    copy::directory_metadata(&directory, target.as_fd()).map_err(fail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_life_of_a_volume() {
        let dir = tempfile::tempdir().unwrap();
        let ctx = Context::new(Some(dir.path().join("root")), Some(dir.path().join("run"))).unwrap();
        let layer = dir.path().join("layer");
        fs::create_dir_all(layer.join("data/sub")).unwrap();
        fs::write(layer.join("data/sub/f"), "x").unwrap();
        assert!(list(&ctx).unwrap().is_empty());
        let point = |name: &str| MountPoint {
            kind: "volume".into(),
            name: name.into(),
            destination: "/data".into(),
            anonymous: name.is_empty(),
            ..MountPoint::default()
        };
        let id = "a".repeat(64);
        let claim = ctx.containers().claim(&id).unwrap();
        let mut record = Record { id, mounts: vec![point("named"), point("")], ..Record::default() };
        let made = provide(&ctx, &mut record, &[layer]).unwrap();
        assert_eq!(made.len(), 2);
        assert_eq!(fs::read(Path::new(&record.mounts[0].source).join("sub/f")).unwrap(), b"x");
        assert_eq!(list(&ctx).unwrap().len(), 2);
        remove_anonymous(&ctx, &record).unwrap();
        assert_eq!(list(&ctx).unwrap().len(), 1);
        // Killed before the record was written: the next command knows what was made.
        record.mounts[1].name.clear();
        provide(&ctx, &mut record, &[]).unwrap();
        assert_eq!(list(&ctx).unwrap().len(), 2);
        drop(claim);
        let bundle = ctx.root.container(&record.id);
        remove_claimed(&ctx, &bundle).unwrap();
        assert_eq!(list(&ctx).unwrap().into_iter().map(|volume| volume.name).collect::<Vec<_>>(), ["named"]);
        remove(&ctx, "named").unwrap();
        assert!(matches!(remove(&ctx, "named"), Err(Error::NoSuchVolume(_))));
        assert!(matches!(remove(&ctx, "../x"), Err(Error::NoSuchVolume(_))));
    }

    #[test]
    fn missing_sources() {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = MountPoint {
            kind: "bind".into(),
            source: dir.path().join("new").to_string_lossy().into_owned(),
            ..MountPoint::default()
        };
        assert!(bind_source(&mut mount).is_err());
        mount.options.push("create".into());
        bind_source(&mut mount).unwrap();
        assert!(dir.path().join("new").is_dir());
    }
}
