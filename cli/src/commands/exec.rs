//! `dhow exec`

use clap::Args;
use dhow_api::task::{DeleteRequest, ExecProcessRequest, StartRequest, WaitRequest};
use protobuf::MessageField;
use protobuf::well_known_types::any::Any;

use super::run::detach_keys;
use crate::app::Run;
use crate::container::{Container, Status};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::launch::start_failure;
use crate::parse::env;
use crate::rootfs::users::{Files, User};
use crate::rootfs::view::View;
use crate::shims::Services;
use crate::signals::Proxy;
use crate::spec::{self, Exec};
use crate::stdio::{Attachment, Ended, Session};
use crate::{names, stdio, terminal};

/// Run a further command in a running container
///
/// `dhow exec -it CONTAINER sh` gives you a shell. The exit code is the command's; 125, 126 and 127 are as for `run`.
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// Run in the background
    #[arg(short = 'd', long)]
    detach: bool,
    /// Forward standard input
    #[arg(short = 'i', long)]
    interactive: bool,
    /// Give the command a terminal
    #[arg(short = 't', long)]
    tty: bool,
    /// Set an environment variable
    #[arg(short = 'e', long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// Read environment variables from a file
    #[arg(long, value_name = "FILE")]
    env_file: Vec<String>,
    /// Run as this user and group
    #[arg(short = 'u', long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// The working directory in the container
    #[arg(short = 'w', long, value_name = "DIR")]
    workdir: Option<String>,
    /// With all capabilities
    #[arg(long)]
    privileged: bool,
    /// The keys that detach you (default ctrl-p,ctrl-q)
    #[arg(long, value_name = "KEYS", default_value = "")]
    detach_keys: String,
    /// The container, and the command to run in it with its arguments
    #[arg(value_names = ["CONTAINER", "COMMAND"], required = true, num_args = 2.., trailing_var_arg = true)]
    words: Vec<String>,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        detach_keys(&self.detach_keys)?;
        if !self.detach && self.interactive && self.tty && !terminal::stdin_is_terminal() {
            return Err(Error::Usage("the input device is not a TTY".into()));
        }
        let Some((name, command)) = self.words.split_first() else {
            return Err(Error::Usage("a container and a command are expected".into()));
        };
        let container = ctx.containers().find(name)?;
        let state = container.state();
        match state.status {
            Status::Running => {}
            Status::Paused => {
                let why = "unpause the container before exec";
                return Err(Error::State { name: name.clone(), state: "paused", why });
            }
            other => {
                let why = "start it first";
                return Err(Error::State { name: name.clone(), state: other.name(), why });
            }
        }
        let document = self.document(&container, state.pid, command)?;
        let services = Services::of(ctx, container.id());
        let exec_id = names::new_id()?;
        let signals = if self.detach { None } else { Some(Proxy::block()?) };
        let spec = Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Process".into(),
            value: document.to_string().into_bytes(),
            ..Default::default()
        };
        let request = ExecProcessRequest {
            id: container.id().to_owned(),
            exec_id: exec_id.clone(),
            terminal: self.tty,
            spec: MessageField::some(spec),
            ..Default::default()
        };
        services.task.exec(&request).map_err(start_failure)?;
        let outcome = self.start_and_follow(&services, &container, &exec_id, signals.as_ref());
        if !(self.detach && outcome.is_ok()) {
            forget(&services, &container, &exec_id);
        }
        outcome
    }
}

impl Command {
    fn document(&self, container: &Container, pid: i32, command: &[String]) -> Result<serde_json::Value> {
        let mut changes = Vec::new();
        let variable = |name: &str| std::env::var(name).ok();
        for file in &self.env_file {
            let bytes = crate::files::read(file.as_ref()).map_err(Error::file("read", file))?;
            changes.extend(env::parse_file(&String::from_utf8_lossy(&bytes), &variable)?);
        }
        for text in &self.env {
            changes.push(env::parse(text, &variable)?);
        }
        let mut base = container.record.config.env.clone();
        if self.tty && !base.iter().any(|e| e.starts_with("TERM=")) {
            base.push("TERM=xterm".into());
        }
        let record = &container.record;
        let spec = self.user.as_deref().unwrap_or(&record.config.user);
        let size = terminal::size().map(|size| (size.rows, size.columns));
        spec::exec_process(
            record,
            &Exec {
                command,
                env: env::merge(&base, &changes),
                cwd: self.workdir.as_deref(),
                user: resolve_user(spec, record.host.group_add.as_deref().unwrap_or_default(), pid)?,
                terminal: self.tty.then_some(size),
                privileged: self.privileged,
            },
        )
    }

    fn start_and_follow(
        &self,
        services: &Services,
        container: &Container,
        exec_id: &str,
        signals: Option<&Proxy>,
    ) -> Result<u8> {
        let attachment = Attachment {
            id: container.id().to_owned(),
            exec_id: exec_id.to_owned(),
            stdin: self.interactive,
            stdout: true,
            stderr: true,
            tty: self.tty,
            detach_keys: self.detach_keys.clone(),
            // docker passes no signals on to an exec; ctrl-c without a terminal is meant for the command all the same.
            sig_proxy: true,
        };
        let mut session = if self.detach { None } else { Some(Session::open(services, attachment)?) };
        let request = StartRequest { id: container.id().to_owned(), exec_id: exec_id.to_owned(), ..Default::default() };
        services.task.start(&request).map_err(start_failure)?;
        let Some(session) = &mut session else { return Ok(0) };
        if self.tty
            && let Err(error) = stdio::resize(services, container.id(), exec_id)
        {
            log::debug!("setting the terminal's size: {}", dhow_api::error::chain(&error));
        }
        if session.run(services, signals)? == Ended::Detached {
            return Ok(0);
        }
        let request = WaitRequest { id: container.id().to_owned(), exec_id: exec_id.to_owned(), ..Default::default() };
        let answer = services.task.wait(&request)?;
        Ok(u8::try_from(answer.exit_status).unwrap_or(u8::MAX))
    }
}

/// The user by the container's files as they are now, seen through its first process's root.
fn resolve_user(spec: &str, added: &[String], pid: i32) -> Result<User> {
    let root = format!("/proc/{pid}/root");
    let view = View::open(&[root.clone().into()]).map_err(Error::file("open", root))?;
    Files::read(&view)?.resolve(spec, added)
}

/// Lets the shim forget an exec that is over. One whose user has detached goes on: the shim refuses, and that is fine.
fn forget(services: &Services, container: &Container, exec_id: &str) {
    let request = DeleteRequest { id: container.id().to_owned(), exec_id: exec_id.to_owned(), ..Default::default() };
    if let Err(error) = services.task.delete(&request) {
        log::debug!("forgetting the exec: {}", dhow_api::error::chain(&error));
    }
}
