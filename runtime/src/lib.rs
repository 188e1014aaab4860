//! The OCI runtime: library and dhow-runtime.
#![forbid(unsafe_code)]
