//! `checkpoint` and `restore`: saving a container with its processes, and bringing it back.

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use dhow_runtime::{CgroupMode, CheckpointRequest, CreateRequest, CriuOptions, RestoreRequest};
use nix::fcntl::OFlag;

use super::args::{Flag, Parsed};
use super::create::{BUNDLE, NO_PIVOT, NO_SUBREAPER, bundle, document, wants_terminal};
use super::foreground::Foreground;
use super::process::{self, Terminal};
use super::{Command, Context, Failure, absolute};

pub(crate) const CHECKPOINT: Command = Command {
    name: "checkpoint",
    usage: "checkpoint [options] ID",
    about: "save a running container with its processes, by criu",
    flags: &[
        IMAGE_PATH,
        WORK_PATH,
        Flag::value("parent-path", "directory with the images of an earlier pre-dump"),
        Flag::switch("leave-running", "don't end it"),
        TCP_ESTABLISHED,
        Flag::switch("tcp-skip-in-flight", "leave connections out that are being made"),
        Flag::switch("link-remap", "allow files that are deleted but open"),
        EXT_UNIX_SK,
        SHELL_JOB,
        Flag::switch("lazy-pages", "let memory be fetched when it is used"),
        Flag::value("status-fd", "descriptor that is told when lazy pages can be fetched"),
        Flag::value("page-server", "ADDRESS:PORT that gets the memory"),
        FILE_LOCKS,
        Flag::switch("pre-dump", "save the memory only, and go on"),
        MANAGE_CGROUPS,
        EMPTY_NS,
        AUTO_DEDUP,
    ],
    literal_after: None,
    run: checkpoint,
};

pub(crate) const RESTORE: Command = Command {
    name: "restore",
    usage: "restore [options] ID",
    about: "bring a saved container back",
    flags: &[
        process::CONSOLE_SOCKET,
        IMAGE_PATH,
        WORK_PATH,
        TCP_ESTABLISHED,
        EXT_UNIX_SK,
        SHELL_JOB,
        FILE_LOCKS,
        MANAGE_CGROUPS,
        BUNDLE,
        Flag::switch("detach", "don't wait for it").short('d'),
        process::PID_FILE,
        NO_SUBREAPER,
        NO_PIVOT,
        EMPTY_NS,
        AUTO_DEDUP,
        Flag::switch("lazy-pages", "fetch memory when it is used"),
        Flag::switch("tcp-close", "bring TCP connections back as closed ones"),
        process::PIDFD_SOCKET,
        Flag::value("lsm-profile", "TYPE:NAME of the security profile"),
        Flag::value("lsm-mount-context", "SELinux context of the mounts"),
    ],
    literal_after: None,
    run: restore,
};

const IMAGE_PATH: Flag = Flag::value("image-path", "directory of the saved image");
const WORK_PATH: Flag = Flag::value("work-path", "directory of criu's own files and logs");
const TCP_ESTABLISHED: Flag = Flag::switch("tcp-established", "allow open connections");
const EXT_UNIX_SK: Flag = Flag::switch("ext-unix-sk", "allow unix sockets that lead outside");
const SHELL_JOB: Flag = Flag::switch("shell-job", "allow a terminal from outside");
const FILE_LOCKS: Flag = Flag::switch("file-locks", "handle file locks");
const MANAGE_CGROUPS: Flag = Flag::value("manage-cgroups-mode", "soft, full, strict or ignore");
const EMPTY_NS: Flag = Flag::value("empty-ns", "make a namespace, but don't restore what is in it");
const AUTO_DEDUP: Flag = Flag::switch("auto-dedup", "free what a later image replaces");

fn checkpoint(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let id = &parsed.exactly("checkpoint", 1)?[0];
    warn_rootless(context, "checkpoint");
    let request = CheckpointRequest {
        criu: options(parsed)?,
        parent_path: path(parsed, "parent-path"),
        leave_running: parsed.on("leave-running"),
        pre_dump: parsed.on("pre-dump"),
        tcp_skip_in_flight: parsed.on("tcp-skip-in-flight"),
        link_remap: parsed.on("link-remap"),
        page_server: parsed.value("page-server").filter(|text| !text.is_empty()).map(page_server).transpose()?,
        status_fd: status_fd(parsed)?,
    };
    context.runtime.checkpoint(id, request)?;
    Ok(0)
}

