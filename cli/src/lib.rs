//! dhow: pull, run, commit and push.
#![forbid(unsafe_code)]
