//! A bundle of the test's own and a runtime to hold against it: ours, and a peer that shows that the test is right.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Runs a test against our binary and against Debian's runc.
pub(crate) fn everywhere(test: impl Fn(&mut Bench)) {
    let peer = another().unwrap_or_else(|| PathBuf::from("/usr/sbin/runc"));
    for runtime in [ours(), peer] {
        assert!(runtime.exists(), "{} is needed as the peer", runtime.display());
        test(&mut Bench::new(runtime));
    }
}

/// Runs a test against our binary alone: for what peers do otherwise, or Debian's runc is too old for.
pub(crate) fn only_ours(test: impl Fn(&mut Bench)) {
    test(&mut Bench::new(ours()));
    another().into_iter().for_each(|runtime| test(&mut Bench::new(runtime)));
}

/// `DHOW_PEER`: a newer runtime to hold all tests against, by hand. Those of our own texts and habits fail with it.
fn another() -> Option<PathBuf> {
    std::env::var_os("DHOW_PEER").map(PathBuf::from)
}

/// As [`everywhere`], and ours once more as if the machine had cgroup v2 alone.
pub(crate) fn everywhere_and_v2(test: impl Fn(&mut Bench)) {
    everywhere(&test);
    test(&mut Bench::ours_on_v2());
}

/// For a shell in a mount namespace of its own: from now on the machine has cgroup v2 alone.
pub(crate) const V2_ALONE: &str = "{ test -e /sys/fs/cgroup/cgroup.procs || mount -t cgroup2 cgroup2 /sys/fs/cgroup; }";

/// Longest time that anything here may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);

/// Waits for something that comes about by itself.
#[track_caller]
pub(crate) fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn ours() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_dhow-runtime"))
}

/// A bundle with a busybox root, and a state root, both gone at the end with all containers.
#[must_use]
pub(crate) struct Bench {
    dir: tempfile::TempDir,
    runtime: PathBuf,
    /// A command that executes the runtime.
    wrapper: Vec<String>,
    /// A container has a cgroup of the bench's.
    cgroup: bool,
    pub(crate) config: Value,
}

const TOOLS: [&str; 29] = [
    "sh", "cat", "echo", "id", "ls", "sleep", "true", "false", "env", "pwd", "readlink", "hostname", "touch", "stat",
    "mount", "head", "grep", "test", "tty", "stty", "kill", "mkdir", "unshare", "ip", "ionice", "uname", "cut", "wc",
    "rm",
];

impl Bench {
    fn new(runtime: PathBuf) -> Self {
        assert!(nix::unistd::geteuid().is_root(), "these tests need root");
        // Shown when the test fails.
        println!("with {}", runtime.display());
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("rootfs/bin");
        std::fs::create_dir_all(&bin).unwrap();
        for sub in ["etc", "tmp", "proc", "sys", "dev"] {
            std::fs::create_dir(dir.path().join("rootfs").join(sub)).unwrap();
        }
        std::fs::copy("/bin/busybox", bin.join("busybox")).unwrap();
        for tool in TOOLS {
            std::os::unix::fs::symlink("busybox", bin.join(tool)).unwrap();
        }
        let passwd = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n";
        std::fs::write(dir.path().join("rootfs/etc/passwd"), passwd).unwrap();
        Self { dir, runtime, wrapper: Vec::new(), cgroup: true, config: config() }
    }

    /// With our binary, on a machine with cgroup v2 alone.
    pub(crate) fn ours_on_v2() -> Self {
        let mut bench = Self::new(ours());
        bench.on_v2();
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn rootfs(&self, name: &str) -> PathBuf {
        self.dir.path().join("rootfs").join(name.trim_start_matches('/'))
    }

    /// The directory of the bench's cgroups: tests use the same ids at the same time.
    pub(crate) fn cgroup(&self) -> String {
        let name = self.dir.path().file_name().unwrap().to_str().unwrap();
        format!("dhow-test-{}", name.trim_start_matches('.'))
    }

    /// From now on a copy of the runtime is used.
    pub(crate) fn copy_runtime(&mut self) {
        let copy = self.path("runtime");
        std::fs::copy(&self.runtime, &copy).unwrap();
        self.runtime = copy;
    }

    /// From now on the runtime is executed by this command, which gets its command line.
    pub(crate) fn inside(&mut self, wrapper: &[&str]) {
        self.wrapper = wrapper.iter().map(ToString::to_string).collect();
    }

    /// From now on the machine has cgroup v2 alone.
    pub(crate) fn on_v2(&mut self) {
        let script = format!("{V2_ALONE} && exec \"$@\"");
        self.inside(&["unshare", "--mount", "sh", "-c", &script, "sh"]);
    }

    /// From now on everything belongs to this user, who runs the runtime, too. Such a user has no cgroups to give.
    pub(crate) fn belong_to(&mut self, uid: u32) {
        self.copy_runtime();
        let owned = Command::new("chown").arg("-R").arg(format!("{uid}:{uid}")).arg(self.dir.path()).status();
        assert!(owned.unwrap().success());
        let id = uid.to_string();
        self.inside(&["setpriv", "--reuid", &id, "--regid", &id, "--clear-groups"]);
        self.cgroup = false;
    }

    pub(crate) fn is_ours(&self) -> bool {
        self.runtime == ours()
    }

    pub(crate) fn args(&mut self, args: &[&str]) -> &mut Self {
        self.config["process"]["args"] = json!(args);
        self
    }

    pub(crate) fn set(&mut self, pointer: &str, value: Value) -> &mut Self {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        self.config.pointer_mut(parent).unwrap()[key] = value;
        self
    }

    pub(crate) fn push(&mut self, pointer: &str, value: Value) -> &mut Self {
        self.config.pointer_mut(pointer).unwrap().as_array_mut().unwrap().push(value);
        self
    }

    /// A command line of the runtime, with stdin closed.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut config = self.config.clone();
        if let (true, ["create" | "run" | "restore", .., id]) = (self.cgroup, args) {
            config["linux"]["cgroupsPath"] = json!(format!("/{}/{id}", self.cgroup()));
        }
        let text = serde_json::to_vec(&config).unwrap();
        std::fs::write(self.path("config.json"), text).unwrap();
        let mut line = self.wrapper.iter().map(AsRef::<OsStr>::as_ref).chain([self.runtime.as_os_str()]);
        let mut command = Command::new(line.next().unwrap());
        command
            .args(line)
            .arg("--root")
            .arg(self.path("state"))
            .args(args)
            .current_dir(self.dir.path())
            .stdin(Stdio::null());
        command
    }

