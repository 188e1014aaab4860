//! With the real kernel: v1 as the machine has it, v2 in a mount namespace of the test's own.

use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

use super::*;
use crate::CgroupDriver;

/// A name that no other test and no other run has.
fn unique(name: &str) -> String {
    format!("/dhow-test-{}/{name}", std::process::id())
}

const REQUEST: CgroupRequest<'static> = CgroupRequest {
    cgroups_path: "",
    id: "box",
    driver: CgroupDriver::Cgroupfs,
    rootless: false,
    annotations: &BTreeMap::new(),
    buses: &Buses { system: None, user: None },
};

fn plan(path: &str) -> CgroupPlan {
    CgroupPlan::new(&CgroupRequest { cgroups_path: path, ..REQUEST }).unwrap()
}

fn resources(value: serde_json::Value) -> LinuxResources {
    serde_json::from_value(value).unwrap()
}

/// Runs a test on the machine's own hierarchies, and if they are v1 once more in a thread that sees a real v2.
fn on_each_version(test: fn(&str)) {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root");
    std::thread::spawn(move || test("own")).join().unwrap();
    if is_unified() {
        return;
    }
    std::thread::spawn(move || {
        // Of this thread alone: a mount namespace belongs to a thread once it shares nothing of its file system state.
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
        mount(Some("cgroup2"), layout::MOUNT, Some("cgroup2"), MsFlags::empty(), none).unwrap();
        test("v2");
    })
    .join()
    .unwrap();
}

/// Whether the machine's own hierarchies are v2.
fn is_unified() -> bool {
    matches!(layout::Layout::detect(false), Ok(layout::Layout::Unified(_)))
}

/// A cgroup that is removed with the one it lies in when the test ends, however it ends.
struct Guarded(Cgroup);

impl Guarded {
    fn make(name: &str, resources: serde_json::Value) -> Self {
        Self(plan(&unique(name)).create(Some(&self::resources(resources)), None).unwrap())
    }
}

impl std::ops::Deref for Guarded {
    type Target = Cgroup;

    fn deref(&self) -> &Cgroup {
        &self.0
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.0.remove().unwrap();
        for path in self.0.paths().values() {
            assert!(!path.exists(), "{}", path.display());
            std::fs::remove_dir(path.parent().unwrap()).ok();
        }
    }
}

/// A process in a cgroup that runs until it is killed.
struct Process(Child);

