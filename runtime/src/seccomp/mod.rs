//! From `linux.seccomp` to a program for the kernel.
//!
//! A profile becomes one classic BPF program for every architecture that the kernel can run: [`compile`] is pure, needs no
//! privilege and takes a fraction of a millisecond for docker's default profile, so nothing is cached. The container's
//! process installs the result as the last thing before exec ([`Filter::install`]).
//!
//! * `rules`: what each system call leads to, with runc's reading of a profile;
//! * `assemble`: a binary search over the numbers, with the conditions as leaves;
//! * [`syscalls`]: the numbers.
//!
//! What differs from libseccomp, and so from runc: rules of one call whose conditions overlap and whose actions differ are
//! tried in the profile's order; an architecture that the profile does not name ends the process, not the thread.

mod arch;
mod assemble;
mod error;
mod instruction;
mod rules;
pub mod syscalls;

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use dhow_sys::Errno;
use dhow_sys::seccomp::{FilterFlags, Instruction};
use oci_spec::runtime::{LinuxSeccomp, LinuxSeccompAction, LinuxSeccompFilterFlag};

pub use arch::Architecture;
pub use error::SeccompError;

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

/// Compiles a profile for the kernel that we were built for.
///
/// # Errors
/// A profile that can't be expressed or whose listener could never be handed over; the error names the field.
pub fn compile(profile: &LinuxSeccomp) -> Result<Filter, SeccompError> {
    compile_for(profile, Architecture::NATIVE)
}

/// Compiles a profile for a kernel of another architecture.
///
/// # Errors
/// As [`compile`].
pub fn compile_for(profile: &LinuxSeccomp, native: Architecture) -> Result<Filter, SeccompError> {
    let rules = rules::Rules::new(profile)?;
    let listener = listener(profile)?;
    let program = assemble::program(&rules, &architectures(profile, native))?;
    Ok(Filter { program, flags: flags(profile, listener.is_some()), listener })
}

impl Filter {
    /// Installs the filter for the calling thread. Allocates nothing, so the child may call it between clone and exec.
    /// Needs no_new_privs or CAP_SYS_ADMIN. Answers the listener's descriptor when a rule notifies; until an agent has
    /// it, a call that notifies waits for ever: the caller sends it with sendmsg(2) or tells its number with write(2), which no
    /// profile may have notified.
    ///
    /// # Errors
    /// Those of [`dhow_sys::seccomp::install`].
    pub fn install(&self) -> Result<Option<OwnedFd>, Errno> {
        match dhow_sys::seccomp::install(&self.program, self.flags) {
            // Linux 5.15 knows all flags but WAIT_KILLABLE_RECV (5.19), without which a filter is as strict.
            Err(Errno::EINVAL) if self.flags.contains(FilterFlags::WAIT_KILLABLE_RECV) => {
                dhow_sys::seccomp::install(&self.program, self.flags.without(FilterFlags::WAIT_KILLABLE_RECV))
            }
            answer => answer,
        }
    }

    /// The program.
    pub fn program(&self) -> &[Instruction] {
        &self.program
    }

    /// The flags it is installed with.
    pub fn flags(&self) -> FilterFlags {
        self.flags
    }

    /// Where the listener's descriptor has to be sent, when a rule notifies.
    pub fn listener(&self) -> Option<&Listener> {
        self.listener.as_ref()
    }
}

/// The kernel's own architecture first, then what the profile names and the kernel can run. The others need no code: no task
/// has them.
fn architectures(profile: &LinuxSeccomp, native: Architecture) -> Vec<Architecture> {
    let mut all = vec![native];
    for name in profile.architectures().iter().flatten() {
        if let Some(arch) = Architecture::from_profile(*name, native).filter(|arch| arch.runs_on(native))
            && !all.contains(&arch)
        {
            all.push(arch);
        }
    }
    all
}

fn flags(profile: &LinuxSeccomp, notifies: bool) -> FilterFlags {
    let Some(named) = profile.flags() else {
        // As runc and crun do: the mitigation costs much and a container is no stranger to its own memory.
        let default = FilterFlags::SPEC_ALLOW;
        return if notifies { default.union(FilterFlags::NEW_LISTENER) } else { default };
    };
    let mut flags = if notifies { FilterFlags::NEW_LISTENER } else { FilterFlags::default() };
    for flag in named {
        flags = flags.union(match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => FilterFlags::LOG,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => FilterFlags::SPEC_ALLOW,
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if notifies => FilterFlags::WAIT_KILLABLE_RECV,
            // The kernel refuses it without a listener, where it would mean nothing.
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => continue,
            // The process that installs the filter has one thread, and the kernel refuses it together with a listener.
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => continue,
        });
    }
    flags
}

fn listener(profile: &LinuxSeccomp) -> Result<Option<Listener>, SeccompError> {
    let path = profile.listener_path().as_ref().filter(|path| !path.as_os_str().is_empty());
    let metadata = profile.listener_metadata().as_deref().unwrap_or_default();
    if path.is_none() && !metadata.is_empty() {
        return Err(SeccompError::MetadataWithoutListener);
    }
    let mut rules = profile.syscalls().iter().flatten();
    if !rules.any(|rule| rule.action() == LinuxSeccompAction::ScmpActNotify) {
        return Ok(None);
    }
    let path = path.ok_or(SeccompError::NoListener)?;
    Ok(Some(Listener { path: path.clone(), metadata: metadata.to_owned() }))
}

#[cfg(test)]
mod tests;
