//! Namespaces, new and joined, and what belongs to them.

use std::os::unix::fs::{MetadataExt, PermissionsExt};

use serde_json::json;

use crate::support::{Bench, everywhere, everywhere_and_v2, only_ours};

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

#[test]
fn network_devices_move_in_with_their_addresses() {
    // Debian's runc is older than that.
    only_ours(|t| {
        // A network namespace of the test's own stands for the host's.
        let script = "ip link add dhow0 type veth peer name dhow1 && ip link set dhow0 up && \
            ip address add 192.0.2.7/24 dev dhow0 && ip address add 2001:db8::7/64 dev dhow0 nodad && exec \"$@\"";
        t.inside(&["unshare", "--net", "sh", "-c", script, "sh"]);
        t.set("/linux/netDevices", json!({"dhow0": {"name": "inner%d"}, "dhow1": {}}));
        let seen = t.shell("ip -o address show dev inner0; ip -o link show");
        for expected in [" inet 192.0.2.7/24 ", " inet6 2001:db8::7/64 scope global", ": dhow1@", "lo: "] {
            assert!(seen.contains(expected), "{expected}: {seen}");
        }
        assert_eq!(seen.matches(",UP").count(), 3, "{seen}");
        t.set("/linux/netDevices", json!({"dhow0": {"name": "lo"}}));
        assert!(t.fails(&["run", "x"]).1.contains("linux.netDevices.dhow0: "));
        t.set("/linux/netDevices", json!({"nosuch": {}}));
        assert!(t.fails(&["run", "x"]).1.contains("linux.netDevices.nosuch: there is no such network device"));
        assert!(!t.path("state/x").exists());
    });
}

#[test]
fn names_are_the_containers_own() {
    // Debian's runc does not know the domain name.
    only_ours(|t| {
        t.set("/domainname", json!("domain"));
        assert_eq!(t.shell("hostname; cat /proc/sys/kernel/domainname"), "conformance\ndomain\n");
    });
}

#[test]
fn a_new_network_is_there_before_what_depends_on_it() {
    everywhere_and_v2(|t| {
        let seen = t.path("seen");
        let find = r#"pid=$(grep -o '"pid": *[0-9]*' | grep -o '[0-9]*$'); readlink /proc/$pid/ns/net"#;
        let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", format!("{find} > {}", seen.display())]});
        t.set("/hooks", json!({"createRuntime": [hook]}));
        let own = std::fs::read_link("/proc/self/ns/net").unwrap().display().to_string();
        let mut check = |script: &str, expected: &[&str]| {
            let told = t.shell(&format!("readlink /proc/self/ns/net; ifconfig lo | grep -wo UP; {script}"));
            let lines: Vec<&str> = told.lines().collect();
            assert_ne!(lines[0], own);
            assert_eq!(lines[1..], *expected);
            assert_eq!(std::fs::read_to_string(&seen).unwrap().trim_end(), lines[0], "what the hook saw");
            // Without a mount that depends on it.
            t.config["mounts"].as_array_mut().unwrap().retain(|mount| mount["type"] != "sysfs");
        };
        check("ls /sys/class/net", &["UP", "lo"]);
        check("true", &["UP"]);
    });
}

/// A user namespace that maps its ids to some that nobody has.
fn map_ids(t: &mut Bench) {
    t.push("/linux/namespaces", json!({"type": "user"}));
    t.set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]));
    t.set("/linux/gidMappings", json!([{"containerID": 0, "hostID": 200_000, "size": 65536}]));
}

