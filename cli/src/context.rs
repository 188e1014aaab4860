//! What every command needs, made once and lazily: the instance's roots, the services, the image store, the containers.

use std::env;
use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::OnceLock;

use dhow_api::clients::{Network, Snapshots};
use dhow_api::events::EventLog;
use dhow_api::paths::{Root, RunRoot};
use dhow_image::{RegistryOptions, Store};

use crate::container::Containers;
use crate::error::{Error, Result};
use crate::files;

/// One invocation.
#[derive(Debug)]
pub(crate) struct Context {
    /// What survives a boot.
    pub root: Root,
    /// What does not.
    pub runroot: RunRoot,
    containers: Containers,
    snapshots: OnceLock<Snapshots>,
    network: OnceLock<Network>,
    store: OnceLock<Store>,
}

const ROOT: &str = "/var/lib/dhow";
const RUNROOT: &str = "/run/dhow";

impl Context {
    /// An instance: from the flags, else the environment, else the system's.
    pub(crate) fn new(root: Option<PathBuf>, runroot: Option<PathBuf>) -> Result<Self> {
        let pick = |flag: Option<PathBuf>, variable: &str, default: &str| {
            let given = flag.or_else(|| env::var_os(variable).filter(|v| !v.is_empty()).map(PathBuf::from));
            let path = given.unwrap_or_else(|| default.into());
            std::path::absolute(&path).map_err(Error::file("resolve", path))
        };
        let root = Root::new(pick(root, "DHOW_ROOT", ROOT)?);
        let runroot = RunRoot::new(pick(runroot, "DHOW_RUNROOT", RUNROOT)?);
        if !nix::unistd::geteuid().is_root() {
            let why = "containers of ordinary users are still to come; run dhow as root";
            return Err(Error::Unsupported { flag: "running without root".into(), why });
        }
        let containers = Containers::new(&root, &runroot);
        Ok(Self {
            root,
            runroot,
            containers,
            snapshots: OnceLock::new(),
            network: OnceLock::new(),
            store: OnceLock::new(),
        })
    }

    /// Makes the two roots, mode 0700. Commands that only look need not.
    pub(crate) fn make_roots(&self) -> Result<()> {
        files::make_dir(self.root.path())?;
        files::make_dir(self.runroot.path())
    }

    /// The containers.
    pub(crate) fn containers(&self) -> &Containers {
        &self.containers
    }

    /// The snapshotter; nothing is started before the first call.
    pub(crate) fn snapshots(&self) -> &Snapshots {
        self.snapshots.get_or_init(|| Snapshots::new(self.root.path(), self.runroot.path()))
    }

    /// The network service; nothing is started before the first call.
    pub(crate) fn network(&self) -> &Network {
        self.network.get_or_init(|| Network::new(self.root.path(), self.runroot.path()))
    }

    /// The log of events.
    pub(crate) fn events(&self) -> EventLog {
        EventLog::new(self.runroot.events())
    }

    /// The images.
    pub(crate) fn store(&self) -> Result<&Store> {
        if let Some(store) = self.store.get() {
            return Ok(store);
        }
        files::make_dir(self.root.path())?;
        let store = Store::open(&self.root.image())?;
        Ok(self.store.get_or_init(|| store))
    }

    /// Runs `print` with standard output locked and buffered, and flushes.
    pub(crate) fn print(&self, print: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<()> {
        let mut out = io::BufWriter::new(io::stdout().lock());
        print(&mut out)?;
        out.flush().map_err(Error::output)
    }

    /// Prints one line on standard output.
    pub(crate) fn say(&self, line: &str) -> Result<()> {
        self.print(|out| writeln!(out, "{line}").map_err(Error::output))
    }

    /// Prints one line on standard error; that nobody reads it is no failure.
    pub(crate) fn note(&self, line: &str) {
        drop(writeln!(io::stderr(), "{line}"));
    }
}

/// docker's configuration file: where `login` stores.
pub(crate) fn docker_config() -> PathBuf {
    env::var_os("DOCKER_CONFIG")
        .filter(|v| !v.is_empty())
        .map_or_else(|| home().join(".docker"), PathBuf::from)
        .join("config.json")
}

/// How registries are reached: credentials and certificates from the usual places.
pub(crate) fn registry_options(tls_verify: bool) -> RegistryOptions {
    let mut auth_files: Vec<PathBuf> = env::var_os("REGISTRY_AUTH_FILE").map(PathBuf::from).into_iter().collect();
    auth_files.push(docker_config());
    if let Some(runtime) = env::var_os("XDG_RUNTIME_DIR") {
        auth_files.push(PathBuf::from(runtime).join("containers/auth.json"));
    }
    let mut options = RegistryOptions { auth_files, verify_tls: tls_verify, ..RegistryOptions::default() };
    options.cert_dirs.insert(0, home().join(".config/containers/certs.d"));
    options
}

/// Whether standard output is a terminal.
pub(crate) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

fn home() -> PathBuf {
    env::home_dir().unwrap_or_else(|| "/root".into())
}
