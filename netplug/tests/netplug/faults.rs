//! Death at every step, and whatever else can be broken: afterwards everything goes on, and nothing is left.

use std::fs;

use dhow_api::network as message;
use dhow_netplug::ContainerId;

use crate::host::{HOST, OUTSIDE, Server, ask, namespace, on_host};
use crate::service::{Process, attach_request};

/// The system calls of an Attach that change something.
const CHANGES: &str = "mount,symlink,rename,sendto,mkdir";

/// Lets a service be killed at its `step`th change; says whether it lived.
fn killed_at(host: &crate::host::Host, step: u32, call: impl FnOnce(&Process)) -> bool {
    let inject = format!("inject={CHANGES}:signal=SIGKILL:when={step}");
    let log = host.directory.path().join("strace");
    let mut service = Process::start(
        host,
        60,
        &["strace", "-f", "-qq", "-o", log.to_str().unwrap(), "-e", &format!("trace={CHANGES}"), "-e", &inject],
    );
    call(&service);
    // The next call is answered by who is still there.
    let lives = service.network.list_networks(&message::ListNetworksRequest::default()).is_ok();
    service.kill();
    lives
}

#[test]
fn an_attach_may_die_at_any_step() {
    on_host(|host| {
        let mut steps = 0;
        for step in 1.. {
            let lived = killed_at(host, step, |service| {
                let _cut_off = service.network.attach(&attach_request("one", &[(8080, 80)]));
            });
            // The next attach of the same container undoes what was half made.
            let _was_finished = host.plug.detach(&ContainerId::parse("one").unwrap());
            let one = host.attach("one", "bridge", &["8080:80"]).unwrap();
            let server = Server::tcp(Some(namespace(&one)), 80);
            assert_eq!(ask(Some(&host.outside), HOST, 8080).unwrap(), OUTSIDE, "step {step}");
            drop(server);
            host.plug.gc(&[]).unwrap();
            host.assert_clean();
            steps = step;
            if lived {
                break;
            }
            assert!(step < 200);
        }
        assert!(steps > 15, "only {steps} steps were seen");
    });
}

#[test]
fn gc_finds_what_a_dead_attach_left() {
    on_host(|host| {
        for step in 1.. {
            let lived = killed_at(host, step, |service| {
                let _cut_off = service.network.attach(&attach_request("one", &[(8080, 80)]));
            });
            // Even named as living, what was cut off is no attachment.
            host.plug.gc(&[]).unwrap();
            host.assert_clean();
            if lived {
                break;
            }
        }
    });
}

#[test]
fn a_detach_may_die_at_any_step() {
    on_host(|host| {
        let changes = "umount2,unlink,sendto,rmdir,readlink";
        for step in 1.. {
            host.attach("one", "bridge", &["8080:80"]).unwrap();
            let inject = format!("inject={changes}:signal=SIGKILL:when={step}");
            let log = host.directory.path().join("strace");
            let under =
                ["strace", "-f", "-qq", "-o", log.to_str().unwrap(), "-e", &format!("trace={changes}"), "-e", &inject];
            let mut service = Process::start(host, 60, &under);
            let detach = message::DetachRequest { container_id: "one".to_owned(), ..Default::default() };
            let lived = service.network.detach(&detach).is_ok();
            service.kill();
            host.detach("one");
            // Port and name are free again.
            host.attach("two", "bridge", &["8080:80"]).unwrap();
            host.plug.gc(&[]).unwrap();
            host.assert_clean();
            if lived {
                break;
            }
            assert!(step < 100);
        }
    });
}

#[test]
fn damaged_records_stop_nobody() {
    on_host(|host| {
        host.attach("one", "bridge", &["8080:80"]).unwrap();
        host.attach("two", "bridge", &["8081:80"]).unwrap();
        let record = host.root().join("networks/attachments/one.json");
        fs::write(&record, "{\"container\":").unwrap();
        host.attach("three", "bridge", &["8082:80"]).unwrap();
        assert_eq!(host.plug.networks().unwrap().len(), 3);
        host.detach("one");
        assert!(!record.exists());
        host.attach("four", "bridge", &["8080:80"]).unwrap();
        fs::write(host.root().join("networks/strange.json"), "nonsense").unwrap();
        host.attach("five", "bridge", &[]).unwrap();
        fs::remove_file(host.root().join("networks/strange.json")).unwrap();
    });
}

#[test]
fn another_boot_has_nothing() {
    on_host(|host| {
        host.attach("one", "bridge", &["8080:80"]).unwrap();
        fs::write(host.root().join("networks/boot"), "another").unwrap();
        let next = dhow_netplug::Netplug::new(&host.root(), &host.runroot()).unwrap();
        next.attach(&crate::host::request("one", "bridge", &["8080:80"])).unwrap();
    });
}

#[test]
fn gc_keeps_the_living() {
    on_host(|host| {
        let one = host.attach("one", "bridge", &["8080:80"]).unwrap();
        host.attach("two", "bridge", &["8081:80"]).unwrap();
        host.plug.gc(&[ContainerId::parse("one").unwrap()]).unwrap();
        let server = Server::tcp(Some(namespace(&one)), 80);
        assert_eq!(ask(Some(&host.outside), HOST, 8080).unwrap(), OUTSIDE);
        drop(server);
        assert!(host.plug.check(&ContainerId::parse("two").unwrap()).is_err());
        host.attach("three", "bridge", &["8081:80"]).unwrap();
    });
}
