//! `kill -9` before every single system call that changes the disk, by strace; then the next start must find every answered
//! call done, the unanswered one done or not, and nothing half-made.
#![expect(clippy::unwrap_used, reason = "test code")]

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use dhow_snapshotter::{LabelChange, Labels, Snapshotter};

const DRIVER: &str = "DHOW_CRASH_DRIVER";
const CHANGING: &str = "mkdir,mkdirat,mknodat,openat,write,rename,renameat,renameat2,fchmod,chmod,fchown,link,linkat,\
    symlinkat,unlink,unlinkat,rmdir,utimensat,fsync,fdatasync,syncfs,ftruncate,fsetxattr,lsetxattr,copy_file_range";

/// The calls of the scenario, in order; each brings the model from one state to the next.
const STEPS: [&str; 9] = [
    "prepare base",
    "commit base",
    "prepare layer",
    "commit layer",
    "prepare container",
    "label container",
    "view",
    "remove container",
    "commit nothing new",
];

fn step(it: &Snapshotter, name: &str) {
    let labels = Labels::new;
    match name {
        "prepare base" => {
            let mounts = it.prepare("extract-1 base", None, labels()).unwrap();
            let dir = upper(&mounts[0]);
            fs::create_dir_all(dir.join("tmp")).unwrap();
            fs::set_permissions(dir.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
            fs::write(dir.join("tool"), "below").unwrap();
        }
        "commit base" => it.commit("base", "extract-1 base", None, labels()).unwrap(),
        "prepare layer" => {
            let mounts = it.prepare("extract-2 layer", None, labels()).unwrap();
            let dir = upper(&mounts[0]);
            fs::create_dir(dir.join("tmp")).unwrap();
            fs::write(dir.join("tmp/x"), "").unwrap();
            fs::write(
                dir.with_file_name("settle.json"),
                r#"{"implied":["","tmp"],"links":[{"name":"tmp/l","target":"tool"}]}"#,
            )
            .unwrap();
        }
        "commit layer" => it.commit("layer", "extract-2 layer", Some("base"), labels()).unwrap(),
        "prepare container" => drop(it.prepare("container", Some("layer"), labels()).unwrap()),
        "label container" => {
            let change = LabelChange::Merge(Labels::from([("a".to_owned(), "1".to_owned())]));
            drop(it.update("container", change).unwrap());
        }
        "view" => drop(it.view("view", Some("layer"), labels()).unwrap()),
        "remove container" => it.remove("container").unwrap(),
        _ => it.cleanup().unwrap(),
    }
}

/// What `list` says after so many steps.
fn model(steps: usize) -> Vec<String> {
    let mut state: Vec<String> = Vec::new();
    for step in &STEPS[..steps] {
        let mut replace = |old: &str, new: &[&str]| {
            state.retain(|line| line != old);
            state.extend(new.iter().map(|line| (*line).to_owned()));
        };
        match *step {
            "prepare base" => replace("", &["extract-1 base|||active"]),
            "commit base" => replace("extract-1 base|||active", &["base|||committed"]),
            "prepare layer" => replace("", &["extract-2 layer|||active"]),
            "commit layer" => replace("extract-2 layer|||active", &["layer|base||committed"]),
            "prepare container" => replace("", &["container|layer||active"]),
            "label container" => replace("container|layer||active", &["container|layer|1|active"]),
            "view" => replace("", &["view|layer||view"]),
            "remove container" => replace("container|layer|1|active", &[]),
            _ => {}
        }
    }
    state.sort_unstable();
    state
}

fn state(it: &Snapshotter) -> Vec<String> {
    let infos = it.list(&[]).into_iter();
    infos
        .map(|info| {
            let label = info.labels.get("a").cloned().unwrap_or_default();
            format!("{}|{}|{label}|{}", info.name, info.parent.unwrap_or_default(), info.kind)
        })
        .collect()
}

fn upper(mount: &dhow_snapshotter::Mount) -> PathBuf {
    mount.options.iter().find_map(|option| option.strip_prefix("upperdir=")).unwrap().into()
}

/// Not a test of its own: what the child of the test below runs.
#[test]
fn driver() {
    let Some(dir) = std::env::var_os(DRIVER).map(PathBuf::from) else { return };
    let it = Snapshotter::open(&dir.join("snapshots")).unwrap();
    let mut answered = fs::File::options().append(true).create(true).open(dir.join("answered")).unwrap();
    for name in STEPS {
        step(&it, name);
        answered.write_all(b".").unwrap();
    }
}

#[test]
fn killed_before_every_call() {
    let mut kills = 0;
    // strace counts each kind of call, in each thread, for itself.
    for call in CHANGING.split(',') {
        for point in 1.. {
            let dir = tempfile::tempdir().unwrap();
            let killed = run_until(dir.path(), call, point);
            let answered = fs::read(dir.path().join("answered")).map_or(0, |answered| answered.len());
            verify(dir.path(), answered, &format!("{call} {point}"));
            if !killed {
                break;
            }
            kills += 1;
        }
    }
    // The thread that deletes has more or less to do in each run; the other one makes as many calls every time.
    assert!(kills > 100, "only {kills} points");
}

/// Runs the scenario; kills it before its `point`th `call`. Whether it came that far.
fn run_until(dir: &Path, call: &str, point: usize) -> bool {
    let status = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e"])
        .arg(format!("trace={call}"))
        .arg("-e")
        .arg(format!("inject={call}:signal=SIGKILL:when={point}"))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "driver", "--test-threads=1", "-q"])
        .env(DRIVER, dir)
        .stdout(std::process::Stdio::null())
        .status()
        .expect("strace is installed");
    assert!(status.success() || status.signal() == Some(9) || status.code() == Some(137), "{status}");
    !status.success()
}

