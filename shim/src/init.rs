//! The first process of a container with `--init`: starts the program, passes signals on to it, reaps what is orphaned, and
//! ends as it ends.
//!
//! The shim's own file is this program too, mounted read-only at [`PATH`] in the container: it is there on every host, and
//! static. A program that is process 1 itself gets no signal it has not asked for, and most don't know how to reap.

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::errno::Errno;
use nix::sys::signal::SigSet;
use nix::sys::signalfd::{SfdFlags, SignalFd, siginfo};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Where it stands in a container, by docker's name.
pub const PATH: &str = "/sbin/docker-init";

/// Whether the process was called by this name.
#[must_use]
pub fn is_called(program: Option<&OsString>) -> bool {
    program.is_some_and(|program| program == PATH)
}

/// What keeps a program from being run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InitError {
    /// No program was named.
    #[error("no program is named")]
    Usage,
    /// It does not start.
    #[error("exec {program:?}")]
    Start {
        /// What was to be executed.
        program: OsString,
        /// Why not.
        source: io::Error,
    },
    /// Signals cannot be waited for.
    #[error("wait for signals")]
    Signals {
        /// Why not.
        source: Errno,
    },
}

impl InitError {
    /// As a shell has it: 127 when the program is not there, 126 when it cannot be executed.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Start { source, .. } if source.kind() == io::ErrorKind::NotFound => 127,
            Self::Start { .. } => 126,
            _ => 125,
        }
    }
}

/// Runs the program and its arguments (which may stand behind a `--`) to their end. Returns the exit code.
///
/// # Errors
/// See [`InitError`].
pub fn run(words: impl IntoIterator<Item = OsString>) -> Result<u8, InitError> {
    let words: Vec<OsString> = words.into_iter().collect();
    let mut words = words.into_iter().skip_while(|word| word == "--");
    let program = words.next().ok_or(InitError::Usage)?;
    // Before the child is there, so that no end of it is missed.
    let signals = SigSet::all();
    signals.thread_block().map_err(|source| InitError::Signals { source })?;
    let signals =
        SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC).map_err(|source| InitError::Signals { source })?;
    // A child has the mask of the thread that starts it: of one that blocks nothing.
    let start = || {
        SigSet::empty().thread_set_mask()?;
        Command::new(&program).arg0(&program).args(words).spawn()
    };
    let started = std::thread::scope(|scope| scope.spawn(start).join());
    let started = started.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let child = started.map_err(|source| InitError::Start { program, source })?;
    let child = Pid::from_raw(child.id().cast_signed());
    // While that thread lived it may have got, and ignored, the news of an end.
    if let Some(code) = reap(child) {
        return Ok(code);
    }
    loop {
        let signal = match signals.read_signal() {
            Ok(Some(signal)) => signal,
            Ok(None) | Err(Errno::EINTR) => continue,
            Err(source) => return Err(InitError::Signals { source }),
        };
        if signal.ssi_signo != libc::SIGCHLD.cast_unsigned() {
            pass_on(&signal, child);
        } else if let Some(code) = reap(child) {
            return Ok(code);
        }
    }
}

/// What a terminal's driver sends goes to the whole foreground: the child has it already.
fn pass_on(signal: &siginfo, child: Pid) {
    if signal.ssi_code == libc::SI_KERNEL {
        return;
    }
    // nix knows no real-time signals.
    let sent = dhow_sys::pidfd::open(child.as_raw()).and_then(|child| {
        use std::os::fd::AsFd;
        dhow_sys::pidfd::send_signal(child.as_fd(), signal.ssi_signo.cast_signed())
    });
    // It may have ended just now.
    sent.unwrap_or_default();
}

/// Reaps everything that has ended; the exit code once the child has.
fn reap(child: Pid) -> Option<u8> {
    let mut code = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) if pid == child => code = Some(u8::try_from(status).unwrap_or(u8::MAX)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                code = u8::try_from(128 + signal as i32).ok();
            }
            Ok(WaitStatus::StillAlive) => return code,
            Ok(_other) => {}
            // Nobody is left.
            Err(Errno::ECHILD) => return code.or(Some(u8::MAX)),
            // Ended by a real-time signal, which nix cannot tell.
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_of_what_does_not_start() {
        let code = |words: &[&str]| run(words.iter().map(|word| OsString::from(*word))).unwrap_err().exit_code();
        assert_eq!(code(&["--", "/nowhere/at/all"]), 127);
        assert_eq!(code(&["/etc/passwd"]), 126);
        assert_eq!(code(&[]), 125);
        assert!(is_called(Some(&PATH.into())) && !is_called(Some(&"containerd-shim-dhow-v2".into())));
    }
}
