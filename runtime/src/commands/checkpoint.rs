//! `checkpoint` and `restore`: known by name and flags, so that who asks is told what is missing.

use super::args::{Flag, Parsed};
use super::{Command, Failure};

pub(crate) const CHECKPOINT: Command = Command {
    name: "checkpoint",
    usage: "checkpoint [options] ID",
    about: "save a running container (not supported)",
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
    run: |_, parsed| unsupported("checkpoint", parsed),
};

pub(crate) const RESTORE: Command = Command {
    name: "restore",
    usage: "restore [options] ID",
    about: "bring a saved container back (not supported)",
    flags: &[
        super::process::CONSOLE_SOCKET,
        IMAGE_PATH,
        WORK_PATH,
        TCP_ESTABLISHED,
        EXT_UNIX_SK,
        SHELL_JOB,
        FILE_LOCKS,
        MANAGE_CGROUPS,
        Flag::value("bundle", "the bundle's directory (default: the current one)").short('b'),
        Flag::switch("detach", "don't wait for it").short('d'),
        super::process::PID_FILE,
        Flag::switch("no-subreaper", "don't reap the container's orphans"),
        Flag::switch("no-pivot", "move the root instead of pivot_root"),
        EMPTY_NS,
        AUTO_DEDUP,
        Flag::switch("lazy-pages", "fetch memory when it is used"),
        Flag::value("lsm-profile", "TYPE:NAME of the security profile"),
        Flag::value("lsm-mount-context", "SELinux context of the mounts"),
    ],
    literal_after: None,
    run: |_, parsed| unsupported("restore", parsed),
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

/// There is no half of it: without criu nothing can be saved.
fn unsupported(command: &str, parsed: &Parsed) -> Result<u8, Failure> {
    parsed.exactly(command, 1)?;
    Err(Failure::new(format!("{command} is not supported: this runtime does not drive criu")))
}
