//! `dhow update`

use clap::Args;
use dhow_api::documents::RestartPolicy;
use dhow_api::task::UpdateTaskRequest;
use protobuf::MessageField;
use protobuf::well_known_types::any::Any;

use super::for_each;
use crate::app::Run;
use crate::container::record::HostConfig;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::parse::{Invalid, size};
use crate::shims::Services;
use crate::{events, spec};

/// Change the limits of containers, also while they run
///
/// What is not named stays as it is. A restart policy can be changed while the container does not run.
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// Most memory
    #[arg(short = 'm', long, value_name = "BYTES")]
    memory: Option<String>,
    /// Most memory and swap together; -1 is unlimited
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    memory_swap: Option<String>,
    /// Memory that is left to the container when it gets scarce
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<String>,
    /// Most processors, such as 1.5
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<f64>,
    /// Weight against other containers
    #[arg(short = 'c', long, value_name = "WEIGHT")]
    cpu_shares: Option<i64>,
    /// Length of a scheduling period in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<i64>,
    /// Processor time in each period in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Processors to run on, such as 0-2,5
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Most processes and threads; -1 is unlimited
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// When to start it again: no, on-failure[:MAX], always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<String>,
    /// The containers
    #[arg(required = true, value_name = "CONTAINER")]
    containers: Vec<String>,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        for_each(&self.containers, |name| {
            let container = ctx.containers().find(name)?;
            let _lock = container.lock()?;
            // Read under the lock: somebody may have changed it since.
            let mut container = ctx.containers().find(container.id())?;
            let state = container.state();
            self.limits(&mut container.record.host)?;
            if let Some(text) = &self.restart {
                let policy: RestartPolicy = text
                    .parse()
                    .map_err(|bad: dhow_api::documents::BadPolicy| Invalid::new("--restart", text, bad.to_string()))?;
                if state.is_up() {
                    let why = "its restart policy can be changed when it is stopped";
                    return Err(Error::State { name: name.to_owned(), state: state.status.name(), why });
                }
                container.record.host.restart_policy = policy.into();
            }
            if state.is_up() {
                let resources = spec::limits(&container.record.host);
                let resources = Any { value: resources.to_string().into_bytes(), ..Default::default() };
                Services::of(ctx, container.id()).task.update(&UpdateTaskRequest {
                    id: container.id().to_owned(),
                    resources: MessageField::some(resources),
                    ..Default::default()
                })?;
            }
            container.save()?;
            events::container(ctx, &container.record, "update", &[]);
            ctx.say(name)
        })
    }
}

impl Command {
    /// Puts what was named into a container's settings.
    fn limits(&self, host: &mut HostConfig) -> Result<()> {
        let set = |place: &mut i64, text: &Option<String>| -> Result<()> {
            if let Some(text) = text {
                *place = size::parse(text)?;
            }
            Ok(())
        };
        set(&mut host.memory, &self.memory)?;
        set(&mut host.memory_reservation, &self.memory_reservation)?;
        if let Some(text) = &self.memory_swap {
            host.memory_swap = size::parse_or_unlimited(text)?;
        }
        if host.memory_swap > 0 && host.memory_swap < host.memory {
            let why = "the memory limit is above the memory and swap limit: change --memory-swap too";
            return Err(Error::Usage(why.into()));
        }
        if let Some(cpus) = self.cpus {
            if !(0.0..=65536.0).contains(&cpus) {
                return Err(Invalid::new("--cpus", cpus.to_string(), "a number of processors is expected").into());
            }
            if self.cpu_period.is_some() || self.cpu_quota.is_some() {
                return Err(Error::Usage("conflicting options: --cpus and --cpu-period or --cpu-quota".into()));
            }
            (host.nano_cpus, host.cpu_period, host.cpu_quota) = ((cpus * 1e9) as i64, 0, 0);
        }
        for (place, value) in [
            (&mut host.cpu_shares, self.cpu_shares),
            (&mut host.cpu_period, self.cpu_period),
            (&mut host.cpu_quota, self.cpu_quota),
        ] {
            *place = value.unwrap_or(*place);
        }
        for (place, value) in [(&mut host.cpuset_cpus, &self.cpuset_cpus), (&mut host.cpuset_mems, &self.cpuset_mems)] {
            if let Some(value) = value {
                place.clone_from(value);
            }
        }
        host.pids_limit = self.pids_limit.or(host.pids_limit);
        Ok(())
    }
}
