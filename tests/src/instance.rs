//! An instance of dhow of a test's own: two roots, a home, and the binaries under test.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};

use dhow_api::clients::Snapshots;
use dhow_api::snapshots::{RemoveSnapshotRequest, ViewSnapshotRequest};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::command::{Call, Ran, tool};
use crate::{Registry, Sandbox, eventually};

/// A separate dhow. On drop its containers are removed and its services stopped.
#[derive(Debug)]
#[must_use]
pub struct Instance {
    root: PathBuf,
    runroot: PathBuf,
    home: PathBuf,
    seen: RefCell<BTreeSet<String>>,
}

/// Where the binaries under test lie.
///
/// # Panics
/// When they were not built.
#[must_use]
pub fn binaries() -> PathBuf {
    let dir = binaries_dir();
    assert!(dir.join("dhow").exists(), "no dhow in {}: run `cargo build --workspace`", dir.display());
    dir
}

/// The same, whether they are there or not.
pub(crate) fn binaries_dir() -> PathBuf {
    if let Some(dir) = std::env::var_os("DHOW_BIN_DIR") {
        return PathBuf::from(dir);
    }
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| "target".into(), PathBuf::from);
    workspace.join(target).join("debug")
}

/// The path of one of them.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    binaries().join(name)
}

impl Instance {
    /// With an image of a registry of its own; the registry and the image's name there come along.
    ///
    /// # Panics
    /// When the image cannot be pulled.
    #[track_caller]
    pub fn with_image(sandbox: &Sandbox, name: &str) -> (Registry, Self, String) {
        let registry = Registry::with_images(sandbox);
        let dhow = Self::new(sandbox);
        let image = registry.image(name);
        dhow.ok(&format!("pull -q {image}"));
        (registry, dhow, image)
    }

    /// With empty roots.
    pub fn new(sandbox: &Sandbox) -> Self {
        Self::named(sandbox, "instance")
    }

    /// Another one beside it.
    pub fn named(sandbox: &Sandbox, name: &str) -> Self {
        let dir = sandbox.dir(name);
        let home = dir.join("home");
        fs::create_dir_all(&home).expect("a home");
        Self { root: dir.join("root"), runroot: dir.join("run"), home, seen: RefCell::default() }
    }

    /// With its state that survives a boot elsewhere, on a small file system for instance.
    pub fn with_root(sandbox: &Sandbox, name: &str, root: &Path) -> Self {
        let mut instance = Self::named(sandbox, name);
        root.clone_into(&mut instance.root);
        instance
    }

    /// `dhow ARGS…`, not yet started.
    pub fn dhow<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Call {
        self.note();
        tool(binary("dhow"), args)
            .env("DHOW_ROOT", &self.root)
            .env("DHOW_RUNROOT", &self.runroot)
            .env("HOME", &self.home)
            .dir(&self.home)
    }

    /// Runs `dhow` with the words of a line (no quoting) to its end.
    ///
    /// # Panics
    /// When it takes more than two minutes.
    #[track_caller]
    pub fn run(&self, line: &str) -> Ran {
        self.dhow(line.split_whitespace()).run()
    }

