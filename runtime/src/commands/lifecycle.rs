//! `start`, `state`, `kill`, `delete`, `pause` and `resume`: one call of the library each.

use std::os::fd::AsFd;
use std::str::FromStr;

use dhow_runtime::Error;
use dhow_sys::regex::Regex;
use nix::sys::signal::Signal;

use super::args::{Flag, Parsed};
use super::notify::Notify;
use super::{Command, Context, Failure, say};

const REGEX: Flag =
    Flag::switch("regex", "every container whose ID the POSIX extended regular expression matches").short('r');

pub(crate) const START: Command = Command {
    name: "start",
    usage: "start ID",
    about: "run the program of a created container",
    flags: &[],
    literal_after: None,
    run: start,
};

pub(crate) const STATE: Command = Command {
    name: "state",
    usage: "state ID",
    about: "print a container's state as JSON",
    flags: &[],
    literal_after: None,
    run: state,
};

pub(crate) const KILL: Command = Command {
    name: "kill",
    usage: "kill [options] ID|EXPRESSION [SIGNAL]",
    about: "send a signal (default: SIGTERM) to a container's first process",
    flags: &[Flag::switch("all", "to every process in the container").short('a'), REGEX],
    literal_after: None,
    run: kill,
};

pub(crate) const DELETE: Command = Command {
    name: "delete",
    usage: "delete [options] ID|EXPRESSION",
    about: "remove what is left of a stopped container",
    flags: &[Flag::switch("force", "kill it first when it runs; no error when it is not there").short('f'), REGEX],
    literal_after: None,
    run: delete,
};

pub(crate) const PAUSE: Command = Command {
    name: "pause",
    usage: "pause ID",
    about: "suspend all processes of a container",
    flags: &[],
    literal_after: None,
    run: |context, parsed| {
        context.runtime.pause(&parsed.exactly("pause", 1)?[0])?;
        Ok(0)
    },
};

pub(crate) const RESUME: Command = Command {
    name: "resume",
    usage: "resume ID",
    about: "let the processes of a paused container go on",
    flags: &[],
    literal_after: None,
    run: |context, parsed| {
        context.runtime.resume(&parsed.exactly("resume", 1)?[0])?;
        Ok(0)
    },
};

fn start(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let id = &parsed.exactly("start", 1)?[0];
    let notify = Notify::listen(context, id)?;
    context.runtime.start(id)?;
    if let Some(notify) = notify {
        notify_wait(context, id, &notify)?;
    }
    Ok(0)
}

/// Waits for the readiness of a container that nobody waits for in the foreground.
pub(crate) fn notify_wait(context: &Context, id: &str, notify: &Notify) -> Result<(), Failure> {
    let pid = context.runtime.state(id)?.pid;
    let process = match context.runtime.init(id) {
        // It has ended already; what it has sent is still there.
        Err(Error::NotRunning) => return notify.pass_on(pid.unsigned_abs()).map(drop),
        other => other?,
    };
    notify.wait(process.as_fd(), pid.unsigned_abs())
}

fn state(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let state = context.runtime.state(&parsed.exactly("state", 1)?[0])?;
    let text = serde_json::to_string_pretty(&state).map_err(|e| Failure::because("state", e))?;
    say(&text).map(|()| 0)
}

fn kill(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let arguments = parsed.between("kill", 1, 2)?;
    let number = signal(arguments.get(1).map_or("SIGTERM", String::as_str));
    if parsed.on("regex") {
        let number = number?;
        return each_matching(context, &arguments[0], |id| context.runtime.kill(id, number, parsed.on("all")));
    }
    // Who names a container that is not there hears of that first.
    context.runtime.state(&arguments[0])?;
    context.runtime.kill(&arguments[0], number?, parsed.on("all"))?;
    Ok(0)
}

fn delete(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let id = &parsed.exactly("delete", 1)?[0];
    if parsed.on("regex") {
        return each_matching(context, id, |id| context.runtime.delete(id, parsed.on("force")));
    }
    context.runtime.delete(id, parsed.on("force"))?;
    Ok(0)
}

/// Does it to every container whose name matches, to the last: what is refused for one is a warning, and for all of them no error.
fn each_matching(context: &Context, expression: &str, verb: impl Fn(&str) -> Result<(), Error>) -> Result<u8, Failure> {
    let regex = Regex::new(expression)
        .map_err(|_invalid| Failure::new(format!("invalid regular expression `{expression}`")))?;
    let listing = context.runtime.list()?;
    let ids = listing.containers.iter().map(|container| &container.id).chain(listing.broken.iter().map(|(id, _)| id));
    for id in ids.filter(|id| regex.is_match(id)) {
        if let Err(error) = verb(id) {
            context.warn(&[format!("container {id}: {}", error.chain())]);
        }
    }
    Ok(0)
}

/// A signal by its number or its name, with or without `SIG`.
fn signal(name: &str) -> Result<i32, Failure> {
    let unknown = || Failure::new(format!("unknown signal {name:?}"));
    if let Ok(number) = name.parse::<i32>() {
        // 64 is the last real-time signal.
        return if (0..=64).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(offset) = bare.strip_prefix("RTMIN") {
        let offset: i32 = if offset.is_empty() { 0 } else { offset.parse().map_err(|_odd| unknown())? };
        return if (0..=30).contains(&offset) { Ok(RTMIN + offset) } else { Err(unknown()) };
    }
    Signal::from_str(&format!("SIG{bare}")).map(|signal| signal as i32).map_err(|_unknown| unknown())
}

/// As glibc has it: it keeps 32 and 33 for itself.
const RTMIN: i32 = 34;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_by_name_and_number() {
        for (name, number) in [("9", 9), ("KILL", 9), ("SIGKILL", 9), ("sigterm", 15), ("RTMIN+1", 35), ("0", 0)] {
            assert_eq!(signal(name).unwrap(), number, "{name}");
        }
        for name in ["65", "-1", "NOPE", "", "RTMIN+x"] {
            assert!(signal(name).is_err(), "{name}");
        }
    }
}
