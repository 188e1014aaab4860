//! `events`: what happens to a container, one JSON object a line.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use dhow_runtime::Shares;
use dhow_runtime::cgroup::{OomWatch, Stats};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde::Serialize;

use super::args::{Flag, Parsed};
use super::{Command, Context, Failure, say};

pub(crate) const COMMAND: Command = Command {
    name: "events",
    usage: "events [options] ID",
    about: "print statistics and out-of-memory notices of a container",
    flags: &[
        Flag::value("interval", "time between statistics, such as 5s or 500ms (default: 5s)"),
        Flag::switch("stats", "print the statistics once and stop"),
    ],
    literal_after: None,
    run,
};

fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let id = &parsed.exactly("events", 1)?[0];
    let interval = interval(parsed.value("interval").unwrap_or("5s"))?;
    let state = context.runtime.state(id)?;
    if state.pid == 0 {
        return Err(Failure::new(format!("container with id {id} is not running")));
    }
    if parsed.on("stats") {
        return tell_stats(context, id).map(|()| 0);
    }
    Follower::new(context, id)?.follow(interval).map(|()| 0)
}

/// One line. The fields' order is what readers of runc's lines expect.
#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Data>,
}

/// What runc's document has.
#[derive(Serialize)]
struct Data {
    #[serde(flatten)]
    stats: Stats,
    intel_rdt: Shares,
    /// runc counts only interfaces that it has made itself, and from config.json it makes none.
    network_interfaces: Option<()>,
}

impl Event<'_> {
    fn tell(&self) -> Result<(), Failure> {
        let line = serde_json::to_string(self).map_err(|e| Failure::because("events", e))?;
        say(&format!("{line}\n"))
    }
}

fn tell_stats(context: &Context, id: &str) -> Result<(), Failure> {
    let data =
        Data { stats: context.runtime.stats(id)?, intel_rdt: context.runtime.shares(id)?, network_interfaces: None };
    Event { kind: "stats", id, data: Some(data) }.tell()
}

/// Waits for what happens to one container.
struct Follower<'a> {
    context: &'a Context,
    id: &'a str,
    process: OwnedFd,
    /// None without a memory controller.
    oom: Option<OomWatch>,
    told: u64,
}

/// What ended a wait.
struct Woken {
    ended: bool,
    oom: bool,
}

impl<'a> Follower<'a> {
    fn new(context: &'a Context, id: &'a str) -> Result<Self, Failure> {
        let process = context.runtime.init(id)?;
        let oom = context.runtime.watch_oom(id).ok();
        Ok(Self { context, id, process, oom, told: context.runtime.oom_kills(id)? })
    }

    /// Tells the statistics at once and then at each interval, and kills when they happen, until the container has ended.
    fn follow(mut self, interval: Duration) -> Result<(), Failure> {
        let mut next = Instant::now();
        let mut look_again = None;
        loop {
            if Instant::now() >= next {
                if let Err(failure) = tell_stats(self.context, self.id) {
                    // It may have been deleted in the meantime.
                    return if self.wait(Duration::ZERO)?.ended { Ok(()) } else { Err(failure) };
                }
                next = Instant::now() + interval;
            }
            let until = next.min(look_again.unwrap_or(next));
            let woken = self.wait(until.saturating_duration_since(Instant::now()))?;
            let fresh = self.tell_kills()?;
            if woken.ended {
                return Ok(());
            }
            // On v1 the kernel wakes us before it has chosen and counted its victim.
            look_again = (woken.oom && !fresh).then(|| Instant::now() + COUNTED_WITHIN);
        }
    }

    fn wait(&self, limit: Duration) -> Result<Woken, Failure> {
        let mut fds = vec![PollFd::new(self.process.as_fd(), PollFlags::POLLIN)];
        fds.extend(self.oom.as_ref().map(|oom| PollFd::new(oom.as_fd(), PollFlags::POLLIN)));
        // Rounded up, or the last millisecond would be spent in a busy loop.
        let limit = PollTimeout::try_from(limit + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, limit) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(Failure::because("poll", e)),
        }
        let happened = |index: usize| fds.get(index).is_some_and(|fd| fd.any().unwrap_or(false));
        let woken = Woken { ended: happened(0), oom: happened(1) };
        if let (true, Some(oom)) = (woken.oom, &self.oom) {
            oom.drain().map_err(|e| Failure::because("memory events", e))?;
        }
        Ok(woken)
    }

    /// One event for each kill since the last; whether there was any. A cgroup that is gone has no more to tell.
    fn tell_kills(&mut self) -> Result<bool, Failure> {
        let now = self.context.runtime.oom_kills(self.id).unwrap_or(self.told);
        for _ in self.told..now {
            Event { kind: "oom", id: self.id, data: None }.tell()?;
        }
        let fresh = now > self.told;
        self.told = now.max(self.told);
        Ok(fresh)
    }
}

/// How soon after its notice a kill is counted at the latest.
const COUNTED_WITHIN: Duration = Duration::from_millis(100);

/// A duration in Go's notation, of one number and unit.
fn interval(text: &str) -> Result<Duration, Failure> {
    let wrong = || Failure::new(format!("invalid value {text:?} for flag -interval"));
    let unit_at = text.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(wrong)?;
    let number: f64 = text[..unit_at].parse().map_err(|_odd| wrong())?;
    let seconds = match &text[unit_at..] {
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(wrong()),
    };
    let interval = Duration::try_from_secs_f64(seconds).map_err(|_odd| wrong())?;
    if interval.is_zero() { Err(Failure::new("duration interval must be greater than 0")) } else { Ok(interval) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals() {
        for (text, millis) in [("5s", 5000), ("100ms", 100), ("1.5s", 1500), ("1m", 60_000)] {
            assert_eq!(interval(text).unwrap(), Duration::from_millis(millis), "{text}");
        }
        for text in ["", "5", "s", "0s", "-1s", "5x"] {
            assert!(interval(text).is_err(), "{text}");
        }
    }
}
