//! `list`.

use dhow_runtime::ContainerState;

use super::args::{Flag, Parsed};
use super::log::Level;
use super::{Command, Context, Failure, say};

pub(crate) const COMMAND: Command = Command {
    name: "list",
    usage: "list [options]",
    about: "list the containers of this root",
    flags: &[
        Flag::value("format", "table or json (default: table)").short('f'),
        Flag::switch("quiet", "only the ids").short('q'),
    ],
    literal_after: None,
    run,
};

fn run(context: &Context, parsed: &Parsed) -> Result<u8, Failure> {
    parsed.exactly("list", 0)?;
    let listing = context.runtime.list()?;
    for (id, error) in &listing.broken {
        context.log.line(Level::Warning, &format!("container {id}: {}", error.chain()));
    }
    let containers = &listing.containers;
    let text = match (parsed.on("quiet"), parsed.value("format").unwrap_or("table")) {
        (true, _) => containers.iter().map(|container| format!("{}\n", container.id)).collect(),
        (false, "table") => table(containers),
        (false, "json") => format!("{}\n", json(containers)?),
        (false, _) => return Err(Failure::new("invalid format option")),
    };
    say(&text).map(|()| 0)
}

/// An array; `null` when there is none, as Go writes it.
fn json(containers: &[ContainerState]) -> Result<String, Failure> {
    if containers.is_empty() {
        return Ok("null".into());
    }
    serde_json::to_string(containers).map_err(|e| Failure::because("list", e))
}

fn table(containers: &[ContainerState]) -> String {
    let head = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(String::from);
    let rows = containers.iter().map(|c| {
        let status = c.status.to_string();
        [c.id.clone(), c.pid.to_string(), status, c.bundle.clone(), c.created.clone(), c.owner.clone()]
    });
    columns(std::iter::once(head).chain(rows).collect())
}

/// Columns at least twelve wide with three blanks between them, as Go's tabwriter lays runc's out.
fn columns<const N: usize>(rows: Vec<[String; N]>) -> String {
    let mut widths = [0; N];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count() + 3).max(12);
        }
    }
    let mut text = String::new();
    for row in rows {
        let last = row.len() - 1;
        for (index, (cell, width)) in row.into_iter().zip(widths).enumerate() {
            text.push_str(&cell);
            if index < last {
                text.extend(std::iter::repeat_n(' ', width - cell.chars().count()));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_wide_enough() {
        let rows = vec![["ID".to_owned(), "X".into()], ["a-rather-long-id".into(), "1".into()]];
        assert_eq!(columns(rows), "ID                 X\na-rather-long-id   1\n");
        assert_eq!(columns(vec![["ID".to_owned(), "X".into()]]), "ID          X\n");
    }
}
