//! `create` and `run`.

use std::path::{Path, PathBuf};

use dhow_runtime::{CreateRequest, Created, Error, Started};
use memchr::memmem;
use serde::Deserialize;

use super::args::{Flag, Parsed};
use super::foreground::Foreground;
use super::notify::{self, Notify};
use super::process::{self, Terminal};
use super::{Command, Context, Failure, lifecycle};

pub(crate) const BUNDLE: Flag = Flag::value("bundle", "the bundle's directory (default: the current one)").short('b');
const CONFIG: Flag = Flag::value("config", "file in place of the bundle's config.json").short('f');
pub(crate) const NO_PIVOT: Flag =
    Flag::switch("no-pivot", "move the root instead of pivot_root, for a root on a ramdisk; less isolated");
const NO_NEW_KEYRING: Flag = Flag::switch("no-new-keyring", "stay in the caller's session keyring");
pub(crate) const NO_SUBREAPER: Flag = Flag::switch("no-subreaper", "don't reap the container's orphans");

pub(crate) const CREATE: Command = Command {
    name: "create",
    usage: "create [options] ID",
    about: "make a container up to where its program could start",
    flags: &[
        BUNDLE,
        CONFIG,
        process::CONSOLE_SOCKET,
        process::PIDFD_SOCKET,
        process::PID_FILE,
        NO_PIVOT,
        NO_NEW_KEYRING,
        process::PRESERVE_FDS,
        NO_SUBREAPER,
    ],
    literal_after: None,
    run: |context, parsed| create(context, parsed).map_err(|failure| failure.during("runc create failed", 1)),
};

pub(crate) const RUN: Command = Command {
    name: "run",
    usage: "run [options] ID",
    about: "create and start a container, wait for it and delete it",
    flags: &[
        BUNDLE,
        CONFIG,
        process::CONSOLE_SOCKET,
        process::PIDFD_SOCKET,
        Flag::switch("detach", "don't wait for it").short('d'),
        Flag::switch("keep", "don't delete it when it has ended"),
        process::PID_FILE,
        NO_PIVOT,
        NO_NEW_KEYRING,
        NO_SUBREAPER,
        process::PRESERVE_FDS,
    ],
    literal_after: None,
    run: |context, parsed| run(context, parsed).map_err(|failure| failure.during("runc run failed", 1)),
};

fn create(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let id = &parsed.exactly("create", 1)?[0];
    process::protect(context);
    let bundle = bundle(parsed)?;
    let document = document(&bundle, parsed)?;
    let terminal = Terminal::choose(wants_terminal(&document), true, parsed.value("console-socket"))?;
    make(context, parsed, (id, bundle, document), &terminal, false)?;
    Ok(0)
}

fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let id = &parsed.exactly("run", 1)?[0];
    process::protect(context);
    let bundle = bundle(parsed)?;
    let detach = parsed.on("detach");
    let document = document(&bundle, parsed)?;
    let terminal = Terminal::choose(wants_terminal(&document), detach, parsed.value("console-socket"))?;
    if detach {
        let mut created = make(context, parsed, (id, bundle, document), &terminal, true)?;
        if let (Some(notify), _) = start_or_delete(context, id, &mut created)? {
            lifecycle::notify_wait(context, id, &notify)?;
        }
        return Ok(0);
    }
    let foreground = Foreground::begin(!parsed.on("no-subreaper"))?;
    let mut created = make(context, parsed, (id, bundle, document), &terminal, true)?;
    let (notify, started) = start_or_delete(context, id, &mut created)?;
    let code = foreground.wait(created, notify)?;
    if !parsed.on("keep") {
        match started {
            Some(started) => context.runtime.delete_started(id, started)?,
            None => context.runtime.delete(id, true)?,
        }
    }
    Ok(code)
}

fn start_or_delete(
    context: &Context,
    id: &str,
    created: &mut Created,
) -> Result<(Option<Notify>, Option<Started>), Failure> {
    let mut start = || {
        let notify = Notify::listen(context, id)?;
        let started = match created.held.take() {
            Some(held) => context.runtime.start_held(held).map(Some),
            None => context.runtime.start(id).map(|()| None),
        };
        let started = started.map_err(|error| match error {
            // As if the program had come that far: it is the container's own end, and not this command's failure.
            Error::Child { text, .. } if text.starts_with("exec ") => Failure::program(text),
            error => error.into(),
        })?;
        Ok((notify, started))
    };
    // The error of the start is the one to tell; what can't be deleted now, `delete -f` will find.
    start().inspect_err(|_: &Failure| drop(context.runtime.delete(id, true)))
}

