//! `ps`: the container's processes, as numbers or as the host's ps(1) tells of them.

use super::args::{Flag, Parsed};
use super::{Command, Context, Failure, say};

pub(crate) const COMMAND: Command = Command {
    name: "ps",
    usage: "ps [options] ID [ps options]",
    about: "show the processes of a container",
    flags: &[Flag::value("format", "table or json (default: table)").short('f')],
    literal_after: Some(0),
    run,
};

fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    let Some((id, options)) = parsed.positional.split_first() else {
        return Err(Failure::arguments("ps", format_args!("a minimum of 1")));
    };
    let pids = context.runtime.pids(id)?;
    match parsed.value("format").unwrap_or("table") {
        "json" => say(&format!("{}\n", serde_json::to_string(&pids).map_err(|e| Failure::because("ps", e))?)),
        "table" => say(&table(&pids, options)?),
        _ => Err(Failure::new("invalid format option")),
    }?;
    Ok(0)
}

fn table(pids: &[i32], options: &[String]) -> Result<String, Failure> {
    let default = [String::from("-ef")];
    let options = if options.is_empty() { &default[..] } else { options };
    let output = std::process::Command::new("ps").args(options).output().map_err(|e| Failure::because("ps", e))?;
    if !output.status.success() {
        return Err(Failure::new(format!("ps: {}", String::from_utf8_lossy(&output.stderr).trim_end())));
    }
    select(&String::from_utf8_lossy(&output.stdout), pids)
}

/// The head line and those whose PID column is one of `pids`.
fn select(text: &str, pids: &[i32]) -> Result<String, Failure> {
    let mut lines = text.lines();
    let head = lines.next().unwrap_or_default();
    let column = head
        .split_whitespace()
        .position(|title| title == "PID")
        .ok_or_else(|| Failure::new("couldn't find PID field in ps output"))?;
    let mut table = format!("{head}\n");
    for line in lines {
        let pid = line.split_whitespace().nth(column).and_then(|field| field.parse::<i32>().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            table.push_str(line);
            table.push('\n');
        }
    }
    Ok(table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_container_s_lines() {
        let text = "UID PID PPID CMD\nroot 1 0 init\nroot 12 1 sh -c 1\nroot 120 1 x\n";
        assert_eq!(select(text, &[12]).unwrap(), "UID PID PPID CMD\nroot 12 1 sh -c 1\n");
        assert!(select("CMD\ninit\n", &[1]).is_err());
    }
}
