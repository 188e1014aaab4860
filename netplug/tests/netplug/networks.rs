//! Containers, their networks, and who reaches whom.

use std::collections::BTreeSet;
use std::fs;

use dhow_api::Kind;
use dhow_netplug::{ContainerId, ExtraHost, NetworkRequest};

use crate::host::{HOST, OUTSIDE, Server, address, ask, files, inside, is_silent, namespace, on_host, request, run};

fn network(name: &str) -> NetworkRequest {
    NetworkRequest { name: name.to_owned(), ..NetworkRequest::default() }
}

#[test]
fn containers_reach_each_other_the_gateway_and_the_world() {
    on_host(|host| {
        let one = host.attach("one", "bridge", &[]).unwrap();
        let two = host.attach("two", "", &[]).unwrap();
        assert_eq!((address(&one).to_string(), address(&two).to_string()), ("10.88.0.2".into(), "10.88.0.3".into()));
        let server = Server::tcp(Some(namespace(&two)), 80);
        assert_eq!(ask(Some(namespace(&one)), "10.88.0.3", 80).unwrap(), "10.88.0.2");
        assert_eq!(ask(None, "10.88.0.3", 80).unwrap(), "10.88.0.1");
        drop(server);
        let server = Server::tcp(None, 81);
        assert_eq!(ask(Some(namespace(&one)), "10.88.0.1", 81).unwrap(), "10.88.0.2");
        drop(server);
        // Outside they are the host.
        let _server = Server::tcp(Some(&host.outside), 82);
        assert_eq!(ask(Some(namespace(&one)), OUTSIDE, 82).unwrap(), HOST);
        let links = inside(namespace(&one), || run("ip -o addr"));
        assert!(
            links.contains("127.0.0.1/8") && links.contains("10.88.0.2/16") && links.contains("::1/128"),
            "{links}"
        );
        assert!(!links.contains("fe80"), "{links}");
        for id in ["one", "two"] {
            host.plug.check(&ContainerId::parse(id).unwrap()).unwrap();
            host.detach(id);
            host.detach(id);
            assert_eq!(host.plug.check(&ContainerId::parse(id).unwrap()).unwrap_err().kind(), Kind::NotFound);
        }
    });
}

#[test]
fn a_container_is_attached_once() {
    on_host(|host| {
        host.attach("one", "bridge", &[]).unwrap();
        assert_eq!(host.attach("one", "bridge", &[]).unwrap_err().kind(), Kind::AlreadyExists);
        assert_eq!(host.attach("two", "nowhere", &[]).unwrap_err().kind(), Kind::NotFound);
        host.detach("one");
        host.attach("one", "bridge", &[]).unwrap();
    });
}

#[test]
fn wanted_addresses_are_given() {
    on_host(|host| {
        let mut wanted = request("one", "bridge", &[]);
        wanted.ip = Some("10.88.7.7".parse().unwrap());
        wanted.mac = Some("02:00:00:00:00:07".parse().unwrap());
        let one = host.plug.attach(&wanted).unwrap();
        assert!(inside(namespace(&one), || run("ip link show eth0")).contains("02:00:00:00:00:07"));
        assert_eq!(address(&one).to_string(), "10.88.7.7");
        wanted.container = ContainerId::parse("two").unwrap();
        let error = host.plug.attach(&wanted).unwrap_err();
        assert_eq!(error.to_string(), "address 10.88.7.7 is taken by container one");
        wanted.ip = Some("10.99.0.1".parse().unwrap());
        assert_eq!(host.plug.attach(&wanted).unwrap_err().kind(), Kind::InvalidArgument);
    });
}

