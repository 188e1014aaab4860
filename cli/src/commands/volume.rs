//! `dhow volume …`

use clap::Args;
use serde::Serialize;

use super::{confirm, for_each};
use crate::app::Run;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::names;
use crate::output::human;
use crate::output::list::{self, Format, Row};
use crate::parse::filter::Filters;
use crate::parse::key_value;
use crate::volumes;

/// Create a volume, and print its name
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// local
    #[arg(short = 'd', long, value_name = "DRIVER", default_value = "local")]
    driver: String,
    /// Label it
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// Its name (default: a generated one)
    #[arg(value_name = "NAME")]
    name: Option<String>,
}

impl Run for Create {
    fn run(self, ctx: &Context) -> Result<u8> {
        if self.driver != "local" {
            return Err(crate::parse::Invalid::new("--driver", self.driver, "the only driver is local").into());
        }
        ctx.make_roots()?;
        let labels = self.label.iter().map(|text| key_value(text)).collect();
        let anonymous = self.name.is_none();
        let name = self.name.map_or_else(names::new_id, Ok)?;
        volumes::create(ctx, &name, labels, anonymous)?;
        ctx.say(&name)?;
        Ok(0)
    }
}

/// List volumes
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Show some only: dangling, driver, label, name
    #[arg(short = 'f', long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// table, json, 'table TEMPLATE' or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show names only
    #[arg(short = 'q', long)]
    quiet: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    driver: String,
    labels: String,
    mountpoint: String,
    name: String,
    scope: String,
}

impl Row for Line {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[("DRIVER", "Driver"), ("VOLUME NAME", "Name")];
    const ID: &'static str = "Name";
}

impl Run for List {
    fn run(self, ctx: &Context) -> Result<u8> {
        let filters = Filters::parse(&self.filter, &["dangling", "driver", "label", "name"])?;
        let mut lines = Vec::new();
        for volume in volumes::list(ctx)? {
            let fits = filters.any("name", |name| volume.name.contains(name))
                && filters.any("driver", |driver| volume.driver == driver)
                && filters.labels(|key| volume.labels.get(key).map(String::as_str));
            let asked = filters.values("dangling").last();
            let dangling = match asked {
                None => true,
                Some(value) => {
                    volumes::users(ctx.containers(), &volume.name)?.is_empty() == (value == "true" || value == "1")
                }
            };
            if fits && dangling {
                lines.push(Line {
                    driver: volume.driver,
                    labels: volume.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(","),
                    mountpoint: volume.mountpoint.to_string_lossy().into_owned(),
                    name: volume.name,
                    scope: volume.scope,
                });
            }
        }
        ctx.print(|out| list::print(out, &lines, &Format::of(self.format.as_deref(), self.quiet)))?;
        Ok(0)
    }
}

/// Show all about volumes, as JSON
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// A Go template for each volume instead; json is one line each
    #[arg(short = 'f', long, value_name = "FORMAT")]
    format: Option<String>,
    /// The volumes
    #[arg(required = true, value_name = "VOLUME")]
    names: Vec<String>,
}

impl Run for Inspect {
    fn run(self, ctx: &Context) -> Result<u8> {
        super::inspect::show(ctx, &self.names, self.format.as_deref(), |name| volumes::inspect(ctx, name))
    }
}

/// Remove volumes that no container uses, with what is in them
#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Say nothing about what is not there
    #[arg(short = 'f', long)]
    force: bool,
    /// The volumes
    #[arg(required = true, value_name = "VOLUME")]
    names: Vec<String>,
}

impl Run for Remove {
    fn run(self, ctx: &Context) -> Result<u8> {
        for_each(&self.names, |name| {
            match volumes::remove(ctx, name) {
                Err(Error::NoSuchVolume(_)) if self.force => return Ok(()),
                other => other?,
            }
            ctx.say(name)
        })
    }
}

/// Remove anonymous volumes that no container uses
#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Those with a name too
    #[arg(short = 'a', long)]
    all: bool,
    /// Don't ask
    #[arg(short = 'f', long)]
    force: bool,
}

impl Run for Prune {
    fn run(self, ctx: &Context) -> Result<u8> {
        let what = if self.all { "all volumes" } else { "all anonymous volumes" };
        if !self.force && !confirm(ctx, &format!("This will remove {what} that no container uses."))? {
            return Ok(0);
        }
        let (removed, bytes) = prune(ctx, self.all)?;
        for name in &removed {
            ctx.say(name)?;
        }
        ctx.say(&format!("Total reclaimed space: {}", human::size(bytes)))?;
        Ok(0)
    }
}

/// Removes volumes without users. Returns their names and how much they held.
pub(crate) fn prune(ctx: &Context, all: bool) -> Result<(Vec<String>, u64)> {
    let (mut removed, mut bytes) = (Vec::new(), 0);
    for volume in volumes::list(ctx)? {
        if !all && !volume.anonymous {
            continue;
        }
        let held = super::system_df::tree_size(&volume.mountpoint);
        match volumes::remove(ctx, &volume.name) {
            Ok(()) => {
                removed.push(volume.name);
                bytes += held;
            }
            Err(Error::VolumeInUse { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok((removed, bytes))
}
