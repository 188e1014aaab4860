//! Lists in the form that `--format` and `--quiet` ask for: a table, ids only, JSON lines or a template per row.

use std::io::Write;

use serde::Serialize;
use serde_json::Value;

use super::table::Table;
use super::template::Template;
use super::{json, template};
use crate::error::{Error, Result};

/// What a command lists: one row has named fields (for templates and JSON); some of them make up the table.
pub(crate) trait Row: Serialize {
    /// Table columns: title and the field that fills it.
    const COLUMNS: &'static [(&'static str, &'static str)];
    /// Titles for fields outside the plain table, used by `--format 'table …'`.
    const MORE: &'static [(&'static str, &'static str)] = &[];
    /// The field that `--quiet` prints.
    const ID: &'static str;
}

/// How a list is printed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Format {
    /// The command's own columns.
    Table,
    /// `--quiet`.
    Quiet,
    /// `--format json`: one object per line.
    Json,
    /// `--format 'table TEMPLATE'`: with titles.
    TableOf(String),
    /// `--format TEMPLATE`.
    Lines(String),
}

impl Format {
    /// From the flags.
    pub(crate) fn of(format: Option<&str>, quiet: bool) -> Self {
        match format {
            _ if quiet => Self::Quiet,
            None | Some("" | "table") => Self::Table,
            Some("json") => Self::Json,
            Some(text) => match text.strip_prefix("table ") {
                Some(text) => Self::TableOf(unescape(text)),
                None => Self::Lines(unescape(text)),
            },
        }
    }
}

/// Prints `rows`.
pub(crate) fn print<R: Row>(out: &mut dyn Write, rows: &[R], format: &Format) -> Result<()> {
    print_columns(out, rows, format, |_| true)
}

/// As [`print`], with the columns of the plain table picked by their field.
pub(crate) fn print_columns<R: Row>(
    out: &mut dyn Write,
    rows: &[R],
    format: &Format,
    shown: impl Fn(&str) -> bool,
) -> Result<()> {
    match format {
        Format::Table => {
            let columns: Vec<_> = R::COLUMNS.iter().filter(|(_, field)| shown(field)).collect();
            let mut table = Table::untitled();
            table.row(columns.iter().map(|(title, _)| (*title).to_owned()).collect());
            for row in rows {
                let value = value(row)?;
                table.row(columns.iter().map(|(_, field)| template::shown(&value[*field])).collect());
            }
            table.write(out).map_err(Error::output)
        }
        Format::Quiet => rows
            .iter()
            .try_for_each(|row| writeln!(out, "{}", template::shown(&value(row)?[R::ID])).map_err(Error::output)),
        Format::Json => rows.iter().try_for_each(|row| json::line(out, row).map_err(Error::output)),
        Format::Lines(text) => {
            let template = Template::parse(text)?;
            rows.iter().try_for_each(|row| writeln!(out, "{}", template.render(&value(row)?)?).map_err(Error::output))
        }
        Format::TableOf(text) => {
            let template = Template::parse(text)?;
            let titles: serde_json::Map<String, Value> = R::COLUMNS
                .iter()
                .chain(R::MORE)
                .map(|(title, field)| ((*field).to_owned(), Value::from(*title)))
                .collect();
            let mut table = Table::untitled();
            table.row(split(&template.render(&Value::Object(titles))?));
            for row in rows {
                table.row(split(&template.render(&value(row)?)?));
            }
            table.write(out).map_err(Error::output)
        }
    }
}

fn value<R: Row>(row: &R) -> Result<Value> {
    serde_json::to_value(row).map_err(|source| Error::Encode { what: "a list", source })
}

fn split(line: &str) -> Vec<String> {
    line.split('\t').map(str::to_owned).collect()
}

/// Turns `\t` and `\n`, as typed in a shell, into what they mean.
pub(crate) fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Item {
        name: String,
        size: u32,
    }

    impl Row for Item {
        const COLUMNS: &'static [(&'static str, &'static str)] = &[("NAME", "Name"), ("SIZE", "Size")];
        const ID: &'static str = "Name";
    }

    fn printed(format: Option<&str>, quiet: bool) -> String {
        let rows = [Item { name: "a".into(), size: 1 }, Item { name: "b".into(), size: 20 }];
        let mut out = Vec::new();
        print(&mut out, &rows, &Format::of(format, quiet)).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn formats() {
        assert_eq!(printed(None, false), "NAME      SIZE\na         1\nb         20\n");
        assert_eq!(printed(None, true), "a\nb\n");
        assert_eq!(
            printed(Some("json"), false),
            "{\"Name\":\"a\",\"size\":1}\n".replace("size", "Size") + "{\"Name\":\"b\",\"Size\":20}\n"
        );
        assert_eq!(printed(Some("{{.Name}}={{.Size}}"), false), "a=1\nb=20\n");
        assert_eq!(printed(Some("table {{.Size}}\\t{{.Name}}"), false), "SIZE      NAME\n1         a\n20        b\n");
    }
}
