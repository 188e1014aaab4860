//! Where a test runs: a process of its own in mount, network and process namespaces of its own.
//!
//! ```text
//! test process (libtest)          isolated(): makes the scratch directory, starts
//!   └ unshare ─ bash (pid 1)      a private /run, lo up; reaps what is orphaned
//!       └ test process again      --exact NAME: runs the body, then counts what is left
//! ```
//! When the outer process dies, so does pid 1, and the kernel takes the rest away: also a failed test leaves nothing.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::LIMIT;
use crate::command::wait_with_deadline;
use crate::leaks::Census;

/// Which cgroup tree a test sees at /sys/fs/cgroup.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cgroups {
    /// What the machine has.
    Host,
    /// A version 2 tree, with the controllers that the machine's version 1 hierarchies leave to it.
    V2,
}

/// A test's own corner.
#[derive(Debug)]
pub struct Sandbox {
    scratch: PathBuf,
}

const INSIDE: &str = "DHOW_TEST_INSIDE";
const SCRATCH: &str = "DHOW_TEST_SCRATCH";
/// For a whole test.
const TEST_LIMIT: Duration = Duration::from_secs(1800);

const INIT: &str = r#"
set -e
mount -t tmpfs -o mode=755 tmpfs /run
case $(stat -f -c %T "$DHOW_TEST_SCRATCH") in overlayfs) mount -t tmpfs -o mode=700 tmpfs "$DHOW_TEST_SCRATCH";; esac
case $(stat -f -c %T /sys/fs/cgroup) in tmpfs) mount -o remount,bind,ro /sys/fs/cgroup;; esac
[ "$DHOW_TEST_CGROUPS" != v2 ] || mount -t cgroup2 cgroup2 /sys/fs/cgroup
busybox ip link set lo up
set +e
"$@"
exit $?
"#;

/// Runs `body` in a [`Sandbox`]; its panic is the test's.
pub fn isolated<F: FnOnce(&Sandbox)>(body: F) {
    isolated_with(Cgroups::Host, body);
}

/// As [`isolated`], with a choice of cgroup tree.
///
/// # Panics
/// When the body does, when it takes half an hour, and when something is left over after it.
pub fn isolated_with<F: FnOnce(&Sandbox)>(cgroups: Cgroups, body: F) {
    let name = test_name::<F>();
    if std::env::var(INSIDE).is_ok_and(|inside| inside == name) {
        let scratch = PathBuf::from(std::env::var_os(SCRATCH).expect("set by the outer process"));
        let before = Census::take();
        body(&Sandbox { scratch });
        before.assert_nothing_new(LIMIT);
        return;
    }
    assert!(nix::unistd::geteuid().is_root(), "the end-to-end tests make namespaces and mounts: run them as root");
    let _made_with_the_network = crate::fixtures::debian_tar();
    let base = std::env::var_os("DHOW_TEST_DIR").map_or_else(|| PathBuf::from("/var/tmp"), PathBuf::from);
    let scratch = tempfile::Builder::new().prefix("dhow-test-").tempdir_in(base).expect("a scratch directory");
    let mut command = Command::new("unshare");
    command
        .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"])
        // A shell ignores these for what it runs in the background, and who ignores a signal ignores it in all its children.
        .args(["--", "env", "--default-signal=INT,QUIT", "bash", "-c", INIT, "bash"])
        .arg(std::env::current_exe().expect("our own program"))
        .args(["--exact", name, "--nocapture", "--test-threads=1"])
        .env(INSIDE, name)
        .env(SCRATCH, scratch.path())
        .env("DHOW_TEST_CGROUPS", if cgroups == Cgroups::V2 { "v2" } else { "host" })
        .env("HOME", scratch.path())
        .env("PATH", search_path())
        .env("RUST_BACKTRACE", "0")
        .env_remove("XDG_RUNTIME_DIR")
        .env_remove("DOCKER_CONFIG")
        .env_remove("REGISTRY_AUTH_FILE")
        .stdin(Stdio::null());
    let ran = wait_with_deadline(&mut command, TEST_LIMIT);
    assert!(ran.code == 0, "{name} failed in its sandbox (exit code {}):\n{}\n{}", ran.code, ran.stdout, ran.stderr);
}

/// The test's name as libtest has it: the path of the closure's function without the crate.
fn test_name<F>() -> &'static str {
    let path = std::any::type_name::<F>();
    let end = path.find("::{{closure}}").expect("the body is a closure written in the test function");
    let start = path.find("::").map_or(0, |colons| colons + 2);
    &path[start..end]
}

/// Ours before the machine's, and a superuser's directories, which a CI's PATH may lack.
fn search_path() -> std::ffi::OsString {
    let mut path = crate::instance::binaries_dir().into_os_string();
    path.push(":");
    path.push(std::env::var_os("PATH").unwrap_or_default());
    path.push(":/usr/sbin:/sbin");
    path
}

impl Sandbox {
    /// For programs that made their namespaces themselves: the benchmark.
    #[must_use]
    pub fn at(scratch: &Path) -> Self {
        Self { scratch: scratch.to_owned() }
    }

    /// A directory of the test's own on a real file system.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.scratch
    }

    /// A new directory in it.
    ///
    /// # Panics
    /// When it cannot be made.
    #[must_use]
    pub fn dir(&self, name: &str) -> PathBuf {
        let dir = self.scratch.join(name);
        std::fs::create_dir_all(&dir).expect("a directory in the scratch directory");
        dir
    }
}
