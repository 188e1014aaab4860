//! `dhow top`

use std::fs;
use std::time::Duration;

use clap::Args;
use dhow_api::task::PidsRequest;

use crate::app::Run;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::output::table::Table;
use crate::shims::Services;

/// List the processes of a container
///
/// Pids and users are the host's. Options for ps are not supported.
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let container = ctx.containers().find(&self.container)?;
        let state = container.state();
        if !state.is_up() {
            let why = "only a running container has processes";
            return Err(Error::State { name: self.container, state: state.status.name(), why });
        }
        let request = PidsRequest { id: container.id().to_owned(), ..Default::default() };
        let mut pids: Vec<u32> =
            Services::of(ctx, container.id()).task.pids(&request)?.processes.iter().map(|p| p.pid).collect();
        pids.sort_unstable();
        let mut table = Table::new(["UID", "PID", "PPID", "STIME", "TIME", "CMD"]);
        for pid in pids {
            // One that has just ended is left out.
            table_row(pid, &mut table);
        }
        ctx.print(|out| table.write(out).map_err(Error::output))?;
        Ok(0)
    }
}

fn table_row(pid: u32, table: &mut Table) -> Option<()> {
    let directory = format!("/proc/{pid}");
    let stat = dhow_sys::process::stat(i32::try_from(pid).ok()?)?;
    let status = fs::read_to_string(format!("{directory}/status")).ok()?;
    let uid = status.lines().find_map(|line| line.strip_prefix("Uid:"))?.split_whitespace().next()?.to_owned();
    let line = fs::read(format!("{directory}/cmdline")).ok()?;
    let words: Vec<String> =
        line.split(|b| *b == 0).filter(|w| !w.is_empty()).map(|w| String::from_utf8_lossy(w).into_owned()).collect();
    let command = if words.is_empty() {
        format!("[{}]", fs::read_to_string(format!("{directory}/comm")).ok()?.trim())
    } else {
        words.join(" ")
    };
    let started = crate::container::state::since_boot(stat.start_time)?;
    let local = started.to_zoned(jiff::tz::TimeZone::system());
    table.row(vec![
        uid,
        pid.to_string(),
        stat.ppid.to_string(),
        local.strftime("%H:%M").to_string(),
        clock(cpu_time(&directory)?),
        command,
    ]);
    Some(())
}

/// Processor time, user and system together (proc(5), hundredths of a second).
fn cpu_time(directory: &str) -> Option<Duration> {
    let text = fs::read_to_string(format!("{directory}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(Duration::from_millis(ticks * 10))
}

fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{:02}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
