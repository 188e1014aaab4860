//! The table: what nft reads of it, and that it comes back.

use dhow_netplug::ContainerId;

use crate::host::{HOST, OUTSIDE, Server, ask, is_silent, namespace, on_host, run};

/// The whole table of an instance with one container, as nft prints it.
const TABLE: &str = r#"table inet TABLE {
	set bridges {
		type ifname
		elements = { "BRIDGE" }
	}

	set outbound {
		type ifname
		elements = { "BRIDGE" }
	}

	set internal {
		type ifname
	}

	set within {
		type ifname . ifname
		elements = { "BRIDGE" . "BRIDGE" }
	}

	map publish4 {
		type inet_proto . inet_service : ipv4_addr . inet_service
		elements = { tcp . 8080 : 10.88.0.2 . 80 }
	}

	map publish4_on {
		type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service
		elements = { 127.0.0.1 . udp . 5353 : 10.88.0.2 . 53 }
	}

	chain publish {
		dnat ip to ip daddr . meta l4proto . th dport map @publish4_on
		dnat ip to meta l4proto . th dport map @publish4
	}

	chain guard {
		type filter hook prerouting priority raw; policy accept;
		iifname @bridges ip daddr 127.0.0.0/8 drop
		iifname @bridges ip saddr 127.0.0.0/8 drop
	}

	chain prerouting {
		type nat hook prerouting priority dstnat - 1; policy accept;
		iifname != "lo" ip daddr 127.0.0.0/8 return
		fib daddr type local jump publish
	}

	chain output {
		type nat hook output priority -101; policy accept;
		fib daddr type local jump publish
	}

	chain postrouting {
		type nat hook postrouting priority srcnat - 1; policy accept;
		ct status dnat iifname . oifname @within masquerade
		ct status dnat iifname "" oifname @bridges fib saddr type != local masquerade
		meta nfproto ipv4 iifname @outbound oifname != @bridges masquerade
		ip saddr 127.0.0.0/8 oifname @bridges masquerade
	}

	chain forward {
		type filter hook forward priority filter - 1; policy accept;
		ct state established,related accept
		iifname . oifname @within accept
		iifname @internal drop
		ct status dnat oifname @bridges accept
		oifname @bridges drop
	}
}
"#;

#[test]
fn nft_reads_what_was_written() {
    on_host(|host| {
        host.attach("one", "bridge", &["8080:80", "127.0.0.1:5353:53/udp"]).unwrap();
        let bridge = host.plug.network("bridge").unwrap().0.interface;
        let wanted = TABLE.replace("TABLE", &host.plug.table()).replace("BRIDGE", &bridge);
        assert_eq!(run("nft list ruleset"), wanted);
    });
}

#[test]
fn the_table_comes_back() {
    on_host(|host| {
        let one = host.attach("one", "bridge", &["8080:80"]).unwrap();
        let _server = Server::tcp(Some(namespace(&one)), 80);
        let before = run("nft list ruleset");
        let table = host.plug.table();
        let flushes = [
            "nft flush ruleset".to_owned(),
            format!("nft flush table inet {table}"),
            format!("nft delete table inet {table}"),
            format!("nft flush set inet {table} bridges"),
        ];
        for flush in &flushes {
            run(flush);
            assert!(host.plug.check(&ContainerId::parse("one").unwrap()).is_err(), "{flush}");
            host.attach("two", "bridge", &[]).unwrap();
            assert_eq!(run("nft list ruleset"), before, "{flush}");
            host.plug.check(&ContainerId::parse("one").unwrap()).unwrap();
            assert_eq!(ask(Some(&host.outside), HOST, 8080).unwrap(), OUTSIDE, "{flush}");
            host.detach("two");
        }
        // By the next call that publishes, that withdraws, and by Gc.
        run("nft flush ruleset");
        host.attach("two", "bridge", &["8081:80"]).unwrap();
        run("nft flush ruleset");
        host.detach("two");
        assert_eq!(run("nft list ruleset"), before);
        run("nft flush ruleset");
        host.plug.gc(&[ContainerId::parse("one").unwrap()]).unwrap();
        assert_eq!(run("nft list ruleset"), before);
        run("nft flush ruleset");
        host.detach("one");
    });
}

#[test]
fn others_may_change_the_ruleset_at_any_time() {
    on_host(|host| {
        let stop = &std::sync::atomic::AtomicBool::new(false);
        let noise = std::thread::scope(|scope| {
            let noise = scope.spawn(move || {
                let mut rounds = 0;
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    run("nft add table inet noise");
                    run("nft delete table inet noise");
                    rounds += 1;
                }
                rounds
            });
            for number in 0..40 {
                let port = format!("{}:80", 8000 + number);
                host.attach(&format!("c{number}"), "bridge", &[&port]).unwrap();
                if number % 2 == 0 {
                    host.detach(&format!("c{number}"));
                }
            }
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            noise.join().unwrap()
        });
        assert!(noise > 0);
        assert_eq!(run(&format!("nft list map inet {} publish4", host.plug.table())).matches(" : ").count(), 20 + 1);
    });
}

#[test]
fn many_ports_fit_in_one_transaction() {
    on_host(|host| {
        let ports: Vec<_> = (20_000..22_000).map(|port| format!("{port}:{port}")).collect();
        let ports: Vec<_> = ports.iter().map(String::as_str).collect();
        let one = host.attach("one", "bridge", &ports).unwrap();
        let _server = Server::tcp(Some(namespace(&one)), 21_999);
        assert_eq!(ask(Some(&host.outside), HOST, 21_999).unwrap(), OUTSIDE);
        run("nft flush ruleset");
        host.attach("two", "bridge", &["80:80"]).unwrap();
        assert_eq!(ask(Some(&host.outside), HOST, 21_999).unwrap(), OUTSIDE);
        host.detach("one");
        assert!(is_silent(Some(&host.outside), HOST, 21_999));
    });
}
