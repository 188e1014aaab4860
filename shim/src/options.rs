//! How the runtime is to be used: containerd's options for it (`containerd.runc.v1.Options`), and where it keeps its
//! state. Remembered in the bundle, for `delete` after the shim is gone.

use std::path::{Path, PathBuf};

use containerd_shim_protos::shim::oci;
use dhow_api::documents::Document;
use dhow_runtime::{CgroupDriver, Runtime};
use protobuf::Message;
use protobuf::well_known_types::any::Any;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Where the runtime's state lies under containerd, unless an option says otherwise.
const DEFAULT_ROOT: &str = "/run/containerd/dhow";

/// The file in the bundle.
const FILE: &str = "dhow-options.json";

/// Options of the runtime.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Options {
    /// The runtime's `--root`.
    pub(crate) root: PathBuf,
    /// Whether systemd makes the cgroups.
    #[serde(default)]
    systemd_cgroup: bool,
    /// chroot instead of pivot_root.
    #[serde(default)]
    pub(crate) no_pivot: bool,
    /// Stay in the session keyring.
    #[serde(default)]
    pub(crate) no_new_keyring: bool,
}

impl Document for Options {
    const NAME: &'static str = "runtime options";
}

impl Options {
    /// A runtime that keeps its state there.
    pub(crate) fn at(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), systemd_cgroup: false, no_pivot: false, no_new_keyring: false }
    }

    /// Those of a Create request.
    pub(crate) fn from_request(options: Option<&Any>, namespace: &str) -> Result<Self> {
        let mut parsed = Self::at(Path::new(DEFAULT_ROOT).join(namespace));
        let Some(any) = options else { return Ok(parsed) };
        // containerd writes the bare name, others put a host before it. Options of other types are for other runtimes.
        if any.type_url.rsplit('/').next() != Some("containerd.runc.v1.Options") {
            return Ok(parsed);
        }
        let options = oci::Options::parse_from_bytes(&any.value)
            .map_err(|error| Error::Request { field: "options", problem: error.to_string() })?;
        if !options.root.is_empty() {
            parsed.root = Path::new(&options.root).join(namespace);
        }
        parsed.systemd_cgroup = options.systemd_cgroup;
        parsed.no_pivot = options.no_pivot_root;
        parsed.no_new_keyring = options.no_new_keyring;
        Ok(parsed)
    }

    /// Writes them into the bundle.
    pub(crate) fn remember(&self, bundle: &Path) -> Result<()> {
        Ok(self.store(&bundle.join(FILE))?)
    }

    /// Those that a Create wrote into the bundle.
    pub(crate) fn recall(bundle: &Path, namespace: &str) -> Self {
        Self::load(&bundle.join(FILE)).unwrap_or_else(|_| Self::at(Path::new(DEFAULT_ROOT).join(namespace)))
    }

    /// The runtime that they describe.
    pub(crate) fn runtime(&self) -> Runtime {
        let driver = if self.systemd_cgroup { CgroupDriver::Systemd } else { CgroupDriver::Cgroupfs };
        Runtime::new(&self.root).cgroup_driver(driver)
    }
}
