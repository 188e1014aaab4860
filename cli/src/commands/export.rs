//! `dhow export`

use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::app::Run;
use crate::context::Context;
use crate::error::Result;
use crate::{archive, events, snapshot};

/// Write a container's files as a tar, on standard output unless -o
///
/// Volumes and other mounts are not in it. `dhow import` makes an image of it.
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// Write to this file
    #[arg(short = 'o', long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let container = ctx.containers().find(&self.container)?;
        archive::write(self.output.as_deref(), |out| {
            let tree = snapshot::mount_read_only(ctx, container.id())?;
            // The mount has no other name.
            let path = format!("/proc/self/fd/{}", tree.as_raw_fd());
            dhow_image::archive::export(Path::new(&path), out)?;
            Ok(())
        })?;
        events::container(ctx, &container.record, "export", &[]);
        Ok(0)
    }
}
