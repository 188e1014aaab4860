//! OCI layer tar to directory and back.
#![forbid(unsafe_code)]
