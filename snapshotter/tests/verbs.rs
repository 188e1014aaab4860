//! The verbs against containerd's expectations of a snapshotter, with real mounts.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test code")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use dhow_api::Kind as Code;
use dhow_snapshotter::{Filter, Kind, LabelChange, Labels, Mount, Snapshotter, VOLATILE_LABEL};
use tempfile::TempDir;

struct Fixture {
    dir: TempDir,
    it: Snapshotter,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let it = Snapshotter::open(&dir.path().join("snapshots")).unwrap();
        Self { dir, it }
    }

    fn root(&self) -> PathBuf {
        self.dir.path().join("snapshots")
    }

    fn reopen(self) -> Self {
        let Self { dir, it } = self;
        drop(it);
        let it = Snapshotter::open(&dir.path().join("snapshots")).unwrap();
        Self { dir, it }
    }

    /// Commits a snapshot in whose upper directory `fill` has worked.
    fn layer(&self, name: &str, parent: Option<&str>, fill: impl FnOnce(&Path)) {
        let key = format!("key of {name}");
        let mounts = self.it.prepare(&key, parent, Labels::new()).unwrap();
        fill(&upper(&mounts));
        self.it.commit(name, &key, None, Labels::new()).unwrap();
    }
}

/// Where an active snapshot's changes go.
fn upper(mounts: &[Mount]) -> PathBuf {
    let [mount] = mounts else { panic!("one mount: {mounts:?}") };
    match mount.kind {
        "bind" => mount.source.clone().into(),
        _ => option(mount, "upperdir").expect("an upper directory").into(),
    }
}

fn option<'m>(mount: &'m Mount, key: &str) -> Option<&'m str> {
    mount.options.iter().find_map(|option| option.strip_prefix(key)?.strip_prefix('='))
}

fn code<T: std::fmt::Debug>(result: dhow_snapshotter::Result<T>) -> Code {
    result.unwrap_err().kind()
}

/// Runs a shell with the snapshot mounted on `$M`, in a mount namespace of its own.
fn with_mounted(mounts: &[Mount], script: &str) -> String {
    let target = tempfile::tempdir().unwrap();
    let [mount] = mounts else { panic!("one mount: {mounts:?}") };
    let mut options = mount.options.join(",");
    let kind = if mount.kind == "bind" {
        options.push_str(",bind");
        "none"
    } else {
        mount.kind
    };
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "private", "sh", "-ec"])
        .arg(format!("mount -t {kind} -o \"$O\" \"$S\" \"$M\"; {script}"))
        .env("O", options)
        .env("S", &mount.source)
        .env("M", target.path())
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

#[test]
fn errors_have_containerds_codes() {
    let f = Fixture::new();
    f.layer("base", None, |_| ());
    f.it.prepare("active", Some("base"), Labels::new()).unwrap();
    f.it.view("view", Some("base"), Labels::new()).unwrap();
    let none = Labels::new;
    assert_eq!(code(f.it.prepare("active", None, none())), Code::AlreadyExists);
    assert_eq!(code(f.it.prepare("base", None, none())), Code::AlreadyExists);
    assert_eq!(code(f.it.view("active", Some("base"), none())), Code::AlreadyExists);
    assert_eq!(code(f.it.prepare("x", Some("absent"), none())), Code::NotFound);
    assert_eq!(code(f.it.prepare("x", Some("active"), none())), Code::InvalidArgument);
    assert_eq!(code(f.it.prepare("x", Some("view"), none())), Code::InvalidArgument);
    assert_eq!(code(f.it.prepare("", None, none())), Code::InvalidArgument);
    assert_eq!(code(f.it.mounts("absent")), Code::NotFound);
    assert_eq!(code(f.it.mounts("base")), Code::FailedPrecondition);
    assert_eq!(code(f.it.commit("new", "absent", None, none())), Code::NotFound);
    assert_eq!(code(f.it.commit("new", "view", None, none())), Code::FailedPrecondition);
    assert_eq!(code(f.it.commit("new", "base", None, none())), Code::FailedPrecondition);
    assert_eq!(code(f.it.commit("base", "active", None, none())), Code::AlreadyExists);
    assert_eq!(code(f.it.commit("", "active", None, none())), Code::InvalidArgument);
    assert_eq!(code(f.it.remove("absent")), Code::NotFound);
    assert_eq!(code(f.it.remove("base")), Code::FailedPrecondition);
    assert_eq!(code(f.it.stat("absent")), Code::NotFound);
    assert_eq!(code(f.it.usage("absent")), Code::NotFound);
    assert_eq!(code(f.it.update("absent", LabelChange::Replace(none()))), Code::NotFound);
    f.it.remove("view").unwrap();
    assert_eq!(code(f.it.remove("base")), Code::FailedPrecondition);
    f.it.commit("top", "active", None, none()).unwrap();
    assert_eq!(code(f.it.stat("active")), Code::NotFound);
    assert_eq!(code(f.it.remove("base")), Code::FailedPrecondition);
    f.it.remove("top").unwrap();
    f.it.remove("base").unwrap();
    assert!(f.it.list(&[]).is_empty());
}

