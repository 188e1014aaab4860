//! The network: published ports, container to container, and out through NAT, on loopback and namespaces of the test's.
#![allow(clippy::unwrap_used, reason = "a test reports by panicking")]

use dhow_tests::{BUSYBOX, DEBIAN, Instance, isolated, tool};

const SERVER: &str = "httpd -f -p 80 -h /var/www";

fn get(url: &str) -> dhow_tests::Ran {
    // Not wget's own -T: Debian 12's static busybox falls over it.
    tool("timeout", ["300", "busybox", "wget", "-q", "-O", "-", url]).run()
}

fn eventually_get(url: &str) -> String {
    let soon = || tool("timeout", ["3", "busybox", "wget", "-q", "-O", "-", url]).run();
    dhow_tests::eventually(&format!("{url} answers"), || Some(soon()).filter(|ran| ran.code == 0)).stdout
}

/// A namespace beside the sandbox's, reachable over a veth pair: 192.0.2.1 here, 192.0.2.2 there.
fn outside() -> impl Drop {
    struct Outside;
    impl Drop for Outside {
        fn drop(&mut self) {
            for pid in tool("ip", ["netns", "pids", "outside"]).run().lines() {
                tool("kill", ["-9", pid]).run();
            }
            tool("ip", ["netns", "del", "outside"]).run();
            tool("ip", ["link", "del", "to-outside"]).run();
            // `ip netns` makes the directory a mount of its own for good.
            tool("umount", ["/run/netns"]).run();
        }
    }
    let script = "set -e
ip netns add outside
ip link add to-outside type veth peer name eth0 netns outside
ip addr add 192.0.2.1/24 dev to-outside
ip link set to-outside up
ip -n outside addr add 192.0.2.2/24 dev eth0
ip -n outside link set eth0 up
ip -n outside link set lo up";
    tool("sh", ["-c", script]).run().ok();
    Outside
}

#[test]
fn a_published_port_is_reached_from_everywhere() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let _outside = outside();
        dhow.ok(&format!("run -d --name web -p 8080:80 {image} {SERVER}"));
        assert_eq!(eventually_get("http://127.0.0.1:8080/"), "hello from a container\n");
        assert_eq!(
            get("http://192.0.2.1:8080/").ok().stdout,
            "hello from a container\n",
            "by another address of the host"
        );
        let from_outside = [
            "netns",
            "exec",
            "outside",
            "timeout",
            "300",
            "busybox",
            "wget",
            "-q",
            "-O",
            "-",
            "http://192.0.2.1:8080/",
        ];
        assert_eq!(tool("ip", from_outside).run().ok().stdout, "hello from a container\n");
        assert_eq!(dhow.ok("port web"), "80/tcp -> 0.0.0.0:8080");
        assert_eq!(dhow.ok("port web 80"), "0.0.0.0:8080");
        assert!(dhow.ok("ps").contains("0.0.0.0:8080->80/tcp"));
        let address = dhow.field("web", "/NetworkSettings/IPAddress").as_str().unwrap().to_owned();
        assert_eq!(get(&format!("http://{address}/")).ok().stdout, "hello from a container\n");
        let hairpin = dhow.run(&format!("run --rm {image} timeout 300 wget -q -O - http://192.0.2.1:8080/")).ok();
        assert_eq!(hairpin.stdout, "hello from a container\n", "from a container by the host's address");
        dhow.ok("rm -f web");
        get("http://127.0.0.1:8080/").code(1);
        dhow.ok(&format!("run -d --name web -p 127.0.0.1:8080:80 {image} {SERVER}"));
        assert_eq!(eventually_get("http://127.0.0.1:8080/"), "hello from a container\n");
        tool("ip", from_outside).run().code(1);
        dhow.ok("rm -f web");
    });
}

#[test]
fn a_container_reaches_another_and_itself() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        dhow.ok(&format!("run -d --name web -p 8081:80 {image} {SERVER}"));
        let address = dhow.field("web", "/NetworkSettings/IPAddress").as_str().unwrap().to_owned();
        eventually_get("http://127.0.0.1:8081/");
        let other = dhow.ok(&format!("run --rm {image} wget -q -O - http://{address}/"));
        assert_eq!(other, "hello from a container");
        assert_eq!(dhow.ok(&format!("exec web wget -q -O - http://{address}/")), "hello from a container");
        assert_eq!(dhow.ok("exec web wget -q -O - http://127.0.0.1/"), "hello from a container");
        let gateway = dhow.field("web", "/NetworkSettings/Gateway").as_str().unwrap().to_owned();
        assert_eq!(
            dhow.ok(&format!("exec web timeout 300 wget -q -O - http://{gateway}:8081/")),
            "hello from a container",
            "hairpin"
        );
        dhow.ok(&format!("exec web ping -c 1 -W 60 {gateway}"));
        dhow.ok("rm -f web");
    });
}

#[test]
fn out_through_nat() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let _outside = outside();
        let page = sandbox.dir("page");
        std::fs::write(page.join("index.html"), "outside\n").unwrap();
        let mut server = tool("ip", ["netns", "exec", "outside", "busybox", "httpd", "-f", "-v", "-p", "80", "-h"])
            .arg(&page)
            .into_command();
        let log = sandbox.path().join("log");
        server.stderr(std::fs::File::create(&log).unwrap());
        let mut server = server.spawn().unwrap();
        let said = dhow_tests::eventually("the outside answers", || {
            Some(dhow.run(&format!("run --rm {image} timeout 3 wget -q -O - http://192.0.2.2/")))
                .filter(|ran| ran.code == 0)
        });
        assert_eq!(said.stdout, "outside\n");
        let log = dhow_tests::command::text(log);
        assert!(log.contains("192.0.2.1"), "it sees the host's address: {log}");
        server.kill().unwrap();
        server.wait().unwrap();
    });
}

