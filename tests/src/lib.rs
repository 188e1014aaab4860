//! End to end, conformance, engines, faults.
#![forbid(unsafe_code)]
