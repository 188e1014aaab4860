//! Death at every step, and whatever else can be broken: afterwards everything goes on, and nothing is left.

use std::fs;

use dhow_api::network as message;
use dhow_netplug::ContainerId;

use crate::host::{HOST, Host, OUTSIDE, Server, ask, namespace, on_host};
use crate::service::{Process, attach_request};

/// The system calls of an Attach that change something.
const ATTACHES: [&str; 5] = ["mount", "symlink", "rename", "sendto", "mkdir"];

/// Those of a Detach, and what it looks at.
const DETACHES: [&str; 5] = ["umount2", "unlink", "sendto", "rmdir", "readlink"];

/// Lets a service be killed at each of its calls of these kinds while it does `call`, and looks `after` each time. Returns how
/// often it was killed.
fn killed_at_each(
    host: &Host,
    kinds: &[&str],
    before: impl Fn(),
    call: impl Fn(&Process),
    after: impl Fn(&str),
) -> usize {
    let log = host.directory.path().join("strace");
    let mut kills = 0;
    // strace counts each kind of call for itself.
    for kind in kinds {
        for step in 1..200 {
            before();
            let inject = format!("inject={kind}:signal=SIGKILL:when={step}");
            let trace = format!("trace={kind}");
            let under = ["strace", "-f", "-qq", "-o", log.to_str().unwrap(), "-e", &trace, "-e", &inject];
            let mut service = Process::start(host, 60, &under);
            call(&service);
            // The next call is answered by who is still there.
            let lives = service.network.list_networks(&message::ListNetworksRequest::default()).is_ok();
            service.kill();
            after(&format!("{kind} {step}"));
            if lives {
                break;
            }
            kills += 1;
        }
    }
    kills
}

fn attach(service: &Process) {
    let _cut_off = service.network.attach(&attach_request("one", &[(8080, 80)]));
}

#[test]
fn an_attach_may_die_at_any_step() {
    on_host(|host| {
        let after = |step: &str| {
            // The next attach of the same container undoes what was half made.
            let _was_finished = host.plug.detach(&ContainerId::parse("one").unwrap());
            let one = host.attach("one", "bridge", &["8080:80"]).unwrap();
            let server = Server::tcp(Some(namespace(&one)), 80);
            assert_eq!(ask(Some(&host.outside), HOST, 8080).unwrap(), OUTSIDE, "{step}");
            drop(server);
            host.plug.gc(&[]).unwrap();
            host.assert_clean();
        };
        let kills = killed_at_each(host, &ATTACHES, || {}, attach, after);
        assert!(kills > 15, "only {kills} steps were seen");
    });
}

#[test]
fn gc_finds_what_a_dead_attach_left() {
    on_host(|host| {
        let after = |_: &str| {
            // Even named as living, what was cut off is no attachment.
            host.plug.gc(&[]).unwrap();
            host.assert_clean();
        };
        killed_at_each(host, &ATTACHES, || {}, attach, after);
    });
}

#[test]
fn a_detach_may_die_at_any_step() {
    on_host(|host| {
        let before = || drop(host.attach("one", "bridge", &["8080:80"]).unwrap());
        let detach = |service: &Process| {
            let detach = message::DetachRequest { container_id: "one".to_owned(), ..Default::default() };
            let _cut_off = service.network.detach(&detach);
        };
        let after = |_: &str| {
            host.detach("one");
            // Port and name are free again.
            host.attach("two", "bridge", &["8080:80"]).unwrap();
            host.plug.gc(&[]).unwrap();
            host.assert_clean();
        };
        let kills = killed_at_each(host, &DETACHES, before, detach, after);
        assert!(kills > 5, "only {kills} steps were seen");
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