#[test]
fn mounts_have_the_shapes_that_unpackers_and_runtimes_expect() {
    let f = Fixture::new();
    let [bind] = &f.it.prepare("plain", None, Labels::new()).unwrap()[..] else { panic!() };
    assert_eq!((bind.kind, &bind.options[..]), ("bind", &["rw".to_owned(), "rbind".to_owned()][..]));
    let [extract] = &f.it.prepare("extract-1 sha256:aa", None, Labels::new()).unwrap()[..] else { panic!() };
    assert_eq!(extract.kind, "overlay");
    assert!(option(extract, "upperdir").is_some() && option(extract, "workdir").is_some());
    assert_eq!(option(extract, "lowerdir"), Some(f.root().join("empty").to_str().unwrap()));
    f.layer("one", None, |_| ());
    f.layer("two", Some("one"), |_| ());
    let [view] = &f.it.view("view 1", Some("one"), Labels::new()).unwrap()[..] else { panic!() };
    assert_eq!((view.kind, &view.options[..]), ("bind", &["ro".to_owned(), "rbind".to_owned()][..]));
    let [view] = &f.it.view("view 2", Some("two"), Labels::new()).unwrap()[..] else { panic!() };
    assert_eq!((view.kind, option(view, "upperdir")), ("overlay", None));
    assert_eq!(option(view, "lowerdir").unwrap().split(':').count(), 2);
    let labels = Labels::from([(VOLATILE_LABEL.to_owned(), "true".to_owned())]);
    let [active] = &f.it.prepare("rm", Some("two"), labels).unwrap()[..] else { panic!() };
    assert!(active.options.contains(&"volatile".to_owned()) && active.options.contains(&"index=off".to_owned()));
    assert_eq!(f.it.mounts("rm").unwrap()[0], *active);
    let empty = f.it.view("empty", None, Labels::new()).unwrap();
    assert_eq!(with_mounted(&empty, "ls -A $M"), "");
}

#[test]
fn layers_stack_and_changes_are_seen() {
    let f = Fixture::new();
    f.layer("base", None, |dir| {
        fs::create_dir_all(dir.join("a/b")).unwrap();
        fs::write(dir.join("a/kept"), "1").unwrap();
        fs::write(dir.join("a/gone"), "1").unwrap();
        fs::set_permissions(dir, fs::Permissions::from_mode(0o711)).unwrap();
    });
    let mounts = f.it.prepare("c", Some("base"), Labels::new()).unwrap();
    with_mounted(&mounts, "rm $M/a/gone; echo 2 > $M/a/new; mv $M/a/b $M/moved; touch $M/moved/x");
    f.it.commit("next", "c", None, Labels::new()).unwrap();
    let view = f.it.view("v", Some("next"), Labels::new()).unwrap();
    assert_eq!(
        with_mounted(&view, "cd $M; find . | sort | tr '\\n' ' '; stat -c %a ."),
        ". ./a ./a/kept ./a/new ./moved ./moved/x 711"
    );
    assert!(!with_mounted(&view, "touch $M/x 2>&1 || echo refused").is_empty());
    // A file of the layer below is seen through a bind of the base alone as it was.
    let base = f.it.view("vb", Some("base"), Labels::new()).unwrap();
    assert_eq!(with_mounted(&base, "cat $M/a/gone; touch $M/x 2>/dev/null || echo refused"), "1refused");
}

