//! [`Runtime`]: everything that can be done with containers.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use dhow_sys::process;
use nix::unistd::geteuid;
use oci_spec::runtime::LinuxResources;

use crate::cgroup::{Buses, CgroupRequest, OomWatch, Stats};
use crate::config::Process;
use crate::plan::Plan;
use crate::{
    CheckpointRequest, ContainerState, CreateRequest, Created, ExecRequest, Held, Listing, RestoreRequest, Result,
    Shares, Started,
};
use crate::{checkpoint, control, create, exec, inspect, notify, start};

/// How cgroups are made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CgroupDriver {
    /// By the files of the cgroup tree.
    #[default]
    Cgroupfs,
    /// By asking systemd.
    Systemd,
    /// Not at all.
    Disabled,
}

/// Whether lacking privileges over cgroups is forgiven.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Rootless {
    /// Iff the caller is not root, or root of a user namespace only.
    #[default]
    Auto,
    /// Yes.
    Yes,
    /// No.
    No,
}

/// The containers below one root directory.
#[derive(Debug, Clone)]
pub struct Runtime {
    root: PathBuf,
    driver: CgroupDriver,
    rootless: Rootless,
    /// What [`Rootless::Auto`] has found.
    found: OnceLock<bool>,
    buses: Buses,
}

