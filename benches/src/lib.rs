//! dhow beside its peers and the floor.
#![forbid(unsafe_code)]
