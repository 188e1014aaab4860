//! Published ports: from everywhere they should be reached, from nowhere else.

use std::fs;
use std::net::TcpListener;

use dhow_api::Kind;

use crate::host::{
    HOST, OUTSIDE, Server, address, ask, ask_udp, inside, is_silent, is_silent_udp, namespace, on_host, run,
};

#[test]
fn a_port_is_reached_from_everywhere() {
    on_host(|host| {
        let one = host.attach("one", "bridge", &["8080:80"]).unwrap();
        let two = host.attach("two", "bridge", &[]).unwrap();
        let _server = Server::tcp(Some(namespace(&one)), 80);
        assert_eq!(ask(Some(&host.outside), HOST, 8080).unwrap(), OUTSIDE);
        assert_eq!(ask(None, HOST, 8080).unwrap(), HOST);
        assert_eq!(ask(None, "127.0.0.1", 8080).unwrap(), "10.88.0.1");
        assert_eq!(ask(None, "10.88.0.1", 8080).unwrap(), "10.88.0.1");
        // From a neighbour and from the container itself, by way of the host, with and without br_netfilter.
        for setting in ["0", "1"] {
            fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", setting).unwrap();
            assert_eq!(ask(Some(namespace(&two)), HOST, 8080).unwrap(), "10.88.0.1");
            assert_eq!(ask(Some(namespace(&one)), HOST, 8080).unwrap(), "10.88.0.1");
        }
        host.detach("one");
        assert!(is_silent(Some(&host.outside), HOST, 8080));
    });
}

#[test]
fn a_port_on_one_address_is_only_there() {
    on_host(|host| {
        let one = host.attach("one", "bridge", &["127.0.0.1:8080:80", "192.0.2.1:8081:80"]).unwrap();
        let two = host.attach("two", "bridge", &[]).unwrap();
        let _server = Server::tcp(Some(namespace(&one)), 80);
        assert_eq!(ask(None, "127.0.0.1", 8080).unwrap(), "10.88.0.1");
        assert_eq!(ask(Some(&host.outside), HOST, 8081).unwrap(), OUTSIDE);
        assert!(is_silent(Some(&host.outside), HOST, 8080));
        assert!(is_silent(None, "127.0.0.1", 8081));
        // A neighbour, outside or on the bridge, that sends to 127.0.0.1 by way of the host.
        let _secret = Server::tcp(None, 9000);
        for (attacker, gateway) in [(host.outside.as_path(), HOST), (namespace(&two), "10.88.0.1")] {
            let reached = inside(attacker, || {
                run("ip addr del 127.0.0.1/8 dev lo");
                run(&format!("ip route add 127.0.0.0/8 via {gateway}"));
                for name in ["all", "lo", "default"] {
                    fs::write(format!("/proc/sys/net/ipv4/conf/{name}/route_localnet"), "1").unwrap();
                }
                [8080, 9000].map(|port| !is_silent(None, "127.0.0.1", port))
            });
            assert_eq!(reached, [false, false], "{}", attacker.display());
        }
    });
}

#[test]
fn others_traffic_to_the_same_port_is_left_alone() {
    on_host(|host| {
        // CVE-2025-67499: whoever translates by port alone catches what only passes through.
        let one = host.attach("one", "bridge", &["8080:80"]).unwrap();
        let two = host.attach("two", "bridge", &[]).unwrap();
        let _container = Server::tcp(Some(namespace(&one)), 80);
        let _outside = Server::tcp(Some(&host.outside), 8080);
        assert_eq!(ask(Some(namespace(&two)), OUTSIDE, 8080).unwrap(), HOST);
        assert_eq!(ask(None, OUTSIDE, 8080).unwrap(), HOST);
    });
}

#[test]
fn udp_streams_follow_the_port() {
    on_host(|host| {
        // A client that was there first, and never stops.
        assert!(is_silent_udp(Some(&host.outside), 4000, HOST, 5353));
        let one = host.attach("one", "bridge", &["5353:53/udp"]).unwrap();
        let server = Server::udp(Some(namespace(&one)), 53);
        assert_eq!(ask_udp(Some(&host.outside), 4000, HOST, 5353).unwrap(), OUTSIDE);
        drop(server);
        host.detach("one");
        let two = host.attach("two", "bridge", &["5353:53/udp"]).unwrap();
        assert_ne!(address(&one), address(&two));
        let _server = Server::udp(Some(namespace(&two)), 53);
        assert_eq!(ask_udp(Some(&host.outside), 4000, HOST, 5353).unwrap(), OUTSIDE);
        assert_eq!(ask_udp(None, 0, "127.0.0.1", 5353).unwrap(), "10.88.0.1");
    });
}

#[test]
fn a_port_is_given_once() {
    on_host(|host| {
        let listener = TcpListener::bind("127.0.0.1:8080").unwrap();
        let error = host.attach("one", "bridge", &["8080:80"]).unwrap_err();
        let me = std::process::id();
        let wanted = format!("port 0.0.0.0:8080/tcp is already allocated: process {me} (");
        assert!(error.to_string().starts_with(&wanted), "{error}");
        assert_eq!(error.kind(), Kind::AlreadyExists);
        drop(listener);
        host.attach("one", "bridge", &["8080:80"]).unwrap();
        for (port, free) in [
            ("8080:80", false),
            ("127.0.0.1:8080:80", false),
            ("8080:80/udp", true),
            ("8080:80/sctp", true),
            ("8081:80", true),
        ] {
            match host.attach("two", "bridge", &[port]) {
                Ok(_) => assert!(free, "{port}"),
                Err(error) => {
                    assert!(!free, "{port}: {error}");
                    assert!(error.to_string().ends_with("is already allocated: container one has it"), "{error}");
                }
            }
            host.detach("two");
        }
        // Nothing of a refused attach stays.
        assert!(host.attach("two", "bridge", &["8082:80", "8080:80"]).is_err());
        host.attach("three", "bridge", &["8082:80"]).unwrap();
        let error = host.attach("two", "bridge", &["192.0.2.77:8083:80"]).unwrap_err();
        assert_eq!(error.kind(), Kind::FailedPrecondition);
    });
}

#[test]
fn a_port_is_picked() {
    on_host(|host| {
        let one = host.attach("one", "bridge", &["0:80", "0:81"]).unwrap();
        let picked: Vec<_> = one.ports.iter().map(|port| port.host_port).collect();
        assert!(picked.iter().all(|port| *port >= 1024) && picked[0] != picked[1], "{picked:?}");
        let _server = Server::tcp(Some(namespace(&one)), 81);
        assert_eq!(ask(Some(&host.outside), HOST, picked[1]).unwrap(), OUTSIDE);
    });
}