impl Runtime {
    /// `root` is made when it is missing, mode 0700, at the first `create`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self {
            root: root.to_owned(),
            driver: CgroupDriver::default(),
            rootless: Rootless::default(),
            found: OnceLock::new(),
            buses: Buses::default(),
        }
    }

    /// Chooses how cgroups are made.
    #[must_use]
    pub fn cgroup_driver(mut self, driver: CgroupDriver) -> Self {
        self.driver = driver;
        self
    }

    /// Chooses whether lacking privileges over cgroups is forgiven.
    #[must_use]
    pub fn rootless(mut self, rootless: Rootless) -> Self {
        self.rootless = rootless;
        self
    }

    /// Says where systemd answers, for those cgroups that it makes.
    #[must_use]
    pub fn buses(mut self, buses: Buses) -> Self {
        self.buses = buses;
        self
    }

    /// Where systemd answers, and whether it is a user's.
    pub(crate) fn systemd(&self) -> (&Buses, bool) {
        (&self.buses, self.is_rootless())
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// What decides where a container's cgroup is.
    pub(crate) fn cgroup_request<'a>(
        &'a self,
        plan: &'a Plan,
        id: &'a str,
        annotations: &'a BTreeMap<String, String>,
    ) -> CgroupRequest<'a> {
        CgroupRequest {
            cgroups_path: plan.cgroups_path.as_deref().and_then(Path::to_str).unwrap_or_default(),
            id,
            driver: self.driver,
            rootless: self.is_rootless(),
            annotations,
            buses: &self.buses,
        }
    }

    pub(crate) fn is_rootless(&self) -> bool {
        match self.rootless {
            Rootless::Yes => true,
            Rootless::No => false,
            Rootless::Auto => {
                *self.found.get_or_init(|| !geteuid().is_root() || process::in_first_user_namespace() == Some(false))
            }
        }
    }

    /// Makes a container up to the point where its program could start. The caller becomes its parent.
    ///
    /// # Errors
    /// Nothing is left behind then. [`crate::Error::Exists`], [`crate::Error::Config`], [`crate::Error::Child`], [`crate::Error::Threads`], …
    pub fn create(&self, request: CreateRequest) -> Result<Created> {
        create::create(self, request)
    }

    /// Lets a created container's program begin; returns when it has been executed.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`]; [`crate::Error::Status`] when it is not created; [`crate::Error::Child`] when the program can't be executed.
    pub fn start(&self, id: &str) -> Result<()> {
        start::start(self, id)
    }

    /// As [`Self::start`], for who has just created it: without a connection to it to be made, and its state to be read again.
    ///
    /// # Errors
    /// [`crate::Error::Child`] when the program can't be executed.
    pub fn start_held(&self, held: Held) -> Result<Started> {
        start::start_held(self, held)
    }

    /// What is known of it.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`], [`crate::Error::BadState`].
    pub fn state(&self, id: &str) -> Result<ContainerState> {
        inspect::state(&self.root, id)
    }

    /// Sends a signal to its first process, or with `all` to every process in it.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`], [`crate::Error::NotRunning`].
    pub fn kill(&self, id: &str, signal: i32, all: bool) -> Result<()> {
        control::kill(self, id, signal, all)
    }

    /// Removes what is left of a stopped container; with `force` of any, after killing it. With `force` a container that
    /// does not exist is no error.
    ///
    /// # Errors
    /// [`crate::Error::Status`] when it is not stopped. Goes on past errors of single steps and returns the first.
    pub fn delete(&self, id: &str, force: bool) -> Result<()> {
        control::delete(self, id, force, None)
    }

    /// As [`Self::delete`] with `force`, for who has started it: its state is read again only if somebody has changed it.
    ///
    /// # Errors
    /// As there.
    pub fn delete_started(&self, id: &str, started: Started) -> Result<()> {
        control::delete(self, id, true, Some(started.known))
    }

    /// Runs a process in it; returns when the program has been executed. The caller becomes its parent.
    ///
    /// # Errors
    /// [`crate::Error::NotRunning`], [`crate::Error::Paused`], [`crate::Error::Child`], [`crate::Error::Threads`], …
    pub fn exec(&self, id: &str, request: ExecRequest) -> Result<Created> {
        exec::exec(self, id, request)
    }

    /// The first process's document, for an exec that is to be like it.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`].
    pub fn process(&self, id: &str) -> Result<Process> {
        control::process(self, id)
    }

    /// Where the program of a container that was created with [`CreateRequest::notify`] sends word of its readiness. There
    /// is a directory for the socket, and the socket as soon as somebody listens.
    #[must_use]
    pub fn notify_socket(&self, id: &str) -> PathBuf {
        notify::socket(&self.root.join(id))
    }

    /// A pidfd of the first process.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`], [`crate::Error::NotRunning`].
    pub fn init(&self, id: &str) -> Result<OwnedFd> {
        control::running(self, id)
    }

    /// Freezes all its processes; returns when they are.
    ///
    /// # Errors
    /// [`crate::Error::Status`] when it is not running or created.
    pub fn pause(&self, id: &str) -> Result<()> {
        control::pause(self, id)
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// [`crate::Error::Status`] when it is not paused.
    pub fn resume(&self, id: &str) -> Result<()> {
        control::resume(self, id)
    }

    /// The processes in it, as the caller sees their numbers.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`].
    pub fn pids(&self, id: &str) -> Result<Vec<i32>> {
        control::pids(self, id)
    }

    /// Saves it with all its processes. Afterwards it is gone, unless the request says otherwise.
    ///
    /// # Errors
    /// [`crate::Error::Status`] when it is not running; [`crate::Error::CriuStart`] without a criu that is new enough,
    /// [`crate::Error::Criu`] when that fails: then the container goes on.
    pub fn checkpoint(&self, id: &str, request: CheckpointRequest) -> Result<()> {
        checkpoint::dump(self, id, request)
    }

    /// Makes a container that goes on where a saved one has stopped. The caller becomes its parent.
    ///
    /// # Errors
    /// As [`Self::create`] and [`Self::checkpoint`]. Nothing is left behind then.
    pub fn restore(&self, request: &RestoreRequest) -> Result<Created> {
        checkpoint::restore(self, request)
    }

    /// What it has used.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`], [`crate::Error::NotRunning`].
    pub fn stats(&self, id: &str) -> Result<Stats> {
        control::stats(self, id)
    }

    /// How many of its processes the out-of-memory killer took.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`], [`crate::Error::Cgroup`].
    pub fn oom_kills(&self, id: &str) -> Result<u64> {
        control::oom_kills(self, id)
    }

    /// A descriptor that becomes readable when it may have run out of memory; then compare [`Self::oom_kills`].
    ///
    /// # Errors
    /// [`crate::Error::NotFound`], [`crate::Error::Cgroup`].
    pub fn watch_oom(&self, id: &str) -> Result<OomWatch> {
        control::watch_oom(self, id)
    }

    /// Changes its limits; what is absent stays as it is.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`], [`crate::Error::NotRunning`], [`crate::Error::Cgroup`].
    pub fn update(&self, id: &str, resources: &LinuxResources) -> Result<()> {
        control::update(self, id, resources)
    }

    /// Changes its shares of caches and of memory bandwidth, as lines of resctrl's `schemata`; an empty one stays as it is. A
    /// container that has no class of service gets one of its own.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`], [`crate::Error::NotRunning`]; [`crate::Error::Config`] when there is no resctrl or a line makes no
    /// sense.
    pub fn update_shares(&self, id: &str, l3_cache: &str, bandwidth: &str) -> Result<()> {
        control::update_shares(self, id, l3_cache, bandwidth)
    }

    /// What it has of the caches and of the memory bandwidth; nothing on a machine without resctrl.
    ///
    /// # Errors
    /// [`crate::Error::NotFound`], [`crate::Error::BadState`].
    pub fn shares(&self, id: &str) -> Result<Shares> {
        control::shares(self, id)
    }

    /// All containers of this root. One with a bad state is listed as such and breaks nothing.
    ///
    /// # Errors
    /// When the root can't be read.
    pub fn list(&self) -> Result<Listing> {
        inspect::list(&self.root)
    }
}
