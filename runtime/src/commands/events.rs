//! `events`: what happens to a container, one JSON object a line.

use std::os::fd::AsFd;
use std::time::Duration;

use dhow_sys::pidfd;
use serde_json::json;

use super::args::{Flag, Parsed};
use super::{Command, Context, Failure};

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
        return Err(Failure::usage(format!("container with id {id} is not running")));
    }
    if parsed.on("stats") {
        return print_stats(context, id).map(|()| 0);
    }
    let process = pidfd::open(state.pid).map_err(|e| Failure::because(id, e))?;
    let mut oom_kills = context.runtime.oom_kills(id)?;
    // The statistics come at once and then at each interval, until the container has ended.
    loop {
        print_stats(context, id)?;
        if pidfd::wait_ended(process.as_fd(), Some(interval)).map_err(|e| Failure::because(id, e))? {
            return Ok(0);
        }
        let now = context.runtime.oom_kills(id)?;
        for _ in oom_kills..now {
            println!("{}", json!({"type": "oom", "id": id}));
        }
        oom_kills = now;
    }
}

fn print_stats(context: &Context, id: &str) -> Result<(), Failure> {
    let stats = context.runtime.stats(id)?;
    println!("{}", json!({"type": "stats", "id": id, "data": stats}));
    Ok(())
}

/// A duration in Go's notation, of one number and unit.
fn interval(text: &str) -> Result<Duration, Failure> {
    let wrong = || Failure::usage(format!("invalid value {text:?} for flag -interval"));
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
    if interval.is_zero() { Err(Failure::usage("duration interval must be greater than 0")) } else { Ok(interval) }
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
