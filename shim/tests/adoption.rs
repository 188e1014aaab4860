//! The shim is killed: the container runs on, and the next shim goes on with it.

mod common;

use common::Container;
use dhow_api::attach::End;
use dhow_api::documents::Stdin;
use dhow_api::task;

#[test]
fn a_container_outlives_its_shim() {
    // It writes more than a pipe holds while nobody reads, and nothing of it is lost or broken. It starts to write only when
    // the shim is gone: what a shim has read and not yet written when it is killed, nobody has.
    let container = Container::sh("echo up; while [ ! -e /tmp/go ]; do sleep 0.01; done; seq 1 30000; exit 6").run();
    container.wait_for_log("up");
    let (pid, shim) = (container.state().pid, container.shim_pid());
    container.kill_shim();
    std::fs::write(format!("/proc/{pid}/root/tmp/go"), "").unwrap();
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "the container died with its shim");
    // Any call starts the next shim.
    assert_eq!(container.state().pid, pid);
    assert_ne!(container.shim_pid(), shim);
    assert_eq!(container.wait(), 6);
    let expected: String = (1..=30_000).map(|n| format!("{n}\n")).collect();
    assert_eq!(container.log("stdout"), format!("up\n{expected}"));
    let record = container.exit_record();
    assert_eq!((record.exit_code, record.error), (6, None));
    assert!(record.started_at.is_some());
    container.assert_gone();
}

#[test]
fn an_adopted_container_can_be_killed_and_exec_ed_in() {
    let container = Container::new(&["sleep", "1000"]).run();
    container.kill_shim();
    assert_eq!(container.state().status.unwrap(), task::Status::RUNNING);
    container.exec("x", "exit 9", false).unwrap();
    container.start_exec("x").unwrap();
    assert_eq!(container.wait_for("x"), 9);
    container.kill_shim();
    container.kill(libc::SIGKILL).unwrap();
    assert_eq!(container.wait(), 137);
    container.assert_gone();
}

#[test]
fn a_container_that_ends_without_a_shim_is_concluded() {
    let container = Container::new(&["sleep", "1000"]).run();
    let pid = container.state().pid;
    container.kill_shim();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), nix::sys::signal::Signal::SIGKILL).unwrap();
    container.until(
        || dhow_sys::process::stat(pid.cast_signed()).is_none_or(|stat| stat.is_dead()),
        "the container does not end",
    );
    // The next shim finds it and cleans up; who asks meanwhile is told that there is no container.
    let request = task::StateRequest { id: container.id.clone(), ..Default::default() };
    assert!(container.task.state(&request).is_err());
    container.until(|| container.bundle().exit().exists(), "no exit.json");
    let record = container.exit_record();
    assert_eq!(record.exit_code, 255);
    assert!(record.error.is_some());
    container.assert_gone();
}

/// Starts the shim in a pid namespace of its own.
const ELSEWHERE: &str = r#"exec unshare --pid --fork --mount-proc --kill-child "$@""#;

#[test]
fn a_container_is_taken_over_in_its_own_pid_namespace_only() {
    let container = Container::new(&["sleep", "1000"]).run();
    let (pid, shim) = (container.state().pid, container.shim_pid());
    container.kill_shim();
    let state = task::StateRequest { id: container.id.clone(), ..Default::default() };
    let error = dhow_api::error::chain(&container.started_by(ELSEWHERE).state(&state).unwrap_err());
    assert!(error.contains("the container runs in pid namespace "), "{error}");
    // Nothing has been touched.
    assert!(!container.bundle().exit().exists());
    assert_eq!(container.shim_pid(), shim);
    assert_eq!((container.state().pid, container.state().status.unwrap()), (pid, task::Status::RUNNING));
    container.kill(libc::SIGKILL).unwrap();
    assert_eq!(container.wait(), 137);
    container.assert_gone();
}

#[test]
fn a_container_that_has_ended_is_concluded_from_any_pid_namespace() {
    let container = Container::new(&["sleep", "1000"]).run();
    let pid = nix::unistd::Pid::from_raw(container.state().pid.cast_signed());
    container.kill_shim();
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
    let state = task::StateRequest { id: container.id.clone(), ..Default::default() };
    let elsewhere = container.started_by(ELSEWHERE);
    let concluded = || {
        // Refused while it is ending; and whether who concludes it still answers is a matter of time.
        drop(elsewhere.state(&state));
        container.bundle().exit().exists()
    };
    container.until(concluded, "no exit.json");
    drop(elsewhere);
    assert_eq!(container.exit_record().exit_code, 255);
    container.assert_gone();
}

#[test]
fn a_terminal_survives_the_shim() {
    let container = Container::new(&["sh"]).terminal().config(|config| config.stdin = Stdin::Open).create();
    let mut client = container.attach("");
    container.start();
    client.send(b"x=kept; echo $x up\n");
    client.until("kept up");
    container.kill_shim();
    let mut client = container.attach("");
    client.send(b"echo again $x; exit 4\n");
    client.until("again kept");
    assert_eq!(client.rest().2, Some(End::Exited));
    assert_eq!(container.wait(), 4);
    container.assert_gone();
}

#[test]
fn stdin_survives_the_shim_and_still_ends() {
    let container = Container::new(&["cat"]).config(|config| config.stdin = Stdin::Open).run();
    let mut client = container.attach("");
    client.send(b"one\n");
    client.until("one");
    container.kill_shim();
    let mut client = container.attach("");
    client.send(b"two\n");
    client.until("two");
    client.end_stdin();
    assert_eq!(client.rest().2, Some(End::Exited));
    assert_eq!(container.wait(), 0);
    assert_eq!(container.log("stdout"), "one\ntwo\n");
    container.assert_gone();
}

#[test]
fn a_created_container_is_started_by_the_next_shim() {
    let container = Container::sh("echo started; exit 2").create();
    container.kill_shim();
    container.start();
    assert_eq!(container.wait(), 2);
    assert_eq!(container.log("stdout"), "started\n");
    container.assert_gone();
}

#[test]
fn shims_killed_over_and_over() {
    let container =
        Container::sh("i=0; while [ ! -e /tmp/stop ]; do echo $i; i=$((i+1)); sleep 0.005; done; exit 8").run();
    let pid = container.state().pid;
    for _ in 0..8 {
        std::thread::sleep(std::time::Duration::from_millis(100));
        assert_eq!(container.state().status.unwrap(), task::Status::RUNNING);
        container.kill_shim();
    }
    // The next shim is there before it ends: its exit code is to be seen.
    assert_eq!(container.state().pid, pid);
    std::fs::write(format!("/proc/{pid}/root/tmp/stop"), "").unwrap();
    assert_eq!(container.wait(), 8);
    // A chunk that the dead shim had read and not yet written is lost; nothing is torn or out of order.
    let numbers: Vec<u32> = container.log("stdout").lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.is_sorted_by(|one, next| one < next), "{numbers:?}");
    assert!(!numbers.is_empty());
    container.assert_gone();
}