#[test]
fn networks_are_apart() {
    on_host(|host| {
        let front = host.plug.create_network(network("front")).unwrap();
        let back = host.plug.create_network(NetworkRequest { internal: true, ..network("back") }).unwrap();
        assert_eq!(front.subnets[0].prefix.to_string(), "10.89.0.0/24");
        assert_eq!(back.subnets[0].prefix.to_string(), "10.89.1.0/24");
        let one = host.attach("one", "front", &[]).unwrap();
        let two = host.attach("two", "back", &["8080:80"]).unwrap();
        let three = host.attach("three", "back", &[]).unwrap();
        let four = host.attach("four", "bridge", &["8081:80"]).unwrap();
        let _two = Server::tcp(Some(namespace(&two)), 80);
        let _four = Server::tcp(Some(namespace(&four)), 80);
        let _outside = Server::tcp(Some(&host.outside), 82);
        assert_eq!(ask(Some(namespace(&three)), "10.89.1.2", 80).unwrap(), "10.89.1.3");
        for (from, to, port) in [
            (&one, "10.89.1.2", 80),
            (&one, "10.88.0.2", 80),
            (&four, "10.89.1.2", 80),
            (&three, OUTSIDE, 82),
            (&three, HOST, 8081),
        ] {
            assert!(is_silent(Some(namespace(from)), to, port), "{} reached {to}:{port}", from.container);
        }
        // A published port is for everybody who may leave.
        assert_eq!(ask(Some(namespace(&one)), HOST, 8081).unwrap(), address(&one).to_string());
        assert!(two.ports.is_empty());
        // Nobody outside who routes to us gets in either.
        inside(&host.outside, || run("ip route add 10.88.0.0/16 via 192.0.2.1"));
        assert!(is_silent(Some(&host.outside), "10.88.0.2", 80));

        assert_eq!(host.plug.remove_network("front").unwrap_err().kind(), Kind::FailedPrecondition);
        let (inspected, containers) = host.plug.network(&back.id[..12]).unwrap();
        assert_eq!((inspected.name.as_str(), containers), ("back", vec!["three".to_owned(), "two".to_owned()]));
        let names: Vec<_> =
            host.plug.networks().unwrap().into_iter().map(|(network, _)| network.name.to_string()).collect();
        assert_eq!(names, ["back", "bridge", "front", "host", "none"]);
        for id in ["one", "two", "three", "four"] {
            host.detach(id);
        }
        for name in ["front", "back"] {
            host.plug.remove_network(name).unwrap();
            assert_eq!(host.plug.remove_network(name).unwrap_err().kind(), Kind::NotFound);
        }
        assert_eq!(host.plug.remove_network("bridge").unwrap_err().kind(), Kind::FailedPrecondition);
    });
}

#[test]
fn subnets_do_not_overlap() {
    on_host(|host| {
        run("ip link add uplink type bridge");
        run("ip addr add 10.88.5.1/24 dev uplink");
        run("ip link set uplink up");
        let one = host.attach("one", "bridge", &[]).unwrap();
        assert_eq!(address(&one).to_string(), "10.128.0.2");
        let subnets = vec![("10.88.5.0/25".to_owned(), String::new())];
        let error = host.plug.create_network(NetworkRequest { subnets, ..network("mine") }).unwrap_err();
        assert_eq!(error.to_string(), "subnet 10.88.5.0/25 overlaps the host's route to 10.88.5.0/24");
        assert_eq!(error.kind(), Kind::FailedPrecondition);
        let subnets = vec![("10.7.0.0/24".to_owned(), "10.7.0.9".to_owned())];
        host.plug.create_network(NetworkRequest { subnets: subnets.clone(), ..network("mine") }).unwrap();
        assert_eq!(host.plug.create_network(network("mine")).unwrap_err().kind(), Kind::AlreadyExists);
        assert_eq!(
            host.plug.create_network(NetworkRequest { subnets, ..network("twin") }).unwrap_err().kind(),
            Kind::FailedPrecondition
        );
        let two = host.attach("two", "mine", &[]).unwrap();
        assert_eq!(two.interfaces[0].gateways[0].to_string(), "10.7.0.9");
        host.detach("two");
        host.plug.remove_network("mine").unwrap();
        run("ip link del uplink");
    });
}

#[test]
fn two_instances_live_side_by_side() {
    on_host(|host| {
        let other = host.other("second");
        let one = host.attach("one", "bridge", &["8080:80"]).unwrap();
        let two = other.attach(&request("one", "bridge", &["8081:80"])).unwrap();
        assert_eq!(address(&two).to_string(), "10.128.0.2");
        let _one = Server::tcp(Some(namespace(&one)), 80);
        let _two = Server::tcp(Some(namespace(&two)), 80);
        assert_eq!(ask(Some(&host.outside), HOST, 8080).unwrap(), OUTSIDE);
        assert_eq!(ask(Some(&host.outside), HOST, 8081).unwrap(), OUTSIDE);
        assert!(is_silent(Some(namespace(&one)), "10.128.0.2", 80));
        host.plug.gc(&[]).unwrap();
        assert_eq!(ask(Some(&host.outside), HOST, 8081).unwrap(), OUTSIDE);
        other.gc(&[]).unwrap();
    });
}