#[test]
fn a_volatile_layer_is_mounted_again_and_again() {
    let f = Fixture::new();
    f.layer("base", None, |_| ());
    let labels = Labels::from([(VOLATILE_LABEL.to_owned(), String::new())]);
    with_mounted(&f.it.prepare("c", Some("base"), labels).unwrap(), "echo 1 > $M/f");
    assert_eq!(with_mounted(&f.it.mounts("c").unwrap(), "cat $M/f"), "1");
    assert_eq!(with_mounted(&f.it.mounts("c").unwrap(), "cat $M/f"), "1");
}

/// A disk that is full: one clear error, nothing half-made, and the next try works when there is room.
#[test]
fn a_full_disk_leaves_nothing_behind() {
    std::thread::scope(|scope| {
        scope.spawn(|| {
            use nix::mount::{MsFlags, mount};
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
            let dir = tempfile::tempdir().unwrap();
            mount(Some("tmpfs"), dir.path(), Some("tmpfs"), MsFlags::empty(), Some("size=1m,nr_inodes=60")).unwrap();
            let it = Snapshotter::open(&dir.path().join("snapshots")).unwrap();
            it.prepare("first", None, Labels::new()).unwrap();
            let filler: Vec<PathBuf> = (0..)
                .map(|n| dir.path().join(format!("filler{n}")))
                .take_while(|path| fs::write(path, "").is_ok())
                .collect();
            assert_eq!(code(it.prepare("second", None, Labels::new())), Code::ResourceExhausted);
            assert_eq!(code(it.commit("done", "first", None, Labels::new())), Code::ResourceExhausted);
            assert_eq!(it.list(&[]).len(), 1);
            it.cleanup().unwrap();
            assert_eq!(fs::read_dir(dir.path().join("snapshots/tmp")).unwrap().count(), 0);
            filler.iter().for_each(|path| fs::remove_file(path).unwrap());
            it.prepare("second", None, Labels::new()).unwrap();
            it.commit("done", "first", None, Labels::new()).unwrap();
            drop(it);
            nix::mount::umount(dir.path()).unwrap();
        });
    });
}

#[test]
fn a_hundred_layers() {
    let f = Fixture::new();
    let mut parent: Option<String> = None;
    for number in 0..100 {
        let name = format!("layer {number}");
        f.layer(&name, parent.as_deref(), |dir| fs::write(dir.join(format!("f{number}")), "x").unwrap());
        parent = Some(name);
    }
    let [mount] = &f.it.view("v", parent.as_deref(), Labels::new()).unwrap()[..] else { panic!() };
    assert_eq!(option(mount, "lowerdir").unwrap().split(':').count(), 100);
    let request = dhow_sys::rootfs::Mount {
        kind: mount.kind.to_owned(),
        source: mount.source.clone(),
        options: mount.options.clone(),
        ..Default::default()
    };
    let tree = dhow_sys::rootfs::detached(&[request]).unwrap();
    let listed = fs::read_dir(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&tree))).unwrap().count();
    assert_eq!(listed, 100);
}

