//! From `linux.seccomp` to a program for the kernel.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use dhow_sys::seccomp::{FilterFlags, Instruction};
use nix::errno::Errno;
use oci_spec::runtime::LinuxSeccomp;

/// A compiled profile, ready to be installed.
#[derive(Debug, Clone)]
pub struct Filter {
    program: Vec<Instruction>,
    flags: FilterFlags,
    listener: Option<Listener>,
}

/// Where the descriptor of a filter with `SCMP_ACT_NOTIFY` goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// The unix socket of the seccomp agent (`listenerPath`).
    pub path: PathBuf,
    /// Passed to the agent as it is (`listenerMetadata`).
    pub metadata: String,
}

/// Compiles a profile. Pure: needs no privilege and asks the kernel nothing.
///
/// # Errors
/// A profile that can't be expressed or that would dead-lock the hand-over of its listener.
pub fn compile(profile: &LinuxSeccomp) -> Result<Filter, SeccompError> {
    let _ = profile;
    todo!()
}

impl Filter {
    /// Installs the filter for the calling thread; allocates nothing, so the child may call it before exec.
    /// Needs no_new_privs or CAP_SYS_ADMIN. Answers the listener's descriptor when the profile notifies.
    ///
    /// # Errors
    /// Those of [`dhow_sys::seccomp::install`].
    pub fn install(&self) -> Result<Option<OwnedFd>, Errno> {
        dhow_sys::seccomp::install(&self.program, self.flags)
    }

    /// The program.
    pub fn program(&self) -> &[Instruction] {
        &self.program
    }

    /// The flags it is installed with.
    pub fn flags(&self) -> FilterFlags {
        self.flags
    }

    /// Where the listener's descriptor has to be sent, when any rule notifies.
    pub fn listener(&self) -> Option<&Listener> {
        self.listener.as_ref()
    }
}

/// Why a profile can't be compiled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeccompError {
    /// To be refined.
    #[error("seccomp profile: {0}")]
    Profile(String),
}
