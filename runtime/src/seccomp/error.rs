//! Why a profile can't be compiled.

use oci_spec::runtime::LinuxSeccompAction;

/// A profile that can't be expressed, named by its field.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum SeccompError {
    /// The error number does not fit.
    #[error("linux.seccomp.{field}: {value} is not an error number (0 to {max})")]
    ErrnoRange {
        /// Which field.
        field: String,
        /// What it says.
        value: u32,
        /// The greatest that the action can carry.
        max: u32,
    },
    /// An error number for an action that returns none.
    #[error("linux.seccomp.{field}: {action} takes no error number")]
    ErrnoWithout {
        /// Which field.
        field: String,
        /// The action.
        action: LinuxSeccompAction,
    },
    /// A system call has six arguments.
    #[error("linux.seccomp.syscalls[{rule}].args[{arg}].index: {index} is not an argument (0 to 5)")]
    ArgumentIndex {
        /// Which rule, from 0.
        rule: usize,
        /// Which of its conditions, from 0.
        arg: usize,
        /// What it says.
        index: usize,
    },
    /// A rule for nothing.
    #[error("linux.seccomp.syscalls[{rule}].names: empty")]
    NoNames {
        /// Which rule, from 0.
        rule: usize,
    },
    /// Every call would wait for an agent that does not have the listener yet.
    #[error("linux.seccomp.defaultAction: SCMP_ACT_NOTIFY can't be the default action")]
    NotifyDefault,
    /// The call is needed to hand the listener over.
    #[error("linux.seccomp.syscalls[{rule}]: SCMP_ACT_NOTIFY cannot be used for the {name} syscall")]
    NotifyHandover {
        /// Which rule, from 0.
        rule: usize,
        /// The system call.
        name: String,
    },
    /// Nobody to notify.
    #[error("linux.seccomp.listenerPath: missing, but a rule has SCMP_ACT_NOTIFY")]
    NoListener,
    /// Metadata for nobody.
    #[error("linux.seccomp.listenerMetadata: set without listenerPath")]
    MetadataWithoutListener,
    /// More than the kernel takes.
    #[error("linux.seccomp: the filter has {length} instructions, the kernel takes {max}")]
    TooLong {
        /// How many there are.
        length: usize,
        /// How many there can be.
        max: usize,
    },
}
