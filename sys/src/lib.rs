//! The kernel, safely: what nix lacks, and the only unsafe code of the workspace.
//!
//! One noun per file. Thin wrappers return [`Errno`]: the caller knows the operands and puts them into its own error.
//! What is composed of several calls ([`rootfs`]) has an error that names the step. Descriptors are `OwnedFd` or
//! `BorrowedFd` and close-on-exec, always; a descriptor that a process inherits on purpose is made so by
//! [`fd::clear_cloexec`] at the last moment.
//!
//! Constants and layouts follow the kernel's uapi headers (Linux 6.18); each item names the kernel it appeared in.
#![expect(unsafe_code, reason = "this crate is where the workspace keeps it")]

pub mod arena;
pub mod bpf;
pub mod caps;
pub mod clone;
pub mod exe;
pub mod fd;
pub mod keyring;
pub mod listen_fds;
pub mod mountfd;
pub mod mountopt;
pub mod net;
pub mod netlink;
pub mod openat2;
pub mod pidfd;
pub mod process;
pub mod regex;
pub mod rootfs;
pub mod sched;
pub mod seccomp;
pub mod seqpacket;
pub mod spawn;
pub mod tree;
pub mod tty;
pub mod xattr;

mod raw;

pub use nix::errno::Errno;

/// What a thin wrapper returns.
pub type Result<T> = std::result::Result<T, Errno>;