#[test]
fn a_hundred_at_once_get_addresses_of_their_own() {
    on_host(|host| {
        let addresses: Vec<_> = std::thread::scope(|scope| {
            let attach =
                |number| scope.spawn(move || address(&host.attach(&format!("c{number}"), "bridge", &[]).unwrap()));
            let workers: Vec<_> = (0..100).map(attach).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        assert_eq!(addresses.iter().collect::<BTreeSet<_>>().len(), 100);
    });
}

#[test]
fn addresses_run_out() {
    on_host(|host| {
        let subnets = vec![("10.7.0.0/30".to_owned(), String::new())];
        host.plug.create_network(NetworkRequest { subnets, ..network("tiny") }).unwrap();
        host.attach("one", "tiny", &[]).unwrap();
        let error = host.attach("two", "tiny", &[]).unwrap_err();
        assert_eq!(error.to_string(), "network tiny: no free address is left in 10.7.0.0/30");
        assert_eq!(error.kind(), Kind::ResourceExhausted);
        host.detach("one");
        host.attach("two", "tiny", &[]).unwrap();
        host.detach("two");
        host.plug.remove_network("tiny").unwrap();
    });
}

#[test]
fn modes_without_a_network() {
    on_host(|host| {
        let none = host.attach("none", "none", &[]).unwrap();
        assert!(none.interfaces.is_empty());
        assert_eq!(inside(namespace(&none), || run("ip -o link")).lines().count(), 1);
        let _server = Server::tcp(Some(namespace(&none)), 80);
        assert_eq!(ask(Some(namespace(&none)), "127.0.0.1", 80).unwrap(), "127.0.0.1");
        let on_host = host.attach("host", "host", &[]).unwrap();
        assert_eq!((on_host.netns, on_host.interfaces.len()), (None, 0));
        assert_eq!(host.attach("host", "host", &[]).unwrap_err().kind(), Kind::AlreadyExists);
        let mut wanted = request("x", "host", &[]);
        wanted.ip = Some("10.88.0.9".parse().unwrap());
        assert_eq!(host.plug.attach(&wanted).unwrap_err().kind(), Kind::InvalidArgument);
    });
}

#[test]
fn a_namespace_is_shared() {
    on_host(|host| {
        let directory = host.directory.path().join("files");
        let shared = host.directory.path().join("shared");
        let mut wanted = request("one", "bridge", &[]);
        wanted.files = Some(files(&directory, "web"));
        let one = host.plug.attach(&wanted).unwrap();
        let mut wanted = request("two", "container:one", &[]);
        wanted.files = Some(files(&shared, "ignored"));
        let two = host.plug.attach(&wanted).unwrap();
        assert_eq!((&two.netns, &two.interfaces), (&one.netns, &one.interfaces));
        assert_eq!(fs::read(shared.join("hosts")).unwrap(), fs::read(directory.join("hosts")).unwrap());
        let three = host.attach("three", "container:two", &[]).unwrap();
        assert_eq!(three.netns, one.netns);
        assert_eq!(host.attach("four", "container:nobody", &[]).unwrap_err().kind(), Kind::NotFound);
        assert_eq!(host.attach("four", "container:one", &["80:80"]).unwrap_err().kind(), Kind::InvalidArgument);
        host.plug.check(&ContainerId::parse("three").unwrap()).unwrap();
        // The sharer's end leaves the owner alone.
        host.detach("three");
        let server = Server::tcp(Some(namespace(&one)), 80);
        assert_eq!(ask(None, "10.88.0.2", 80).unwrap(), "10.88.0.1");
        // The owner's end cuts off those that are left, though their namespace lives on: here by the server in it.
        host.detach("one");
        assert!(is_silent(None, "10.88.0.2", 80));
        drop(server);
    });
}

#[test]
fn a_namespace_that_is_held_loses_its_address() {
    on_host(|host| {
        let one = host.attach("one", "bridge", &[]).unwrap();
        // As a connection of a dead container does that waits for an answer.
        let server = Server::tcp(Some(namespace(&one)), 80);
        host.detach("one");
        assert!(run("ip -o link").contains(&one.interfaces[0].host_name));
        let two = host.attach("two", "bridge", &[]).unwrap();
        host.plug.sweep().unwrap();
        assert!(!run("ip -o link").contains(&one.interfaces[0].host_name));
        host.plug.check(&two.container).unwrap();
        drop(server);
    });
}

#[test]
fn files_say_what_was_asked() {
    on_host(|host| {
        let directory = host.directory.path().join("files");
        let mut wanted = request("one", "bridge", &[]);
        wanted.files = Some(files(&directory, "web"));
        let files = wanted.files.as_mut().unwrap();
        files.aliases = vec!["www".to_owned()];
        files.dns = vec!["9.9.9.9".parse().unwrap()];
        files.dns_search = vec!["example.org".to_owned()];
        files.extra_hosts = vec![ExtraHost::parse("host.docker.internal:host-gateway").unwrap()];
        let one = host.plug.attach(&wanted).unwrap();
        assert_eq!(one.dns, ["9.9.9.9".parse::<std::net::IpAddr>().unwrap()]);
        let read = |name: &str| fs::read_to_string(directory.join(name)).unwrap();
        assert_eq!(read("hostname"), "web\n");
        assert!(read("hosts").starts_with("127.0.0.1\tlocalhost\n"));
        assert!(read("hosts").ends_with("10.88.0.1\thost.docker.internal\n10.88.0.2\tweb www\n"));
        assert_eq!(
            read("resolv.conf").lines().take(2).collect::<Vec<_>>(),
            ["nameserver 9.9.9.9", "search example.org"]
        );
        let mode =
            std::os::unix::fs::PermissionsExt::mode(&fs::metadata(directory.join("hosts")).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o644);
    });
}

#[test]
fn packets_are_as_large_as_the_way_out() {
    on_host(|host| {
        run("ip link set wan mtu 1400");
        let one = host.attach("one", "bridge", &[]).unwrap();
        assert!(inside(namespace(&one), || run("ip link show eth0")).contains("mtu 1400"));
        let options = [("mtu".to_owned(), "1300".to_owned())].into();
        host.plug.create_network(NetworkRequest { options, ..network("small") }).unwrap();
        let two = host.attach("two", "small", &[]).unwrap();
        assert!(inside(namespace(&two), || run("ip link show eth0")).contains("mtu 1300"));
        host.detach("two");
        host.plug.remove_network("small").unwrap();
    });
}

#[test]
fn a_foreign_link_is_left_alone() {
    on_host(|host| {
        let made = host.plug.create_network(network("mine")).unwrap();
        run(&format!("ip link add {} type veth peer name other", made.interface));
        let error = host.attach("one", "mine", &[]).unwrap_err();
        assert_eq!(error.kind(), Kind::FailedPrecondition);
        assert!(error.to_string().contains(&made.interface));
        host.plug.gc(&[]).unwrap();
        run(&format!("ip link del {}", made.interface));
        host.plug.remove_network("mine").unwrap();
        // A taken name of a container's other end is stepped around, and so is the default network's.
        let one = host.attach("one", "bridge", &[]).unwrap();
        let taken = &one.interfaces[0].host_name;
        host.plug.gc(&[]).unwrap();
        host.assert_clean();
        run(&format!("ip link add {taken} type veth peer name other"));
        assert_ne!(host.attach("one", "bridge", &[]).unwrap().interfaces[0].host_name, *taken);
        host.plug.check(&ContainerId::parse("one").unwrap()).unwrap();
        host.plug.gc(&[]).unwrap();
        run(&format!("ip link del {taken}"));
        let one = host.attach("one", "bridge", &[]).unwrap();
        let name = host.plug.network("bridge").unwrap().0.interface;
        drop(one);
        host.plug.gc(&[]).unwrap();
        run(&format!("ip link add {name} type veth peer name other"));
        host.attach("one", "bridge", &[]).unwrap();
        assert_ne!(host.plug.network("bridge").unwrap().0.interface, name);
        host.plug.gc(&[]).unwrap();
        run(&format!("ip link del {name}"));
    });
}
