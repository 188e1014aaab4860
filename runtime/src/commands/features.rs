//! `features`: what this runtime can do, as the runtime specification's features document.

use dhow_runtime::features;

use super::args::Parsed;
use super::{Command, Context, Failure, say};

pub(crate) const COMMAND: Command = Command {
    name: "features",
    usage: "features",
    about: "print what this runtime supports as JSON",
    flags: &[],
    literal_after: None,
    run,
};

fn run(_: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    parsed.exactly("features", 0)?;
    let text = serde_json::to_string_pretty(&features::document()).map_err(|e| Failure::because("features", e))?;
    say(&format!("{text}\n")).map(|()| 0)
}