fn make(
    context: &Context,
    parsed: &Parsed,
    (id, bundle, document): (&str, PathBuf, String),
    terminal: &Terminal,
    held: bool,
) -> Result<Created, Failure> {
    let (preserve_fds, listen_fds) = (parsed.number("preserve-fds")?.unwrap_or(0), listen_fds());
    process::all_inherited(context, listen_fds.saturating_add(preserve_fds))?;
    let pidfd_socket = process::pidfd_socket(parsed)?;
    context.debug(format_args!("nsexec container setup: container {id} from {}", bundle.display()));
    let created = context.runtime.create(CreateRequest {
        id: id.to_owned(),
        bundle,
        config: config(parsed).map(Path::to_owned),
        document: Some(document),
        stdio: terminal.stdio(),
        preserve_fds,
        listen_fds,
        no_pivot: parsed.on("no-pivot"),
        no_new_keyring: parsed.on("no-new-keyring"),
        notify: notify::wanted(),
        pid_file: process::pid_file(parsed)?,
        held,
        ..CreateRequest::default()
    })?;
    context.warn(&created.warnings);
    if let Some(flags) = created.filter_flags {
        context.debug(format_args!("seccomp filter flags: {flags}"));
    }
    context.debug(format_args!("child process in init(): pid {}", created.pid));
    context.debug(format_args!("init: closing the pipe to signal completion"));
    process::hand_over(&created, terminal, pidfd_socket.as_ref())
        .inspect_err(|_| drop(context.runtime.delete(id, true)))?;
    Ok(created)
}

pub(crate) fn bundle(parsed: &Parsed) -> Result<PathBuf, Failure> {
    let given = Path::new(parsed.value("bundle").filter(|path| !path.is_empty()).unwrap_or("."));
    // Without symlinks and `..`: others find it by what the state says.
    given.canonicalize().map_err(|e| Failure::because(format_args!("chdir {}", given.display()), e))
}

/// What was given in place of config.json.
fn config(parsed: &Parsed) -> Option<&Path> {
    parsed.value("config").filter(|path| !path.is_empty()).map(Path::new)
}

/// What the container is described by.
pub(crate) fn document(bundle: &Path, parsed: &Parsed) -> Result<String, Failure> {
    let name = config(parsed).unwrap_or(Path::new("config.json"));
    let path = bundle.join(name);
    std::fs::read_to_string(&path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => Failure::new(format!("JSON specification file {} not found", name.display())),
        _ => Failure::because(path.display(), e),
    })
}

/// Whether the process gets a terminal: all that has to be known of a document before it is read for the container. What is wrong
/// with it is told then.
pub(crate) fn wants_terminal(document: &str) -> bool {
    #[derive(Deserialize)]
    struct Document {
        process: Process,
    }
    #[derive(Deserialize)]
    struct Process {
        terminal: bool,
    }
    // Few containers have one, and to see that they don't costs less than to read the document: a name that is not there, or has
    // no `true` behind it, unless a letter of it is written as an escape.
    const NAME: &[u8] = b"\"terminal\"";
    let bytes = document.as_bytes();
    let is_space = |byte: &u8| byte.is_ascii_whitespace() || *byte == b':';
    let maybe = memmem::find(bytes, b"\\u").is_some()
        || memmem::find_iter(bytes, NAME).any(|at| {
            let mut rest = bytes[at + NAME.len()..].iter().skip_while(|byte| is_space(byte));
            rest.by_ref().take(4).eq(b"true")
        });
    maybe && serde_json::from_str::<Document>(document).is_ok_and(|document| document.process.terminal)
}

/// How many descriptors systemd's socket activation gave this process for the container.
fn listen_fds() -> u32 {
    let own = std::env::var("LISTEN_PID").is_ok_and(|pid| pid == std::process::id().to_string());
    if own { std::env::var("LISTEN_FDS").ok().and_then(|count| count.parse().ok()).unwrap_or(0) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_seen_however_it_is_written() {
        assert!(wants_terminal(r#"{"process":{"terminal":true}}"#));
        assert!(wants_terminal("{\"process\": {\"terminal\"\n :\t true}}"));
        assert!(wants_terminal(r#"{"process":{"t\u0065rminal":true}}"#));
        assert!(!wants_terminal(r#"{"process":{"terminal":false,"noNewPrivileges":true}}"#));
        assert!(!wants_terminal(r#"{"process":{"args":["\"terminal\":true"]},"hostname":"\u0061"}"#));
        assert!(!wants_terminal(r#"{"terminal":true,"process":{}}"#));
    }
}
