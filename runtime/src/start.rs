//! Starting a created container.

use std::ffi::OsStr;
use std::os::fd::AsFd;
use std::time::Duration;

use dhow_sys::{Errno, pidfd, seqpacket};

use crate::handshake::{Channel, Message};
use crate::hooks::{self, StateDocument};
use crate::inspect::status;
use crate::request::{Held, Started};
use crate::state::{Lock, START, State};
use crate::{Error, Result, Runtime, Status};

/// See [`Runtime::start`].
pub(crate) fn start(runtime: &Runtime, id: &str) -> Result<()> {
    let lock = Lock::take(runtime.root(), id)?;
    let state = State::load(runtime.root(), id)?;
    let socket = runtime.root().join(id).join(START);
    let channel = match seqpacket::connect(lock.dir(), OsStr::new(START)) {
        Ok(fd) => Channel::from_socket(fd),
        Err(Errno::ENOENT | Errno::ECONNREFUSED) => return Err(not_created(runtime, &state)),
        Err(e) => return Err(Error::Sys { step: "connect to start.sock", source: e }),
    };
    match channel.receive().map_err(Error::sys("hear from the container's process"))? {
        Some((Message::Accepted, _)) => {}
        Some((other, _)) => return Err(crate::parent::unexpected(&other)),
        // Somebody else has started it in the meantime, or it was killed.
        None => return Err(not_created(runtime, &state)),
    }
    // From here on it counts as started, whatever becomes of it.
    match std::fs::remove_file(&socket) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(Error::file("remove", &socket)(e)),
        _ => {}
    }
    executed(&channel, &state)?;
    drop(lock);
    poststart(runtime, &state)
}

/// See [`Runtime::start_held`].
pub(crate) fn start_held(runtime: &Runtime, held: Held) -> Result<Started> {
    let Held { channel, known } = held;
    channel.send(&Message::Start).map_err(Error::sys("tell the container's process to start"))?;
    executed(&channel, &known.state)?;
    poststart(runtime, &known.state)?;
    Ok(Started { known })
}

/// Waits until the program is executed, or the process killed.
fn executed(channel: &Channel, state: &State) -> Result<()> {
    match channel.receive().map_err(Error::sys("hear from the container's process"))? {
        None => Ok(()),
        Some((Message::Failed(f), _)) => {
            ended(state);
            Err(Error::Child { text: f.text, kind: f.kind })
        }
        Some((other, _)) => Err(crate::parent::unexpected(&other)),
    }
}

/// The program runs; a poststart hook that fails ends it again.
fn poststart(runtime: &Runtime, state: &State) -> Result<()> {
    if !state.may_have("poststart") {
        return Ok(());
    }
    let spec = state.spec()?;
    let Some(hooks) = &spec.hooks else { return Ok(()) };
    let document = StateDocument::new(&state.id, &state.bundle, &spec.annotations);
    let result = hooks::run("poststart", &hooks.poststart, &document.render("running", state.init_process_pid));
    if result.is_err() {
        // The hook's error is the one to report.
        drop(runtime.kill(&state.id, libc::SIGKILL, false));
        ended(state);
    }
    result
}

/// Waits for the end of a first process that is on its way out: who hears that the start has failed finds it stopped.
fn ended(state: &State) {
    if let Ok(Some(first)) = pidfd::open_checked(state.init_process_pid, state.init_process_start) {
        pidfd::wait_ended(first.as_fd(), Some(ENDS_WITHIN)).ok();
    }
}

fn not_created(runtime: &Runtime, state: &State) -> Error {
    match status(runtime.root(), state) {
        // Created and yet nobody listens: it is on its way out. Nobody makes it: this process has the lock.
        Status::Created | Status::Creating => Error::Status { verb: "start", status: Status::Stopped },
        status => Error::Status { verb: "start", status },
    }
}

/// Longer than a process takes that nothing keeps; one that hangs in the kernel must not hold its starter for ever.
const ENDS_WITHIN: Duration = Duration::from_secs(10);
