//! Documents that are not what they should be: whatever is in config.json and state.json, nothing panics, an error names the
//! field, and one container's broken state is nobody else's trouble.
#![expect(clippy::unwrap_used, clippy::panic, reason = "test code: clippy counts helpers as product code")]

use std::path::Path;

use dhow_runtime::config::Spec;
use dhow_runtime::plan::Plan;
use dhow_runtime::{Error, Runtime, Status};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::RngSeed;
use serde_json::{Value, json};

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

/// Anything that a document can have in a place, more often what is nearly right.
fn anything() -> impl Strategy<Value = Value> {
    let text = prop_oneof![prop::sample::select(vec![
        "",
        "/",
        ".",
        "..",
        "a/../b",
        "/proc/self/fd/7",
        "\0",
        "=",
        "-1",
        "rw",
        "SCMP_ACT_ALLOW",
        "CAP_X"
    ]),];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-2_i64..5).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        text.prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map("[a-z]{0,4}|type|path|names", inner, 0..4).prop_map(|map| json!(map)),
        ]
    })
}

/// Every place of a document, as pointers.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Object(map) => map.iter().for_each(|(key, value)| places(value, &format!("{at}/{key}"), found)),
        Value::Array(list) => {
            list.iter().enumerate().for_each(|(n, value)| places(value, &format!("{at}/{n}"), found));
        }
        _ => {}
    }
}

/// What a field's name begins with.
const TOP: [&str; 9] =
    ["ociVersion", "process", "root", "hostname", "domainname", "mounts", "hooks", "annotations", "linux"];

#[derive(Debug, Clone)]
enum Change {
    Replace(Value),
    Remove,
    Repeat,
}

fn changes() -> impl Strategy<Value = Vec<(Index, Change)>> {
    let change = prop_oneof![
        4 => anything().prop_map(Change::Replace),
        1 => Just(Change::Remove),
        1 => Just(Change::Repeat),
    ];
    vec((any::<Index>(), change), 1..4)
}

fn changed(mut document: Value, changes: &[(Index, Change)]) -> Value {
    for (place, change) in changes {
        let mut all = Vec::new();
        places(&document, "", &mut all);
        let pointer = &all[place.index(all.len())];
        let Some((parent, key)) = pointer.rsplit_once('/') else { continue };
        match (change, document.pointer_mut(parent).unwrap()) {
            (Change::Replace(value), _) => *document.pointer_mut(pointer).unwrap() = value.clone(),
            (Change::Remove, Value::Object(map)) => drop(map.remove(key)),
            (Change::Remove, Value::Array(list)) => drop(list.remove(key.parse().unwrap())),
            (Change::Repeat, Value::Array(list)) => {
                let copy = list[key.parse::<usize>().unwrap()].clone();
                list.push(copy);
            }
            _ => {}
        }
    }
    document
}

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

/// Cuts the text and changes bits of it.
fn damaged(text: &[u8], cut: Option<Index>, flips: &[(Index, u8)]) -> Vec<u8> {
    let mut bytes = text.to_vec();
    for (place, bit) in flips {
        let place = place.index(bytes.len());
        bytes[place] ^= 1 << (bit % 8);
    }
    bytes.truncate(cut.map_or(bytes.len(), |cut| cut.index(bytes.len())));
    bytes
}

#[test]
fn the_one_that_is_changed_is_good() {
    understand(config().to_string().as_bytes()).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, failure_persistence: None, rng_seed: RngSeed::Fixed(5), ..ProptestConfig::default() })]

    #[test]
    fn a_changed_configuration_is_accepted_or_its_field_named(changes in changes()) {
        let field = check(changed(config(), &changes).to_string().as_bytes());
        let known = |field: &String| field == "config.json" || TOP.contains(&field.split(['.', '[']).next().unwrap());
        prop_assert!(field.as_ref().is_none_or(known), "{:?}", field);
    }

    #[test]
    fn a_damaged_configuration_is_accepted_or_its_field_named(
        cut in prop::option::of(any::<Index>()),
        flips in vec((any::<Index>(), any::<u8>()), 0..4),
    ) {
        check(&damaged(config().to_string().as_bytes(), cut, &flips));
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, rng_seed: RngSeed::Fixed(5), ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_state_is_its_own_trouble(
        changes in prop::option::of(changes()),
        cut in prop::option::of(any::<Index>()),
        flips in vec((any::<Index>(), any::<u8>()), 0..3),
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
        write("bad", &damaged(bad.as_bytes(), cut, &flips));
        let runtime = Runtime::new(dir.path());
        let listing = runtime.list().unwrap();
        prop_assert!(listing.containers.iter().any(|c| c.id == "good" && c.status == Status::Stopped));
        prop_assert_eq!(listing.containers.len() + listing.broken.len(), 2);
        // Whether it can be read or not, it is told.
        prop_assert_eq!(runtime.state("bad").is_ok(), listing.broken.is_empty());
    }
}