impl Process {
    fn start(cgroup: &Cgroup) -> Self {
        let process = Self(Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap());
        cgroup.attach(process.pid()).unwrap();
        process
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).unwrap()
    }

    fn state(&self) -> char {
        process::stat(self.pid()).unwrap().state
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

#[test]
fn a_cgroup_lives_and_dies() {
    on_each_version(|version| {
        let cgroup = Guarded::make(&format!("life-{version}"), json!({}));
        assert_eq!(cgroup.clone_target().is_some(), cgroup.is_v2());
        assert!(cgroup.pids().unwrap().is_empty());
        let mut process = Process::start(&cgroup);
        assert_eq!(cgroup.pids().unwrap(), [process.pid()]);
        assert_ne!(cgroup.is_populated().unwrap(), Some(false));

        // Found again by its place and by its paths; a second container can't have it.
        let again = Cgroup::open(cgroup.paths()).unwrap();
        assert_eq!(again.pids().unwrap(), [process.pid()]);
        assert_eq!(again.is_v2(), cgroup.is_v2());
        assert_eq!(plan(&unique(&format!("life-{version}"))).open().unwrap().paths(), cgroup.paths());
        let error = plan(&unique(&format!("life-{version}"))).create(None, None).unwrap_err();
        assert!(error.to_string().starts_with("container's cgroup is not empty: 1 process(es)"), "{error}");
        assert_eq!(cgroup.pids().unwrap(), [process.pid()], "a refusal leaves it alone");

        cgroup.kill_all(libc::SIGTERM).unwrap();
        assert_eq!(std::os::unix::process::ExitStatusExt::signal(&process.0.wait().unwrap()), Some(libc::SIGTERM));
        assert!(cgroup.pids().unwrap().is_empty());
        assert_ne!(cgroup.is_populated().unwrap(), Some(true));
        cgroup.remove().unwrap();
        cgroup.remove().unwrap();
        assert!(again.pids().unwrap().is_empty());
        let gone = Cgroup::open(cgroup.paths()).unwrap();
        assert!(gone.is_none());
        assert_eq!(gone.is_populated().unwrap(), Some(false));
    });
}

#[test]
fn frozen_processes_stand_still() {
    on_each_version(|version| {
        let name = format!("freeze-{version}");
        let cgroup = Guarded::make(&name, json!({}));
        let process = Process::start(&cgroup);
        cgroup.freeze().unwrap();
        assert_eq!(cgroup.freezer_state().unwrap(), FreezerState::Frozen);
        // Frozen, it does not take a signal; v1 shows it as waiting for a disk.
        assert!(['D', 'S'].contains(&process.state()));
        cgroup.thaw().unwrap();
        assert_eq!(cgroup.freezer_state().unwrap(), FreezerState::Thawed);
        cgroup.freeze().unwrap();
        // SIGKILL gets through.
        cgroup.kill_all(libc::SIGKILL).unwrap();
        assert!(cgroup.wait_empty(Duration::from_secs(300)).unwrap());
        drop(process);
        if cgroup.freezer_state().unwrap() == FreezerState::Thawed {
            cgroup.freeze().unwrap();
        }
        let error = plan(&unique(&name)).create(None, None).unwrap_err();
        assert!(matches!(error, CgroupError::Frozen { .. }), "{error}");
    });
}

#[test]
fn removal_kills_and_takes_what_lies_below() {
    on_each_version(|version| {
        let cgroup = Guarded::make(&format!("nest-{version}"), json!({}));
        for path in cgroup.paths().values() {
            std::fs::create_dir_all(path.join("inner/innermost")).unwrap();
        }
        let inner = cgroup.below(&["/inner/../inner".to_owned()]).unwrap();
        for (key, path) in inner.paths() {
            assert_eq!(*path, cgroup.paths()[key].join("inner"));
        }
        // A process in a cgroup of v1 needs a cpuset with processors.
        if let Some(dir) = inner.dir("cpuset").filter(|_| !inner.is_v2()) {
            let outer = cgroup.dir("cpuset").unwrap();
            for file in ["cpuset.cpus", "cpuset.mems"] {
                dir.write(file, outer.read(file).unwrap().trim()).unwrap();
            }
        }
        let process = Process::start(&inner);
        assert_eq!(cgroup.pids().unwrap(), [process.pid()]);
        cgroup.remove().unwrap();
    });
}

#[test]
fn a_cgroup_that_cannot_be_finished_is_removed_again() {
    on_each_version(|version| {
        let path = unique(&format!("undo-{version}"));
        // Well-formed, but this machine does not have it.
        let wanted = resources(json!({"hugepageLimits": [{"pageSize": "3MB", "limit": 0}]}));
        let error = plan(&path).create(Some(&wanted), None).unwrap_err();
        assert!(error.to_string().starts_with("linux.resources.hugepageLimits[0]: "), "{error}");
        let nonsense = resources(json!({"memory": {"limit": -7}}));
        assert!(plan(&path).create(Some(&nonsense), None).unwrap_err().is_invalid());
        assert!(plan(&path).check(&nonsense).unwrap_err().is_invalid());
        for hierarchy in layout::Layout::detect(false).unwrap().hierarchies() {
            let target = hierarchy.mount.join(path.trim_start_matches('/'));
            assert!(!target.exists(), "{}", target.display());
            std::fs::remove_dir(target.parent().unwrap()).ok();
        }
    });
}

#[test]
fn without_a_cgroup_nothing_fails() {
    let request = CgroupRequest { driver: CgroupDriver::Disabled, rootless: true, ..REQUEST };
    let cgroup = CgroupPlan::new(&request).unwrap().create(Some(&resources(json!({}))), None).unwrap();
    assert!(cgroup.is_none() && cgroup.paths().is_empty());
    assert_eq!((cgroup.pids().unwrap(), cgroup.oom_kills().unwrap()), (vec![], 0));
    assert_eq!(cgroup.freezer_state().unwrap(), FreezerState::Thawed);
    cgroup.attach(1).unwrap();
    cgroup.kill_all(libc::SIGKILL).unwrap();
    cgroup.remove().unwrap();
    assert!(cgroup.freeze().is_err());
}

#[test]
fn without_systemd_its_driver_says_so() {
    let buses = Buses { system: Some("unix:path=/nowhere/bus".into()), user: None };
    let request = CgroupRequest { driver: CgroupDriver::Systemd, buses: &buses, ..REQUEST };
    let error = CgroupPlan::new(&request).unwrap_err();
    assert!(matches!(error, CgroupError::NoSystemd { .. }) && error.is_invalid(), "{error}");
    let path = CgroupRequest { cgroups_path: "/a/b", ..request };
    assert!(matches!(CgroupPlan::new(&path), Err(CgroupError::Path { .. })));
}

/// What a file of the cgroup says.
fn file(cgroup: &Cgroup, controller: &str, name: &str) -> String {
    cgroup.dir(controller).unwrap().read(name).unwrap().trim().to_owned()
}

#[test]
fn limits_are_in_force() {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root");
    if is_unified() { limits_of_v2_are_in_force() } else { limits_of_v1_are_in_force() }
}

fn limits_of_v2_are_in_force() {
    let cgroup = Guarded::make(
        "limits",
        json!({
            "memory": {"limit": 64 << 20, "swap": 128 << 20, "reservation": 32 << 20},
            "cpu": {"shares": 1024, "quota": 50000, "period": 100_000, "burst": 10000, "cpus": "0", "mems": "0"},
            "pids": {"limit": 50},
            "unified": {"memory.high": "60000000"},
        }),
    );
    let check = |expected: &[(&str, &str)]| {
        for (name, value) in expected {
            assert_eq!(file(&cgroup, "", name), *value, "{name}");
        }
    };
    check(&[
        ("memory.max", "67108864"),
        ("memory.swap.max", "67108864"),
        ("memory.low", "33554432"),
        ("memory.high", "59998208"),
        ("cpu.weight", "100"),
        ("cpu.max", "50000 100000"),
        ("cpu.max.burst", "10000"),
        ("cpuset.cpus", "0"),
        ("pids.max", "50"),
    ]);
    cgroup.apply(&resources(json!({"memory": {"limit": -1}, "cpu": {"period": 50000}}))).unwrap();
    check(&[("memory.max", "max"), ("memory.swap.max", "max"), ("cpu.max", "50000 50000")]);
    cgroup.apply(&resources(json!({"cpu": {"quota": 5000, "burst": 5000}, "pids": {"limit": -1}}))).unwrap();
    check(&[("cpu.max", "5000 50000"), ("cpu.max.burst", "5000"), ("pids.max", "max")]);
    cgroup.apply(&resources(json!({"cpu": {"idle": 1, "shares": 500}}))).unwrap();
    check(&[("cpu.idle", "1")]);

    let process = busy(&cgroup);
    let stats = cgroup.stats().unwrap();
    assert_eq!(stats.pids.current, 1);
    assert!(stats.memory.usage.usage > 0 && stats.memory.raw.contains_key("anon"), "{stats:?}");
    let below = resources(json!({"memory": {"limit": 4096, "checkBeforeUpdate": true}}));
    assert!(matches!(cgroup.apply(&below), Err(CgroupError::LimitBelowUsage { limit: 4096, .. })));
    drop(process);
}

fn limits_of_v1_are_in_force() {
    let cgroup = Guarded::make(
        "limits",
        json!({
            "memory": {"limit": 64 << 20, "swap": 128 << 20, "reservation": 32 << 20, "swappiness": 10},
            "cpu": {"shares": 512, "quota": 50000, "period": 100_000, "burst": 10000, "cpus": "0", "mems": "0"},
            "pids": {"limit": 50},
        }),
    );
    let values = |list: &[(&str, &str)]| -> Vec<String> {
        list.iter().map(|(controller, name)| file(&cgroup, controller, name)).collect()
    };
    let memory = [("memory", "memory.limit_in_bytes"), ("memory", "memory.memsw.limit_in_bytes")];
    assert_eq!(values(&memory), ["67108864", "134217728"]);
    assert_eq!(file(&cgroup, "cpuset", "cpuset.cpus"), "0");
    let cpu = [
        ("cpu", "cpu.shares"),
        ("cpu", "cpu.cfs_quota_us"),
        ("cpu", "cpu.cfs_period_us"),
        ("cpu", "cpu.cfs_burst_us"),
        ("pids", "pids.max"),
        ("memory", "memory.swappiness"),
    ];
    assert_eq!(values(&cpu), ["512", "50000", "100000", "10000", "50", "10"]);

    // Both up, both down, lifted: whatever the order that the kernel wants.
    for (limit, swap, expected) in [
        (256 << 20, 512 << 20, ["268435456", "536870912"]),
        (16 << 20, 16 << 20, ["16777216", "16777216"]),
        (-1, 0, ["9223372036854771712", "9223372036854771712"]),
    ] {
        cgroup.apply(&resources(json!({"memory": {"limit": limit, "swap": swap}}))).unwrap();
        assert_eq!(values(&memory), expected);
    }
    cgroup.apply(&resources(json!({"cpu": {"quota": 5000, "burst": 5000}}))).unwrap();
    cgroup.apply(&resources(json!({"cpu": {"quota": -1}, "pids": {"limit": -1}}))).unwrap();
    assert_eq!(values(&cpu)[1..5], ["-1", "100000", "5000", "max"]);

    let process = busy(&cgroup);
    let stats = cgroup.stats().unwrap();
    assert_eq!(stats.pids.current, 1);
    assert!(stats.memory.usage.usage > 0 && stats.memory.raw.contains_key("rss"), "{stats:?}");
    assert!(stats.cpu.usage.total > 0 && !stats.cpu.usage.percpu.is_empty(), "{stats:?}");
    drop(process);
}

#[test]
fn a_cpuset_without_processors_above_is_filled() {
    if is_unified() {
        return;
    }
    let path = unique("cpuset/below");
    // The cgroup that the container's lies in, made by somebody who did not care.
    let above =
        Path::new(layout::MOUNT).join("cpuset").join(Path::new(&path).parent().unwrap().strip_prefix("/").unwrap());
    std::fs::create_dir_all(&above).unwrap();
    let read = |path: &Path| std::fs::read_to_string(path.join("cpuset.cpus")).unwrap();
    assert_eq!(read(&above).trim(), "");
    let cgroup = Guarded(plan(&path).create(None, None).unwrap());
    let all = read(&Path::new(layout::MOUNT).join("cpuset"));
    assert_eq!((read(&above), file(&cgroup, "cpuset", "cpuset.cpus")), (all.clone(), all.trim().to_owned()));
    let paths: Vec<_> = cgroup.paths().values().cloned().collect();
    drop(cgroup);
    for path in paths {
        std::fs::remove_dir(path.ancestors().nth(2).unwrap()).ok();
    }
}

/// A process that has used some processor time and memory in the cgroup.
fn busy(cgroup: &Cgroup) -> Process {
    let work = "read -r _; n=0; while [ $n -lt 20000 ]; do n=$((n + 1)); done; echo done; read -r _";
    let child = Command::new("sh").args(["-c", work]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut process = Process(child);
    cgroup.attach(process.pid()).unwrap();
    std::io::Write::write_all(process.0.stdin.as_mut().unwrap(), b"\n").unwrap();
    let mut answer = [0; 5];
    std::io::Read::read_exact(process.0.stdout.as_mut().unwrap(), &mut answer).unwrap();
    process
}

#[test]
fn limits_of_v2_name_what_is_not_there() {
    on_each_version(|version| {
        if version == "own" && !is_unified() {
            return;
        }
        let cgroup = Guarded::make("limits-v2", json!({"unified": {"cgroup.max.depth": "5"}}));
        assert_eq!(file(&cgroup, "cgroup", "cgroup.max.depth"), "5");
        let process = busy(&cgroup);
        let stats = cgroup.stats().unwrap();
        assert!(stats.cpu.usage.total > 0 && stats.cpu.psi.is_some(), "{stats:?}");
        // The memory controller is on v1 here.
        if cgroup.dir("memory").unwrap().read("memory.max").is_err() {
            let error = cgroup.apply(&resources(json!({"memory": {"limit": 1 << 20}}))).unwrap_err();
            let expected = "linux.resources.memory.limit: the requested cgroup controller `memory` is not available";
            assert_eq!(error.to_string(), expected);
        }
        if cgroup.dir("hugetlb").unwrap().read("hugetlb.2MB.max").is_ok() {
            cgroup.apply(&resources(json!({"hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}]}))).unwrap();
            assert_eq!(file(&cgroup, "hugetlb", "hugetlb.2MB.max"), "4194304");
            assert_eq!(file(&cgroup, "hugetlb", "hugetlb.2MB.rsvd.max"), "4194304");
            assert!(cgroup.stats().unwrap().hugetlb.contains_key("2MB"));
        }
        drop(process);
    });
}

/// Whether a process in the cgroup may open these devices, made for it with mknod: for reading, for writing.
fn may_open(cgroup: &Cgroup, numbers: &[(u32, u32)]) -> Vec<(bool, bool)> {
    let dir = tempfile::tempdir().unwrap();
    let mut script = "read -r _; ".to_owned();
    for (major, minor) in numbers {
        let node = dir.path().join(format!("{major}-{minor}"));
        let status = Command::new("mknod").arg(&node).args(["c", &major.to_string(), &minor.to_string()]).status();
        assert!(status.unwrap().success());
        // Only what open(2) says counts; `:` so that nothing is read.
        let node = node.display();
        script.push_str(&format!(
            "(: < {node}) 2>/dev/null && echo y || echo n; (: >> {node}) 2>/dev/null && echo y || echo n; "
        ));
    }
    let mut shell =
        Command::new("sh").args(["-c", &script]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    cgroup.attach(i32::try_from(shell.id()).unwrap()).unwrap();
    std::io::Write::write_all(&mut shell.stdin.take().unwrap(), b"\n").unwrap();
    let output = shell.wait_with_output().unwrap();
    let answers: Vec<_> = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).collect();
    answers.chunks_exact(2).map(|pair| (pair[0] == b"y", pair[1] == b"y")).collect()
}

#[test]
fn the_device_filter_refuses_what_it_should() {
    on_each_version(|version| {
        let cgroup = Guarded::make(
            &format!("devices-{version}"),
            json!({"devices": [
                {"allow": false, "access": "rwm"},
                {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "w"},
            ]}),
        );
        // null, zero; kmsg for writing only; mem not at all.
        let devices = [(1, 3), (1, 5), (1, 11), (1, 1)];
        assert_eq!(may_open(&cgroup, &devices), [(true, true), (true, true), (false, true), (false, false)]);
        if cgroup.is_v2() {
            let dir = cgroup.dir("").unwrap();
            let before = dhow_sys::bpf::device_programs(dir.as_fd()).unwrap();
            assert_eq!(before.len(), 1);
            let open = serde_json::from_value::<Vec<_>>(json!([{"allow": true, "type": "c", "major": 1}])).unwrap();
            devices::program::install(&devices::DeviceRules::new(&open).unwrap(), dir, false).unwrap();
            let after = dhow_sys::bpf::device_programs(dir.as_fd()).unwrap();
            assert!(after.len() == 1 && after != before);
            assert_eq!(may_open(&cgroup, &[(1, 11)]), [(true, true)]);
            let all = serde_json::from_value::<Vec<_>>(json!([{"allow": true}])).unwrap();
            devices::program::install(&devices::DeviceRules::new(&all).unwrap(), dir, false).unwrap();
            assert_eq!(dhow_sys::bpf::device_programs(dir.as_fd()).unwrap(), []);
        }
    });
}

#[test]
fn an_out_of_memory_kill_is_heard_of() {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root");
    let cgroup = Guarded::make("oom", json!({"memory": {"limit": 8 << 20, "swap": 8 << 20}}));
    let watch = cgroup.watch_oom().unwrap();
    assert_eq!(cgroup.oom_kills().unwrap(), 0);
    // tail keeps what has no line break: it takes memory until it is killed.
    let mut hog = Command::new("sh")
        .args(["-c", "read -r _; exec tail /dev/zero"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    cgroup.attach(i32::try_from(hog.id()).unwrap()).unwrap();
    std::io::Write::write_all(&mut hog.stdin.take().unwrap(), b"\n").unwrap();
    let mut fds = [PollFd::new(watch.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, PollTimeout::from(30_000_u16)), Ok(1));
    watch.drain().unwrap();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&hog.wait().unwrap()), Some(libc::SIGKILL));
    assert_eq!(cgroup.oom_kills().unwrap(), 1);
    assert!(watch.as_fd().as_raw_fd() >= 0);
}
