//! Limits and scheduling of a process, where they are not a cgroup's.

use dhow_sys::{Errno, sched};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::personality::{self, Persona};
use nix::sys::resource::setrlimit;
use nix::unistd::Pid;

use super::{Failure, Result};
use crate::plan::Process;

/// Sets them all, while this process still has the privileges of the runtime.
pub(super) fn apply(process: &Process) -> Result<()> {
    for limit in &process.rlimits {
        setrlimit(limit.resource, limit.soft, limit.hard)
            .map_err(Failure::errno(format_args!("process.rlimits: {:?}", limit.resource)))?;
    }
    if let Some(attributes) = &process.scheduler {
        sched::set(attributes).map_err(|errno| match errno {
            // The one reason that is not about privileges.
            Errno::EPERM if attributes.policy == sched::DEADLINE => Failure::new(
                "process.scheduler: operation not permitted: process scheduler can't be used together with AllowedCPUs",
            ),
            other => Failure::errno("process.scheduler")(other),
        })?;
    }
    if let Some((class, priority)) = process.io_priority {
        sched::set_io_priority(class, priority).map_err(Failure::errno("process.ioPriority"))?;
    }
    if let Some((mode, nodes)) = &process.memory_policy {
        sched::set_memory_policy(*mode, nodes).map_err(Failure::errno("linux.memoryPolicy: set_mempolicy"))?;
    }
    if let Some(linux32) = process.linux32 {
        let persona = if linux32 { Persona::from_bits_retain(0x0008) } else { Persona::empty() };
        personality::set(persona).map_err(Failure::errno("linux.personality"))?;
    }
    match &process.affinity.1 {
        Some(cpus) => affinity(cpus).map_err(Failure::errno("process.execCPUAffinity.final")),
        // Not what the runtime was confined to, but what the cgroup allows. A kernel that knows more processors than this
        // set has room for keeps what it was given.
        None => sched::use_all_processors().or(Ok(())),
    }
}

/// CPUs to use until the program runs.
pub(super) fn initial_affinity(process: &Process) -> Result<()> {
    match &process.affinity.0 {
        Some(cpus) => affinity(cpus).map_err(Failure::errno("process.execCPUAffinity.initial")),
        None => Ok(()),
    }
}

fn affinity(cpus: &[usize]) -> dhow_sys::Result<()> {
    let mut set = CpuSet::new();
    cpus.iter().try_for_each(|cpu| set.set(*cpu))?;
    sched_setaffinity(Pid::from_raw(0), &set)
}
