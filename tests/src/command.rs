//! Running a program with a deadline, and looking at what came of it.

use std::ffi::OsStr;
use std::io::{Read as _, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::LIMIT;

/// What a program did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// The exit code, or 128 + the signal that ended it.
    pub code: i32,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
    line: String,
}

impl Ran {
    /// Panics unless the exit code is `code`.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert!(
            self.code == code,
            "`{}`: exit code {} instead of {code}\n--- stdout\n{}\n--- stderr\n{}",
            self.line,
            self.code,
            self.stdout,
            self.stderr
        );
        self
    }

    /// Panics unless the exit code is 0.
    #[track_caller]
    pub fn ok(self) -> Self {
        self.code(0)
    }

    /// Standard output without the white space at its ends.
    #[must_use]
    pub fn out(&self) -> &str {
        self.stdout.trim()
    }

    /// The lines of standard output.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        self.stdout.lines()
    }

    /// Panics unless it failed with `code` and said why in exactly one line on standard error that begins with
    /// `dhow: ` and contains each of `words`.
    #[track_caller]
    pub fn one_line(self, code: i32, words: &[&str]) -> Self {
        let ran = self.code(code);
        let said: Vec<&str> = ran.stderr.lines().collect();
        assert!(said.len() == 1, "`{}`: one line was expected, not:\n{}", ran.line, ran.stderr);
        assert!(said[0].starts_with("dhow: "), "`{}` says who speaks: {}", ran.line, ran.stderr);
        for word in words {
            assert!(said[0].contains(word), "`{}`: {word:?} is missing in: {}", ran.line, ran.stderr);
        }
        ran
    }
}

/// A command that is being put together.
#[derive(Debug)]
#[must_use]
pub struct Call {
    command: Command,
    input: Option<Vec<u8>>,
    deadline: Duration,
}

/// A call of any program: `tool("skopeo", ["inspect", …])`.
pub fn tool<S: AsRef<OsStr>>(program: impl AsRef<OsStr>, args: impl IntoIterator<Item = S>) -> Call {
    let mut command = Command::new(program);
    command.args(args);
    Call { command, input: None, deadline: LIMIT }
}

impl Call {
    /// One more argument.
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    /// More arguments.
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.command.args(args);
        self
    }

    /// An environment variable.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value);
        self
    }

    /// The working directory.
    pub fn dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.command.current_dir(dir);
        self
    }

    /// What it reads from standard input (else nothing).
    pub fn stdin(mut self, input: impl Into<Vec<u8>>) -> Self {
        self.input = Some(input.into());
        self
    }

    /// How long it may take; [`LIMIT`] when not said.
    pub fn deadline(mut self, seconds: u64) -> Self {
        self.deadline = Duration::from_secs(seconds);
        self
    }

    /// Runs it to its end.
    ///
    /// # Panics
    /// When it cannot be started or is not done in time, or when it left its output open in somebody else's hands.
    #[track_caller]
    pub fn run(mut self) -> Ran {
        let input = self.input.take();
        let deadline = self.deadline;
        Running::start(&mut self.command, input).wait(deadline)
    }

    /// Starts it in a process group of its own.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn spawn(mut self) -> Running {
        self.command.process_group(0);
        let input = self.input.take();
        Running::start(&mut self.command, input)
    }

    /// The command itself, for those who need more than this.
    #[must_use]
    pub fn into_command(self) -> Command {
        self.command
    }
}

/// A program that runs; killed on drop.
#[derive(Debug)]
#[must_use]
pub struct Running {
    pid: Pid,
    line: String,
    status: Receiver<ExitStatus>,
    stdout: Receiver<Vec<u8>>,
    stderr: Receiver<Vec<u8>>,
    said: Vec<u8>,
    done: bool,
}

