//! The terminal: of the container's own devpts, opened by descriptor, at /dev/console and as stdio.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use dhow_sys::clone::InChild;
use dhow_sys::mountfd::{clone_tree, move_mount};
use dhow_sys::openat2::{EMPTY, Root};
use dhow_sys::{fd, tty};
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, SFlag, fstat, makedev};
use nix::sys::termios::{self, OutputFlags, SetArg};

use super::init::Init;
use super::{Common, Failure, Result};
use crate::handshake::Message;
use crate::request::Stdio;

/// For a container's first process: also bound to /dev/console. After /dev and its devpts are mounted, before the root
/// is entered or read-only.
pub(super) fn for_init(token: &InChild, job: &Init<'_>) -> Result<()> {
    if !job.common.stdio.is_terminal() {
        return Ok(());
    }
    let root = job.root()?;
    let secondary = open(token, &job.common, root)?;
    // The descriptor itself is bound, not a path to it (CVE-2025-52565).
    let copy = clone_tree(secondary.as_fd(), EMPTY, false).map_err(Failure::errno("/dev/console"))?;
    let place = root.create_file(Path::new("/dev/console"), Mode::from_bits_truncate(0o666));
    let place = place.map_err(Failure::errno("/dev/console"))?;
    move_mount(copy.as_fd(), place.as_fd()).map_err(Failure::errno("/dev/console"))
}

/// For exec: after the container's namespaces are joined.
pub(super) fn for_exec(token: &InChild, common: &Common<'_>) -> Result<()> {
    if !common.stdio.is_terminal() {
        return Ok(());
    }
    let root = Root::open_path(Path::new("/")).map_err(Failure::errno("/"))?;
    open(token, common, &root).map(drop)
}

/// Opens a terminal, sends one end to the parent and makes the other one stdio and the controlling terminal of the
/// session, which has to be new.
fn open(token: &InChild, common: &Common<'_>, root: &Root) -> Result<OwnedFd> {
    let error = || Failure::errno("open a terminal");
    let primary = root.open(Path::new("/dev/pts/ptmx"), OFlag::O_RDWR | OFlag::O_NOCTTY).map_err(error())?;
    let stat = fstat(&primary).map_err(error())?;
    if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFCHR.bits() || stat.st_rdev != makedev(5, 2) {
        return Err(Failure::new("/dev/pts/ptmx is not what it should be: is a devpts mounted?"));
    }
    tty::unlock(primary.as_fd()).map_err(error())?;
    let secondary = tty::peer(primary.as_fd()).map_err(error())?;
    if matches!(common.stdio, Stdio::RelayedTerminal) {
        // Here, before anything can be written to it.
        let mut settings = termios::tcgetattr(&secondary).map_err(error())?;
        settings.output_flags.remove(OutputFlags::ONLCR);
        termios::tcsetattr(&secondary, SetArg::TCSANOW, &settings).map_err(error())?;
    }
    if let Some(size) = common.process.size {
        tty::set_size(primary.as_fd(), size).map_err(error())?;
    }
    common.channel.send_with(&Message::Console, primary.as_fd()).map_err(Failure::errno("send the terminal"))?;
    tty::set_controlling(secondary.as_fd()).map_err(error())?;
    for target in 0..3 {
        fd::place(token, secondary.as_fd(), target).map_err(error())?;
    }
    Ok(secondary)
}
