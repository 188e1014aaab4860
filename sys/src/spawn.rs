//! Starting a detached program with exactly the descriptors it is meant to have.
//!
//! `posix_spawn(3)` and not fork: glibc shares the caller's memory until the exec, so that the start of a service costs
//! the same from a small and from a large process, a failed exec is reported as its errno, and no code of ours runs in
//! the child.

use std::ffi::{CString, OsStr, OsString};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::unistd::Pid;

use crate::fd::cloexec_from;

/// A program to start in a session of its own.
///
/// The child gets the descriptors named here and no other, an empty signal mask and default dispositions.
#[derive(Debug)]
pub struct Detached<'a> {
    /// The program's path; PATH is not searched.
    pub program: &'a Path,
    /// The arguments, without the program's own name.
    pub args: &'a [OsString],
    /// Variables added to the caller's environment.
    pub env: &'a [(&'a str, &'a OsStr)],
    /// Working directory; `None` keeps the caller's.
    pub cwd: Option<&'a Path>,
    /// Descriptors and the numbers that they get in the child. What is not named among 0, 1 and 2 is `/dev/null`.
    pub fds: &'a [(BorrowedFd<'a>, RawFd)],
    /// Whether it is executed from behind a read-only mount, as [`exe::protect`](crate::exe::protect) would do it itself.
    pub protected: bool,
}

impl Detached<'_> {
    /// Starts the program and returns its pid. The caller remains its parent.
    ///
    /// All other descriptors of the calling process become close-on-exec by this call.
    ///
    /// # Errors
    ///
    /// The errno of the exec (`ENOENT`, `EACCES`, …) or of an earlier step; `EINVAL` for a NUL byte in a string.
    pub fn spawn(&self) -> nix::Result<Pid> {
        let program = c_string(self.program.as_os_str())?;
        let read_only = if self.protected { crate::exe::behind_read_only_mount(AT_FDCWD, &program)? } else { None };
        let mut argv = vec![program.clone()];
        for arg in self.args {
            argv.push(c_string(arg)?);
        }
        let env = self.environment()?;
        let mut actions = Actions::new()?;
        for number in 0..=2 {
            if !self.fds.iter().any(|(_, target)| *target == number) {
                actions.open_null(number)?;
            }
        }
        // A source, or the program, may sit on a number that another one is to get: move all of them out of the way first.
        let floor = self.fds.iter().map(|(_, target)| *target).max().unwrap_or(2).max(2) + 1;
        let mut moved = OwnedNumbers(Vec::with_capacity(self.fds.len() + 1));
        let mut file = program;
        if let Some(fd) = &read_only {
            file = c_string(format!("/proc/self/fd/{}", moved.take(fd.as_fd(), floor)?).as_ref())?;
        }
        for (fd, target) in self.fds {
            actions.dup2(moved.take(*fd, floor)?, *target)?;
        }
        if let Some(cwd) = self.cwd {
            actions.chdir(&c_string(cwd.as_os_str())?)?;
        }
        cloexec_from(3)?;
        let attributes = Attributes::new_session()?;
        let argv = pointers(&argv);
        let env = pointers(&env);
        let mut pid: libc::pid_t = 0;
        // SAFETY: every pointer comes from a value that lives until the end of this function: argv and env are
        // NULL-terminated arrays of NUL-terminated strings, actions and attributes were initialised by their init calls.
        let errno = unsafe {
            libc::posix_spawn(
                &raw mut pid,
                file.as_ptr(),
                &raw const actions.0,
                &raw const attributes.0,
                argv.as_ptr(),
                env.as_ptr(),
            )
        };
        check(errno)?;
        Ok(Pid::from_raw(pid))
    }

    fn environment(&self) -> nix::Result<Vec<CString>> {
        // What a service manager announced (LISTEN_PID, …) is meant for us alone.
        let own = std::env::vars_os()
            .filter(|(name, _)| !name.as_bytes().starts_with(b"LISTEN_"))
            .filter(|(name, _)| !self.env.iter().any(|(added, _)| name == added));
        let added = self.env.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        own.chain(added)
            .map(|(mut name, value)| {
                name.push("=");
                name.push(value);
                c_string(&name)
            })
            .collect()
    }
}

/// Descriptor numbers made by `F_DUPFD_CLOEXEC`, closed on drop.
struct OwnedNumbers(Vec<RawFd>);

impl OwnedNumbers {
    /// Duplicates a descriptor to the lowest free number from `floor` on.
    fn take(&mut self, fd: BorrowedFd<'_>, floor: RawFd) -> nix::Result<RawFd> {
        let number = nix::fcntl::fcntl(fd, nix::fcntl::FcntlArg::F_DUPFD_CLOEXEC(floor))?;
        self.0.push(number);
        Ok(number)
    }
}

impl Drop for OwnedNumbers {
    fn drop(&mut self) {
        for fd in &self.0 {
            // SAFETY: the number was returned by fcntl(F_DUPFD_CLOEXEC) for this value alone and is closed only here.
            let _closed = unsafe { libc::close(*fd) };
        }
    }
}

struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new() -> nix::Result<Self> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: init writes the whole value behind the pointer, which is valid for writes.
        check(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        // SAFETY: the successful init above has initialised it.
        Ok(Self(unsafe { actions.assume_init() }))
    }

    fn dup2(&mut self, fd: RawFd, target: RawFd) -> nix::Result<()> {
        // SAFETY: self.0 was initialised in `new`; the numbers are only recorded.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(&raw mut self.0, fd, target) })
    }

    fn open_null(&mut self, number: RawFd) -> nix::Result<()> {
        // SAFETY: self.0 was initialised in `new`; the call copies the path, a string literal.
        check(unsafe {
            libc::posix_spawn_file_actions_addopen(&raw mut self.0, number, c"/dev/null".as_ptr(), libc::O_RDWR, 0)
        })
    }

    fn chdir(&mut self, path: &CString) -> nix::Result<()> {
        // SAFETY: self.0 was initialised in `new`; the call copies the NUL-terminated path.
        check(unsafe { libc::posix_spawn_file_actions_addchdir_np(&raw mut self.0, path.as_ptr()) })
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: self.0 was initialised in `new` and is not used after this.
        let _errno = unsafe { libc::posix_spawn_file_actions_destroy(&raw mut self.0) };
    }
}

struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    /// A new session, no blocked signals, default dispositions.
    fn new_session() -> nix::Result<Self> {
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: init writes the whole value behind the pointer, which is valid for writes.
        check(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: the successful init above has initialised it.
        let mut attributes = Self(unsafe { attributes.assume_init() });
        let none = nix::sys::signal::SigSet::empty();
        let all = nix::sys::signal::SigSet::all();
        // SAFETY: the attributes are initialised and the set lives through the call, which copies it.
        check(unsafe { libc::posix_spawnattr_setsigmask(&raw mut attributes.0, none.as_ref()) })?;
        // SAFETY: as above.
        check(unsafe { libc::posix_spawnattr_setsigdefault(&raw mut attributes.0, all.as_ref()) })?;
        let flags = libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF | i32::from(libc::POSIX_SPAWN_SETSID);
        // SAFETY: the attributes are initialised; the flags are a number that fits (three bits below 256).
        check(unsafe { libc::posix_spawnattr_setflags(&raw mut attributes.0, flags as libc::c_short) })?;
        Ok(attributes)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: self.0 was initialised in `new_session` and is not used after this.
        let _errno = unsafe { libc::posix_spawnattr_destroy(&raw mut self.0) };
    }
}

fn c_string(text: &OsStr) -> nix::Result<CString> {
    CString::new(text.as_bytes()).map_err(|_nul| Errno::EINVAL)
}

fn pointers(strings: &[CString]) -> Vec<*mut libc::c_char> {
    strings.iter().map(|s| s.as_ptr().cast_mut()).chain([std::ptr::null_mut()]).collect()
}

fn check(errno: libc::c_int) -> nix::Result<()> {
    if errno == 0 { Ok(()) } else { Err(Errno::from_raw(errno)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::wait::{WaitStatus, waitpid};
    use std::io::Read;

    #[test]
    fn gives_the_child_its_descriptors_and_no_other() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let dir = tempfile::tempdir().unwrap();
        let script = "ls -l /proc/self/fd | wc -l; echo \"$X\"; pwd; ps -o sid= -p $$ | tr -d ' '; echo $$";
        let args = ["-c".into(), script.into()];
        let leaked = std::fs::File::open("/dev/null").unwrap();
        nix::fcntl::fcntl(&leaked, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty())).unwrap();
        let value = OsString::from("y");
        let pid = Detached {
            program: Path::new("/bin/sh"),
            args: &args,
            env: &[("X", &value)],
            cwd: Some(dir.path()),
            fds: &[(writer.as_fd(), 1), (writer.as_fd(), 5)],
            protected: false,
        }
        .spawn()
        .unwrap();
        drop(writer);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 0));
        let lines: Vec<_> = text.lines().collect();
        // "total 0", the descriptors 0, 1, 2, 5, and ls's own on the directory.
        assert_eq!(lines[0], "6", "{text}");
        assert_eq!(lines[1], "y");
        assert_eq!(Path::new(lines[2]), dir.path());
        assert_eq!(lines[3], lines[4], "not the leader of its own session");
    }

    #[test]
    fn a_protected_program_is_not_covered_by_a_descriptor() {
        let null = std::fs::File::open("/dev/null").unwrap();
        // Among these is the lowest number that is free now.
        let fds: Vec<_> = (3..200).map(|number| (null.as_fd(), number)).collect();
        let program = Path::new("/bin/true");
        let pid = Detached { program, args: &[], env: &[], cwd: None, fds: &fds, protected: true }.spawn().unwrap();
        assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 0));
    }

    #[test]
    fn a_protected_program_is_reached_through_a_read_only_mount() {
        let (reader, writer) = std::io::pipe().unwrap();
        let program = Path::new("/bin/cat");
        let fds = [(reader.as_fd(), 0)];
        let pid = Detached { program, args: &[], env: &[], cwd: None, fds: &fds, protected: true }.spawn().unwrap();
        // The spawn returns when the caller's memory is given back, which is a moment before the new arguments are there.
        let line = (0..60_000).find_map(|_| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
            if line.is_empty() {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
            Some(line).filter(|line| !line.is_empty())
        });
        let exe = std::fs::File::open(format!("/proc/{pid}/exe")).unwrap();
        let flags = nix::sys::statvfs::fstatvfs(&exe).unwrap().flags();
        assert!(flags.contains(nix::sys::statvfs::FsFlags::ST_RDONLY), "{flags:?}");
        assert_eq!(line.as_deref(), Some(b"/bin/cat\0".as_slice()));
        drop(writer);
        assert_eq!(waitpid(pid, None).unwrap(), WaitStatus::Exited(pid, 0));
    }

    #[test]
    fn says_why_the_exec_failed() {
        let spawn = |path: &str| {
            Detached { program: Path::new(path), args: &[], env: &[], cwd: None, fds: &[], protected: false }.spawn()
        };
        assert_eq!(spawn("/nonexistent"), Err(Errno::ENOENT));
        assert_eq!(spawn("/etc/passwd"), Err(Errno::EACCES));
        assert_eq!(spawn("/a\0b"), Err(Errno::EINVAL));
    }
}
