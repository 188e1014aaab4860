//! One typed synchronous client per service, over [`rpc::Client`].
//!
//! None connects when it is made; the services are started by their first call where nobody serves them. All may be
//! shared between threads. Errors are [`Error`], which keeps the gRPC code ([`Error::kind`]) and text of the service.

use std::path::Path;
use std::time::Duration;

use containerd_shim_protos::api as task;
use protobuf::well_known_types::empty::Empty;

use crate::service::ServiceSpec;
use crate::{Error, network, paths, rpc, shim, snapshots};

/// For calls that touch metadata only.
const QUICK: Duration = Duration::from_secs(60);

/// For calls that flush or remove data.
const SLOW: Duration = Duration::from_secs(1800);

macro_rules! methods {
    ($client:ident, $service:literal; $($(#[$doc:meta])* $name:ident = $method:literal ($request:ty) -> $answer:ty, $timeout:expr;)*) => {
        impl $client {
            /// The service's full name.
            pub const SERVICE: &'static str = $service;

            /// The connection underneath.
            #[must_use]
            pub fn client(&self) -> &rpc::Client {
                &self.0
            }

            $(
                $(#[$doc])*
                ///
                /// # Errors
                ///
                /// [`Error::Answer`] with the service's own code; those of [`rpc::Client::call`].
                pub fn $name(&self, request: &$request) -> Result<$answer, Error> {
                    self.0.call($service, $method, request, $timeout)
                }
            )*
        }
    };
}

/// The snapshotter.
#[derive(Debug)]
pub struct Snapshots(rpc::Client);

impl Snapshots {
    /// The snapshotter of an instance, started when it does not run.
    #[must_use]
    pub fn new(root: &Path, runroot: &Path) -> Self {
        Self(rpc::Client::of(ServiceSpec::snapshotter(root, runroot)))
    }

    /// Over a client made elsewhere.
    #[must_use]
    pub fn over(client: rpc::Client) -> Self {
        Self(client)
    }
}

methods! { Snapshots, "containerd.services.snapshots.v1.Snapshots";
    /// A writable snapshot over a committed one.
    prepare = "Prepare" (snapshots::PrepareSnapshotRequest) -> snapshots::PrepareSnapshotResponse, Some(QUICK);
    /// A read-only snapshot over a committed one.
    view = "View" (snapshots::ViewSnapshotRequest) -> snapshots::ViewSnapshotResponse, Some(QUICK);
    /// The mounts of an active or view snapshot, again.
    mounts = "Mounts" (snapshots::MountsRequest) -> snapshots::MountsResponse, Some(QUICK);
    /// Turns an active snapshot into a committed one; durable when it returns.
    commit = "Commit" (snapshots::CommitSnapshotRequest) -> Empty, Some(SLOW);
    /// Removes a snapshot without children.
    remove = "Remove" (snapshots::RemoveSnapshotRequest) -> Empty, Some(QUICK);
    /// One snapshot.
    stat = "Stat" (snapshots::StatSnapshotRequest) -> snapshots::StatSnapshotResponse, Some(QUICK);
    /// Changes labels.
    update = "Update" (snapshots::UpdateSnapshotRequest) -> snapshots::UpdateSnapshotResponse, Some(QUICK);
    /// All snapshots that fit the filters.
    list = "List" (snapshots::ListSnapshotsRequest) -> snapshots::ListSnapshotsResponse, Some(QUICK);
    /// Bytes and inodes of one snapshot.
    usage = "Usage" (snapshots::UsageRequest) -> snapshots::UsageResponse, Some(SLOW);
    /// Waits until removed data is gone from the disk.
    cleanup = "Cleanup" (snapshots::CleanupRequest) -> Empty, Some(SLOW);
}

/// The network service.
#[derive(Debug)]
pub struct Network(rpc::Client);

impl Network {
    /// The network service of an instance, started when it does not run.
    #[must_use]
    pub fn new(root: &Path, runroot: &Path) -> Self {
        Self(rpc::Client::of(ServiceSpec::netplug(root, runroot)))
    }

    /// Over a client made elsewhere.
    #[must_use]
    pub fn over(client: rpc::Client) -> Self {
        Self(client)
    }
}

methods! { Network, "dhow.network.v1.Network";
    /// Makes a user-defined network.
    create_network = "CreateNetwork" (network::CreateNetworkRequest) -> network::CreateNetworkResponse, Some(QUICK);
    /// Removes a network without containers.
    remove_network = "RemoveNetwork" (network::RemoveNetworkRequest) -> Empty, Some(QUICK);
    /// All networks.
    list_networks = "ListNetworks" (network::ListNetworksRequest) -> network::ListNetworksResponse, Some(QUICK);
    /// One network.
    inspect_network = "InspectNetwork" (network::InspectNetworkRequest) -> network::InspectNetworkResponse, Some(QUICK);
    /// Gives a container its network.
    attach = "Attach" (network::AttachRequest) -> network::AttachResponse, Some(QUICK);
    /// Takes it back; idempotent.
    detach = "Detach" (network::DetachRequest) -> Empty, Some(QUICK);
    /// Errors when what Attach made is no longer there.
    check = "Check" (network::CheckRequest) -> Empty, Some(QUICK);
    /// Detaches every container that is not named.
    gc = "Gc" (network::GcRequest) -> Empty, Some(SLOW);
}

/// dhow's own service of a shim.
#[derive(Debug)]
pub struct Shim(rpc::Client);

impl Shim {
    /// The shim of a container, when it has one.
    #[must_use]
    pub fn new(runroot: &Path, id: &str) -> Self {
        Self(rpc::Client::at(paths::RunRoot::new(runroot).shim(id).socket()))
    }

    /// The shim of a container, started when there is none; see [`ServiceSpec::shim`].
    #[must_use]
    pub fn or_start(root: &Path, runroot: &Path, id: &str) -> Self {
        Self(rpc::Client::of(ServiceSpec::shim(root, runroot, id)))
    }

    /// Over a client made elsewhere.
    #[must_use]
    pub fn over(client: rpc::Client) -> Self {
        Self(client)
    }
}

methods! { Shim, "dhow.shim.v1.Shim";
    /// Prepares an attachment; [`crate::attach::connect`] makes it.
    attach = "Attach" (shim::AttachRequest) -> shim::AttachResponse, Some(QUICK);
    /// Where the log stands.
    log_position = "LogPosition" (shim::LogPositionRequest) -> shim::LogPositionResponse, Some(QUICK);
    /// The health check's state.
    health = "Health" (shim::HealthRequest) -> shim::HealthResponse, Some(QUICK);
}

/// A shim's Task service (containerd.task.v3).
#[derive(Debug)]
pub struct Task(rpc::Client);

impl Task {
    /// The shim of a container, when it has one.
    #[must_use]
    pub fn new(runroot: &Path, id: &str) -> Self {
        Self(rpc::Client::at(paths::RunRoot::new(runroot).shim(id).socket()))
    }

    /// The shim of a container, started when there is none; see [`ServiceSpec::shim`].
    #[must_use]
    pub fn or_start(root: &Path, runroot: &Path, id: &str) -> Self {
        Self(rpc::Client::of(ServiceSpec::shim(root, runroot, id)))
    }

    /// Over a client made elsewhere.
    #[must_use]
    pub fn over(client: rpc::Client) -> Self {
        Self(client)
    }
}

methods! { Task, "containerd.task.v3.Task";
    /// The state of the container or of one of its processes.
    state = "State" (task::StateRequest) -> task::StateResponse, Some(QUICK);
    /// Makes the container, up to the point before its own program.
    create = "Create" (task::CreateTaskRequest) -> task::CreateTaskResponse, Some(QUICK);
    /// Starts the container's program, or an exec's.
    start = "Start" (task::StartRequest) -> task::StartResponse, Some(QUICK);
    /// Forgets a stopped container or exec.
    delete = "Delete" (task::DeleteRequest) -> task::DeleteResponse, Some(QUICK);
    /// The processes in the container.
    pids = "Pids" (task::PidsRequest) -> task::PidsResponse, Some(QUICK);
    /// Freezes all processes.
    pause = "Pause" (task::PauseRequest) -> Empty, Some(QUICK);
    /// Thaws them.
    resume = "Resume" (task::ResumeRequest) -> Empty, Some(QUICK);
    /// Signals a process, or all.
    kill = "Kill" (task::KillRequest) -> Empty, Some(QUICK);
    /// Registers a further process, which Start starts.
    exec = "Exec" (task::ExecProcessRequest) -> Empty, Some(QUICK);
    /// Sets a terminal's size.
    resize_pty = "ResizePty" (task::ResizePtyRequest) -> Empty, Some(QUICK);
    /// Closes a process's stdin.
    close_io = "CloseIO" (task::CloseIORequest) -> Empty, Some(QUICK);
    /// Changes the resource limits.
    update = "Update" (task::UpdateTaskRequest) -> Empty, Some(QUICK);
    /// Waits for the end of a process, for ever.
    wait = "Wait" (task::WaitRequest) -> task::WaitResponse, None;
    /// The resources used.
    stats = "Stats" (task::StatsRequest) -> task::StatsResponse, Some(QUICK);
    /// The shim's and the container's pids.
    connect = "Connect" (task::ConnectRequest) -> task::ConnectResponse, Some(QUICK);
    /// Ends the shim when it has nothing left to do.
    shutdown = "Shutdown" (task::ShutdownRequest) -> Empty, Some(QUICK);
}
