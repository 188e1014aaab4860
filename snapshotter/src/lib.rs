//! Overlay snapshots: library and dhow-snapshotter.
#![forbid(unsafe_code)]
