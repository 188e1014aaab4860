//! The parent's half of the handshake with a container's first process.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use dhow_sys::clone::Namespaces;
use nix::unistd::geteuid;

use crate::handshake::{Channel, Message};
use crate::hooks::{self, StateDocument};
use crate::plan::Plan;
use crate::{Error, Result, idmap, sources};

/// The parent's half of the conversation.
pub(crate) struct Handshake<'a> {
    pub(crate) channel: &'a Channel,
    pub(crate) plan: &'a Plan,
    pub(crate) document: &'a StateDocument,
    pub(crate) pid: i32,
    pub(crate) console: Option<OwnedFd>,
}

impl Handshake<'_> {
    /// What has to be written from outside into a new user or time namespace.
    pub(crate) fn map_ids(&mut self) -> Result<()> {
        let namespaces = &self.plan.namespaces;
        let user = namespaces.new.contains(Namespaces::USER);
        if !user && !namespaces.new.contains(Namespaces::TIME) {
            return Ok(());
        }
        self.wait(&Message::Unshared, "joining namespaces")?;
        if user {
            idmap::write(self.pid, &namespaces.uid_mappings, &namespaces.gid_mappings)?;
        }
        if !namespaces.clocks.is_empty() {
            let lines = namespaces.clocks.iter().map(|c| format!("{} {} {}\n", c.name, c.seconds, c.nanoseconds));
            let path = format!("/proc/{}/timens_offsets", self.pid);
            std::fs::write(&path, lines.collect::<String>()).map_err(Error::file("write", Path::new(&path)))?;
        }
        // Before the process hides from this one, should it not be root.
        if user {
            self.oom_score()?;
        }
        self.channel.send(&Message::Mapped).map_err(Error::sys("tell the container's process of its ids"))
    }

    fn map_mount(&self, index: u32, made: &OwnedFd) -> Result<()> {
        let mount = usize::try_from(index).ok().and_then(|index| self.plan.mounts.get(index));
        if let Some(mount) = mount {
            let path = PathBuf::from(format!("/proc/{}/ns/user", self.pid));
            let user = File::open(&path).map_err(Error::file("open", &path))?;
            sources::map_ids(mount, self.plan, made, Some(user.as_fd()))?;
        }
        self.channel.send(&Message::MountMapped).map_err(Error::sys("tell the container's process of its mount"))
    }

    pub(crate) fn oom_score(&self) -> Result<()> {
        match self.plan.process.oom_score_adj {
            None => Ok(()),
            Some(score) => set_oom_score(self.pid, score),
        }
    }

    /// Everything up to the process's being ready.
    pub(crate) fn finish(&mut self) -> Result<()> {
        loop {
            match self.receive("setting up the container")? {
                Message::RootReady => {
                    let state = self.document.render("creating", self.pid);
                    hooks::run("prestart", &self.plan.hooks.prestart, &state)?;
                    hooks::run("createRuntime", &self.plan.hooks.create_runtime, &state)?;
                    self.channel.send(&Message::HooksDone).map_err(Error::sys("tell of the hooks"))?;
                }
                Message::Ready => return Ok(()),
                other => return Err(unexpected(&other)),
            }
        }
    }

    fn wait(&mut self, wanted: &Message, step: &'static str) -> Result<()> {
        match self.receive(step)? {
            message if message == *wanted => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// The next message that is neither the terminal nor a failure.
    fn receive(&mut self, step: &'static str) -> Result<Message> {
        loop {
            match self.channel.receive().map_err(Error::sys("hear from the container's process"))? {
                None => return Err(Error::ChildGone { step }),
                Some((Message::Failed(f), _)) => return Err(Error::Child { text: f.text, kind: f.kind }),
                Some((Message::Console, fd)) => self.console = fd,
                Some((Message::MapMount { index }, Some(made))) => self.map_mount(index, &made)?,
                Some((message, _)) => return Ok(message),
            }
        }
    }
}

/// The container's network namespace.
pub(crate) fn network(plan: &Plan, pid: i32) -> PathBuf {
    match plan.namespaces.joined(Namespaces::NETWORK) {
        Some(joined) => joined.path.clone(),
        None => format!("/proc/{pid}/ns/net").into(),
    }
}

/// The other side broke the protocol.
pub(crate) fn unexpected(message: &Message) -> Error {
    let text = format!("unexpected message {message:?}");
    Error::Child { text, kind: crate::Kind::Internal }
}

/// Adjusts the score of another process.
pub(crate) fn set_oom_score(pid: i32, score: i32) -> Result<()> {
    let path = format!("/proc/{pid}/oom_score_adj");
    match std::fs::write(&path, score.to_string()) {
        // Without privileges it can only be raised: what an unprivileged engine inherits has to do.
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied && !geteuid().is_root() => Ok(()),
        other => other.map_err(Error::file("write", Path::new(&path))),
    }
}
