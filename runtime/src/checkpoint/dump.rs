//! Saving a container.

use std::path::Path;

use super::message::{Feature, Kind, option, request as encode};
use super::options::{Directories, common, make};
use super::service::{Criu, Start};
use super::wire::Writer;
use super::{CheckpointRequest, external};
use crate::cgroup::is_unified;
use crate::inspect::status;
use crate::plan::Plan;
use crate::state::{Lock, State};
use crate::{Error, Result, Runtime, Status, control};

/// See [`Runtime::checkpoint`].
pub(crate) fn dump(runtime: &Runtime, id: &str, request: CheckpointRequest) -> Result<()> {
    let lock = Lock::take(runtime.root(), id)?;
    let state = State::load(runtime.root(), id)?;
    match status(runtime.root(), &state) {
        Status::Running | Status::Paused => {}
        status => return Err(Error::Status { verb: "checkpoint", status }),
    }
    let goes_on = request.leave_running || request.pre_dump;
    save(&state, request)?;
    drop(lock);
    if goes_on { Ok(()) } else { control::delete(runtime, id, true, None) }
}

fn save(state: &State, mut request: CheckpointRequest) -> Result<()> {
    let spec = state.spec()?;
    let plan = Plan::new(&spec, &state.bundle)?;
    let pid = state.init_process_pid;
    make(&request.criu.image_path)?;
    if let Some(parent) = &request.parent_path {
        check_parent(&request.criu.image_path, parent)?;
    }
    let directories = Directories::new(&request.criu, LOG)?;
    let mut options = common(&request.criu, &directories, &spec.annotations);
    own(&request, state, &mut options);
    external::name_namespaces(&plan, &mut options)?;
    let kind = if request.pre_dump { Kind::PreDump } else { Kind::Dump };
    if kind == Kind::Dump {
        let path = format!("/proc/{pid}/cgroup");
        let cgroups = std::fs::read_to_string(&path).map_err(Error::file("read", Path::new(&path)))?;
        external::Inside::of(pid)?.name_mounts(&plan, &cgroups, &mut options);
        let path = request.criu.image_path.join(DESCRIPTORS);
        let names = external::name_fifos(pid, &state.external_descriptors, &mut options);
        let text = serde_json::to_vec(&names).unwrap_or_default();
        std::fs::write(&path, text).map_err(Error::file("write", &path))?;
    }
    let criu = Criu::start(&Start::new(&directories))?;
    if request.pre_dump {
        criu.require(Feature::MemTrack, "memory tracking")?;
    }
    if request.criu.lazy_pages {
        criu.require(Feature::LazyPages, "lazy pages")?;
    }
    let done = criu.call(kind, &encode(kind, options), |notification, _| {
        if notification.script == "status-ready"
            && let Some(fd) = request.status_fd.take()
        {
            // Whoever waits there learns of the end as well.
            nix::unistd::write(&fd, &[0]).map_err(Error::sys("write to --status-fd"))?;
        }
        Ok(())
    });
    done.map_err(|e| directories.explain(e))?;
    match criu.end()? {
        // After a pre-dump it waits for the next one, and takes the end of the connection ill.
        exit if exit.code() == 0 || kind == Kind::PreDump => Ok(()),
        exit => {
            let problem = format!("exit status {}", exit.code());
            Err(directories.explain(Error::Criu { request: kind.name(), problem }))
        }
    }
}

/// The options that only saving has.
fn own(request: &CheckpointRequest, state: &State, options: &mut Writer) {
    options.number(option::PID, state.init_process_pid.into());
    options.text(option::ROOT, &state.rootfs.to_string_lossy());
    options.flag(option::LEAVE_RUNNING, request.leave_running);
    options.flag(option::TCP_SKIP_IN_FLIGHT, request.tcp_skip_in_flight);
    options.flag(option::LINK_REMAP, request.link_remap);
    if let Some((address, port)) = &request.page_server {
        options.message(option::PAGE_SERVER, |server| {
            server.text(1, address);
            server.number(2, (*port).into());
        });
    }
    if let Some(parent) = &request.parent_path {
        options.text(option::PARENT_IMG, &parent.to_string_lossy());
        options.flag(option::TRACK_MEM, true);
    }
    // Without it every task is stopped by ptrace, one after the other.
    if let Some(cgroup) = state.cgroup_paths.get(if is_unified() { "" } else { "freezer" }) {
        options.text(option::FREEZE_CGROUP, &cgroup.to_string_lossy());
    }
}

fn check_parent(images: &Path, parent: &Path) -> Result<()> {
    let problem = if parent.is_absolute() {
        "must be relative"
    } else if images.join(parent).is_dir() {
        return Ok(());
    } else {
        "is no directory in the image's"
    };
    Err(Error::config("--parent-path", problem))
}

const LOG: &str = "dump.log";
/// Beside criu's images: what 0, 1 and 2 were.
pub(super) const DESCRIPTORS: &str = "descriptors.json";
