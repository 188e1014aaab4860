//! A bundle made by hand, for the runtime alone.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::command::{Call, tool};
use crate::instance::binary;
use crate::{Sandbox, image};

/// A directory with `config.json` and a root file system of busybox.
#[derive(Debug)]
#[must_use]
pub struct Bundle {
    dir: PathBuf,
    config: Value,
}

impl Bundle {
    /// Runs `args` in what the specification's default configuration describes.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn new(sandbox: &Sandbox, name: &str, args: &[&str]) -> Self {
        let dir =
            tempfile::Builder::new().prefix(name).tempdir_in(sandbox.path()).expect("a bundle's directory").keep();
        let root = dir.join("rootfs");
        for folder in ["bin", "proc", "dev", "sys", "tmp", "etc"] {
            fs::create_dir_all(root.join(folder)).expect("a directory of the root file system");
        }
        let busybox = root.join("bin/busybox");
        fs::copy(image::busybox_path(), &busybox).expect("busybox in the bundle");
        for applet in tool(&busybox, ["--list"]).run().ok().lines().filter(|applet| *applet != "busybox") {
            fs::hard_link(&busybox, root.join("bin").join(applet)).expect("an applet");
        }
        let mut config = default_config(args);
        // Else the container's name is the cgroup's, and tests of several runtimes meet in it.
        config["linux"]["cgroupsPath"] = format!("/{}", dir.file_name().unwrap_or_default().display()).into();
        Self { dir, config }.saved()
    }

    /// Changes the configuration.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn with(mut self, change: impl FnOnce(&mut Value)) -> Self {
        change(&mut self.config);
        self.saved()
    }

    /// Its directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The same as an argument.
    ///
    /// # Panics
    /// When it is no UTF-8.
    #[must_use]
    pub fn path(&self) -> &str {
        self.dir.to_str().expect("the sandbox has a plain name")
    }

    fn saved(self) -> Self {
        fs::write(self.dir.join("config.json"), self.config.to_string()).expect("config.json");
        self
    }
}

/// `PROGRAM --root SANDBOX/runtime ARGS…`: dhow-runtime, or runc or crun to hold the test itself to account.
pub fn runtime<'a>(program: &str, sandbox: &Sandbox, args: impl IntoIterator<Item = &'a str>) -> Call {
    let path = if program == "dhow-runtime" { binary(program) } else { PathBuf::from(program) };
    tool(path, ["--root"]).arg(sandbox.dir(&format!("{program}-state"))).args(args)
}

/// What `runc spec` writes, without a terminal.
#[must_use]
pub fn default_config(args: &[&str]) -> Value {
    let capabilities = json!(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false,
            "user": {"uid": 0, "gid": 0},
            "args": args,
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
            "cwd": "/",
            "capabilities": {
                "bounding": capabilities, "effective": capabilities, "permitted": capabilities, "ambient": capabilities,
            },
            "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
            "noNewPrivileges": true,
        },
        "root": {"path": "rootfs", "readonly": true},
        "hostname": "bundle",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
            {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup", "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]},
        ],
        "linux": {
            "resources": {"devices": [{"allow": false, "access": "rwm"}]},
            "namespaces": [
                {"type": "pid"}, {"type": "network"}, {"type": "ipc"}, {"type": "uts"}, {"type": "mount"}, {"type": "cgroup"},
            ],
            "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    })
}
