//! Attached clients: input, output, detaching, slow readers, large amounts.

mod common;

use std::time::Duration;

use common::Container;
use dhow_api::attach::End;
use dhow_api::documents::{LogConfig, Stdin};
use dhow_api::{Kind, task};

#[test]
fn input_and_output_of_an_attached_client() {
    let container = Container::sh("cat; echo err >&2").config(|config| config.stdin = Stdin::Once).create();
    let mut client = container.attach("");
    container.start();
    client.send(b"one\n");
    assert_eq!(client.until("one\n"), "one\n");
    client.send(b"two\n");
    client.end_stdin();
    assert_eq!(client.rest(), (b"two\n".to_vec(), b"err\n".to_vec(), Some(End::Exited)));
    assert_eq!(container.wait(), 0);
    assert_eq!(container.log("stdout"), "one\ntwo\n");
    container.assert_gone();
}

#[test]
fn output_before_the_connection_is_not_lost() {
    // The client's place in the output is the answer to Attach, not its connection.
    for _ in 0..10 {
        let container = Container::sh("echo quick").create();
        let client = container.attach("");
        container.start();
        assert_eq!(container.wait(), 0);
        assert_eq!(client.rest(), (b"quick\n".to_vec(), Vec::new(), Some(End::Exited)));
        container.assert_gone();
    }
}

#[test]
fn stdin_ends_with_the_first_client_or_stays() {
    let container = Container::sh("cat; echo over").config(|config| config.stdin = Stdin::Once).run();
    drop(container.attach(""));
    assert_eq!(container.wait(), 0);
    container.assert_gone();

    let container = Container::sh("cat; echo over").config(|config| config.stdin = Stdin::Open).run();
    drop(container.attach(""));
    let mut second = container.attach("");
    second.send(b"still\n");
    assert_eq!(second.until("still"), "still\n");
    // An end that a client sends is an end, whoever may come later.
    second.end_stdin();
    assert_eq!(second.rest().0, b"over\n");
    assert_eq!(container.wait(), 0);
    container.assert_gone();
}

#[test]
fn close_io_ends_stdin() {
    let container = Container::new(&["cat"]).config(|config| config.stdin = Stdin::Open).run();
    let request = task::CloseIORequest { id: container.id.clone(), stdin: true, ..Default::default() };
    container.task.close_io(&request).unwrap();
    container.task.close_io(&request).unwrap();
    assert_eq!(container.wait(), 0);
    container.assert_gone();
}

#[test]
fn several_clients_see_the_same() {
    let container = Container::sh("read x; seq 1 3000; echo $x").config(|config| config.stdin = Stdin::Open).run();
    let mut clients: Vec<_> = (0..5).map(|_| container.attach("")).collect();
    clients[3].send(b"go\n");
    let expected: String = (1..=3000).map(|n| format!("{n}\n")).chain(["go\n".to_owned()]).collect();
    std::thread::scope(|scope| {
        for client in clients {
            scope.spawn(|| {
                let (out, _, end) = client.rest();
                assert_eq!(String::from_utf8(out).unwrap(), expected);
                assert_eq!(end, Some(End::Exited));
            });
        }
    });
    assert_eq!(container.wait(), 0);
    container.assert_gone();
}

#[test]
fn a_terminal_has_a_size_and_can_be_left() {
    let container = Container::new(&["sh"]).terminal().config(|config| config.stdin = Stdin::Open).create();
    let mut client = container.attach("");
    container.start();
    let resize = |height, width| {
        let request = task::ResizePtyRequest { id: container.id.clone(), height, width, ..Default::default() };
        container.task.resize_pty(&request)
    };
    resize(33, 101).unwrap();
    client.send(b"stty size\n");
    client.until("33 101");
    assert_eq!(resize(70_000, 1).unwrap_err().kind(), Kind::InvalidArgument);
    client.send(b"echo before\x10");
    client.send(b"\x11ignored");
    let (_, _, end) = client.rest();
    assert_eq!(end, Some(End::Detached));
    let mut second = container.try_attach("", "ctrl-a,x").unwrap();
    // What was typed before the keys is still there; ctrl-p is an ordinary key now.
    second.send(b"\n");
    second.until("before");
    second.send(b"exit 5\n");
    let (_, _, end) = second.rest();
    assert_eq!(end, Some(End::Exited));
    assert_eq!(container.wait(), 5);
    container.assert_gone();
}

#[test]
fn a_process_without_a_terminal_has_no_size() {
    let container = Container::new(&["sleep", "1000"]).run();
    let request = task::ResizePtyRequest { id: container.id.clone(), height: 10, width: 10, ..Default::default() };
    container.task.resize_pty(&request).unwrap();
    container.kill(libc::SIGKILL).unwrap();
    assert_eq!(container.wait(), 137);
    container.assert_gone();
}

#[test]
fn ctrl_c_reaches_the_foreground_process() {
    let container = Container::sh("trap 'echo int; exit 9' INT; echo up; while :; do sleep 0.1; done").terminal();
    let container = container.config(|config| config.stdin = Stdin::Open).create();
    let mut client = container.attach("");
    container.start();
    client.until("up");
    client.send(b"\x03");
    client.until("int");
    assert_eq!(container.wait(), 9);
    container.assert_gone();
}

