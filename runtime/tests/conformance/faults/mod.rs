//! What becomes of containers when something goes wrong outside of them: a runtime or its child is killed, the kernel lacks a
//! call, a file system or a limit is exhausted. In each case the state is told truthfully, `delete --force` cleans up, and
//! nothing is left.

mod absent;
mod exhausted;
mod footprint;
mod growth;
mod kills;
mod supervisor;
