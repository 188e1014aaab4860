//! `dhow images`

use clap::Args;
use dhow_image::{Image, Reference};
use jiff::Timestamp;
use serde::Serialize;

use crate::app::Run;
use crate::context::Context;
use crate::error::Result;
use crate::output::human;
use crate::output::list::{self, Format, Row};
use crate::parse::filter::Filters;
use crate::sizes::Sizes;

/// List images
///
/// A name shows only its images; a name may hold * as a wildcard. SIZE is what its layers take unpacked; layers that
/// several images share count in each.
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// Accepted for scripts written for docker: there are no hidden images
    #[arg(short = 'a', long)]
    all: bool,
    /// Show digests
    #[arg(long)]
    digests: bool,
    /// Show some only: dangling, label, reference, before, since
    #[arg(short = 'f', long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// table, json, 'table TEMPLATE' or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Don't cut ids short
    #[arg(long)]
    no_trunc: bool,
    /// Show ids only
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Show only images of this name
    #[arg(value_name = "NAME[:TAG]")]
    name: Option<String>,
}

/// docker's fields of an image in a list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    containers: String,
    created_at: String,
    created_since: String,
    digest: String,
    #[serde(rename = "ID")]
    id: String,
    repository: String,
    size: String,
    tag: String,
}

impl Row for Line {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[
        ("REPOSITORY", "Repository"),
        ("TAG", "Tag"),
        ("DIGEST", "Digest"),
        ("IMAGE ID", "ID"),
        ("CREATED", "CreatedSince"),
        ("SIZE", "Size"),
    ];
    const MORE: &'static [(&'static str, &'static str)] = &[("CREATED AT", "CreatedAt"), ("CONTAINERS", "Containers")];
    const ID: &'static str = "ID";
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let filters = Filters::parse(&self.filter, &["dangling", "label", "reference", "before", "since"])?;
        let store = ctx.store()?;
        let created = |key: &str| {
            filters.values(key).last().map(|name| store.resolve(name).map(|image| image.config.created)).transpose()
        };
        let (before, since) = (created("before")?.flatten(), created("since")?.flatten());
        let now = Timestamp::now();
        let (sizes, mut lines) = (Sizes::new(ctx), Vec::new());
        for image in store.list()? {
            let at = image.config.created.clone();
            let fits = filters.any("dangling", |v| (v == "true" || v == "1") == image.names.is_empty())
                && filters.labels(|key| image.config.config.labels.get(key).map(String::as_str))
                && before.as_ref().is_none_or(|bound| at < Some(bound.clone()))
                && since.as_ref().is_none_or(|bound| at > Some(bound.clone()));
            if fits {
                let size = if self.quiet { 0 } else { sizes.image(&image) };
                self.add(&image, size, &filters, now, &mut lines);
            }
        }
        if self.quiet {
            // An image with several names is one image.
            let mut seen = std::collections::BTreeSet::new();
            lines.retain(|line: &Line| seen.insert(line.id.clone()));
        }
        let format = Format::of(self.format.as_deref(), self.quiet);
        ctx.print(|out| list::print_columns(out, &lines, &format, |field| field != "Digest" || self.digests))?;
        Ok(0)
    }
}

const NONE: &str = "<none>";

impl Command {
    fn add(&self, image: &Image, size: u64, filters: &Filters, now: Timestamp, lines: &mut Vec<Line>) {
        let pattern = self.name.as_deref();
        if image.names.is_empty() && pattern.is_none() && filters.values("reference").is_empty() {
            lines.push(self.line(image, size, (NONE, NONE, NONE), now));
        }
        for name in &image.names {
            let reference = &name.reference;
            let fits = pattern.is_none_or(|pattern| matches(reference, pattern))
                && filters.any("reference", |pattern| matches(reference, pattern));
            if fits {
                let digest = name.digest.as_ref().map_or_else(|| NONE.to_owned(), ToString::to_string);
                let repository = reference.familiar_repository();
                lines.push(self.line(image, size, (&repository, reference.tag().unwrap_or(NONE), &digest), now));
            }
        }
    }

    fn line(&self, image: &Image, size: u64, (repository, tag, digest): (&str, &str, &str), now: Timestamp) -> Line {
        let created = image.config.created.as_deref().and_then(|text| text.parse::<Timestamp>().ok());
        Line {
            containers: "N/A".into(),
            created_at: created
                .map_or_else(|| "N/A".into(), |at| at.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()),
            created_since: created.map_or_else(|| "N/A".into(), |at| human::ago(at, now)),
            digest: digest.to_owned(),
            id: if self.no_trunc { image.id.to_string() } else { image.id.short().to_owned() },
            repository: repository.to_owned(),
            size: human::size(size),
            tag: tag.to_owned(),
        }
    }
}

/// Whether a pattern (`debian`, `debian:12`, `*/app:*`) means this name.
fn matches(reference: &Reference, pattern: &str) -> bool {
    let familiar = reference.familiar();
    let repository = reference.familiar_repository();
    glob(pattern, &familiar) || glob(pattern, &repository) || glob(pattern, &reference.to_string())
}

/// `*` stands for anything but a slash.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((head, tail)) => {
            let Some(rest) = text.strip_prefix(head) else { return false };
            let end = rest.find('/').unwrap_or(rest.len());
            (0..=end).filter(|at| rest.is_char_boundary(*at)).any(|at| glob(tail, &rest[at..]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        let debian = Reference::parse("debian:12").unwrap();
        for pattern in ["debian", "debian:12", "deb*", "debian:*", "docker.io/library/debian:12"] {
            assert!(matches(&debian, pattern), "{pattern}");
        }
        for pattern in ["debian:11", "*/debian", "ebian"] {
            assert!(!matches(&debian, pattern), "{pattern}");
        }
        assert!(matches(&Reference::parse("127.0.0.1:5000/a/b:1").unwrap(), "127.0.0.1:5000/*/b"));
    }
}
