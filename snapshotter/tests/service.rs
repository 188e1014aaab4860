//! The program: over its socket, killed, idle, and twice at once.
#![expect(clippy::unwrap_used, reason = "test code")]

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dhow_api::clients::Snapshots;
use dhow_api::service::ServiceSpec;
use dhow_api::snapshots as api;
use dhow_api::{Kind as Code, rpc};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

struct Instance {
    dir: TempDir,
    idle: &'static str,
}

impl Instance {
    fn new(idle: &'static str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("run")).unwrap();
        Self { dir, idle }
    }

    fn client(&self) -> Snapshots {
        let (root, run) = (self.dir.path().join("root"), self.dir.path().join("run"));
        Snapshots::over(rpc::Client::of(ServiceSpec {
            socket: run.join("snapshotter.sock"),
            binary: PathBuf::from(env!("CARGO_BIN_EXE_dhow-snapshotter")),
            args: ["--root".into(), root.into(), "--runroot".into(), run.into(), "--idle".into(), self.idle.into()]
                .into(),
            cwd: PathBuf::from("/"),
            protected: false,
        }))
    }

    /// The processes that serve this instance.
    fn servers(&self) -> Vec<Pid> {
        let ours = self.dir.path().to_str().unwrap();
        let mut pids = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).into_owned();
            if command.contains(ours) && command.contains("dhow-snapshotter") {
                pids.push(Pid::from_raw(pid));
            }
        }
        pids
    }

    fn kill(&self) {
        for pid in self.servers() {
            // It may be gone already.
            kill(pid, Signal::SIGKILL).unwrap_or_default();
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        while !self.servers().is_empty() {
            self.kill();
            std::thread::yield_now();
        }
    }
}

fn prepare(client: &Snapshots, key: &str, parent: &str) -> Result<Vec<api::Mount>, dhow_api::Error> {
    let request = api::PrepareSnapshotRequest { key: key.to_owned(), parent: parent.to_owned(), ..Default::default() };
    client.prepare(&request).map(|answer| answer.mounts)
}

fn commit(client: &Snapshots, name: &str, key: &str) -> Result<(), dhow_api::Error> {
    let request = api::CommitSnapshotRequest { name: name.to_owned(), key: key.to_owned(), ..Default::default() };
    client.commit(&request).map(drop)
}

fn remove(client: &Snapshots, key: &str) -> Result<(), dhow_api::Error> {
    client.remove(&api::RemoveSnapshotRequest { key: key.to_owned(), ..Default::default() }).map(drop)
}

fn names(client: &Snapshots) -> HashSet<String> {
    client.list(&Default::default()).unwrap().info.into_iter().map(|info| info.name).collect()
}

#[test]
fn every_method_over_the_socket() {
    let instance = Instance::new("60");
    let client = instance.client();
    let mounts = prepare(&client, "a", "").unwrap();
    assert_eq!((mounts[0].type_.as_str(), mounts[0].options.join(",").as_str()), ("bind", "rw,rbind"));
    fs::write(Path::new(&mounts[0].source).join("f"), "x").unwrap();
    let labels = HashMap::from([("l".to_owned(), "1".to_owned())]);
    let request =
        api::CommitSnapshotRequest { name: "n".into(), key: "a".into(), labels: labels.clone(), ..Default::default() };
    client.commit(&request).unwrap();
    let info = client.stat(&api::StatSnapshotRequest { key: "n".into(), ..Default::default() }).unwrap().info.unwrap();
    assert_eq!((info.kind.enum_value().unwrap(), info.labels), (api::Kind::COMMITTED, labels));
    assert!(info.created_at.seconds > 1_600_000_000);
    let view =
        client.view(&api::ViewSnapshotRequest { key: "v".into(), parent: "n".into(), ..Default::default() }).unwrap();
    let again = client.mounts(&api::MountsRequest { key: "v".into(), ..Default::default() }).unwrap();
    assert_eq!(view.mounts, again.mounts);
    assert_eq!(client.usage(&api::UsageRequest { key: "n".into(), ..Default::default() }).unwrap().inodes, 2);
    let filtered = api::ListSnapshotsRequest { filters: vec!["kind==view".into()], ..Default::default() };
    assert_eq!(client.list(&filtered).unwrap().info.len(), 1);
    let bad = api::ListSnapshotsRequest { filters: vec!["bad".into()], ..Default::default() };
    assert_eq!(client.list(&bad).unwrap_err().kind(), Code::InvalidArgument);
    let mut update = api::UpdateSnapshotRequest::new();
    update.info =
        Some(api::Info { name: "n".into(), labels: [("m".to_owned(), "2".to_owned())].into(), ..Default::default() })
            .into();
    update.update_mask = Some(protobuf::well_known_types::field_mask::FieldMask {
        paths: vec!["labels.m".into()],
        ..Default::default()
    })
    .into();
    assert_eq!(client.update(&update).unwrap().info.unwrap().labels.len(), 2);
    update.update_mask.as_mut().unwrap().paths = vec!["parent".into()];
    assert_eq!(client.update(&update).unwrap_err().kind(), Code::InvalidArgument);
    assert_eq!(remove(&client, "n").unwrap_err().kind(), Code::FailedPrecondition);
    remove(&client, "v").unwrap();
    remove(&client, "n").unwrap();
    assert_eq!(remove(&client, "n").unwrap_err().kind(), Code::NotFound);
    client.cleanup(&Default::default()).unwrap();
}

