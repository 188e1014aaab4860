//! Documents that are not what they should be: whatever is in config.json and state.json, nothing panics, an error names the
//! field, and one container's broken state is nobody else's trouble.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test code: clippy counts helpers as product code")]

use std::path::Path;

use dhow_runtime::config::{Process, Spec, resources_from_json};
use dhow_runtime::plan::Plan;
use dhow_runtime::{Error, Runtime, Status};
use mutation::{changed, changes, damaged, damages, rounds};
use proptest::prelude::*;
use serde_json::{Value, json};

mod mutation;

/// A configuration with a bit of everything.
fn config() -> Value {
    let map = json!([{"containerID": 0, "hostID": 1000, "size": 65536}]);
    let hook = json!([{"path": "/bin/true", "args": ["true"], "env": ["A=b"], "timeout": 5}]);
    json!({
        "ociVersion": "1.3.0",
        "process": {
            "terminal": false,
            "consoleSize": {"height": 25, "width": 80},
            "user": {"uid": 0, "gid": 0, "umask": 18, "additionalGids": [1, 2]},
            "args": ["sh", "-c", "true"],
            "env": ["PATH=/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"],
                "inheritable": [], "ambient": []},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096}],
            "noNewPrivileges": true,
            "oomScoreAdj": 100,
            "scheduler": {"policy": "SCHED_OTHER", "nice": 5, "flags": []},
            "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
            "execCPUAffinity": {"initial": "0-1", "final": "0"}
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "host",
        "domainname": "domain",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=1777", "size=64k", "tmpcopyup"]},
            {"destination": "/data", "type": "bind", "source": "/srv", "options": ["rbind", "rro", "idmap"],
                "uidMappings": map, "gidMappings": map},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}
        ],
        "hooks": {"createRuntime": hook, "poststop": hook},
        "annotations": {"key": "value"},
        "linux": {
            "uidMappings": map,
            "gidMappings": map,
            "namespaces": [{"type": "pid"}, {"type": "network", "path": "/proc/1/ns/net"}, {"type": "ipc"}, {"type": "uts"},
                {"type": "mount"}, {"type": "user"}, {"type": "cgroup"}, {"type": "time"}],
            "timeOffsets": {"monotonic": {"secs": 10, "nanosecs": 5}},
            "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438, "uid": 0, "gid": 0}],
            "cgroupsPath": "/a/b",
            "resources": {
                "devices": [{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 3, "access": "r"}],
                "memory": {"limit": 1_048_576, "swap": 2_097_152, "swappiness": 60, "checkBeforeUpdate": true},
                "cpu": {"shares": 1024, "quota": 10000, "period": 100_000, "burst": 5, "cpus": "0-1", "mems": "0", "idle": 0},
                "pids": {"limit": 100},
                "blockIO": {"weight": 100, "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1000}]},
                "hugepageLimits": [{"pageSize": "2MB", "limit": 4_194_304}],
                "network": {"classID": 1, "priorities": [{"name": "lo", "priority": 5}]},
                "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10}},
                "unified": {"memory.high": "1000000"}
            },
            "sysctl": {"net.ipv4.ip_forward": "1", "kernel.msgmax": "8192"},
            "seccomp": {
                "defaultAction": "SCMP_ACT_ERRNO",
                "defaultErrnoRet": 38,
                "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
                "flags": ["SECCOMP_FILTER_FLAG_LOG"],
                "listenerPath": "/run/agent.sock",
                "syscalls": [
                    {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
                    {"names": ["personality"], "action": "SCMP_ACT_ALLOW",
                        "args": [{"index": 0, "value": 8, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ"}]},
                    {"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}
                ]
            },
            "rootfsPropagation": "rslave",
            "maskedPaths": ["/proc/kcore"],
            "readonlyPaths": ["/proc/sys"],
            "mountLabel": "",
            "intelRdt": {"closID": "group", "l3CacheSchema": "L3:0=f", "schemata": ["MB:0=50"]},
            "personality": {"domain": "LINUX", "flags": []},
            "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0", "flags": []},
            "netDevices": {"eth7": {"name": "eth0"}}
        }
    })
}

/// What a field's name begins with.
const TOP: [&str; 9] =
    ["ociVersion", "process", "root", "hostname", "domainname", "mounts", "hooks", "annotations", "linux"];

/// As far as a document can be understood without doing anything.
fn understand(bytes: &[u8]) -> Result<(), Error> {
    let spec = Spec::from_json(bytes)?;
    Plan::new(&spec, Path::new("/bundle")).map(drop)
}

/// Accepted, or refused with the name of a field.
fn check(bytes: &[u8]) -> Option<String> {
    match understand(bytes) {
        Ok(()) => None,
        Err(Error::Config { field, problem }) => {
            assert!(!field.is_empty() && !field.contains('?') && !problem.is_empty(), "{field}: {problem}");
            Some(field)
        }
        Err(Error::Seccomp(error)) => {
            assert!(error.to_string().starts_with("linux.seccomp"), "{error}");
            Some("linux.seccomp".to_owned())
        }
        Err(other) => panic!("{}", other.chain()),
    }
}

#[test]
fn the_one_that_is_changed_is_good() {
    understand(config().to_string().as_bytes()).unwrap();
}

proptest! {
    #![proptest_config(rounds(700))]

    #[test]
    fn a_changed_configuration_is_accepted_or_its_field_named(changes in changes()) {
        let field = check(changed(config(), &changes).to_string().as_bytes());
        let known = |field: &String| field == "config.json" || TOP.contains(&field.split(['.', '[']).next().unwrap());
        prop_assert!(field.as_ref().is_none_or(known), "{:?}", field);
    }

    #[test]
    fn a_damaged_configuration_is_accepted_or_its_field_named(damages in damages()) {
        check(&damaged(config().to_string().as_bytes(), &damages));
    }

    #[test]
    fn a_changed_process_is_accepted_or_its_field_named(changes in changes(), damages in damages()) {
        let text = changed(config()["process"].clone(), &changes).to_string();
        match Process::from_json(&damaged(text.as_bytes(), &damages)) {
            Ok(_) => {}
            Err(Error::Config { field, problem }) => prop_assert!(!field.is_empty() && !problem.is_empty()),
            Err(other) => prop_assert!(false, "{}", other.chain()),
        }
    }

    #[test]
    fn changed_resources_are_accepted_or_their_field_named(changes in changes(), damages in damages()) {
        let text = changed(config()["linux"]["resources"].clone(), &changes).to_string();
        match resources_from_json(&damaged(text.as_bytes(), &damages)) {
            Ok(_) => {}
            Err(Error::Config { field, problem }) => prop_assert!(!field.is_empty() && !problem.is_empty()),
            Err(other) => prop_assert!(false, "{}", other.chain()),
        }
    }
}

proptest! {
    #![proptest_config(rounds(300))]

    #[test]
    fn a_damaged_state_is_its_own_trouble(
        changes in prop::option::of(changes()),
        damages in damages(),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let state = |id: &str| json!({
            "id": id, "init_process_pid": 0, "init_process_start": 0, "created": "2026-01-01T00:00:00Z",
            "bundle": "/bundle", "rootfs": "/bundle/rootfs", "cgroup_paths": {}, "namespace_paths": {"NEWPID": "/proc/1/ns/pid"},
            "owner": 0, "resources": {"pids": {"limit": 5}}, "keyring": "_ses.x", "config": config(),
        });
        let write = |id: &str, bytes: &[u8]| {
            std::fs::create_dir(dir.path().join(id)).unwrap();
            std::fs::write(dir.path().join(id).join("state.json"), bytes).unwrap();
        };
        write("good", state("good").to_string().as_bytes());
        let bad = changed(state("bad"), &changes.unwrap_or_default()).to_string();
        write("bad", &damaged(bad.as_bytes(), &damages));
        let runtime = Runtime::new(dir.path());
        let listing = runtime.list().unwrap();
        prop_assert!(listing.containers.iter().any(|c| c.id == "good" && c.status == Status::Stopped));
        prop_assert_eq!(listing.containers.len() + listing.broken.len(), 2);
        // Whether it can be read or not, it is told.
        prop_assert_eq!(runtime.state("bad").is_ok(), listing.broken.is_empty());
    }
}
