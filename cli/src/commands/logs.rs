//! `dhow logs`

use std::io::{self, Write};

use clap::Args;
use jiff::Timestamp;

use crate::app::Run;
use crate::container::Status;
use crate::container::logs::{Line, Reader, Selection, Watch};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::parse::timestamp;

/// Show what a container wrote
///
/// What it wrote to standard output goes to standard output, what it wrote to standard error to standard error.
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// Go on as the container writes, until it ends
    #[arg(short = 'f', long)]
    follow: bool,
    /// Show when each line was written
    #[arg(short = 't', long)]
    timestamps: bool,
    /// Show the last lines only: a number, or all
    #[arg(short = 'n', long, value_name = "NUMBER", default_value = "all", allow_hyphen_values = true)]
    tail: String,
    /// Nothing before: a time, or a duration such as 10m
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// Nothing after: a time, or a duration such as 10m
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
    /// For scripts written for docker; changes nothing
    #[arg(long)]
    details: bool,
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let container = ctx.containers().find(&self.container)?;
        if container.record.host.log_config.kind == "none" {
            return Err(Error::Unsupported {
                flag: "logs".into(),
                why: "the container was made with --log-driver none",
            });
        }
        let now = Timestamp::now();
        let time = |text: &Option<String>| text.as_deref().map(|t| timestamp::parse(t, now)).transpose();
        let selection = Selection { tail: tail(&self.tail), since: time(&self.since)?, until: time(&self.until)? };
        // Before the first look, so that nothing falls between looking and waiting.
        let watch = if self.follow { Some(Watch::new(container.bundle.path())?) } else { None };
        let mut reader = Reader::open(&container.log());
        let mut out = Output { timestamps: self.timestamps, out: io::BufWriter::new(io::stdout().lock()) };
        reader.read(&selection, |line| out.show(line))?;
        out.flush()?;
        let Some(watch) = watch else { return Ok(0) };
        let rest = Selection { since: selection.since, ..Selection::default() };
        loop {
            // The state first: what was written before the end is in the log by then.
            let state = container.state();
            let mut late = false;
            reader.read(&rest, |line| {
                late =
                    selection.until.is_some_and(|until| line.time.parse::<Timestamp>().is_ok_and(|time| time > until));
                if late { Ok(false) } else { out.show(line) }
            })?;
            out.flush()?;
            // Its first process has ended and the shim still writes down the rest.
            let ending = state.status == Status::Created && container.record.started.is_some();
            if late || !(state.is_up() || ending || state.status == Status::Restarting) {
                return Ok(0);
            }
            let pidfd = dhow_sys::pidfd::open_checked(state.pid, state.start_time).ok().flatten();
            watch.wait(pidfd.as_ref())?;
        }
    }
}

/// The two streams; what goes to one is flushed before the other is written, so that their order shows on a terminal.
struct Output<'a> {
    timestamps: bool,
    out: io::BufWriter<io::StdoutLock<'a>>,
}

impl Output<'_> {
    fn show(&mut self, line: &Line) -> Result<bool> {
        let stamp = if self.timestamps { format!("{} ", line.time) } else { String::new() };
        let text = format!("{stamp}{}", line.log);
        if line.stream == "stderr" {
            self.flush()?;
            io::stderr().write_all(text.as_bytes()).map_err(Error::output)?;
        } else {
            self.out.write_all(text.as_bytes()).map_err(Error::output)?;
        }
        Ok(true)
    }

    fn flush(&mut self) -> Result<()> {
        self.out.flush().map_err(Error::output)
    }
}

fn tail(text: &str) -> Option<usize> {
    // As docker: anything that is no number, and every negative one, means all.
    text.parse::<usize>().ok()
}