#[test]
fn a_user_namespace_has_everything_that_others_have() {
    everywhere_and_v2(|t| {
        map_ids(t);
        t.push("/linux/namespaces", json!({"type": "cgroup"}));
        t.push("/mounts", json!({"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue"}));
        t.push(
            "/mounts",
            json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["ro"]}),
        );
        t.set("/linux/maskedPaths", json!(["/proc/kcore", "/sys/firmware"]));
        t.set("/linux/readonlyPaths", json!(["/proc/sys"]));
        t.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
        t.set("/process/user", json!({"uid": 5, "gid": 6, "additionalGids": [7]}));
        t.args(&["sleep", "1000"]);
        t.ok(&["create", "u"]);
        let script = "id; echo x >/dev/null && head -c1 /dev/zero | wc -c; test -c /dev/tty && echo tty; \
            test -d /dev/mqueue && test -d /sys/class/net/lo && echo sys; test -e /sys/fs/cgroup/cgroup.procs || ls /sys/fs/cgroup | \
            grep -q memory && echo cgroup; cat /proc/sys/net/ipv4/ip_forward;\
            touch /dev/shm/x && stat -c %u:%g /dev/shm/x; stat -c %u /dev/mqueue";
        let expected = "uid=5 gid=6 groups=7\n1\ntty\nsys\ncgroup\n1\n5:6\n0\n";
        let check = |when: &str| {
            let seen = t.ok(&["exec", "u", "sh", "-c", script]);
            assert_eq!(seen, expected, "{when}");
        };
        check("created");
        t.ok(&["start", "u"]);
        check("running");
    });
}

#[test]
fn a_user_namespace_in_a_joined_network() {
    everywhere_and_v2(|t| {
        t.set("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"}));
        t.sleeping("first");
        let pid = t.pid("first");
        map_ids(t);
        t.config["linux"].as_object_mut().unwrap().remove("sysctl");
        t.config["linux"]["namespaces"][1] = json!({"type": "network", "path": format!("/proc/{pid}/ns/net")});
        // sysfs shows the network that the mounter's user namespace owns, and this one belongs to another.
        let sys = json!({"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "ro"]});
        *t.config["mounts"].as_array_mut().unwrap().last_mut().unwrap() = sys;
        let seen = t.shell(
            "id -u; cat /proc/sys/net/ipv4/ip_forward; readlink /proc/self/ns/net; test -d /sys/class && echo sys",
        );
        let network = std::fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        assert_eq!(seen, format!("0\n1\n{}\nsys\n", network.display()));
    });
}

#[test]
fn an_ordinary_user_has_containers_too() {
    only_ours(|t| {
        t.belong_to(4711);
        t.push("/linux/namespaces", json!({"type": "user"}));
        t.set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 4711, "size": 1}]));
        t.set("/linux/gidMappings", json!([{"containerID": 0, "hostID": 4711, "size": 1}]));
        // Nobody else is mapped, so there is no group 5 for terminals.
        t.config["mounts"][2]["options"].as_array_mut().unwrap().pop();
        let seen =
            t.shell("id -u; echo x >/dev/null; touch /tmp/x && stat -c %u:%g /tmp/x; test -d /sys/class && echo sys");
        assert_eq!(seen, "0\n0:0\nsys\n");
        assert_eq!(std::fs::metadata(t.rootfs("/tmp/x")).unwrap().uid(), 4711);
        t.sleeping("u");
        assert_eq!(
            t.ok(&["exec", "u", "sh", "-c", "id -u; hostname; test $$ -gt 1 && echo inside"]),
            "0\nconformance\ninside\n"
        );
        let pid = t.pid("u");
        t.ok(&["kill", "u", "KILL"]);
        t.gone(pid);
        t.ok(&["delete", "u"]);
    });
}

#[test]
fn a_container_divides_the_cgroup_that_it_can_write_to() {
    only_ours(|t| {
        t.on_v2();
        map_ids(t);
        t.push("/linux/namespaces", json!({"type": "cgroup"}));
        let mount = json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": []});
        t.push("/mounts", mount);
        let script = "cd /sys/fs/cgroup && mkdir below && echo 0 > below/cgroup.procs && grep -o '/below$' /proc/self/cgroup; \
            stat -c %u cgroup.procs cgroup.max.depth";
        assert_eq!(t.shell(script), "/below\n0\n65534\n");
    });
}

