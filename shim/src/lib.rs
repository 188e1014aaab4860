//! One per container: containerd-shim-dhow-v2.
#![forbid(unsafe_code)]