/// containerd's parallel unpacking: prepared without parent, committed with it.
#[test]
fn rebase_settles_the_layer() {
    let f = Fixture::new();
    f.layer("base", None, |dir| {
        fs::create_dir(dir.join("tmp")).unwrap();
        fs::set_permissions(dir.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        fs::write(dir.join("tool"), "below").unwrap();
    });
    let mounts = f.it.prepare("extract-9 x", None, Labels::new()).unwrap();
    let dir = upper(&mounts);
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(0);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(1);
    tar.append_data(&mut header, "tmp/x", &b""[..]).unwrap();
    header.set_entry_type(tar::EntryType::Link);
    tar.append_link(&mut header, "tmp/tool", "tool").unwrap();
    let tar = tar.into_inner().unwrap();
    let handle = fs::File::open(&dir).unwrap();
    let extracted = dhow_layer::extract(&tar[..], std::os::fd::AsFd::as_fd(&handle), &Default::default()).unwrap();
    extracted.settle.save_beside(&dir).unwrap();
    assert_eq!(code(f.it.commit("top", "extract-9 x", Some("absent"), Labels::new())), Code::NotFound);
    f.it.commit("top", "extract-9 x", Some("base"), Labels::new()).unwrap();
    assert_eq!(f.it.stat("top").unwrap().parent.as_deref(), Some("base"));
    assert_eq!(fs::metadata(dir.join("tmp")).unwrap().mode() & 0o7777, 0o1777);
    assert_eq!(fs::read_to_string(dir.join("tmp/tool")).unwrap(), "below");
    assert!(!dir.with_file_name("settle.json").exists() && !dir.with_file_name("work").exists());
    assert_eq!(code(f.it.remove("base")), Code::FailedPrecondition);
    // Prepared over one parent, committed over another: refused; over the same: fine.
    f.it.prepare("c", Some("base"), Labels::new()).unwrap();
    assert_eq!(code(f.it.commit("d", "c", Some("top"), Labels::new())), Code::FailedPrecondition);
    f.it.commit("d", "c", Some("base"), Labels::new()).unwrap();
    f.it.remove("top").unwrap();
    f.it.remove("d").unwrap();
    f.it.remove("base").unwrap();
}

#[test]
fn a_layer_that_cannot_be_settled_stays_active() {
    let f = Fixture::new();
    let dir = upper(&f.it.prepare("extract-1 x", None, Labels::new()).unwrap());
    fs::write(dir.with_file_name("settle.json"), r#"{"implied":[],"links":[{"name":"a","target":"nowhere"}]}"#)
        .unwrap();
    let error = f.it.commit("x", "extract-1 x", None, Labels::new()).unwrap_err();
    assert_eq!(error.kind(), Code::InvalidArgument);
    assert!(dhow_api::error::chain(&error).contains("nowhere is in no layer"));
    assert_eq!(code(f.it.stat("x")), Code::NotFound);
    f.it.remove("extract-1 x").unwrap();
}

#[test]
fn an_opaque_root_ends_the_stack() {
    let f = Fixture::new();
    f.layer("base", None, |dir| fs::write(dir.join("hidden"), "").unwrap());
    f.layer("fresh", Some("base"), |dir| {
        let handle = fs::File::open(dir).unwrap();
        let target = dhow_sys::xattr::Target::File(std::os::fd::AsFd::as_fd(&handle));
        dhow_sys::xattr::set(target, c"trusted.overlay.opaque", b"y").unwrap();
        fs::write(dir.join("seen"), "").unwrap();
    });
    f.layer("top", Some("fresh"), |_| ());
    let f = f.reopen();
    for parent in ["fresh", "top"] {
        let mounts = f.it.prepare(&format!("over {parent}"), Some(parent), Labels::new()).unwrap();
        assert_eq!(with_mounted(&mounts, "ls $M"), "seen");
    }
}

#[test]
fn labels_change_and_nothing_else_does() {
    let f = Fixture::new();
    f.it.prepare("k", None, Labels::from([("a".to_owned(), "1".to_owned())])).unwrap();
    let before = f.it.stat("k").unwrap();
    let merged = f.it.update("k", LabelChange::Merge(Labels::from([("b".to_owned(), "2".to_owned())]))).unwrap();
    assert_eq!(merged.labels.len(), 2);
    assert!(merged.updated >= before.updated && merged.created == before.created);
    let removed = f.it.update("k", LabelChange::Merge(Labels::from([("a".to_owned(), String::new())]))).unwrap();
    assert_eq!(removed.labels, Labels::from([("b".to_owned(), "2".to_owned())]));
    let replaced = f.it.update("k", LabelChange::Replace(Labels::from([("c".to_owned(), "3".to_owned())]))).unwrap();
    let long = Labels::from([("x".to_owned(), "v".repeat(5000))]);
    assert_eq!(code(f.it.update("k", LabelChange::Replace(long))), Code::InvalidArgument);
    let f = f.reopen();
    assert_eq!(f.it.stat("k").unwrap(), replaced);
}

#[test]
fn lists_by_filter() {
    let f = Fixture::new();
    f.layer("base", None, |_| ());
    f.it.prepare("a", Some("base"), Labels::from([("x.y/z".to_owned(), "1".to_owned())])).unwrap();
    f.it.view("v", Some("base"), Labels::new()).unwrap();
    let names = |filters: &[&str]| -> Vec<String> {
        let filters: Vec<Filter> = filters.iter().map(|text| Filter::parse(text).unwrap()).collect();
        f.it.list(&filters).into_iter().map(|info| info.name).collect()
    };
    assert_eq!(names(&[]), ["a", "base", "v"]);
    assert_eq!(names(&["parent==base"]), ["a", "v"]);
    assert_eq!(names(&["kind==committed", "labels.\"x.y/z\"==1"]), ["a", "base"]);
    assert_eq!(names(&["parent==base,kind==view"]), ["v"]);
    assert_eq!(f.it.stat("v").unwrap().kind, Kind::View);
}

#[test]
fn names_of_any_characters_survive_a_restart() {
    let f = Fixture::new();
    let names = ["a/../../b", "sha256:00/x y", "\n\t\"\\", "ü", ".", "..", "/etc", &"long".repeat(1000)];
    for name in names {
        f.it.prepare(name, None, Labels::new()).unwrap();
    }
    let f = f.reopen();
    for name in names {
        assert_eq!(f.it.stat(name).unwrap().name, name);
        f.it.remove(name).unwrap();
    }
    f.it.cleanup().unwrap();
    assert_eq!(fs::read_dir(f.root().join("trash")).unwrap().count(), 0);
    assert_eq!(fs::metadata(f.root()).unwrap().mode() & 0o7777, 0o700);
}

#[test]
fn usage_counts_blocks_and_inodes_once() {
    let f = Fixture::new();
    f.layer("base", None, |dir| fs::write(dir.join("big"), vec![1; 1 << 20]).unwrap());
    f.layer("top", Some("base"), |dir| {
        fs::write(dir.join("a"), vec![1; 100_000]).unwrap();
        fs::hard_link(dir.join("a"), dir.join("b")).unwrap();
        fs::File::create(dir.join("hole")).unwrap().set_len(1 << 30).unwrap();
    });
    let usage = f.it.usage("top").unwrap();
    assert_eq!(usage.inodes, 3);
    assert!((100_000..200_000).contains(&usage.size), "{}", usage.size);
    f.it.view("v", Some("top"), Labels::new()).unwrap();
    assert_eq!(f.it.usage("v").unwrap().inodes, 0);
}

#[test]
fn removal_does_not_wait_for_deletion_and_cleanup_does() {
    let f = Fixture::new();
    f.layer("big", None, |dir| {
        for number in 0..2000 {
            fs::write(dir.join(number.to_string()), "x").unwrap();
        }
    });
    f.it.remove("big").unwrap();
    assert_eq!(code(f.it.stat("big")), Code::NotFound);
    // The name is free at once.
    f.layer("big", None, |_| ());
    f.it.cleanup().unwrap();
    assert_eq!(fs::read_dir(f.root().join("trash")).unwrap().count(), 0);
}

#[test]
fn two_openers_exclude_each_other() {
    let f = Fixture::new();
    let root = f.root();
    let waiting = std::thread::spawn(move || Snapshotter::open(&root).map(drop));
    // It gets the lock as soon as this one lets go.
    let Fixture { dir, it } = f;
    drop(it);
    waiting.join().unwrap().unwrap();
    drop(dir);
}

#[test]
fn many_threads_on_the_same_names() {
    let f = Fixture::new();
    f.layer("base", None, |_| ());
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for round in 0..40 {
                    let key = format!("k{}", round % 5);
                    let _one_wins = f.it.prepare(&key, Some("base"), Labels::new());
                    let _one_wins = f.it.commit(&format!("n{}", round % 3), &key, None, Labels::new());
                    let _one_wins =
                        f.it.update(&key, LabelChange::Merge(Labels::from([("a".to_owned(), "b".to_owned())])));
                    let _one_wins = f.it.remove(&format!("n{}", round % 3));
                    let _one_wins = f.it.usage("base");
                }
            });
        }
    });
    let before = f.it.list(&[]);
    let f = f.reopen();
    assert_eq!(f.it.list(&[]), before);
    for info in before.iter().filter(|info| info.name != "base") {
        f.it.remove(&info.name).unwrap();
    }
    f.it.remove("base").unwrap();
}