    /// Runs it.
    pub(crate) fn call(&self, args: &[&str]) -> Output {
        // A detached container keeps what it inherits open: files, not pipes, or reading would wait for its end.
        let (out, err) = (self.path("stdout"), self.path("stderr"));
        let file = |path: &Path| std::fs::File::create(path).unwrap();
        let status = self.command(args).stdout(file(&out)).stderr(file(&err)).status().unwrap();
        Output { status, stdout: std::fs::read(out).unwrap(), stderr: std::fs::read(err).unwrap() }
    }

    /// Runs it, and it succeeds.
    #[track_caller]
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.call(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {stderr}");
        assert_eq!(stderr, "", "{args:?}: a success says nothing");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs it, and it succeeds, whatever it warns of.
    #[track_caller]
    pub(crate) fn ok_loudly(&self, args: &[&str]) -> String {
        let output = self.call(args);
        assert!(output.status.success(), "{args:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs it, and it fails: code and text.
    #[track_caller]
    pub(crate) fn fails(&self, args: &[&str]) -> (i32, String) {
        let output = self.call(args);
        assert!(!output.status.success(), "{args:?} succeeded");
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Runs a shell script as the container's program.
    #[track_caller]
    pub(crate) fn shell(&mut self, script: &str) -> String {
        self.args(&["sh", "-c", script]);
        self.ok(&["run", "shell"])
    }

    /// Starts a container that does nothing.
    #[track_caller]
    pub(crate) fn sleeping(&mut self, id: &str) {
        self.args(&["sleep", "1000"]);
        self.ok(&["run", "--detach", id]);
    }

    #[track_caller]
    pub(crate) fn state(&self, id: &str) -> Value {
        serde_json::from_str(&self.ok(&["state", id])).unwrap()
    }

    /// The pid of a container's first process.
    #[track_caller]
    pub(crate) fn pid(&self, id: &str) -> i32 {
        i32::try_from(self.state(id)["pid"].as_i64().unwrap()).unwrap()
    }

    /// Waits for the end of the container's first process.
    #[track_caller]
    pub(crate) fn gone(&self, pid: i32) {
        use std::os::fd::AsFd;
        if let Ok(fd) = dhow_sys::pidfd::open(pid) {
            let limit = Some(LIMIT);
            assert!(dhow_sys::pidfd::wait_ended(fd.as_fd(), limit).unwrap(), "{pid} is still there");
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for entry in std::fs::read_dir(self.path("state")).into_iter().flatten().flatten() {
            self.call(&["delete", "--force", &entry.file_name().to_string_lossy()]);
        }
        // On v1 each hierarchy below; on v2 the directory itself.
        let top = PathBuf::from("/sys/fs/cgroup");
        let below = std::fs::read_dir(&top).into_iter().flatten().flatten().map(|entry| entry.path());
        for hierarchy in below.chain([top]) {
            std::fs::remove_dir(hierarchy.join(self.cgroup())).ok();
        }
    }
}

fn config() -> Value {
    let caps = json!(["CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_CHOWN"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": ["true"],
            "env": ["PATH=/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {"bounding": caps, "effective": caps, "permitted": caps},
            "rlimits": [],
            "noNewPrivileges": true
        },
        "root": {"path": "rootfs", "readonly": false},
        "hostname": "conformance",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
             "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
             "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
             "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]}
        ],
        "hooks": {},
        "linux": {
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}
            ],
            "maskedPaths": [],
            "readonlyPaths": []
        }
    })
}
