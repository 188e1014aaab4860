//! Kills a process before the n-th of its steps. A step is a system call that may change something outside of the process:
//! between two of them it makes no difference when it dies, so all places where a death matters are visited.
//!
//! The runtime is executed by a shell that waits until it is traced. ptrace(2) then stops it at every system call; waiting with
//! `__WNOTHREAD` hears of this thread's processes alone, so tests can do this side by side.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use dhow_runtime::seccomp::{Architecture, syscalls};
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::support::Bench;

/// For [`Bench::inside`]: waits to be traced when there is somebody who does.
pub(crate) const GATE: &str = r#"if [ -p /dev/stdin ]; then echo ready; read go; fi; exec "$@""#;

/// Who is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    /// The runtime itself.
    Runtime,
    /// The process that it clones, up to the execution of the program.
    Child,
}

/// How a supervised command went.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The call that was not made any more; none when there was no n-th step.
    pub(crate) cut: Option<String>,
    /// The runtime's exit code; none when it was killed.
    pub(crate) code: Option<i32>,
    pub(crate) stderr: String,
}

/// Runs a command line of a bench that has the [`GATE`], and kills the victim before its n-th step, from 0.
#[expect(clippy::zombie_processes, reason = "the supervisor waits for it")]
pub(crate) fn kill_before(t: &Bench, args: &[&str], victim: Victim, nth: usize) -> Outcome {
    let log = t.path("supervised");
    let mut command = t.command(args);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(File::create(&log).unwrap());
    let mut shell = command.spawn().unwrap();
    let (mut go, mut said) = (shell.stdin.take().unwrap(), BufReader::new(shell.stdout.take().unwrap()));
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    let runtime = Pid::from_raw(shell.id().cast_signed());
    let mut options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACEEXEC | Options::PTRACE_O_EXITKILL;
    if victim == Victim::Child {
        options |= Options::PTRACE_O_TRACEFORK | Options::PTRACE_O_TRACEVFORK | Options::PTRACE_O_TRACECLONE;
    }
    ptrace::seize(runtime, options).unwrap();
    writeln!(go, "go").unwrap();
    drop(go);
    let mut supervisor = Supervisor { runtime, victim, child: None, left: nth, cut: None };
    let code = supervisor.watch();
    Outcome { cut: supervisor.cut, code, stderr: std::fs::read_to_string(log).unwrap() }
}

struct Supervisor {
    runtime: Pid,
    victim: Victim,
    child: Option<Pid>,
    /// Steps that may still be made.
    left: usize,
    cut: Option<String>,
}

impl Supervisor {
    /// Until the runtime has ended: its exit code.
    fn watch(&mut self) -> Option<i32> {
        loop {
            match waitpid(None, Some(WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD)).unwrap() {
                WaitStatus::Exited(pid, code) if pid == self.runtime => return self.release(Some(code)),
                WaitStatus::Signaled(pid, ..) if pid == self.runtime => return self.release(None),
                WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) => {
                    self.child.take_if(|child| *child == pid);
                }
                WaitStatus::PtraceSyscall(pid) => {
                    self.step(pid);
                    self.go_on(pid, None);
                }
                WaitStatus::PtraceEvent(pid, _, event) => {
                    if pid != self.runtime && self.child.is_none() {
                        self.child = Some(pid);
                    }
                    if event == libc::PTRACE_EVENT_EXEC && Some(pid) == self.child {
                        // From here on it is the container's program.
                        self.child = None;
                        ptrace::detach(pid, None).unwrap();
                    } else {
                        self.go_on(pid, None);
                    }
                }
                WaitStatus::Stopped(pid, signal) => self.go_on(pid, Some(signal)),
                other => panic!("{other:?}"),
            }
        }
    }

    /// A process stands before or after a system call.
    fn step(&mut self, pid: Pid) {
        // It may be killed by somebody else at any time.
        let (Ok(info), Ok(registers)) = (ptrace::syscall_info(pid), ptrace::getregs(pid)) else { return };
        if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY || self.cut.is_some() || is_harmless(&registers) {
            return;
        }
        if self.left == 0 {
            self.cut = Some(name(registers.orig_rax));
            // The kernel does not make the call that a dying process stands before.
            kill(pid, Signal::SIGKILL).unwrap();
        }
        self.left = self.left.saturating_sub(1);
    }

    fn go_on(&self, pid: Pid, signal: Option<Signal>) {
        let watched = match self.victim {
            Victim::Runtime => pid == self.runtime,
            Victim::Child => Some(pid) == self.child,
        };
        let resumed = if watched { ptrace::syscall(pid, signal) } else { ptrace::cont(pid, signal) };
        // One that was killed is gone already.
        resumed.ok();
    }

    /// The runtime has ended: its child goes on by itself.
    fn release(&mut self, code: Option<i32>) -> Option<i32> {
        if let Some(child) = self.child.take()
            && ptrace::interrupt(child).is_ok()
        {
            loop {
                match waitpid(child, Some(WaitPidFlag::__WALL)) {
                    Ok(WaitStatus::PtraceEvent(..)) => break ptrace::detach(child, None).unwrap(),
                    Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..)) | Err(_) => break,
                    Ok(_) => self.go_on(child, None),
                }
            }
        }
        code
    }
}

/// Calls that leave everything outside of the process as it was, or (openat2) make a file in a container's root at most.
const HARMLESS: &[&str] = &[
    "access",
    "arch_prctl",
    "brk",
    "capget",
    "chdir",
    "close",
    "faccessat2",
    "fchdir",
    "fcntl",
    "fsconfig",
    "fsmount",
    "fsopen",
    "fspick",
    "fstatfs",
    "getcwd",
    "getdents64",
    "geteuid",
    "getpid",
    "getppid",
    "getrandom",
    "gettid",
    "lseek",
    "mmap",
    "mprotect",
    "munmap",
    "newfstatat",
    "open_tree",
    "openat2",
    "pidfd_open",
    "poll",
    "ppoll",
    "prctl",
    "pread64",
    "prlimit64",
    "read",
    "readlink",
    "readlinkat",
    "rseq",
    "rt_sigaction",
    "rt_sigprocmask",
    "sched_getaffinity",
    "sched_setaffinity",
    "set_robust_list",
    "set_tid_address",
    "setfsgid",
    "setfsuid",
    "setgroups",
    "setresgid",
    "setresuid",
    "sigaltstack",
    "signalfd4",
    "socket",
    "socketpair",
    "statfs",
    "statx",
    "umask",
];

fn is_harmless(registers: &libc::user_regs_struct) -> bool {
    let name = name(registers.orig_rax);
    let flags = match name.as_str() {
        "open" => registers.rsi,
        "openat" => registers.rdx,
        name => return HARMLESS.contains(&name),
    };
    flags & u64::from(libc::O_CREAT.cast_unsigned()) == 0
}

fn name(number: u64) -> String {
    let is = |name: &&str| syscalls::number(name, Architecture::NATIVE).is_some_and(|n| u64::from(n) == number);
    syscalls::names().find(is).map_or_else(|| number.to_string(), ToOwned::to_owned)
}
