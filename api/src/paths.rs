//! Where everything lies below an instance's two directories. The one place that spells these names.
//!
//! ARCHITECTURE.md, "Roots", draws the tree. Nothing here touches the disk.

use std::path::{Path, PathBuf};

/// What survives a boot: `--root`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root(PathBuf);

impl Root {
    /// The instance whose persistent directory this is.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The OCI image layout.
    #[must_use]
    pub fn image(&self) -> PathBuf {
        self.0.join("image")
    }

    /// The snapshotter's directory.
    #[must_use]
    pub fn snapshots(&self) -> PathBuf {
        self.0.join("snapshots")
    }

    /// The directory of all containers.
    #[must_use]
    pub fn containers(&self) -> PathBuf {
        self.0.join("containers")
    }

    /// One container's bundle.
    #[must_use]
    pub fn container(&self, id: &str) -> Bundle {
        Bundle(self.containers().join(id))
    }

    /// netplug's directory.
    #[must_use]
    pub fn networks(&self) -> PathBuf {
        self.0.join("networks")
    }

    /// The directory of all volumes.
    #[must_use]
    pub fn volumes(&self) -> PathBuf {
        self.0.join("volumes")
    }

    /// One volume's content.
    #[must_use]
    pub fn volume_data(&self, name: &str) -> PathBuf {
        self.volumes().join(name).join("_data")
    }
}

/// One container's directory, `ROOT/containers/<id>`, which is its OCI bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle(PathBuf);

impl Bundle {
    /// The container whose bundle this is.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The runtime-spec.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.0.join("config.json")
    }

    /// The command line's record.
    #[must_use]
    pub fn record(&self) -> PathBuf {
        self.0.join("container.json")
    }

    /// [`crate::documents::ShimConfig`].
    #[must_use]
    pub fn shim_config(&self) -> PathBuf {
        self.0.join("shim.json")
    }

    /// [`crate::documents::ExitRecord`].
    #[must_use]
    pub fn exit(&self) -> PathBuf {
        self.0.join("exit.json")
    }

    /// The current log; older ones have `.1`, `.2`, … appended.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// The empty directory that config.json's root.path names.
    #[must_use]
    pub fn rootfs(&self) -> PathBuf {
        self.0.join("rootfs")
    }
}

/// What does not survive a boot: `--runroot`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunRoot(PathBuf);

impl RunRoot {
    /// The instance whose volatile directory this is.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The snapshotter's socket.
    #[must_use]
    pub fn snapshotter_socket(&self) -> PathBuf {
        self.0.join("snapshotter.sock")
    }

    /// netplug's socket.
    #[must_use]
    pub fn netplug_socket(&self) -> PathBuf {
        self.0.join("netplug.sock")
    }

    /// The directory of [`crate::events::EventLog`].
    #[must_use]
    pub fn events(&self) -> PathBuf {
        self.0.join("events")
    }

    /// One container's network namespace.
    #[must_use]
    pub fn netns(&self, id: &str) -> PathBuf {
        self.0.join("netns").join(id)
    }

    /// The runtime's `--root`.
    #[must_use]
    pub fn runtime(&self) -> PathBuf {
        self.0.join("runtime")
    }

    /// The directory of all shims.
    #[must_use]
    pub fn shims(&self) -> PathBuf {
        self.0.join("shim")
    }

    /// One container's shim.
    #[must_use]
    pub fn shim(&self, id: &str) -> ShimDir {
        ShimDir(self.shims().join(id))
    }
}

/// One shim's directory, `RUNROOT/shim/<id>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShimDir(PathBuf);

impl ShimDir {
    /// The shim whose directory this is.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self(path.into())
    }

    /// The directory itself.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The Task and Shim services.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.0.join("shim.sock")
    }

    /// The stdio of attached clients.
    #[must_use]
    pub fn attach_socket(&self) -> PathBuf {
        self.0.join("attach.sock")
    }

    /// The directory of the container's own fifos.
    #[must_use]
    pub fn io(&self) -> PathBuf {
        self.0.join("io")
    }

    /// The shim's pid, in decimal.
    #[must_use]
    pub fn pid(&self) -> PathBuf {
        self.0.join("pid")
    }
}
