//! Messages, clients and servers as `cargo xtask gen` wrote them from `api/proto`.
#![allow(
    missing_docs,
    missing_debug_implementations,
    unused_qualifications,
    elided_lifetimes_in_paths,
    unused_imports,
    unused_mut,
    non_upper_case_globals,
    clippy::all,
    clippy::allow_attributes_without_reason,
    clippy::map_err_ignore,
    clippy::needless_pass_by_value,
    clippy::semicolon_if_nothing_returned,
    clippy::uninlined_format_args,
    clippy::too_many_lines,
    clippy::use_self,
    clippy::unwrap_used,
    reason = "the generator's own style"
)]

pub mod network;
pub mod network_ttrpc;
pub mod network_ttrpc_async;
pub mod shim;
pub mod shim_ttrpc;
pub mod shim_ttrpc_async;
pub mod snapshots;
pub mod snapshots_ttrpc;
pub mod snapshots_ttrpc_async;
