//! Namespaces, new and joined, and what belongs to them.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::json;

use crate::support::{everywhere, only_ours};

#[test]
fn namespaces_are_new_or_joined() {
    everywhere(|t| {
        let own = |name: &str| std::fs::read_link(format!("/proc/self/ns/{name}")).unwrap();
        t.sleeping("first");
        let pid = t.pid("first");
        for name in ["pid", "net", "ipc", "uts", "mnt"] {
            assert_ne!(std::fs::read_link(format!("/proc/{pid}/ns/{name}")).unwrap(), own(name), "{name}");
        }
        assert_eq!(std::fs::read_link(format!("/proc/{pid}/ns/user")).unwrap(), own("user"));
        let path = |name: &str| format!("/proc/{pid}/ns/{name}");
        t.set(
            "/linux/namespaces",
            json!([{"type": "mount"}, {"type": "network", "path": path("net")}, {"type": "pid", "path": path("pid")},
                   {"type": "uts", "path": path("uts")}, {"type": "ipc", "path": path("ipc")}]),
        );
        t.config.as_object_mut().unwrap().remove("hostname");
        let seen = t.shell("hostname; for n in net pid uts ipc; do readlink /proc/self/ns/$n; done; test $$ != 1");
        let mut lines = seen.lines();
        assert_eq!(lines.next(), Some("conformance"));
        for name in ["net", "pid", "uts", "ipc"] {
            let expected = std::fs::read_link(path(name)).unwrap();
            assert_eq!(lines.next(), expected.to_str());
        }
    });
}

#[test]
fn user_namespaces_map_ids() {
    everywhere(|t| {
        t.push("/linux/namespaces", json!({"type": "user"}));
        t.set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]));
        t.set("/linux/gidMappings", json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]));
        std::fs::set_permissions(t.rootfs("/tmp"), PermissionsExt::from_mode(0o777)).unwrap();
        // The runtime has to get through directories that the container's root may not enter.
        let seen = t.shell("id -u; id -g; touch /tmp/f; echo x > /dev/null && cat /proc/self/uid_map");
        assert_eq!(seen.split_whitespace().collect::<Vec<_>>(), ["0", "0", "0", "100000", "65536"]);
        let meta = std::fs::metadata(t.rootfs("/tmp/f")).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (100_000, 200_000));
        t.sleeping("s");
        assert_eq!(t.ok(&["exec", "s", "id", "-u"]), "0\n");
    });
}

#[test]
fn sysctls_are_the_containers_own() {
    everywhere(|t| {
        let before = std::fs::read("/proc/sys/net/ipv4/ip_forward").unwrap();
        t.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1", "kernel.msgmax": "4711"}));
        assert_eq!(t.shell("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/msgmax"), "1\n4711\n");
        assert_eq!(std::fs::read("/proc/sys/net/ipv4/ip_forward").unwrap(), before);
        t.set("/linux/sysctl", json!({"vm.swappiness": "1"}));
        t.fails(&["run", "x"]);
    });
}

#[test]
fn clocks_of_a_time_namespace_are_set() {
    // Debian's runc is older than that.
    only_ours(|t| {
        t.push("/linux/namespaces", json!({"type": "time"}));
        t.set("/linux/timeOffsets", json!({"boottime": {"secs": 100_000_000, "nanosecs": 0}}));
        let seen = t.shell("cat /proc/uptime");
        let seconds: f64 = seen.split(' ').next().unwrap().parse().unwrap();
        assert!(seconds > 1e8, "{seen}");
    });
}
