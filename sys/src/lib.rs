//! The kernel, safely: what nix lacks, and the only unsafe code of the workspace.
