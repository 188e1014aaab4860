//! Bringing a saved container back as containerd asks for it, with a criu that does and says what the test wants.

#![expect(clippy::unwrap_used, reason = "helpers of tests may, as tests may")]

use std::path::Path;

use common::{Container, program};
use containerd_shim_protos::shim::oci::Options;
use dhow_api::clients::Task;
use dhow_api::{Error, Kind, rpc, task};
use protobuf::Message;
use protobuf::well_known_types::any::Any;

mod common;

/// criu's side of the protocol. What it has "restored" is a process that sleeps, whose pid it writes to `pid`; the first
/// one comes with a terminal that is none.
const CRIU: &str = r#"#!/usr/bin/python3
import os, socket
here = os.path.dirname(__file__)
with socket.socket(fileno=3) as peer:
    def answer(kind, field, content, fds=()):
        text = bytes([8, kind, 16, 1]) + (bytes([field << 3 | 2, len(content)]) + content if content else b"")
        socket.send_fds(peer, [text], fds)
    def tell(script, pid, fds=()):
        number = b""
        while pid > 127:
            number, pid = number + bytes([pid & 127 | 128]), pid >> 7
        answer(6, 5, bytes([10, len(script)]) + script + bytes([16]) + number + bytes([pid]), fds)
        peer.recv(65536)
    peer.recv(65536)
    answer(10, 10, bytes([8, 4, 16, 2]))
    peer.recv(65536)
    child = os.fork()
    if child == 0:
        peer.close()
        os.execv("/bin/sleep", ["sleep", "1000"])
    again = os.path.exists(here + "/pid")
    with open(here + "/pid", "w") as file:
        file.write(str(child))
    if not again:
        with open(here + "/criu") as file:
            tell(b"orphan-pts-master", 0, [file.fileno()])
    tell(b"post-restore", child)
    answer(2, 0, b"")
    peer.recv(65536)
"#;

/// A container that is to be restored, under a shim in containerd's way that finds the criu from above.
struct Saved {
    container: Container,
    criu: std::path::PathBuf,
}

impl Saved {
    fn create() -> Self {
        let mut container = Container::new(&["sleep", "1000"]).terminal();
        let criu = container.dir().join("criu");
        std::fs::create_dir(&criu).unwrap();
        program(&criu.join("criu"), CRIU);
        container.task = container.started_by(&format!("PATH={}:$PATH exec \"$@\"", criu.display()));

        let bundle = container.bundle();
        std::fs::create_dir_all(bundle.path()).unwrap();
        std::fs::write(bundle.config(), container.spec.to_string()).unwrap();
        let images = container.dir().join("images");
        std::fs::create_dir(&images).unwrap();
        std::fs::write(images.join("descriptors.json"), "[]").unwrap();
        let text = |path: &Path| path.to_str().unwrap().to_owned();
        let mut options = Any::new();
        "containerd.runc.v1.Options".clone_into(&mut options.type_url);
        let root = text(&container.dir().join("runtime"));
        options.value = Options { root, ..Default::default() }.write_to_bytes().unwrap();
        let request = task::CreateTaskRequest {
            id: container.id.clone(),
            bundle: text(bundle.path()),
            terminal: true,
            checkpoint: text(&images),
            options: Some(options).into(),
            ..Default::default()
        };
        assert_eq!(container.task.create(&request).unwrap().pid, 0);
        Self { container, criu }
    }

    fn delete(&self) -> Result<task::DeleteResponse, Error> {
        let request = task::DeleteRequest { id: self.container.id.clone(), ..Default::default() };
        self.container.task.delete(&request)
    }

    /// The process that was brought back last.
    fn restored(&self) -> u32 {
        std::fs::read_to_string(self.criu.join("pid")).unwrap().parse().unwrap()
    }

    /// After Delete.
    fn shutdown(mut self) {
        let request = task::ShutdownRequest { id: self.container.id.clone(), ..Default::default() };
        self.container.task.shutdown(&request).unwrap();
        // Connections hold it up.
        self.container.task = Task::over(rpc::Client::at("/nonexistent"));
        // containerd would.
        let dir = self.container.shim_dir().path().to_owned();
        self.container.until(|| !dir.join("shim.sock").exists(), "the shim stays");
        std::fs::remove_dir_all(dir).unwrap();
        self.container.assert_gone();
    }
}

#[test]
fn what_was_brought_back_and_cannot_be_taken_over_is_taken_down() {
    let saved = Saved::create();
    let container = &saved.container;
    assert_eq!(container.state().status.unwrap(), task::Status::CREATED);
    let error = container.try_start().unwrap_err();
    assert_eq!(error.kind(), Kind::Internal, "{error}");
    // Nobody would see the end of that process.
    let lost = saved.restored();
    assert!(!Path::new(&format!("/proc/{lost}/exe")).exists());
    let state = container.state();
    assert_eq!((state.status.unwrap(), state.pid), (task::Status::CREATED, 0));
    assert!(!container.dir().join("runtime/dhow").join(&container.id).exists());

    // It is saved as before.
    let pid = container.try_start().unwrap();
    assert_eq!((pid, container.state().status.unwrap()), (saved.restored(), task::Status::RUNNING));
    assert_eq!(container.try_start().unwrap_err().kind(), Kind::FailedPrecondition);
    assert_eq!(saved.delete().unwrap_err().kind(), Kind::FailedPrecondition);
    container.kill(libc::SIGKILL).unwrap();
    assert_eq!(container.wait(), 137);
    assert_eq!(saved.delete().unwrap().exit_status, 137);
    saved.shutdown();
}

#[test]
fn what_was_never_brought_back_is_deleted() {
    let saved = Saved::create();
    assert!(saved.container.try_start().is_err());
    saved.delete().unwrap();
    saved.shutdown();
}
