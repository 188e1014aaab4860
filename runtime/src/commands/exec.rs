//! `exec`.

use std::os::fd::AsFd;
use std::path::Path;

use dhow_runtime::ExecRequest;
use dhow_runtime::config::{Capabilities, Process};
use dhow_sys::pidfd;

use super::args::{Flag, Parsed};
use super::foreground::Foreground;
use super::process::{self, Terminal};
use super::{Command, Context, Failure, absolute};

pub(crate) const COMMAND: Command = Command {
    name: "exec",
    usage: "exec [options] ID COMMAND [ARGUMENTS...]  (or -p PROCESS.json in place of COMMAND)",
    about: "run another program in a container",
    flags: &[
        process::CONSOLE_SOCKET,
        process::PIDFD_SOCKET,
        Flag::value("cwd", "working directory in the container"),
        Flag::value("env", "NAME=value, may be repeated").short('e'),
        Flag::switch("tty", "give it a terminal").short('t'),
        Flag::value("user", "UID[:GID]").short('u'),
        Flag::value("additional-gids", "further group ids, may be repeated").short('g'),
        Flag::value("process", "file with a process object").short('p'),
        Flag::switch("detach", "don't wait for it").short('d'),
        process::PID_FILE,
        Flag::value("process-label", "SELinux label"),
        Flag::value("apparmor", "AppArmor profile"),
        Flag::switch("no-new-privs", "no gain of privileges by exec"),
        Flag::value("cap", "add a capability, may be repeated").short('c'),
        process::PRESERVE_FDS,
        Flag::value("cgroup", "[CONTROLLERS:]PATH of a cgroup below the container's, may be repeated"),
        Flag::switch("ignore-paused", "also in a paused container, where it runs once that is resumed"),
        Flag::switch("no-subreaper", "ignored"),
    ],
    literal_after: Some(1),
    run: |context, parsed| run(context, parsed).map_err(|failure| failure.during("exec failed", 255)),
};

fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let Some((id, words)) = parsed.positional.split_first() else {
        return Err(Failure::arguments("exec", format_args!("a minimum of 1")));
    };
    process::protect(context);
    let process = process_of(context, parsed, id, words)?;
    let detach = parsed.on("detach");
    let terminal = Terminal::choose(process.terminal, detach, parsed.value("console-socket"))?;
    let foreground = (!detach).then(|| Foreground::begin(false)).transpose()?;
    let preserve_fds = parsed.number("preserve-fds")?.unwrap_or(0);
    process::all_inherited(context, preserve_fds)?;
    let pidfd_socket = process::pidfd_socket(parsed)?;
    context.debug(format_args!("nsexec container setup: joining container {id}"));
    tell_affinity(context, &process)?;
    let created = context.runtime.exec(
        id,
        ExecRequest {
            process,
            stdio: terminal.stdio(),
            preserve_fds,
            ignore_paused: parsed.on("ignore-paused"),
            cgroups: parsed.values("cgroup").map(str::to_owned).collect(),
            pid_file: process::pid_file(parsed)?,
        },
    )?;
    context.warn(&created.warnings);
    if let Some(flags) = created.filter_flags {
        context.debug(format_args!("seccomp filter flags: {flags}"));
    }
    context.debug(format_args!("child process in init(): pid {}", created.pid));
    context.debug(format_args!("setns_init: about to exec"));
    process::hand_over(&created, &terminal, pidfd_socket.as_ref()).inspect_err(|_| {
        // Nobody has hold of its terminal.
        pidfd::send_signal(created.pidfd.as_fd(), libc::SIGKILL).ok();
    })?;
    foreground.map_or(Ok(0), |foreground| foreground.wait(created, None))
}

/// The processors for the time of preparation, as a mask in runc's words.
fn tell_affinity(context: &Context, process: &Process) -> Result<(), Failure> {
    if process.exec_cpu_affinity.is_some() {
        let (initial, _) = dhow_runtime::plan::Process::new(process, "process", &mut Vec::new())?.affinity;
        let mask = initial.iter().flatten().filter(|cpu| **cpu < 64).fold(0_u64, |mask, cpu| mask | 1 << cpu);
        context.debug(format_args!("nsexec: affinity: {mask:#x}"));
    }
    Ok(())
}

/// The process object: from a file, or the container's own with what the flags change.
fn process_of(context: &Context, parsed: &Parsed, id: &str, words: &[String]) -> Result<Process, Failure> {
    if let Some(path) = parsed.value("process") {
        let path = absolute(Path::new(path))?;
        let bytes = std::fs::read(&path).map_err(|e| Failure::because(path.display(), e))?;
        return Ok(Process::from_json(&bytes)?);
    }
    let mut process = context.runtime.process(id)?;
    if words.is_empty() {
        return Err(Failure::new("process args cannot be empty"));
    }
    process.args = words.to_vec();
    process.terminal = parsed.on("tty");
    process.console_size = None;
    process.env.extend(parsed.values("env").map(str::to_owned));
    if let Some(cwd) = parsed.value("cwd") {
        cwd.clone_into(&mut process.cwd);
    }
    if let Some(label) = parsed.value("process-label") {
        label.clone_into(&mut process.selinux_label);
    }
    if let Some(profile) = parsed.value("apparmor") {
        profile.clone_into(&mut process.apparmor_profile);
    }
    if parsed.value("no-new-privs").is_some() {
        process.no_new_privileges = parsed.on("no-new-privs");
    }
    if let Some(user) = parsed.value("user") {
        set_user(&mut process, user)?;
    }
    for gid in parsed.values("additional-gids") {
        process.user.additional_gids.push(id_number("additional-gids", gid)?);
    }
    add_capabilities(&mut process, parsed);
    Ok(process)
}

fn set_user(process: &mut Process, user: &str) -> Result<(), Failure> {
    let (uid, gid) = match user.split_once(':') {
        Some((uid, gid)) => (uid, Some(gid)),
        None => (user, None),
    };
    process.user.uid = id_number("user", uid)?;
    if let Some(gid) = gid {
        process.user.gid = id_number("user", gid)?;
    }
    Ok(())
}

/// Ids are 32 bits; anything else must not wrap around to root (CVE-2024-40635).
fn id_number(flag: &str, text: &str) -> Result<i64, Failure> {
    text.parse::<u32>()
        .map(i64::from)
        .map_err(|e| Failure::new(format!("invalid value {text:?} for flag -{flag}: {e}")))
}

/// Into every set but the inheritable one, which stays as config.json has it (CVE-2022-29162); into the ambient one, whose
/// members have to be inheritable, only when that one has any.
fn add_capabilities(process: &mut Process, parsed: &Parsed) {
    let added: Vec<String> = parsed.values("cap").map(str::to_owned).collect();
    if added.is_empty() {
        return;
    }
    let sets = process.capabilities.get_or_insert_with(Capabilities::default);
    for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
        set.extend(added.iter().cloned());
    }
    if !sets.inheritable.is_empty() {
        sets.ambient.extend(added);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_one_and_too_much_is_an_error() {
        let mut process = Process::default();
        process.user.gid = 7;
        set_user(&mut process, "1").unwrap();
        assert_eq!((process.user.uid, process.user.gid), (1, 7));
        set_user(&mut process, "1000:5").unwrap();
        assert_eq!((process.user.uid, process.user.gid), (1000, 5));
        for user in ["4294967296", "-1", "root", "", "1:", "1:4294967296"] {
            assert!(set_user(&mut process, user).is_err(), "{user}");
        }
    }
}