    /// The same, which must succeed; its standard output without white space at the ends.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        let ran = self.run(line).ok();
        self.note();
        ran.out().to_owned()
    }

    /// One field of `dhow inspect`, by its JSON pointer.
    ///
    /// # Panics
    /// When there is no such object or field.
    #[track_caller]
    #[must_use]
    pub fn field(&self, object: &str, pointer: &str) -> Value {
        let document: Value =
            serde_json::from_str(&self.ok(&format!("inspect {object}"))).expect("inspect prints JSON");
        let value = document[0].pointer(pointer);
        value.unwrap_or_else(|| panic!("{object} has no {pointer}: {document:#}")).clone()
    }

    /// The pid of a container's first process.
    ///
    /// # Panics
    /// When it does not run.
    #[track_caller]
    #[must_use]
    pub fn pid(&self, container: &str) -> i32 {
        let pid = self.field(container, "/State/Pid").as_i64().expect("a pid");
        assert!(pid > 0, "{container} does not run");
        i32::try_from(pid).expect("a pid")
    }

    /// `running`, `exited`, …
    ///
    /// # Panics
    /// When there is no such container.
    #[track_caller]
    #[must_use]
    pub fn status(&self, container: &str) -> String {
        self.field(container, "/State/Status").as_str().expect("a word").to_owned()
    }

    /// Waits until a container has a status.
    ///
    /// # Panics
    /// When it does not get it.
    #[track_caller]
    pub fn wait_for_status(&self, container: &str, status: &str) {
        eventually(&format!("{container} is {status}"), || (self.status(container) == status).then_some(()));
    }

    /// ROOT.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// RUNROOT.
    #[must_use]
    pub fn runroot(&self) -> &Path {
        &self.runroot
    }

    /// HOME of the command line.
    #[must_use]
    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Pids of running processes of ours for this instance whose program is `name`.
    #[must_use]
    pub fn processes(&self, name: &str) -> Vec<i32> {
        let dir = self.runroot.parent().unwrap_or(&self.runroot).to_string_lossy().into_owned();
        let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
        entries
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid: &i32| {
                let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
                let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let here = fs::read_link(format!("/proc/{pid}/cwd")).unwrap_or_default();
                // A shim keeps its program in a sealed memory file, so its first word counts too.
                let first =
                    String::from_utf8_lossy(line.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned();
                let is = program.file_name().is_some_and(|file| file == name) || first.rsplit('/').next() == Some(name);
                let root = self.root.to_string_lossy();
                is && (String::from_utf8_lossy(&line).contains(&dir)
                    || here.starts_with(&*root)
                    || here.starts_with(&dir))
            })
            .collect()
    }

    /// Kills all processes of a program of this instance; returns how many.
    #[must_use]
    pub fn kill_all(&self, name: &str, signal: Signal) -> usize {
        let pids = self.processes(name);
        for pid in &pids {
            kill(Pid::from_raw(*pid), signal).ok();
        }
        eventually("killed processes are gone", || {
            let left = self.processes(name);
            pids.iter().all(|pid| !left.contains(pid)).then_some(())
        });
        pids.len()
    }

    /// Everything that lies in the state root, directories left out, with sizes.
    #[must_use]
    pub fn files(&self) -> Vec<String> {
        let mut found = Vec::new();
        list(&self.root, &self.root, &mut found);
        found
    }

    /// An image's tree as containers see it.
    ///
    /// # Panics
    /// When it is not there whole.
    #[track_caller]
    pub fn mount_image(&self, sandbox: &Sandbox, image: &str) -> MountedImage {
        let layers = self.field(image, "/RootFS/Layers");
        let layers = layers.as_array().expect("a list of layers").iter().map(|layer| layer.as_str().expect("a digest"));
        let chain = layers
            .map(str::to_owned)
            .reduce(|below, layer| crate::image::digest(format!("{below} {layer}").as_bytes()))
            .expect("an image has a layer");
        let snapshots = Snapshots::new(&self.root, &self.runroot);
        let key = format!("view-{}", self.seen.borrow().len() + sandbox.path().read_dir().map_or(0, Iterator::count));
        let request = ViewSnapshotRequest { key: key.clone(), parent: chain, ..Default::default() };
        let answer = snapshots.view(&request).expect("a view of a pulled image");
        let mounts: Vec<dhow_sys::rootfs::Mount> = answer
            .mounts
            .iter()
            .map(|mount| dhow_sys::rootfs::Mount {
                kind: mount.type_.clone(),
                source: mount.source.clone(),
                target: mount.target.clone(),
                options: mount.options.clone(),
            })
            .collect();
        let path = sandbox.dir(&key);
        let tree = dhow_sys::rootfs::detached(&mounts).expect("the image mounted");
        let place = fs::File::open(&path).expect("the place for it");
        dhow_sys::mountfd::move_mount(tree.as_fd(), place.as_fd()).expect("the image in its place");
        MountedImage { path, key, snapshots }
    }

    /// Remembers the ids of all containers, to look for their cgroups in the end.
    fn note(&self) {
        let Ok(entries) = fs::read_dir(self.root.join("containers")) else { return };
        self.seen.borrow_mut().extend(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()));
    }

    /// Cgroups that are named after a container of ours.
    #[must_use]
    pub fn cgroups(&self) -> Vec<PathBuf> {
        self.note();
        let mut found = Vec::new();
        cgroups(Path::new("/sys/fs/cgroup"), &self.seen.borrow(), &mut found);
        found
    }
}

/// An image's tree, unmounted on drop.
#[derive(Debug)]
#[must_use]
pub struct MountedImage {
    path: PathBuf,
    key: String,
    snapshots: Snapshots,
}

impl MountedImage {
    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for MountedImage {
    fn drop(&mut self) {
        tool("umount", [&self.path]).run();
        let request = RemoveSnapshotRequest { key: self.key.clone(), ..Default::default() };
        let removed = self.snapshots.remove(&request);
        assert!(removed.is_ok() || std::thread::panicking(), "removing a view: {removed:?}");
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let failing = std::thread::panicking();
        let all = self.dhow(["ps", "-aq"]).run();
        let ids: Vec<&str> = all.stdout.split_whitespace().collect();
        if !ids.is_empty() {
            let removed = self.dhow(["rm", "-f"]).args(ids).run();
            assert!(failing || removed.code == 0, "rm -f in the end: {}", removed.stderr);
        }
        for service in ["dhow-snapshotter", "dhow-netplug"] {
            let _killed = self.kill_all(service, Signal::SIGTERM);
        }
        if failing {
            return;
        }
        eventually("the containers' cgroups are gone", || self.cgroups().is_empty().then_some(()));
    }
}

fn list(root: &Path, folder: &Path, found: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        match entry.metadata() {
            Ok(meta) if meta.is_dir() => list(root, &path, found),
            Ok(meta) => found.push(format!("{} {}", path.strip_prefix(root).unwrap_or(&path).display(), meta.len())),
            Err(_) => {}
        }
    }
}

fn cgroups(folder: &Path, ids: &BTreeSet<String>, found: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten().filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())) {
        let name = entry.file_name().to_string_lossy().into_owned();
        if ids.iter().any(|id| name.contains(id.as_str())) {
            found.push(entry.path());
        }
        cgroups(&entry.path(), ids, found);
    }
}
