//! A container of the test's own under a real shim, in dhow's way.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    unreachable_pub,
    reason = "helpers of tests may, as tests may"
)]
#![allow(dead_code, reason = "every test program uses a part of it")]

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use dhow_api::attach::{self, End, Frame, Stream};
use dhow_api::clients::{Shim, Task};
use dhow_api::documents::{Document, ExitRecord, ShimConfig};
use dhow_api::service::ServiceSpec;
use dhow_api::{Error, paths, rpc, task};
use serde_json::{Value, json};

/// Longest time that anything here may take.
pub const LIMIT: Duration = Duration::from_secs(300);

/// A root file system of busybox, shared by all tests of the program, read-only.
fn busybox() -> &'static Path {
    static ROOT: OnceLock<tempfile::TempDir> = OnceLock::new();
    ROOT.get_or_init(|| {
        assert!(nix::unistd::geteuid().is_root(), "these tests need root");
        let dir = tempfile::tempdir().unwrap();
        for name in ["bin", "dev", "proc", "tmp", "etc", "sys"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        std::fs::copy("/bin/busybox", dir.path().join("bin/busybox")).expect("busybox-static is installed");
        std::fs::write(dir.path().join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n").unwrap();
        let applets = std::process::Command::new("/bin/busybox").arg("--list").output().unwrap();
        for applet in String::from_utf8(applets.stdout).unwrap().lines().filter(|name| *name != "busybox") {
            std::os::unix::fs::symlink("busybox", dir.path().join("bin").join(applet)).unwrap();
        }
        dir
    })
    .path()
}

/// Writes a program.
pub fn program(path: &Path, text: &str) {
    std::fs::write(path, text).unwrap();
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

/// A container, and a client of its shim.
pub struct Container {
    dir: tempfile::TempDir,
    pub id: String,
    pub config: ShimConfig,
    pub spec: Value,
    pub terminal: bool,
    pub task: Task,
    pub shim: Shim,
    pub rootfs: Vec<task::Mount>,
}

impl Container {
    /// A container that runs a shell script.
    pub fn sh(script: &str) -> Self {
        Self::new(&["sh", "-c", script])
    }

    /// A container that runs a program of busybox.
    pub fn new(args: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let dir = tempfile::tempdir().unwrap();
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let id = format!("{:032x}{:032x}", std::process::id(), number);
        let (root, runroot) = (dir.path().join("root"), dir.path().join("run"));
        let namespaces: Vec<_> =
            ["pid", "ipc", "uts", "mount", "network"].iter().map(|kind| json!({ "type": kind })).collect();
        let spec = json!({
            "ociVersion": "1.0.2",
            "process": {
                "args": args, "cwd": "/", "env": ["PATH=/bin", "TERM=xterm"], "user": { "uid": 0, "gid": 0 },
                "capabilities": { "bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"] },
            },
            "root": { "path": busybox(), "readonly": true },
            "hostname": "test",
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
                { "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                  "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"] },
                { "destination": "/tmp", "type": "tmpfs", "source": "tmpfs" },
            ],
            "linux": { "namespaces": namespaces, "cgroupsPath": format!("/dhow-shim-test/{id}") },
        });
        let client = || {
            let mut service = ServiceSpec::shim(&root, &runroot, &id);
            service.binary = env!("CARGO_BIN_EXE_containerd-shim-dhow-v2").into();
            rpc::Client::of(service)
        };
        Self {
            config: ShimConfig::new(&root, &runroot),
            task: Task::over(client()),
            shim: Shim::over(client()),
            terminal: false,
            rootfs: Vec::new(),
            dir,
            id,
            spec,
        }
    }

    /// With a terminal.
    pub fn terminal(mut self) -> Self {
        self.terminal = true;
        self.spec["process"]["terminal"] = json!(true);
        self
    }

    /// With changes to shim.json.
    pub fn config(mut self, change: impl FnOnce(&mut ShimConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// With changes to config.json.
    pub fn spec(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.spec);
        self
    }

    /// A client whose shims are started by a shell script, which gets the shim's command line.
    pub fn started_by(&self, script: &str) -> Task {
        let wrapper = self.dir().join("start-shim");
        let shim = env!("CARGO_BIN_EXE_containerd-shim-dhow-v2");
        program(&wrapper, &format!("#!/bin/sh\nset -- {shim} \"$@\"\n{script}\n"));
        let mut service = ServiceSpec::shim(&self.config.root, &self.config.runroot, &self.id);
        (service.binary, service.protected) = (wrapper, false);
        Task::over(rpc::Client::of(service))
    }

    /// Where the test may keep what it needs.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn bundle(&self) -> paths::Bundle {
        paths::Root::new(&self.config.root).container(&self.id)
    }

    pub fn shim_dir(&self) -> paths::ShimDir {
        paths::RunRoot::new(&self.config.runroot).shim(&self.id)
    }

    /// Writes the bundle and asks for Create.
    pub fn try_create(&self) -> Result<u32, Error> {
        let bundle = self.bundle();
        std::fs::create_dir_all(bundle.path()).unwrap();
        std::fs::write(bundle.config(), self.spec.to_string()).unwrap();
        self.config.store(&bundle.shim_config()).unwrap();
        let request = task::CreateTaskRequest {
            id: self.id.clone(),
            bundle: bundle.path().to_str().unwrap().to_owned(),
            terminal: self.terminal,
            rootfs: self.rootfs.clone(),
            ..Default::default()
        };
        self.task.create(&request).map(|answer| answer.pid)
    }

    /// Create, which must work.
    pub fn create(self) -> Self {
        let created = self.try_create();
        assert!(created.is_ok(), "{}\n{}", dhow_api::error::chain(&created.unwrap_err()), self.shim_log());
        self
    }

    /// Create and Start, which must work.
    pub fn run(self) -> Self {
        let this = self.create();
        this.start();
        this
    }

    pub fn try_start(&self) -> Result<u32, Error> {
        let request = task::StartRequest { id: self.id.clone(), ..Default::default() };
        self.task.start(&request).map(|answer| answer.pid)
    }

    pub fn start(&self) {
        let started = self.try_start();
        assert!(started.is_ok(), "{:?}\n{}", started, self.shim_log());
    }

    /// Waits for the end of the container.
    pub fn wait(&self) -> u32 {
        self.wait_for("")
    }

    /// Waits for the end of one of its processes.
    pub fn wait_for(&self, exec_id: &str) -> u32 {
        let request = task::WaitRequest { id: self.id.clone(), exec_id: exec_id.into(), ..Default::default() };
        let answer: Result<task::WaitResponse, Error> =
            self.task.client().call(Task::SERVICE, "Wait", &request, Some(LIMIT));
        answer.unwrap_or_else(|error| panic!("{error}\n{}", self.shim_log())).exit_status
    }

    pub fn kill(&self, signal: i32) -> Result<(), Error> {
        let request = task::KillRequest { id: self.id.clone(), signal: signal.unsigned_abs(), ..Default::default() };
        self.task.kill(&request).map(drop)
    }

    pub fn state(&self) -> task::StateResponse {
        let request = task::StateRequest { id: self.id.clone(), ..Default::default() };
        self.task.state(&request).unwrap()
    }

    pub fn exit_record(&self) -> ExitRecord {
        ExitRecord::load(&self.bundle().exit()).unwrap()
    }

    /// Registers an exec of a shell script.
    pub fn exec(&self, exec_id: &str, script: &str, terminal: bool) -> Result<(), Error> {
        self.exec_into(exec_id, script, terminal, "")
    }

    /// The same, with an engine's fifo for its output.
    pub fn exec_into(&self, exec_id: &str, script: &str, terminal: bool, stdout: &str) -> Result<(), Error> {
        let process = json!({
            "args": ["sh", "-c", script], "cwd": "/", "env": ["PATH=/bin"], "user": { "uid": 0, "gid": 0 },
            "terminal": terminal,
        });
        let mut spec = protobuf::well_known_types::any::Any::new();
        spec.value = process.to_string().into_bytes();
        let request = task::ExecProcessRequest {
            id: self.id.clone(),
            exec_id: exec_id.into(),
            terminal,
            stdout: stdout.into(),
            spec: Some(spec).into(),
            ..Default::default()
        };
        self.task.exec(&request).map(drop)
    }

    pub fn start_exec(&self, exec_id: &str) -> Result<u32, Error> {
        let request = task::StartRequest { id: self.id.clone(), exec_id: exec_id.into(), ..Default::default() };
        self.task.start(&request).map(|answer| answer.pid)
    }

    /// Attaches to everything of a process.
    pub fn attach(&self, exec_id: &str) -> Attached {
        self.try_attach(exec_id, "").unwrap()
    }

    pub fn try_attach(&self, exec_id: &str, keys: &str) -> Result<Attached, Error> {
        let request = dhow_api::shim::AttachRequest {
            id: self.id.clone(),
            exec_id: exec_id.into(),
            stdin: true,
            stdout: true,
            stderr: true,
            detach_keys: keys.into(),
            ..Default::default()
        };
        let answer = self.shim.attach(&request)?;
        let stream = attach::connect(Path::new(&answer.socket), &answer.token)?;
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        Ok(Attached { stream })
    }

    /// The texts of all records of the log and its rotated files, by stream.
    pub fn log(&self, stream: &str) -> String {
        let mut text = String::new();
        let names = (1..1000).rev().map(|n| format!("log.{n}")).chain(["log".to_owned()]);
        for path in names.map(|name| self.bundle().path().join(name)).filter(|path| path.exists()) {
            for line in std::fs::read_to_string(path).unwrap().lines() {
                let record: Value = serde_json::from_str(line).unwrap();
                if record["stream"] == stream {
                    text.push_str(record["log"].as_str().unwrap());
                }
            }
        }
        text
    }

    /// Waits until the log contains a word.
    pub fn wait_for_log(&self, text: &str) {
        // Not its records: the last one may be half written.
        let written = || std::fs::read_to_string(self.bundle().log()).is_ok_and(|log| log.contains(text));
        self.until(written, &format!("no {text:?} in the log"));
    }

    /// Polls for what no event tells of, from outside.
    pub fn until(&self, condition: impl Fn() -> bool, otherwise: &str) {
        let begin = Instant::now();
        while !condition() {
            assert!(begin.elapsed() < LIMIT, "{otherwise}\n{}", self.shim_log());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// What the shim has to say.
    pub fn shim_log(&self) -> String {
        std::fs::read_to_string(self.shim_dir().path().join("shim.log")).unwrap_or_default()
    }

    /// The shim's pid.
    pub fn shim_pid(&self) -> i32 {
        std::fs::read_to_string(self.shim_dir().pid()).unwrap().parse().unwrap()
    }

    /// Kills the shim without warning and reaps it.
    pub fn kill_shim(&self) {
        let pid = nix::unistd::Pid::from_raw(self.shim_pid());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).unwrap();
        // Another test may reap it (see reap_shims).
        let _status = nix::sys::wait::waitpid(pid, None);
    }

    /// The container has ended: its shim goes, and nothing is left of either.
    pub fn assert_gone(self) {
        drop(self);
    }

    fn leftovers(&self) -> Vec<String> {
        let mut left = Vec::new();
        let run = paths::RunRoot::new(&self.config.runroot);
        for path in [self.shim_dir().path().to_owned(), run.runtime().join(&self.id)] {
            if path.exists() {
                left.push(path.display().to_string());
            }
        }
        for process in std::fs::read_dir("/proc").unwrap().flatten() {
            let Ok(cwd) = std::fs::read_link(process.path().join("cwd")) else { continue };
            if cwd.starts_with(self.dir.path()) {
                left.push(format!("{} in {}", process.path().display(), cwd.display()));
            }
        }
        left.extend(cgroups_of(&self.id));
        left
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // A test that failed in the middle leaves a container that runs.
        if std::thread::panicking() {
            eprintln!("the shim's log:\n{}", self.shim_log());
            let _killed = self.kill(libc::SIGKILL);
        }
        // Our connections hold it up; new ones find nobody.
        self.task = Task::over(rpc::Client::at("/nonexistent"));
        self.shim = Shim::over(rpc::Client::at("/nonexistent"));
        let begin = Instant::now();
        loop {
            reap_shims();
            let left = self.leftovers();
            if left.is_empty() {
                return;
            }
            if begin.elapsed() > LIMIT {
                eprintln!("the shim's log:\n{}", self.shim_log());
                assert!(std::thread::panicking(), "left behind: {left:?}");
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Shims are children of the test program; a zombie has no working directory, so any that ended may be reaped.
fn reap_shims() {
    use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
    for entry in std::fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        if stat.contains("(containerd-shim)") || stat.contains("(containerd-shim-") {
            let reaped = waitpid(nix::unistd::Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG));
            assert!(!matches!(reaped, Ok(WaitStatus::Stopped(..))));
        }
    }
}

/// Cgroups named for the container, in any hierarchy.
fn cgroups_of(id: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    for line in mounts.lines().filter(|line| line.contains(" - cgroup")) {
        let point = Path::new(line.split(' ').nth(4).unwrap());
        let path = point.join("dhow-shim-test").join(id);
        if path.exists() {
            found.push(path.display().to_string());
        }
    }
    found
}

/// The client's end of an attachment.
pub struct Attached {
    pub stream: UnixStream,
}

impl Attached {
    pub fn send(&mut self, bytes: &[u8]) {
        attach::write(&mut self.stream, Stream::Stdin, bytes).unwrap();
    }

    pub fn end_stdin(&mut self) {
        attach::write(&mut self.stream, Stream::StdinEnd, b"").unwrap();
    }

    /// Reads frames until stdout contains the text; returns what it was.
    pub fn until(&mut self, text: &str) -> String {
        let mut out = Vec::new();
        while !String::from_utf8_lossy(&out).contains(text) {
            match attach::read(&mut self.stream).unwrap() {
                Some(Frame::Stdout(bytes)) => out.extend(bytes),
                other => panic!("{other:?} instead of {text:?} after {:?}", String::from_utf8_lossy(&out)),
            }
        }
        String::from_utf8(out).unwrap()
    }

    /// Reads to the end: stdout, stderr, and why it ended.
    pub fn rest(mut self) -> (Vec<u8>, Vec<u8>, Option<End>) {
        let (mut out, mut err, mut end) = (Vec::new(), Vec::new(), None);
        while let Some(frame) = attach::read(&mut self.stream).unwrap() {
            assert_eq!(end, None, "a frame after the end");
            match frame {
                Frame::Stdout(bytes) => out.extend(bytes),
                Frame::Stderr(bytes) => err.extend(bytes),
                Frame::End(why) => end = Some(why),
                other => panic!("{other:?} from a shim"),
            }
        }
        (out, err, end)
    }

    /// What is no frame.
    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }
}
