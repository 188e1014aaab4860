//! What callers ask for and what they get.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use serde::Serialize;

use crate::config::Process;
use crate::handshake::Channel;
use crate::state::{Known, Status};

/// Where a process's stdin, stdout and stderr come from.
#[derive(Debug, Default)]
pub enum Stdio {
    /// The caller's own 0, 1 and 2.
    #[default]
    Inherit,
    /// These; the caller's copies are closed once the process exists.
    Fds {
        /// Descriptor 0.
        stdin: OwnedFd,
        /// Descriptor 1.
        stdout: OwnedFd,
        /// Descriptor 2.
        stderr: OwnedFd,
    },
    /// A new pseudo terminal of the container's own devpts; its other end is returned as [`Created::console`].
    Terminal,
    /// The same, but that it leaves newlines as they are: for a caller whose own stdout adds the carriage returns if it
    /// is a terminal, and must not get any if it is a file.
    RelayedTerminal,
}

impl Stdio {
    /// Whether it is a new terminal.
    #[must_use]
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal | Self::RelayedTerminal)
    }
}

/// Where the root file system comes from.
#[derive(Debug, Default)]
pub enum RootfsSource {
    /// The directory that config.json names, bind-mounted.
    #[default]
    Config,
    /// This detached mount (see `dhow_sys::rootfs::detached`); it covers the directory that config.json names, in the
    /// container's mount namespace only.
    DetachedMount(OwnedFd),
}

/// A container to be made.
#[derive(Debug, Default)]
pub struct CreateRequest {
    /// Its name.
    pub id: String,
    /// The directory with config.json.
    pub bundle: PathBuf,
    /// Another file than config.json; a relative path is relative to the bundle.
    pub config: Option<PathBuf>,
    /// What is in that file, for a caller that has read it already.
    pub document: Option<String>,
    /// The first process's stdio. config.json's `process.terminal` must agree: true iff [`Stdio::is_terminal`].
    pub stdio: Stdio,
    /// The root file system.
    pub rootfs: RootfsSource,
    /// Descriptors from 3 on, this many, are passed to the first process under the same numbers.
    pub preserve_fds: u32,
    /// Systemd's socket activation: as `preserve_fds`, and the process gets LISTEN_FDS and LISTEN_PID.
    pub listen_fds: u32,
    /// chroot into a moved root instead of pivot_root: for a root on initramfs, at a loss of isolation.
    pub no_pivot: bool,
    /// Stay in the caller's session keyring.
    pub no_new_keyring: bool,
    /// Give it systemd's readiness protocol: `ROOT/<id>/notify` is mounted at `/run/notify`, and `NOTIFY_SOCKET` leads there.
    /// Who starts the container listens at `notify.sock` in it.
    pub notify: bool,
    /// Written with the first process's pid before it is started.
    pub pid_file: Option<PathBuf>,
    /// Its creator will start it, by [`Created::held`]: nobody else can, and it ends when its creator does before.
    pub held: bool,
}

/// A process to be run in a running container.
#[derive(Debug)]
pub struct ExecRequest {
    /// What to run; [`Process::from_json`] reads one.
    pub process: Process,
    /// Its stdio. `process.terminal` must agree: true iff [`Stdio::is_terminal`].
    pub stdio: Stdio,
    /// As in [`CreateRequest`].
    pub preserve_fds: u32,
    /// Also when the container is paused; the process then runs when it is resumed.
    pub ignore_paused: bool,
    /// Cgroups below the container's own: one path, or on v1 `CONTROLLER[,CONTROLLER…]:PATH`.
    pub cgroups: Vec<String>,
    /// Written with the process's pid.
    pub pid_file: Option<PathBuf>,
}

impl ExecRequest {
    /// A request with nothing special.
    #[must_use]
    pub fn new(process: Process, stdio: Stdio) -> Self {
        Self { process, stdio, preserve_fds: 0, ignore_paused: false, cgroups: Vec::new(), pid_file: None }
    }
}

/// A process that now exists. The caller is its parent and has to reap it.
#[derive(Debug)]
pub struct Created {
    /// Its pid, as the caller sees it.
    pub pid: i32,
    /// Becomes readable when it has ended; `dhow_sys::pidfd::reap` reaps it.
    pub pidfd: OwnedFd,
    /// The other end of its terminal, when it has one.
    pub console: Option<OwnedFd>,
    /// What was asked for and could not be done, but does not stop the container (an unknown capability).
    pub warnings: Vec<String>,
    /// The flags of its system call filter, as numbers of the kernel's, if it has one.
    pub filter_flags: Option<u32>,
    /// What [`crate::Runtime::start_held`] starts it by, when [`CreateRequest::held`] asked for it.
    pub held: Option<Held>,
}

/// A created container in its creator's hand.
#[derive(Debug)]
pub struct Held {
    pub(crate) channel: Channel,
    pub(crate) known: Known,
}

/// A container that its creator has started.
#[derive(Debug)]
pub struct Started {
    pub(crate) known: Known,
}

/// What is known of a container: the specification's state, with runc's additions.
#[derive(Debug, Clone, Serialize)]
pub struct ContainerState {
    /// Version of the specification.
    #[serde(rename = "ociVersion")]
    pub oci_version: String,
    /// Its name.
    pub id: String,
    /// The first process; 0 when it has ended.
    pub pid: i32,
    /// Where in its life it is.
    pub status: Status,
    /// The bundle's absolute path.
    pub bundle: String,
    /// The root directory's absolute path.
    pub rootfs: String,
    /// When it was made, RFC 3339 with nanoseconds, UTC.
    pub created: String,
    /// config.json's.
    #[serde(skip_serializing_if = "std::collections::BTreeMap::is_empty")]
    pub annotations: std::collections::BTreeMap<String, String>,
    /// The user who made it.
    pub owner: String,
}

/// All containers of a root.
#[derive(Debug, Default)]
pub struct Listing {
    /// Sorted by id.
    pub containers: Vec<ContainerState>,
    /// Those whose state can't be read, with the reason.
    pub broken: Vec<(String, crate::Error)>,
}