fn restore(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let id = &parsed.exactly("restore", 1)?[0];
    process::protect(context);
    warn_rootless(context, "restore");
    let bundle = bundle(parsed)?;
    let detach = parsed.on("detach");
    let document = document(&bundle, parsed)?;
    let terminal = Terminal::choose(wants_terminal(&document), detach, parsed.value("console-socket"))?;
    let pidfd_socket = process::pidfd_socket(parsed)?;
    let foreground = if detach { None } else { Some(Foreground::begin(!parsed.on("no-subreaper"))?) };
    let text = |flag| parsed.value(flag).filter(|text| !text.is_empty()).map(str::to_owned);
    let created = context.runtime.restore(&RestoreRequest {
        create: CreateRequest {
            id: id.to_owned(),
            document: Some(document),
            bundle,
            stdio: terminal.stdio(),
            // It has the one that it was saved with.
            no_new_keyring: true,
            pid_file: process::pid_file(parsed)?,
            ..CreateRequest::default()
        },
        criu: options(parsed)?,
        tcp_close: parsed.on("tcp-close"),
        lsm_profile: text("lsm-profile"),
        lsm_mount_context: text("lsm-mount-context"),
    })?;
    process::hand_over(&created, &terminal, pidfd_socket.as_ref())
        .inspect_err(|_| drop(context.runtime.delete(id, true)))?;
    let Some(foreground) = foreground else { return Ok(0) };
    let code = foreground.wait(created, None)?;
    context.runtime.delete(id, true)?;
    Ok(code)
}

/// What both have in common.
fn options(parsed: &Parsed) -> Result<CriuOptions, Failure> {
    if let Some(other) = parsed.values("empty-ns").find(|kind| *kind != "network") {
        return Err(Failure::new(format!("namespace {other:?} is not supported")));
    }
    Ok(CriuOptions {
        image_path: absolute(path(parsed, "image-path").as_deref().unwrap_or(Path::new("checkpoint")))?,
        work_path: path(parsed, "work-path").as_deref().map(absolute).transpose()?,
        tcp_established: parsed.on("tcp-established"),
        ext_unix_sk: parsed.on("ext-unix-sk"),
        shell_job: parsed.on("shell-job"),
        file_locks: parsed.on("file-locks"),
        auto_dedup: parsed.on("auto-dedup"),
        lazy_pages: parsed.on("lazy-pages"),
        manage_cgroups: match parsed.value("manage-cgroups-mode") {
            None | Some("") => CgroupMode::Default,
            Some("ignore") => CgroupMode::Ignore,
            Some("soft") => CgroupMode::Soft,
            Some("full") => CgroupMode::Full,
            Some("strict") => CgroupMode::Strict,
            Some(_) => return Err(Failure::new("invalid manage-cgroups-mode value")),
        },
    })
}

fn path(parsed: &Parsed, flag: &str) -> Option<PathBuf> {
    parsed.value(flag).filter(|path| !path.is_empty()).map(PathBuf::from)
}

fn page_server(text: &str) -> Result<(String, u16), Failure> {
    let usage = || Failure::new("Use --page-server ADDRESS:PORT to specify page server");
    let (address, port) = text.rsplit_once(':').ok_or_else(usage)?;
    let address = address.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(address);
    if address.is_empty() || port.is_empty() {
        return Err(usage());
    }
    let port = port.parse().map_err(|_unspecific| Failure::new("Invalid port number"))?;
    Ok((address.to_owned(), port))
}

/// A copy of the descriptor; the caller's own is closed here, so that its end is seen when criu is ready.
fn status_fd(parsed: &Parsed) -> Result<Option<OwnedFd>, Failure> {
    let Some(number) = parsed.number::<i32>("status-fd")?.filter(|number| *number != -1) else { return Ok(None) };
    let invalid = |why: &str| Failure::new(format!("invalid --status-fd argument {number}: {why}"));
    let fd = dhow_sys::fd::take_inherited(number).ok_or_else(|| invalid("bad file descriptor"))?;
    let flags = nix::fcntl::fcntl(&fd, nix::fcntl::FcntlArg::F_GETFL).map(OFlag::from_bits_retain);
    match flags {
        Ok(flags) if flags.intersects(OFlag::O_WRONLY | OFlag::O_RDWR) => Ok(Some(fd)),
        _ => Err(invalid("not writable")),
    }
}

/// criu needs more rights than a user has.
fn warn_rootless(context: &Context, command: &str) {
    if !nix::unistd::geteuid().is_root() {
        context.warn(&[format!("{command} is untested with rootless containers")]);
    }
}
