//! Starting, losing and replacing a real service process.
//!
//! The service is this very test program, started again with the name of the test `the_service` (which does nothing
//! else when LISTEN_FDS is unset): a service for tests must not be among the programs that get installed.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests may, as tests may")]

use std::ffi::OsString;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use dhow_api::clients::Shim;
use dhow_api::service::ServiceSpec;
use dhow_api::shim::{HealthRequest, HealthResponse, LogPositionRequest, LogPositionResponse};
use dhow_api::{Error, Kind, error, rpc, server, service, shim_ttrpc_async, socket};
use protobuf::Message;

/// Longest time that anything here may take.
const LIMIT: Duration = Duration::from_secs(300);

/// Answers with its pid, sleeps, or fails, as asked.
struct Fake;

#[async_trait]
impl shim_ttrpc_async::Shim for Fake {
    async fn health(&self, _: &ttrpc::r#async::TtrpcContext, request: HealthRequest) -> ttrpc::Result<HealthResponse> {
        server::blocking(move || match request.id.as_str() {
            "fail" => Err(error::status_text(Kind::FailedPrecondition, "as asked")),
            "panic" => panic!("as asked"),
            "die" => std::process::abort(),
            _ => Ok(HealthResponse { failing_streak: std::process::id(), ..Default::default() }),
        })
        .await
    }

    async fn log_position(
        &self,
        _: &ttrpc::r#async::TtrpcContext,
        request: LogPositionRequest,
    ) -> ttrpc::Result<LogPositionResponse> {
        if let Some(mark) = std::env::var_os("FAKE_IN_FLIGHT") {
            std::fs::write(mark, "").unwrap();
        }
        tokio::time::sleep(Duration::from_millis(request.id.parse().unwrap())).await;
        Ok(LogPositionResponse { path: "x".repeat(3 << 20), ..Default::default() })
    }
}

/// Not a test: the body of the service's process.
#[test]
fn the_service() {
    let Some(socket) = std::env::var_os("FAKE_SOCKET") else { return };
    let idle = std::env::var("FAKE_IDLE_MS").ok().map(|ms| Duration::from_millis(ms.parse().unwrap()));
    let options = server::Options { socket: socket.into(), idle };
    server::run(&options, || shim_ttrpc_async::create_shim(Arc::new(Fake))).unwrap();
}

/// A service of the test's own; ends it on drop.
struct Instance {
    dir: tempfile::TempDir,
    spec: ServiceSpec,
}

impl Instance {
    fn new(idle_ms: Option<u64>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("run/fake.sock");
        // The environment goes through env(1), as a specification has arguments only.
        let mut args: Vec<OsString> = vec![format!("FAKE_SOCKET={}", socket.display()).into()];
        args.push(format!("FAKE_IN_FLIGHT={}", dir.path().join("in-flight").display()).into());
        args.extend(idle_ms.map(|ms| format!("FAKE_IDLE_MS={ms}").into()));
        args.push(std::env::current_exe().unwrap().into());
        args.extend(["--exact", "the_service", "--nocapture", "--test-threads=1"].map(OsString::from));
        Self {
            spec: ServiceSpec { socket, binary: "/usr/bin/env".into(), args, cwd: "/".into(), protected: false },
            dir,
        }
    }

    /// Made by a slow call when it has arrived.
    fn in_flight(&self) -> PathBuf {
        self.dir.path().join("in-flight")
    }

    fn client(&self) -> Shim {
        Shim::over(rpc::Client::of(self.spec.clone()))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if let Ok(pid) = pid_of(&Shim::over(rpc::Client::at(self.spec.socket.clone()))) {
            kill(pid, nix::sys::signal::Signal::SIGTERM);
            wait_gone(pid);
        }
    }
}

fn pid_of(client: &Shim) -> Result<u32, Error> {
    client.health(&HealthRequest::new()).map(|answer| answer.failing_streak)
}

fn kill(pid: u32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.cast_signed()), signal).unwrap();
}

/// Reaps a service that this process started, and fails when it does not end.
fn wait_gone(pid: u32) {
    let begin = Instant::now();
    let pid = nix::unistd::Pid::from_raw(pid.cast_signed());
    loop {
        match nix::sys::wait::waitpid(pid, Some(nix::sys::wait::WaitPidFlag::WNOHANG)) {
            Ok(nix::sys::wait::WaitStatus::StillAlive) => {}
            _ => return,
        }
        assert!(begin.elapsed() < LIMIT, "{pid} does not end");
        std::thread::yield_now();
    }
}

