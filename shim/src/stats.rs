//! The container's use of resources, in containerd's messages.

use std::path::Path;

use protobuf::well_known_types::any::Any;

use crate::error::{Error, Result};
use crate::oom;

/// What the container uses now.
pub(crate) fn of(runtime_root: &Path, id: &str) -> Result<Any> {
    let cgroup = oom::cgroup(runtime_root, id).ok_or_else(|| Error::NotFound { what: format!("cgroup of {id}") })?;
    let _stats = cgroup.stats().map_err(|error| Error::Unsupported { what: error.to_string() })?;
    Err(Error::Unsupported { what: "stats".to_owned() })
}
