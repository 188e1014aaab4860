//! The seccomp profile, compiled.
