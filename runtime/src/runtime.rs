//! [`Runtime`]: everything that can be done with containers.

use std::path::{Path, PathBuf};

use oci_spec::runtime::LinuxResources;

use crate::{ContainerState, CreateRequest, Created, Error, ExecRequest, Listing, Result};

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
}

impl Runtime {
    /// `root` is made when it is missing, mode 0700, at the first `create`.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), driver: CgroupDriver::default(), rootless: Rootless::default() }
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

    /// Makes a container up to the point where its program could start. The caller becomes its parent.
    ///
    /// # Errors
    /// Nothing is left behind then. [`Error::Exists`], [`Error::Config`], [`Error::Child`], [`Error::Threads`], …
    pub fn create(&self, _request: CreateRequest) -> Result<Created> {
        Err(Error::NotRunning)
    }

    /// Lets a created container's program begin; returns when it has been executed.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Status`] when it is not created; [`Error::Child`] when the program can't be executed.
    pub fn start(&self, _id: &str) -> Result<()> {
        Err(Error::NotRunning)
    }

    /// What is known of it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::BadState`].
    pub fn state(&self, _id: &str) -> Result<ContainerState> {
        Err(Error::NotRunning)
    }

    /// Sends a signal to its first process, or with `all` to every process in it.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotRunning`].
    pub fn kill(&self, _id: &str, _signal: i32, _all: bool) -> Result<()> {
        Err(Error::NotRunning)
    }

    /// Removes what is left of a stopped container; with `force` of any, after killing it. With `force` a container that
    /// does not exist is no error.
    ///
    /// # Errors
    /// [`Error::Status`] when it is not stopped. Goes on past errors of single steps and returns the first.
    pub fn delete(&self, _id: &str, _force: bool) -> Result<()> {
        Err(Error::NotRunning)
    }

    /// Runs a process in it; returns when the program has been executed. The caller becomes its parent.
    ///
    /// # Errors
    /// [`Error::NotRunning`], [`Error::Paused`], [`Error::Child`], [`Error::Threads`], …
    pub fn exec(&self, _id: &str, _request: ExecRequest) -> Result<Created> {
        Err(Error::NotRunning)
    }

    /// Freezes all its processes; returns when they are.
    ///
    /// # Errors
    /// [`Error::Status`] when it is not running or created.
    pub fn pause(&self, _id: &str) -> Result<()> {
        Err(Error::NotRunning)
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// [`Error::Status`] when it is not paused.
    pub fn resume(&self, _id: &str) -> Result<()> {
        Err(Error::NotRunning)
    }

    /// The processes in it, as the caller sees their numbers.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn pids(&self, _id: &str) -> Result<Vec<i32>> {
        Err(Error::NotRunning)
    }

    /// Changes its limits; what is absent stays as it is.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::NotRunning`], [`Error::Cgroup`].
    pub fn update(&self, _id: &str, _resources: &LinuxResources) -> Result<()> {
        Err(Error::NotRunning)
    }

    /// All containers of this root. One with a bad state is listed as such and breaks nothing.
    ///
    /// # Errors
    /// When the root can't be read.
    pub fn list(&self) -> Result<Listing> {
        Ok(Listing::default())
    }
}
