//! A process's input: written by attached clients, or fed from containerd's fifo to its terminal.

use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError, Weak};

use tokio::io::Interest;
use tokio::sync::watch;

use super::{ProcessIo, Watched, ready};

/// The end of stdin that we write to. Closed once; what is being written then still arrives.
#[derive(Debug)]
pub(crate) struct StdinSink {
    state: watch::Sender<State>,
    held: Mutex<Option<OwnedFd>>,
    keeper: Mutex<Option<OwnedFd>>,
    order: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone)]
enum State {
    /// The terminal is not there yet.
    Waiting,
    Open(Watched),
    Closed,
}

impl StdinSink {
    pub(crate) fn open(sink: Watched) -> Self {
        Self::new(State::Open(sink))
    }

    pub(crate) fn waiting() -> Self {
        Self::new(State::Waiting)
    }

    pub(crate) fn closed() -> Self {
        Self::new(State::Closed)
    }

    fn new(state: State) -> Self {
        Self {
            state: watch::Sender::new(state),
            held: Mutex::default(),
            keeper: Mutex::default(),
            order: tokio::sync::Mutex::default(),
        }
    }

    /// Keeps a descriptor until the sink is closed: a writer's end without which the process would see the end early.
    pub(crate) fn hold(&self, fd: Option<OwnedFd>) {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner) = fd;
    }

    /// The descriptor that is written to.
    pub(crate) fn descriptor(&self) -> Option<Watched> {
        if let State::Open(sink) = &*self.state.borrow() { Some(sink.clone()) } else { None }
    }

    /// A process (by its pidfd) has the same end open, and must be ended for the process to see the end of its input.
    pub(crate) fn kept_by(&self, keeper: OwnedFd) {
        *self.keeper.lock().unwrap_or_else(PoisonError::into_inner) = Some(keeper);
    }

    /// What was waited for is there.
    pub(crate) fn connect(&self, sink: Watched) {
        self.state.send_if_modified(|state| {
            let waiting = matches!(state, State::Waiting);
            if waiting {
                *state = State::Open(sink);
            }
            waiting
        });
    }

    /// Writes all bytes, in the order of the calls; returns early when the process cannot read them any more.
    pub(crate) async fn write(&self, mut bytes: &[u8]) {
        let _turn = self.order.lock().await;
        let mut changes = self.state.subscribe();
        let sink = match changes.wait_for(|state| !matches!(state, State::Waiting)).await.as_deref() {
            Ok(State::Open(sink)) => sink.clone(),
            _ => return,
        };
        while !bytes.is_empty() {
            match sink.async_io(Interest::WRITABLE, |fd| Ok(nix::unistd::write(fd, bytes)?)).await {
                Ok(length) => bytes = &bytes[length..],
                Err(_gone) => return self.close(),
            }
        }
    }

    /// Lets the process see the end of its input. A terminal has none; there it only stops what we would write.
    pub(crate) fn close(&self) {
        self.state.send_replace(State::Closed);
        self.hold(None);
        if let Some(keeper) = self.keeper.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // It may have ended by itself.
            let _ended = dhow_sys::pidfd::send_signal(std::os::fd::AsFd::as_fd(&keeper), libc::SIGKILL);
        }
    }
}

/// Moves what containerd's client types to the terminal.
pub(crate) async fn feed(source: Watched, io: Weak<ProcessIo>, mut end: watch::Receiver<bool>) {
    let mut buffer = [0; 4096];
    loop {
        match nix::unistd::read(source.get_ref(), &mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                let Some(io) = io.upgrade() else { return };
                tokio::select! {
                    () = io.stdin.write(&buffer[..length]) => {}
                    _ended = end.wait_for(|ended| *ended) => return,
                }
            }
            Err(nix::errno::Errno::EINTR) => {}
            Err(nix::errno::Errno::EAGAIN) => tokio::select! {
                () = ready(&source) => {}
                _ended = end.wait_for(|ended| *ended) => return,
            },
            Err(_) => return,
        }
    }
}
