//! `dhow search`

use clap::{ArgAction, Args};
use dhow_image::{Cancel, DEFAULT_REGISTRY};
use serde::Serialize;

use crate::app::Run;
use crate::context::{Context, registry_options};
use crate::error::Result;
use crate::output::list::{self, Format, Row};
use crate::signals::Interrupt;

/// Search a registry for images
///
/// TERM may begin with a registry, as in 127.0.0.1:5000/debian; without one docker.io is searched.
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// table, json, 'table TEMPLATE' or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Most results
    #[arg(long, value_name = "NUMBER", default_value = "25")]
    limit: usize,
    /// Don't cut descriptions short
    #[arg(long)]
    no_trunc: bool,
    /// Check TLS certificates, and refuse plain http except on loopback
    #[arg(long, value_name = "BOOL", default_value = "true", num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    tls_verify: bool,
    /// What to search for
    #[arg(value_name = "TERM")]
    term: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    description: String,
    is_official: String,
    name: String,
    star_count: String,
}

impl Row for Line {
    const COLUMNS: &'static [(&'static str, &'static str)] =
        &[("NAME", "Name"), ("DESCRIPTION", "Description"), ("STARS", "StarCount"), ("OFFICIAL", "IsOfficial")];
    const ID: &'static str = "Name";
}

const WIDEST: usize = 45;

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let (registry, term) = match self.term.split_once('/') {
            Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
            _ => (DEFAULT_REGISTRY, self.term.as_str()),
        };
        let cancel = Cancel::new();
        let _interrupt = Interrupt::watch(&cancel)?;
        let found = dhow_image::search(registry, term, self.limit, &registry_options(self.tls_verify), &cancel)?;
        let lines: Vec<Line> = found
            .into_iter()
            .map(|result| Line {
                description: cut(&result.description, self.no_trunc),
                is_official: if result.official { "[OK]".into() } else { String::new() },
                name: result.name,
                star_count: result.stars.to_string(),
            })
            .collect();
        ctx.print(|out| list::print(out, &lines, &Format::of(self.format.as_deref(), false)))?;
        Ok(0)
    }
}

fn cut(text: &str, whole: bool) -> String {
    let text = text.replace(['\n', '\t'], " ");
    if whole || text.chars().count() <= WIDEST {
        return text;
    }
    let cut: String = text.chars().take(WIDEST - 1).collect();
    format!("{cut}…")
}