#[test]
fn a_hundred_callers_at_once_start_one() {
    let instance = Instance::new(None);
    let barrier = Barrier::new(100);
    let pids: Vec<u32> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..100)
            .map(|_| {
                scope.spawn(|| {
                    let client = instance.client();
                    barrier.wait();
                    pid_of(&client).unwrap()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(pids.iter().all(|pid| *pid == pids[0]), "{pids:?}");
    let cmdline = std::fs::read(format!("/proc/{}/stat", pids[0])).unwrap();
    let stat = String::from_utf8_lossy(&cmdline);
    let session: u32 = stat.rsplit(") ").next().unwrap().split(' ').nth(3).unwrap().parse().unwrap();
    assert_eq!(session, pids[0], "the service is not the leader of its session");
}

#[test]
fn a_killed_service_is_replaced_unseen() {
    let instance = Instance::new(None);
    let client = instance.client();
    let first = pid_of(&client).unwrap();
    kill(first, nix::sys::signal::Signal::SIGKILL);
    wait_gone(first);
    let second = pid_of(&client).unwrap();
    assert_ne!(first, second);
}

#[test]
fn a_service_that_idles_out_never_loses_a_call() {
    let instance = Instance::new(Some(1));
    let begin = Instant::now();
    let mut pids = std::collections::BTreeSet::new();
    while begin.elapsed() < Duration::from_secs(3) || pids.len() <= 3 {
        assert!(begin.elapsed() < LIMIT, "it never left: {pids:?}");
        // A new client has to connect; one that is kept finds its connection closed.
        let client = instance.client();
        pids.insert(pid_of(&client).unwrap());
        std::thread::sleep(Duration::from_millis(begin.elapsed().as_millis() as u64 % 83));
        pids.insert(pid_of(&client).unwrap());
    }
    for pid in pids {
        wait_gone(pid);
    }
    assert!(!instance.spec.socket.exists());
}

#[test]
fn it_leaves_on_sigterm_after_the_calls_in_flight() {
    let instance = Instance::new(None);
    let client = instance.client();
    let pid = pid_of(&client).unwrap();
    std::thread::scope(|scope| {
        let call = scope.spawn(|| client.log_position(&LogPositionRequest { id: "300".into(), ..Default::default() }));
        let begin = Instant::now();
        while !instance.in_flight().exists() {
            assert!(begin.elapsed() < LIMIT, "the call does not arrive");
            std::thread::yield_now();
        }
        kill(pid, nix::sys::signal::Signal::SIGTERM);
        assert_eq!(call.join().unwrap().unwrap().path.len(), 3 << 20);
    });
    wait_gone(pid);
    assert!(!instance.spec.socket.exists());
}

#[test]
fn it_does_not_leave_in_the_middle_of_an_answer() {
    let instance = Instance::new(None);
    let pid = pid_of(&instance.client()).unwrap();
    let asked = LogPositionRequest { id: "0".into(), ..Default::default() };
    let request = ttrpc::Request {
        service: Shim::SERVICE.into(),
        method: "LogPosition".into(),
        payload: asked.write_to_bytes().unwrap(),
        ..Default::default()
    };
    let request = request.write_to_bytes().unwrap();
    // ttrpc's header: length, stream, type (1 is a request), flags.
    let length = u32::try_from(request.len()).unwrap();
    let header = [&length.to_be_bytes()[..], &1_u32.to_be_bytes(), &[1, 0]].concat();
    let mut stream = UnixStream::connect(&instance.spec.socket).unwrap();
    stream.write_all(&[header, request].concat()).unwrap();
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).unwrap();
    // More than the socket holds is still to come, and longer than that the service does not wait for new calls.
    kill(pid, nix::sys::signal::Signal::SIGTERM);
    std::thread::sleep(Duration::from_millis(300));
    let length = u32::from_be_bytes(answer[..4].try_into().unwrap());
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).unwrap();
    assert_eq!(rest.len(), usize::try_from(length).unwrap());
    assert!(rest.len() > 3 << 20);
    drop(stream);
    wait_gone(pid);
}

#[test]
fn errors_keep_code_and_text() {
    let instance = Instance::new(None);
    let client = instance.client();
    let ask = |id: &str| client.health(&HealthRequest { id: id.into(), ..Default::default() }).unwrap_err();
    let failed = ask("fail");
    assert_eq!((failed.kind(), failed.to_string().as_str()), (Kind::FailedPrecondition, "as asked"));
    assert_eq!(ask("panic").kind(), Kind::Internal);
    let slow: Result<LogPositionResponse, Error> = client.client().call(
        Shim::SERVICE,
        "LogPosition",
        &LogPositionRequest { id: "5000".into(), ..Default::default() },
        Some(Duration::from_millis(50)),
    );
    assert_eq!(slow.unwrap_err().kind(), Kind::DeadlineExceeded);
    let unknown: Result<HealthResponse, Error> =
        client.client().call(Shim::SERVICE, "Nonsense", &HealthRequest::new(), Some(LIMIT));
    assert_eq!(unknown.unwrap_err().kind(), Kind::Unimplemented);
    let pid = pid_of(&client).unwrap();
    assert_eq!(ask("die").kind(), Kind::Unavailable);
    wait_gone(pid);
}

#[test]
fn a_service_that_cannot_start_says_why() {
    let mut instance = Instance::new(None);
    instance.spec.binary = "/bin/sh".into();
    instance.spec.args = ["-c", "echo 'disk on fire' >&2; exit 3"].map(OsString::from).into();
    let error = pid_of(&instance.client()).unwrap_err();
    assert_eq!(error.to_string(), "/bin/sh ended at once: disk on fire");
    instance.spec.binary = instance.dir.path().join("absent");
    let error = pid_of(&instance.client()).unwrap_err();
    assert!(matches!(error, Error::Start { .. }), "{error:?}");
    instance.spec.binary = "dhow-absent".into();
    assert!(matches!(pid_of(&instance.client()).unwrap_err(), Error::NoBinary { .. }));
}

#[test]
fn peers_of_another_user_are_refused_on_both_sides() {
    assert!(nix::unistd::geteuid().is_root(), "this test needs root");
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    // A server of nobody's, spoken to by a process of daemon's: whoever runs this, one of the two is a stranger.
    let socket = dir.path().join("s.sock");
    let script = r#"
import os, socket, sys
os.setgid(1); os.setuid(1)
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
try:
    s.sendall(b"\0" * 10)
    print("read", len(s.recv(100)))
except OSError as e:
    print("refused")
"#;
    let listener = socket::listen(&socket).unwrap();
    std::fs::set_permissions(&socket, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let answer = runtime.block_on(async {
        let _serving =
            server::Serving::start(listener, &socket, shim_ttrpc_async::create_shim(Arc::new(Fake))).unwrap();
        let path = socket.clone();
        tokio::task::spawn_blocking(move || {
            std::process::Command::new("python3").args(["-c", script]).arg(path).output().unwrap()
        })
        .await
        .unwrap()
    });
    let text = String::from_utf8(answer.stdout).unwrap();
    assert!(["refused\n", "read 0\n"].contains(&text.as_str()), "{text} {}", String::from_utf8_lossy(&answer.stderr));

    // SO_PEERCRED of a listener is whoever called listen(2).
    let strange = dir.path().join("strange.sock");
    let script = "import os, socket, sys\nos.setgid(1); os.setuid(1)\ns = socket.socket(socket.AF_UNIX)\ns.bind(sys.argv[1]); s.listen()\nprint('up', flush=True)\nsys.stdin.read()";
    let mut child = std::process::Command::new("python3")
        .args(["-c", script])
        .arg(&strange)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
    assert!(matches!(service::connect(&strange), Err(Error::Peer { uid: 1, .. })));
    drop(child.stdin.take());
    child.wait().unwrap();
}

#[test]
fn garbage_on_the_wire_is_an_error_and_not_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("s.sock");
    let answer = |bytes: Vec<u8>| {
        let listener: UnixListener = socket::bind(Path::new(&path)).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                use std::io::Write;
                let (mut stream, _) = listener.accept().unwrap();
                let mut head = [0; 10];
                stream.read_exact(&mut head).unwrap();
                let length = u32::from_be_bytes(head[..4].try_into().unwrap());
                stream.read_exact(&mut vec![0; length as usize]).unwrap();
                stream.write_all(&bytes).unwrap();
            });
            pid_of(&Shim::over(rpc::Client::at(&path))).unwrap_err()
        })
    };
    for (bytes, lost) in [
        (vec![0xff; 10], false),
        (vec![0, 0, 0, 1, 0, 0, 0, 1, 2, 0, 0xff], false),
        (vec![0, 0, 0, 9, 0, 0, 0, 1, 2, 0, 1], true),
        (vec![], true),
    ] {
        let error = answer(bytes.clone());
        assert_eq!(matches!(error, Error::Lost { .. }), lost, "{bytes:?}: {error:?}");
        assert_eq!(matches!(error, Error::Protocol { .. }), !lost, "{bytes:?}: {error:?}");
    }
}