#[test]
fn modes_host_none_and_container() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let links = |mode: &str| dhow.ok(&format!("run --rm --net {mode} {image} ls /sys/class/net"));
        assert_eq!(links("none"), "lo");
        assert!(links("host").contains("lo"));
        let own = dhow.ok(&format!("run --rm {image} ip -o addr show eth0"));
        assert!(own.contains("inet "), "{own}");
        dhow.ok(&format!("run -d --name web {image} {SERVER}"));
        let shared = dhow_tests::eventually("the shared server answers", || {
            Some(dhow.run(&format!("run --rm --net container:web {image} wget -q -O - http://127.0.0.1/")))
                .filter(|ran| ran.code == 0)
        });
        assert_eq!(shared.stdout, "hello from a container\n");
        dhow.ok("rm -f web");
        let host = dhow.run(&format!("run --rm --net host {image} hostname")).ok();
        assert_eq!(host.out(), tool("hostname", [""; 0]).run().out());
    });
}

#[test]
fn a_port_that_is_taken_is_named() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        dhow.ok(&format!("run -d --name web -p 8080:80 {image} {SERVER}"));
        dhow.run(&format!("run -d --name second -p 8080:80 {image} {SERVER}")).one_line(125, &["8080"]);
        let listener = std::net::TcpListener::bind("0.0.0.0:9090").unwrap();
        dhow.run(&format!("run -d --name third -p 9090:80 {image} {SERVER}")).one_line(125, &["9090"]);
        drop(listener);
        dhow.ok("rm -f web");
        for left in ["second", "third"] {
            dhow.run(&format!("rm -f {left}"));
        }
        dhow.ok(&format!("run -d --name again -p 8080:80 -p 9090:80 {image} {SERVER}"));
        assert_eq!(eventually_get("http://127.0.0.1:9090/"), "hello from a container\n");
        dhow.ok("rm -f again");
    });
}

#[test]
fn free_ports_and_udp() {
    isolated(|sandbox| {
        let (registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        dhow.ok(&format!("run -d --name web -p 80 {image} {SERVER}"));
        let port = dhow.field("web", "/NetworkSettings/Ports/80~1tcp/0/HostPort").as_str().unwrap().to_owned();
        assert_eq!(eventually_get(&format!("http://127.0.0.1:{port}/")), "hello from a container\n");
        let debian = registry.image(DEBIAN);
        let echo = "use IO::Socket::INET; my $s = IO::Socket::INET->new(LocalPort => 53, Proto => 'udp') or die; \
                    my $b; while (1) { $s->recv($b, 100); $s->send($b) }";
        dhow.dhow(["run", "-d", "--name", "udp", "-p", "5353:53/udp", &debian, "perl", "-e", echo]).run().ok();
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect("127.0.0.1:5353").unwrap();
        socket.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
        dhow_tests::eventually("an echo over UDP", || {
            socket.send(b"echo").ok();
            let mut buffer = [0; 16];
            socket.recv(&mut buffer).ok().filter(|length| &buffer[..*length] == b"echo")
        });
        dhow.ok("rm -f web udp");
    });
}

#[test]
fn two_instances_do_not_see_each_other() {
    isolated(|sandbox| {
        let (registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let other = Instance::named(sandbox, "other");
        other.ok(&format!("pull -q {image}"));
        dhow.ok(&format!("run -d --name web -p 8080:80 {image} {SERVER}"));
        other.ok(&format!("run -d --name web -p 8081:80 {image} {SERVER}"));
        for port in [8080, 8081] {
            assert_eq!(eventually_get(&format!("http://127.0.0.1:{port}/")), "hello from a container\n");
        }
        dhow.ok("rm -f web");
        assert_eq!(eventually_get("http://127.0.0.1:8081/"), "hello from a container\n");
        other.ok("rm -f web");
        drop(registry);
    });
}

#[test]
fn addresses_are_given_back() {
    isolated(|sandbox| {
        let (_registry, dhow, image) = Instance::with_image(sandbox, BUSYBOX);
        let mut addresses = std::collections::BTreeSet::new();
        for _ in 0..6 {
            addresses.insert(dhow.ok(&format!("run --rm {image} hostname -i")));
        }
        let names: Vec<String> = (0..4).map(|n| format!("c{n}")).collect();
        for name in &names {
            dhow.ok(&format!("run -d --name {name} {image} sleep 1000"));
        }
        let mut seen = std::collections::BTreeSet::new();
        for name in &names {
            seen.insert(dhow.field(name, "/NetworkSettings/IPAddress").to_string());
        }
        assert_eq!(seen.len(), 4, "all different: {seen:?}");
        dhow.dhow(["rm", "-f"]).args(&names).run().ok();
        dhow_tests::eventually("no lease is left", || {
            let leases = dhow
                .files()
                .into_iter()
                .filter(|file| file.starts_with("networks/leases/") && !file.contains("/.last "))
                .count();
            (leases == 0).then_some(())
        });
    });
}