#[test]
fn everything_of_a_container_with_a_user_namespace_can_be_joined() {
    everywhere(|t| {
        map_ids(t);
        // Debian's runc is older than time namespaces.
        let mut names = vec!["user", "net", "pid", "uts", "ipc"];
        if t.is_ours() {
            t.push("/linux/namespaces", json!({"type": "time"}));
            t.set("/linux/timeOffsets", json!({"boottime": {"secs": 1337, "nanosecs": 5}}));
            names.push("time");
        }
        t.sleeping("first");
        let pid = t.pid("first");
        let path = |name: &str| format!("/proc/{pid}/ns/{name}");
        let joined = names.iter().map(|name| {
            let kind = if *name == "net" { "network" } else { *name };
            json!({"type": kind, "path": path(name)})
        });
        t.config["linux"]["namespaces"] = [json!({"type": "mount"})].into_iter().chain(joined).collect();
        if t.is_ours() {
            // Debian's runc wants the mappings of a namespace that has them already.
            let linux = t.config["linux"].as_object_mut().unwrap();
            linux.retain(|field, _| !field.ends_with("Mappings") && field != "timeOffsets");
        }
        t.config.as_object_mut().unwrap().remove("hostname");
        let script =
            format!("id -u; hostname; for n in {}; do readlink /proc/self/ns/$n; done; test $$ != 1", names.join(" "));
        let links: Vec<_> = names.iter().map(|name| std::fs::read_link(path(name)).unwrap()).collect();
        let links: Vec<_> = links.iter().map(|link| link.to_str().unwrap()).collect();
        assert_eq!(t.shell(&script), format!("0\nconformance\n{}\n", links.join("\n")));
    });
}

#[test]
fn a_user_namespace_needs_no_root() {
    only_ours(|t| {
        t.push("/linux/namespaces", json!({"type": "user"}));
        t.set("/linux/uidMappings", json!([{"containerID": 1000, "hostID": 100_000, "size": 1}]));
        t.set("/linux/gidMappings", json!([{"containerID": 1001, "hostID": 200_000, "size": 1}]));
        t.set("/process/user", json!({"uid": 1000, "gid": 1001}));
        t.config["mounts"][2]["options"].as_array_mut().unwrap().pop();
        let script = "id -u; id -g; grep CapEff /proc/self/status; touch /dev/shm/x && stat -c %u:%g /dev/shm/x";
        t.config["process"]["capabilities"] = json!({});
        let expected = "1000\n1001\nCapEff:\t0000000000000000\n1000:1001\n";
        assert_eq!(t.shell(script), expected);
        t.sleeping("s");
        assert_eq!(t.ok(&["exec", "s", "sh", "-c", script]), expected);
    });
}

#[test]
fn hooks_of_a_user_namespace_need_not_reach_its_root() {
    everywhere(|t| {
        map_ids(t);
        let hook = json!([{"path": "/bin/true"}]);
        t.config["hooks"] = json!({"prestart": hook, "createRuntime": hook});
        // The directory of the bench is closed to everybody but root.
        assert_eq!(t.shell("id -u"), "0\n");
    });
}

#[test]
fn without_a_mount_namespace_the_root_is_mounted_on_the_host() {
    // What runc executes there sees the host's root.
    only_ours(|t| {
        // In place of the host's there is one of the test's own.
        let root = t.path("rootfs").display().to_string();
        let runtime = t.path("runtime-in").display().to_string();
        let script = format!(
            "\"$@\" --root {runtime} run -d h >/dev/null && grep -c ' {root} ' /proc/self/mountinfo &&
             \"$@\" --root {runtime} exec h sh -c 'ls -d /rootfs /bin; pwd; cat /mark' ; \"$@\" --root {runtime} delete -f h"
        );
        t.inside(&["unshare", "--mount", "--propagation", "private"]);
        std::fs::write(t.rootfs("/mark"), "inside\n").unwrap();
        t.set("/linux/namespaces", json!([{"type": "pid"}, {"type": "uts"}])).args(&["sleep", "1000"]);
        let command = t.command(&["run", "h"]);
        let mut words: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        // Up to the runtime.
        words.truncate(4);
        let mut shell = std::process::Command::new(command.get_program());
        shell.args(&words[..3]).args(["sh", "-c", &script, "sh"]).arg(&words[3]);
        let output =
            shell.current_dir(command.get_current_dir().unwrap()).stdin(std::process::Stdio::null()).output().unwrap();
        let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert_eq!(stdout, "1\n/bin\n/\ninside\n", "{stderr}");
    });
}
