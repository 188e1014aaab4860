//! `dhow history`

use clap::{ArgAction, Args};
use jiff::Timestamp;
use serde::Serialize;

use crate::app::Run;
use crate::context::Context;
use crate::error::Result;
use crate::output::human;
use crate::output::list::{self, Format, Row};
use crate::sizes::Sizes;

/// Show how an image was made, newest step first
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// table, json, 'table TEMPLATE' or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Sizes and ages in words
    #[arg(short = 'H', long, value_name = "BOOL", default_value = "true", num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    human: bool,
    /// Don't cut ids and commands short
    #[arg(long)]
    no_trunc: bool,
    /// Show ids only
    #[arg(short = 'q', long)]
    quiet: bool,
    /// The image
    #[arg(value_name = "IMAGE")]
    image: String,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    comment: String,
    created_at: String,
    created_by: String,
    created_since: String,
    #[serde(rename = "ID")]
    id: String,
    size: String,
}

impl Row for Line {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[
        ("IMAGE", "ID"),
        ("CREATED", "CreatedSince"),
        ("CREATED BY", "CreatedBy"),
        ("SIZE", "Size"),
        ("COMMENT", "Comment"),
    ];
    const MORE: &'static [(&'static str, &'static str)] = &[("CREATED AT", "CreatedAt")];
    const ID: &'static str = "ID";
}

const WIDEST: usize = 45;

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let image = ctx.store()?.resolve(&self.image)?;
        let now = Timestamp::now();
        let mut layers = Sizes::new(ctx).layers(&image).into_iter();
        let mut lines = Vec::new();
        for step in &image.config.history {
            let layer = if step.empty_layer { None } else { layers.next() };
            let bytes = layer.map_or(0, |(_, bytes)| bytes);
            let at = step.created.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
            let exact = step.created.clone().unwrap_or_else(|| "N/A".into());
            lines.push(Line {
                comment: step.comment.clone(),
                created_at: exact.clone(),
                created_by: self.cut(&step.created_by),
                created_since: at.filter(|_| self.human).map_or(exact, |at| human::ago(at, now)),
                id: "<missing>".into(),
                size: if self.human { human::size(bytes) } else { bytes.to_string() },
            });
        }
        lines.reverse();
        if let Some(top) = lines.first_mut() {
            top.id = if self.no_trunc { image.id.to_string() } else { image.id.short().to_owned() };
        }
        let format = Format::of(self.format.as_deref(), self.quiet);
        ctx.print(|out| list::print(out, &lines, &format))?;
        Ok(0)
    }
}

impl Command {
    fn cut(&self, text: &str) -> String {
        let text = text.replace('\t', " ");
        if self.no_trunc || text.chars().count() <= WIDEST {
            return text;
        }
        let cut: String = text.chars().take(WIDEST - 1).collect();
        format!("{cut}…")
    }
}