fn verify(dir: &Path, answered: usize, point: &str) {
    let root = dir.join("snapshots");
    let it = Snapshotter::open(&root).unwrap();
    let found = state(&it);
    let next = (answered + 1).min(STEPS.len());
    assert!(
        found == model(answered) || found == model(next),
        "killed before {point} after {answered} answers: {found:?}, not {:?} or {:?}",
        model(answered),
        model(next)
    );
    // Nothing half-made, nothing without an owner.
    it.cleanup().unwrap();
    assert_eq!(fs::read_dir(root.join("tmp")).unwrap().count(), 0);
    assert_eq!(fs::read_dir(root.join("trash")).unwrap().count(), 0);
    let numbered = fs::read_dir(&root)
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().parse::<u64>().is_ok());
    assert_eq!(numbered.count(), found.len());
    if found.iter().any(|line| line.starts_with("layer|")) {
        let view = it.prepare("extract-look", Some("layer"), Labels::new()).unwrap();
        let lower = view[0].options.iter().find_map(|option| option.strip_prefix("lowerdir=")).unwrap();
        let layer = Path::new(lower.split(':').next().unwrap());
        assert_eq!(fs::metadata(layer.join("tmp")).unwrap().mode() & 0o7777, 0o1777);
        assert_eq!(fs::metadata(layer.join("tool")).unwrap().ino(), fs::metadata(layer.join("tmp/l")).unwrap().ino());
        it.remove("extract-look").unwrap();
    }
    // It goes on: what was left can be finished or removed, and all of it goes away.
    if found.iter().any(|line| line.starts_with("extract-2")) && dir.join("snapshots").exists() && settled_input(&it) {
        it.commit("layer", "extract-2 layer", Some("base"), Labels::new()).unwrap();
    }
    for name in ["view", "container", "layer", "extract-2 layer", "base", "extract-1 base"] {
        if it.stat(name).is_ok() {
            it.remove(name).unwrap();
        }
    }
    it.cleanup().unwrap();
    assert!(it.list(&[]).is_empty());
}

/// Whether the unpacking (not the snapshotter's work) of the second layer was complete.
fn settled_input(it: &Snapshotter) -> bool {
    let mounts = it.mounts("extract-2 layer").unwrap();
    let settle = upper(&mounts[0]).with_file_name("settle.json");
    fs::read_to_string(settle).is_ok_and(|text| text.ends_with('}'))
}
