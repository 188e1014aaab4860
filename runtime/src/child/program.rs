//! The program: found early, so that a missing one is an error of create, and executed as the last thing.

use std::ffi::{CString, OsStr};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use dhow_sys::caps::{self, CapSet, Sets};
use dhow_sys::clone::InChild;
use dhow_sys::{Errno, fd, process};
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{Mode, SFlag, umask};
use nix::unistd::{AccessFlags, Gid, Uid, faccessat, setfsgid, setfsuid};

use super::{Common, Failure, Result, labels, user};
use crate::error::{Kind, errno_text};
use crate::plan::Process;

const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Enters the working directory, looks whether there is something to execute, with the rights of the process's user, and sets
/// the labels that it will have. After the root is entered.
pub(super) fn look(common: &mut Common<'_>) -> Result<()> {
    enter(common.process)?;
    as_user(common.process, || find(common.process))?;
    user::own_stdio(common.process);
    // Here, so that a profile that is not loaded is an error of create. They wait for the program.
    labels::program(common.process)
}

/// Does everything that is left, with `hooks` as the last thing, and executes. Returns only on failure.
pub(super) fn run(
    token: &InChild,
    common: &mut Common<'_>,
    hooks: impl FnOnce(&mut Common<'_>, &[CString]) -> Result<()>,
) -> Result<()> {
    let process = common.process;
    // Anew: time has passed since it was looked for, a hook may have brought it.
    let path = as_user(process, || find(process))?;
    let env = environment(common);
    descriptors(token, common)?;
    if process.no_new_privs {
        process::set_no_new_privs().map_err(Failure::errno("process.noNewPrivileges"))?;
    } else {
        // Without no_new_privs only a privileged process may install a filter.
        filter(common)?;
    }
    user::become_user(process)?;
    umask(Mode::from_bits_truncate(process.umask));
    if process.no_new_privs {
        // As late as can be: the fewer system calls of ours the profile has to allow the better.
        filter(common)?;
    }
    hooks(common, &env)?;
    let Err(errno) = nix::unistd::execve(&path, &process.args, &env);
    // It was there a moment ago: what is missing is its interpreter.
    let Failure { kind, .. } = not_executed(path.to_bytes(), errno);
    Err(Failure { kind, text: format!("exec {}: {}", path.to_string_lossy(), errno_text(errno)) })
}

/// The directory must be inside the root: through a leaked descriptor in /proc/self/fd it could be the host's
/// (CVE-2024-21626). The kernel says so.
fn enter(process: &Process) -> Result<()> {
    let error = |errno| Failure::errno(format_args!("process.cwd {}", process.cwd.display()))(errno);
    match nix::unistd::chdir(&process.cwd) {
        // A directory that only its user may enter: on a network file system, or without capabilities over it.
        Err(Errno::EACCES) => as_user(process, || nix::unistd::chdir(&process.cwd).map_err(error))?,
        other => other.map_err(error)?,
    }
    let cwd = nix::unistd::getcwd().map_err(error)?;
    if cwd.is_absolute() { Ok(()) } else { Err(Failure::new("the working directory is outside of the root")) }
}

/// Looks at files as the process's user would, and not with the rights of the runtime.
fn as_user<T>(process: &Process, look: impl FnOnce() -> Result<T>) -> Result<T> {
    let (uid, gid) = (setfsuid(Uid::from_raw(process.uid)), setfsgid(Gid::from_raw(process.gid)));
    let overriding = process.capabilities.unwrap_or_default().effective.and(OVERRIDE);
    let result = if process.uid == 0 || overriding == CapSet::EMPTY {
        look()
    } else {
        // Another user id has taken them away. Going back to the first one gives them back.
        let sets = caps::get().map_err(Failure::errno("read the capabilities"))?;
        let effective = sets.effective.or(overriding.and(sets.permitted));
        caps::set(Sets { effective, ..sets }).map_err(Failure::errno("set the capabilities"))?;
        look()
    };
    setfsgid(gid);
    setfsuid(uid);
    result
}

/// With these a user may execute what belongs to others.
const OVERRIDE: CapSet = CapSet::EMPTY.with(caps::DAC_OVERRIDE).with(caps::DAC_READ_SEARCH);

/// The path of the program, by its own or the search path.
fn find(process: &Process) -> Result<CString> {
    let name = process.args.first().map(|a| a.to_bytes()).unwrap_or_default();
    if name.contains(&b'/') {
        return executable(name).map_err(|errno| not_executed(name, errno));
    }
    let mut denied = None;
    for dir in process.variable("PATH").unwrap_or(DEFAULT_PATH).split(|b| *b == b':') {
        let dir = if dir.is_empty() { Path::new(".") } else { Path::new(OsStr::from_bytes(dir)) };
        match executable(dir.join(OsStr::from_bytes(name)).as_os_str().as_bytes()) {
            Ok(path) => return Ok(path),
            Err(Errno::EACCES) => denied = Some(Errno::EACCES),
            Err(_) => {}
        }
    }
    match denied {
        Some(errno) => Err(not_executed(name, errno)),
        None => {
            let text = format!("exec: {:?}: executable file not found in $PATH", String::from_utf8_lossy(name));
            Err(Failure { kind: Kind::CommandNotFound, text })
        }
    }
}

fn executable(path: &[u8]) -> dhow_sys::Result<CString> {
    let path = CString::new(path).or(Err(Errno::ENOENT))?;
    let stat = nix::sys::stat::stat(path.as_c_str())?;
    if stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits() {
        return Err(Errno::EISDIR);
    }
    // A file without any x bit is refused even to root.
    faccessat(AT_FDCWD, path.as_c_str(), AccessFlags::X_OK, AtFlags::AT_EACCESS)?;
    Ok(path)
}

/// The texts from which engines conclude 126 and 127.
fn not_executed(name: &[u8], errno: Errno) -> Failure {
    let name = String::from_utf8_lossy(name);
    match errno {
        Errno::ENOENT | Errno::ENOTDIR => {
            let text = format!("exec: {name:?}: stat {name}: no such file or directory");
            Failure { kind: Kind::CommandNotFound, text }
        }
        // What execve says of one, besides what runc says.
        Errno::EISDIR => Failure {
            kind: Kind::NotExecutable,
            text: format!("exec: {name:?}: {}: {}", errno_text(errno), errno_text(Errno::EACCES)),
        },
        other => Failure { kind: Kind::NotExecutable, text: format!("exec: {name:?}: {}", errno_text(other)) },
    }
}

/// The process's variables, its home directory when nobody has named one, and what socket activation needs.
fn environment(common: &Common<'_>) -> Vec<CString> {
    let process = common.process;
    let mut env = process.env.clone();
    if process.variable("HOME").is_none_or(<[u8]>::is_empty) {
        env.retain(|e| !e.to_bytes().starts_with(b"HOME="));
        let home = home(process.uid).unwrap_or_else(|| PathBuf::from("/"));
        env.extend(CString::new([b"HOME=", home.as_os_str().as_bytes()].concat()));
    }
    if common.listen_fds > 0 {
        let variables = [format!("LISTEN_FDS={}", common.listen_fds), format!("LISTEN_PID={}", nix::unistd::getpid())];
        env.retain(|e| !e.to_bytes().starts_with(b"LISTEN_FDS=") && !e.to_bytes().starts_with(b"LISTEN_PID="));
        env.extend(variables.into_iter().flat_map(CString::new));
    }
    env
}

/// The home directory by the container's /etc/passwd. A file of the image's: nothing more than its first 256 kB are read.
fn home(uid: u32) -> Option<PathBuf> {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    // It might be a fifo.
    let file = std::fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/etc/passwd").ok()?;
    let mut text = Vec::new();
    file.take(256 << 10).read_to_end(&mut text).ok()?;
    let line = |line: &[u8]| {
        let mut fields = line.split(|b| *b == b':');
        let id = fields.nth(2)?;
        let home = fields.nth(2).filter(|h| !h.is_empty())?;
        (id == uid.to_string().as_bytes()).then(|| PathBuf::from(OsStr::from_bytes(home)))
    };
    text.split(|b| *b == b'\n').find_map(line)
}

/// Only what was asked for survives exec.
fn descriptors(token: &InChild, common: &Common<'_>) -> Result<()> {
    fd::cloexec_from(3 + common.preserve_fds).map_err(Failure::errno("close descriptors"))?;
    let last = i32::try_from(common.preserve_fds).unwrap_or_default();
    (3..3 + last).try_for_each(|number| fd::inherit(token, number)).map_err(Failure::errno("preserve descriptors"))
}

fn filter(common: &mut Common<'_>) -> Result<()> {
    let Some(filter) = common.filter else { return Ok(()) };
    let listener = filter.install().map_err(Failure::errno("linux.seccomp: install the filter"))?;
    let (Some(listener), Some(agent)) = (listener, common.agent.take()) else { return Ok(()) };
    let pid = common.pid.unwrap_or_default();
    let state = match agent.running {
        None => agent.document.value("creating", pid),
        Some(first) => agent.document.value("running", first),
    };
    let message = serde_json::json!({
        "ociVersion": crate::SPEC_VERSION,
        "fds": ["seccompFd"],
        "pid": pid,
        "metadata": agent.metadata,
        "state": state,
    });
    fd::send(agent.socket.as_fd(), message.to_string().as_bytes(), &[listener.as_fd()])
        .map_err(Failure::errno("linux.seccomp.listenerPath: send the descriptor"))
}