#[test]
fn an_exec_has_stdio_of_its_own() {
    let container = Container::new(&["sleep", "1000"]).run();
    container.exec("cat", "cat; echo err >&2; exit 3", false).unwrap();
    let mut client = container.attach("cat");
    container.start_exec("cat").unwrap();
    client.send(b"to the exec\n");
    client.end_stdin();
    assert_eq!(client.rest(), (b"to the exec\n".to_vec(), b"err\n".to_vec(), Some(End::Exited)));
    assert_eq!(container.wait_for("cat"), 3);

    container.exec("tty", "tty; read x; stty size; echo got $x", true).unwrap();
    let mut client = container.attach("tty");
    container.start_exec("tty").unwrap();
    client.until("/dev/pts/");
    let request = task::ResizePtyRequest {
        id: container.id.clone(),
        exec_id: "tty".into(),
        height: 12,
        width: 34,
        ..Default::default()
    };
    container.task.resize_pty(&request).unwrap();
    client.send(b"typed\n");
    let (out, _, end) = client.rest();
    let out = String::from_utf8(out).unwrap();
    assert!(out.contains("12 34\r\ngot typed"), "{out}");
    assert_eq!(end, Some(End::Exited));

    // Without a client its stdin is empty and its output goes nowhere.
    container.exec("alone", "cat && echo fine", false).unwrap();
    container.start_exec("alone").unwrap();
    assert_eq!(container.wait_for("alone"), 0);
    assert_eq!(container.log("stdout"), "");
    container.kill(libc::SIGKILL).unwrap();
    container.wait();
    container.assert_gone();
}

#[test]
fn large_outputs_arrive_whole_or_go_nowhere() {
    let container = Container::new(&["sleep", "1000"]).run();
    container.exec("all", "dd if=/dev/zero bs=65536 count=1600 2>/dev/null", false).unwrap();
    let client = container.attach("all");
    container.start_exec("all").unwrap();
    let (out, _, end) = client.rest();
    assert_eq!((out.len(), end), (1600 * 65536, Some(End::Exited)));
    assert_eq!(container.wait_for("all"), 0);

    container.exec("nobody", "dd if=/dev/zero bs=1048576 count=1024 2>/dev/null", false).unwrap();
    container.start_exec("nobody").unwrap();
    assert_eq!(container.wait_for("nobody"), 0);
    let status = std::fs::read_to_string(format!("/proc/{}/status", container.shim_pid())).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 64 * 1024, "the shim took {peak} KiB");
    container.kill(libc::SIGKILL).unwrap();
    container.wait();
    container.assert_gone();
}

#[test]
fn a_client_that_does_not_read_holds_up_and_one_that_left_does_not() {
    let container = Container::sh("dd if=/dev/zero bs=65536 count=500 2>/dev/null; echo through >&2")
        .config(|config| config.log = LogConfig::None)
        .create();
    let stuck = container.attach("");
    container.start();
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(container.state().status.unwrap(), task::Status::RUNNING, "nobody held it up");
    drop(stuck);
    assert_eq!(container.wait(), 0);
    container.assert_gone();
}

#[test]
fn a_client_that_does_not_read_does_not_hold_up_the_end_for_ever() {
    let container = Container::sh("dd if=/dev/zero bs=65536 count=500 2>/dev/null & exec sleep 1000")
        .config(|config| config.log = LogConfig::None)
        .create();
    let stuck = container.attach("");
    container.start();
    std::thread::sleep(Duration::from_millis(100));
    container.kill(libc::SIGKILL).unwrap();
    assert_eq!(container.wait(), 137);
    drop(stuck);
    container.assert_gone();
}

#[test]
fn strangers_and_nonsense_on_the_attach_socket() {
    use std::io::{Read, Write};
    let container = Container::new(&["cat"]).config(|config| config.stdin = Stdin::Open).run();
    let socket = container.shim_dir().attach_socket();
    for token in ["0".repeat(32) + "\n", "x".repeat(100), "\n".repeat(33)] {
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        stream.write_all(token.as_bytes()).unwrap();
        let mut nothing = Vec::new();
        // The end, or a reset where more was sent than anyone read.
        let _end = stream.read_to_end(&mut nothing);
        assert!(nothing.is_empty());
    }
    let mut client = container.attach("");
    client.send_raw(&[9, 9, 9, 9, 9, 9]);
    assert_eq!(client.rest().2, None);
    let mut client = container.attach("");
    client.send(b"alive\n");
    client.until("alive");
    client.end_stdin();
    assert_eq!(container.wait(), 0);
    assert_eq!(container.try_attach("none", "").err().unwrap().kind(), Kind::NotFound);
    container.assert_gone();
}

#[test]
fn an_engine_that_reads_a_terminal_sees_its_end_before_it_deletes() {
    let container = Container::new(&["sleep", "1000"]).run();
    let fifo = container.dir().join("engine");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let reader = std::thread::spawn({
        let fifo = fifo.clone();
        move || std::fs::read(fifo).unwrap()
    });
    container.exec_into("x", "echo shown; exit 3", true, fifo.to_str().unwrap()).unwrap();
    container.start_exec("x").unwrap();
    assert_eq!(container.wait_for("x"), 3);
    assert_eq!(reader.join().unwrap(), b"shown\r\n");
    container.kill(libc::SIGKILL).unwrap();
    container.wait();
    container.assert_gone();
}