impl Running {
    fn start(command: &mut Command, input: Option<Vec<u8>>) -> Self {
        let line = format!("{command:?}");
        command.stdin(if input.is_some() { Stdio::piped() } else { Stdio::null() });
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{line}: cannot start: {error}"));
        if let (Some(bytes), Some(mut pipe)) = (input, child.stdin.take()) {
            // A program that does not read its input to the end is no fault of the writer.
            std::thread::spawn(move || drop(pipe.write_all(&bytes)));
        }
        let stdout = collect(child.stdout.take().expect("piped"));
        let stderr = collect(child.stderr.take().expect("piped"));
        let pid = Pid::from_raw(child.id().cast_signed());
        Self { pid, line, status: watch(child), stdout, stderr, said: Vec::new(), done: false }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it is gone.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill(self.pid, signal).expect("a signal to a running program");
    }

    /// Waits until its standard output contains `text`.
    ///
    /// # Panics
    /// When its output ends before, or after [`LIMIT`].
    #[track_caller]
    pub fn wait_for_output(&mut self, text: &str) {
        let seen = |said: &[u8]| String::from_utf8_lossy(said).contains(text);
        while !seen(&self.said) {
            match self.stdout.recv_timeout(LIMIT) {
                Ok(bytes) => self.said.extend(bytes),
                Err(_) => panic!("`{}`: no {text:?} in: {}", self.line, String::from_utf8_lossy(&self.said)),
            }
        }
    }

    /// Whether anything has come from its standard output.
    #[must_use]
    pub fn has_output(&mut self) -> bool {
        self.said.extend(self.stdout.try_iter().flatten());
        !self.said.is_empty()
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it is not done in time, or when it left its output open in somebody else's hands.
    #[track_caller]
    pub fn wait(mut self, deadline: Duration) -> Ran {
        let status = match self.status.recv_timeout(deadline) {
            Ok(status) => status,
            Err(_) => {
                kill(self.pid, Signal::SIGKILL).ok();
                let (stdout, stderr) = (drain(&self.stdout).0, drain(&self.stderr).0);
                self.said.extend(stdout);
                let (out, err) = (String::from_utf8_lossy(&self.said), String::from_utf8_lossy(&stderr));
                panic!("`{}`: not done within {deadline:?}\n--- stdout\n{out}\n--- stderr\n{err}", self.line);
            }
        };
        self.done = true;
        let (stdout, closed) = drain(&self.stdout);
        self.said.extend(stdout);
        let (stderr, closed_too) = drain(&self.stderr);
        let stderr = String::from_utf8_lossy(&stderr).into_owned();
        assert!(closed && closed_too, "`{}` has ended, but its output is still open: {stderr}", self.line);
        Ran {
            code: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
            stdout: String::from_utf8_lossy(&self.said).into_owned(),
            stderr,
            line: self.line.clone(),
        }
    }

    /// Waits [`LIMIT`] for its end.
    #[track_caller]
    pub fn end(self) -> Ran {
        self.wait(LIMIT)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.done && matches!(self.status.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty)) {
            kill(self.pid, Signal::SIGKILL).ok();
            self.status.recv().ok();
        }
    }
}

/// For the sandbox: runs it to its end or kills it.
pub(crate) fn wait_with_deadline(command: &mut Command, deadline: Duration) -> Ran {
    Running::start(command, None).wait(deadline)
}

fn watch(mut child: Child) -> Receiver<ExitStatus> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        let status = child.wait().expect("waiting for a child of ours");
        send.send(status).ok();
    });
    receive
}

fn collect(mut pipe: impl std::io::Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (send, receive) = channel();
    std::thread::spawn(move || {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = pipe.read(&mut buffer) {
            if send.send(buffer[..length].to_vec()).is_err() {
                break;
            }
        }
    });
    receive
}

/// Everything up to the end of file, and whether that came within [`LIMIT`].
fn drain(pipe: &Receiver<Vec<u8>>) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    loop {
        match pipe.recv_timeout(LIMIT) {
            Ok(bytes) => all.extend(bytes),
            Err(RecvTimeoutError::Disconnected) => return (all, true),
            Err(RecvTimeoutError::Timeout) => return (all, false),
        }
    }
}

/// Reads a file to a string; panics with its name.
///
/// # Panics
/// When it cannot be read.
#[track_caller]
#[must_use]
pub fn text(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    let mut all = Vec::new();
    std::fs::File::open(path)
        .and_then(|mut file| file.read_to_end(&mut all))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    String::from_utf8_lossy(&all).into_owned()
}
