//! `dhow system df`

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use clap::Args;
use serde::Serialize;

use crate::app::Run;
use crate::context::Context;
use crate::error::Result;
use crate::output::human;
use crate::output::list::{self, Format, Row};
use crate::sizes::Sizes;
use crate::{snapshot, volumes};

/// Show what takes how much space
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// table, json, 'table TEMPLATE' or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    active: String,
    reclaimable: String,
    size: String,
    total_count: String,
    r#type: &'static str,
}

impl Row for Line {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[
        ("TYPE", "Type"),
        ("TOTAL", "TotalCount"),
        ("ACTIVE", "Active"),
        ("SIZE", "Size"),
        ("RECLAIMABLE", "Reclaimable"),
    ];
    const ID: &'static str = "Type";
}

/// How many there are, how many are used, bytes in all and bytes without use.
#[derive(Default)]
struct Sum {
    total: usize,
    active: usize,
    bytes: u64,
    idle: u64,
}

impl Sum {
    fn add(&mut self, bytes: u64, active: bool) {
        self.total += 1;
        self.bytes += bytes;
        if active {
            self.active += 1;
        } else {
            self.idle += bytes;
        }
    }

    fn line(&self, r#type: &'static str) -> Line {
        let share = (self.idle * 100).checked_div(self.bytes).unwrap_or(0);
        Line {
            active: self.active.to_string(),
            reclaimable: format!("{} ({share}%)", human::size(self.idle)),
            size: human::size(self.bytes),
            total_count: self.total.to_string(),
            r#type,
        }
    }
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let (mut images, mut containers, mut local) = (Sum::default(), Sum::default(), Sum::default());
        let made = ctx.containers().list()?;
        let list = ctx.store()?.list()?;
        let used: Vec<_> =
            list.iter().filter(|image| made.iter().any(|c| c.record.image == image.id.as_str())).collect();
        let sizes = Sizes::new(ctx);
        // Layers that images share are there once.
        (images.total, images.active, images.bytes) = (list.len(), used.len(), sizes.images(&list));
        images.idle = images.bytes - sizes.images(used);
        for container in made {
            containers.add(snapshot::usage(ctx, container.id()).unwrap_or(0), container.state().is_up());
        }
        for volume in volumes::list(ctx)? {
            let active = !volumes::users(ctx.containers(), &volume.name)?.is_empty();
            local.add(tree_size(&volume.mountpoint), active);
        }
        let lines = [images.line("Images"), containers.line("Containers"), local.line("Local Volumes")];
        ctx.print(|out| list::print(out, &lines, &Format::of(self.format.as_deref(), false)))?;
        Ok(0)
    }
}

/// Bytes that a directory takes on the disk. What vanishes meanwhile or cannot be read counts nothing; links are not
/// followed.
pub(crate) fn tree_size(path: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(path) else { return 0 };
    entries
        .flatten()
        .map(|entry| {
            let Ok(metadata) = entry.metadata() else { return 0 };
            let own = metadata.blocks() * 512;
            if metadata.is_dir() { own + tree_size(&entry.path()) } else { own }
        })
        .sum()
}
