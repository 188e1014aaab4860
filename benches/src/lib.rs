//! dhow beside its peers and beside the floor, in one run.
//!
//! Every series times whole commands, from spawning to the exit code, and takes its candidates in turn (ABAB…), so that
//! whatever else the machine does hits all of them alike. No time is asserted anywhere: the numbers are for people.
#![forbid(unsafe_code)]

pub mod engines;
pub mod measure;
pub mod runtimes;
pub mod suite;