/// Callers work while the service is killed again and again; what was answered stays true.
#[test]
fn killed_at_any_moment_under_load() {
    let instance = Instance::new("60");
    prepare(&instance.client(), "b", "").unwrap();
    commit(&instance.client(), "base", "b").unwrap();
    let (alive, gone) = (Mutex::new(HashSet::from(["base".to_owned()])), Mutex::new(HashSet::new()));
    let (stop, rounds) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for thread in 0..3 {
            let (instance, alive, gone, stop, rounds) = (&instance, &alive, &gone, &stop, &rounds);
            scope.spawn(move || {
                let client = instance.client();
                for number in 0.. {
                    if stop.load(Ordering::SeqCst) {
                        break;
                    }
                    rounds.fetch_add(1, Ordering::SeqCst);
                    let (key, name) = (format!("k{thread}.{number}"), format!("n{thread}.{number}"));
                    if prepare(&client, &key, "base").is_err() {
                        continue;
                    }
                    match commit(&client, &name, &key) {
                        Ok(()) => {
                            gone.lock().unwrap().insert(key);
                            alive.lock().unwrap().insert(name.clone());
                        }
                        Err(_) => continue,
                    }
                    if number % 2 == 0 {
                        alive.lock().unwrap().remove(&name);
                        if remove(&client, &name).is_ok() {
                            gone.lock().unwrap().insert(name);
                        }
                    }
                }
            });
        }
        for kill in 0..25 {
            let target = rounds.load(Ordering::SeqCst) + 2 + kill % 5;
            while rounds.load(Ordering::SeqCst) < target {
                std::thread::yield_now();
            }
            instance.kill();
        }
        stop.store(true, Ordering::SeqCst);
    });
    let client = instance.client();
    let names = names(&client);
    let (alive, gone) = (alive.into_inner().unwrap(), gone.into_inner().unwrap());
    assert_eq!(alive.difference(&names).collect::<Vec<_>>(), Vec::<&String>::new(), "answered and lost");
    assert_eq!(gone.intersection(&names).collect::<Vec<_>>(), Vec::<&String>::new(), "answered and back");
    assert!(alive.len() > 3, "the load did nothing: {}", alive.len());
    for name in names.iter().filter(|name| *name != "base") {
        remove(&client, name).unwrap();
    }
    remove(&client, "base").unwrap();
    client.cleanup(&Default::default()).unwrap();
    let left = fs::read_dir(instance.dir.path().join("root/snapshots")).unwrap().count();
    assert_eq!(left, 4, "lock, empty, tmp and trash");
}

#[test]
fn leaves_when_idle_and_comes_back() {
    let instance = Instance::new("1");
    prepare(&instance.client(), "k", "").unwrap();
    let begin = std::time::Instant::now();
    while !instance.servers().is_empty() {
        assert!(begin.elapsed().as_secs() < 60, "it never left");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(names(&instance.client()), HashSet::from(["k".to_owned()]));
}

#[test]
fn refuses_a_root_in_use_and_wrong_arguments() {
    let instance = Instance::new("60");
    prepare(&instance.client(), "k", "").unwrap();
    let run = |arguments: &[&Path]| {
        let output = Command::new(env!("CARGO_BIN_EXE_dhow-snapshotter")).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let other = tempfile::tempdir().unwrap();
    let root = instance.dir.path().join("root");
    let (code, text) = run(&["--root".as_ref(), &root, "--runroot".as_ref(), other.path()]);
    assert_eq!(code, Some(1));
    assert!(text.contains("in use by another process") && text.lines().count() == 1, "{text}");
    let (code, text) = run(&["--root".as_ref(), &root]);
    assert!(code == Some(1) && text.contains("--runroot is missing"), "{text}");
    let help = Command::new(env!("CARGO_BIN_EXE_dhow-snapshotter")).arg("--help").output().unwrap();
    assert!(help.status.success() && help.stdout.starts_with(b"usage:"));
}
