//! A further process in a running container.

use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use dhow_sys::clone::{Child, Namespaces};
use dhow_sys::pidfd;
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::geteuid;

use crate::birth::Birth;
use crate::cgroup::Cgroup;
use crate::child::Common;
use crate::child::join::{self, Join};
use crate::descriptors::{above_stdio, agent, inherited};
use crate::handshake::{Channel, Message};
use crate::hooks::StateDocument;
use crate::inspect::status;
use crate::parent::{set_oom_score, unexpected};
use crate::plan::{self, NamespacePlan};
use crate::state::State;
use crate::{Created, Error, ExecRequest, Result, Runtime, Status, lsm, pid_file, seccomp};

/// See [`Runtime::exec`].
pub(crate) fn exec(runtime: &Runtime, id: &str, request: ExecRequest) -> Result<Created> {
    let state = State::load(runtime.root(), id)?;
    match status(runtime.root(), &state) {
        Status::Running | Status::Created => {}
        Status::Paused if request.ignore_paused => {}
        Status::Paused => return Err(Error::Paused),
        Status::Stopped | Status::Creating => return Err(Error::Stopped),
    }
    let spec = state.spec()?;
    let linux = spec.linux.clone().unwrap_or_default();
    let mut warnings = Vec::new();
    let mut process = plan::Process::new(&request.process, "process", &mut warnings)?;
    process.set_machine(&linux)?;
    process.set_annotated(&spec.annotations);
    lsm::check(&process, None)?;
    if process.terminal != request.stdio.is_terminal() {
        return Err(Error::config("process.terminal", "does not fit the stdio that was asked for"));
    }
    let filter = linux.seccomp.as_ref().map(seccomp::compile).transpose()?;
    let document = StateDocument::new(id, &state.bundle, &spec.annotations);
    let namespaces = NamespacePlan::new(&linux)?.all() | of_criu(&state);
    // From here on the container can't be mistaken for a later one: the descriptor is its first process.
    let target = pidfd::open_checked(state.init_process_pid, state.init_process_start)
        .map_err(Error::sys("open a pidfd"))?
        .ok_or(Error::Stopped)?;
    let mut cgroup = Cgroup::open(&state.cgroup_paths)?;
    if !request.cgroups.is_empty() {
        cgroup = cgroup.below(&request.cgroups)?;
    }
    inherited(request.preserve_fds)?;
    let (ours, theirs) = Channel::pair().map_err(Error::sys("make a socket pair"))?;
    // Whoever is not root has power over the container in its user namespace alone.
    let by_helper = namespaces.contains(Namespaces::USER) && !geteuid().is_root();
    // A user's session and what the user's systemd has made have no cgroup of the user's above them both.
    let by_systemd = state.unit.as_deref().filter(|_| !geteuid().is_root());
    let handle = |wanted| match wanted {
        true => target.try_clone().map(Some).map_err(Error::file("duplicate", Path::new("a pidfd"))),
        false => Ok(None),
    };
    let birth = Birth {
        namespaces: Namespaces::NONE,
        user: handle(by_helper)?,
        pid: handle(namespaces.contains(Namespaces::PID))?,
        cgroup: cgroup.clone_target().filter(|_| by_systemd.is_none()),
    };
    let job = Join {
        common: Common {
            process: &process,
            channel: theirs,
            stdio: above_stdio(request.stdio)?,
            filter: filter.as_ref(),
            agent: filter.as_ref().map(|f| agent(f, &document, Some(state.init_process_pid))).transpose()?.flatten(),
            keyring: state.keyring.as_deref().map(CString::new).transpose().ok().flatten(),
            user_namespace: namespaces.contains(Namespaces::USER),
            preserve_fds: request.preserve_fds,
            listen_fds: 0,
            pid: None,
        },
        root: if namespaces.contains(Namespaces::MOUNT) { None } else { Some(root_of(&state, &target)?) },
        target,
        namespaces: namespaces.without(if by_helper { Namespaces::PID | Namespaces::USER } else { Namespaces::PID }),
    };
    let child = birth.spawn(&ours, job, join::main)?;
    let mut born = Born { child, armed: true };
    let pid = born.child.pid;
    if let Some(unit) = by_systemd {
        let (buses, rootless) = runtime.systemd();
        Cgroup::attach_to_unit(unit, pid, buses, rootless)?;
    }
    if cgroup.clone_target().is_none() || by_systemd.is_some() {
        cgroup.attach(pid)?;
    }
    if let Some(score) = process.oom_score_adj {
        set_oom_score(pid, score)?;
    }
    ours.send(&Message::Attached { pid }).map_err(Error::sys("tell the process its pid"))?;
    let mut console = None;
    loop {
        match ours.receive().map_err(Error::sys("hear from the process"))? {
            // End of stream: the program is executed.
            None => break,
            Some((Message::Console, fd)) => console = fd,
            Some((Message::Failed(f), _)) => return Err(Error::Child { text: f.text, kind: f.kind }),
            Some((other, _)) => return Err(unexpected(&other)),
        }
    }
    if let Some(file) = &request.pid_file {
        pid_file::write(file, pid)?;
    }
    born.armed = false;
    let pidfd = born.child.pidfd.try_clone().map_err(Error::file("duplicate", Path::new("a pidfd")))?;
    Ok(Created { pid, pidfd, console, warnings, filter_flags: filter.map(|f| f.flags().bits()), held: None })
}

/// The namespace that a restored container has and its configuration does not name: criu gives it clocks of its own. Whoever is
/// not in it could not be saved with the others again.
fn of_criu(state: &State) -> Namespaces {
    let clocks = state.restored && Path::new("/proc/self/ns/time").exists();
    if clocks { Namespaces::TIME } else { Namespaces::NONE }
}

/// The root directory of a container's first process.
fn root_of(state: &State, target: &OwnedFd) -> Result<OwnedFd> {
    let path = format!("/proc/{}/root", state.init_process_pid);
    let root = nix::fcntl::open(path.as_str(), OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty());
    let root = root.map_err(Error::sys("open the container's root"))?;
    // If it lives now, the path was not another process's.
    pidfd::send_signal(target.as_fd(), 0).map_err(Error::sys("look after the first process"))?;
    Ok(root)
}

/// Kills and reaps the process when something fails after its birth.
struct Born {
    child: Child,
    armed: bool,
}

impl Drop for Born {
    fn drop(&mut self) {
        if self.armed {
            // It may have ended by itself; what failed is what is reported.
            pidfd::send_signal(self.child.pidfd.as_fd(), libc::SIGKILL).ok();
            pidfd::reap(self.child.pidfd.as_fd(), true).ok();
        }
    }
}
