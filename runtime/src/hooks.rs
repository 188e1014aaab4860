//! Hooks: programs of the engine's, run at six moments of a container's life with its state on stdin.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use dhow_sys::pidfd::{self, Exit};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::config::{Hook, Hooks};
use crate::{Error, Result};

/// The kinds by the specification's names, in the order of a container's life.
pub(crate) fn kinds(hooks: &Hooks) -> [(&'static str, &[Hook]); 6] {
    [
        ("prestart", &hooks.prestart),
        ("createRuntime", &hooks.create_runtime),
        ("createContainer", &hooks.create_container),
        ("startContainer", &hooks.start_container),
        ("poststart", &hooks.poststart),
        ("poststop", &hooks.poststop),
    ]
}

/// The state that hooks get, without what changes.
#[derive(Debug)]
pub(crate) struct StateDocument(serde_json::Map<String, serde_json::Value>);

impl StateDocument {
    pub(crate) fn new(id: &str, bundle: &Path, annotations: &BTreeMap<String, String>) -> Self {
        let mut map = serde_json::Map::new();
        map.insert("ociVersion".into(), crate::SPEC_VERSION.into());
        map.insert("id".into(), id.into());
        map.insert("bundle".into(), bundle.to_string_lossy().into());
        if !annotations.is_empty() {
            map.insert("annotations".into(), annotations.iter().map(|(k, v)| (k.clone(), v.clone())).collect());
        }
        Self(map)
    }

    /// The document as a value.
    pub(crate) fn value(&self, status: &str, pid: i32) -> serde_json::Value {
        let mut map = self.0.clone();
        map.insert("status".into(), status.into());
        if pid > 0 {
            map.insert("pid".into(), pid.into());
        }
        map.into()
    }

    /// The document as text.
    pub(crate) fn render(&self, status: &str, pid: i32) -> String {
        self.value(status, pid).to_string()
    }
}

/// Runs hooks one after the other, in the caller's namespaces; the first that fails ends it. A hook that names no environment
/// has the caller's.
///
/// # Errors
/// [`Error::Hook`] with what it wrote to stderr.
pub(crate) fn run(kind: &'static str, hooks: &[Hook], state: &str) -> Result<()> {
    run_with(kind, hooks, state, None)
}

/// As [`run`], with another environment than the caller's.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_with(kind: &'static str, hooks: &[Hook], state: &str, env: Option<&[CString]>) -> Result<()> {
    for (index, hook) in hooks.iter().enumerate() {
        let error = |problem| Error::Hook { kind, index, path: hook.path.clone(), problem };
        one(hook, state, env).map_err(error)?;
    }
    Ok(())
}

fn one(hook: &Hook, state: &str, env: Option<&[CString]>) -> std::result::Result<(), String> {
    let text = |e: std::io::Error| e.to_string();
    // What it writes goes to memory and not through a pipe, which it could fill while we write its stdin.
    // A startContainer hook is run under the container's filter, which may forbid it.
    let output = memfd_create("hook", MFdFlags::MFD_CLOEXEC).ok().map(std::fs::File::from);
    let stderr = output.as_ref().map(|file| file.try_clone().map(Stdio::from)).transpose().map_err(text)?;
    let mut command = Command::new(&hook.path);
    if let Some(env) = &hook.env {
        command.env_clear().envs(env.iter().filter_map(|e| e.split_once('=')));
    } else if let Some(env) = env {
        let pairs = env.iter().map(|e| OsStr::from_bytes(e.to_bytes()).to_owned());
        command.env_clear().envs(pairs.filter_map(|e| split(&e)));
    }
    if let Some((zero, rest)) = hook.args.split_first() {
        command.arg0(zero).args(rest);
    }
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(stderr.unwrap_or_else(Stdio::null));
    let mut child = command.spawn().map_err(text)?;
    let pid = i32::try_from(child.id()).unwrap_or_default();
    let pidfd = pidfd::open(pid).map_err(|e| e.to_string())?;
    if let Some(mut stdin) = child.stdin.take() {
        // A state always fits the pipe, so this can't block; a hook that does not read it is no error.
        drop(stdin.write_all(state.as_bytes()));
    }
    let timeout = hook.timeout.and_then(|t| u64::try_from(t).ok()).map(Duration::from_secs);
    let in_time = pidfd::wait_ended(pidfd.as_fd(), timeout).map_err(|e| e.to_string())?;
    if !in_time {
        child.kill().map_err(text)?;
    }
    let exit = pidfd::reap(pidfd.as_fd(), true).map_err(|e| e.to_string())?;
    let problem = match exit {
        _ if !in_time => format!("it did not end within {} s", hook.timeout.unwrap_or_default()),
        Some(Exit::Code(0)) => return Ok(()),
        Some(Exit::Code(code)) => format!("exit status {code}"),
        Some(Exit::Signal(signal)) => format!("signal: {}", signal_text(signal)),
        None => "it can't be waited for".to_owned(),
    };
    let mut said = Vec::new();
    if let Some(mut output) = output {
        output.rewind().and_then(|()| output.take(1024).read_to_end(&mut said)).map_err(text)?;
    }
    let said = String::from_utf8_lossy(&said);
    Err(if said.trim().is_empty() { problem } else { format!("{problem}: {}", said.trim()) })
}

/// `KEY=value`.
fn split(entry: &OsStr) -> Option<(OsString, OsString)> {
    let bytes = entry.as_bytes();
    let at = bytes.iter().position(|b| *b == b'=')?;
    Some((OsStr::from_bytes(&bytes[..at]).to_owned(), OsStr::from_bytes(&bytes[at + 1..]).to_owned()))
}

/// The words that runc's callers know.
fn signal_text(signal: i32) -> String {
    let known = SIGNALS.iter().find(|(number, _)| *number == signal);
    known.map_or_else(|| signal.to_string(), |(_, text)| (*text).to_owned())
}

const SIGNALS: [(i32, &str); 8] = [
    (libc::SIGINT, "interrupt"),
    (libc::SIGABRT, "aborted"),
    (libc::SIGKILL, "killed"),
    (libc::SIGSEGV, "segmentation fault"),
    (libc::SIGPIPE, "broken pipe"),
    (libc::SIGALRM, "alarm clock"),
    (libc::SIGTERM, "terminated"),
    (libc::SIGSYS, "bad system call"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: Option<i64>) -> Hook {
        let args = ["sh", "-c", script].iter().map(ToString::to_string).collect();
        Hook { path: "/bin/sh".into(), args, env: Some(vec!["A=b c".into()]), timeout }
    }

    #[test]
    fn results() {
        assert!(
            run("prestart", &[shell("read x; test \"$x\" = state && test \"$A\" = 'b c'", None)], "state\n").is_ok()
        );
        let error = run("poststop", &[shell("exit 0", None), shell("echo oh no >&2; exit 3", None)], "").unwrap_err();
        assert_eq!(
            error.to_string(),
            "error running poststop hook #1: error running hook /bin/sh: exit status 3: oh no"
        );
        let error = run("poststop", &[shell("kill -TERM $$", None)], "").unwrap_err();
        assert!(error.to_string().ends_with("signal: terminated"), "{error}");
        let error = run("poststop", &[shell("exec tail -f /dev/null", Some(1))], "").unwrap_err();
        assert!(error.to_string().ends_with("it did not end within 1 s"), "{error}");
    }
}
