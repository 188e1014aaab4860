//! `dhow info`

use clap::Args;
use serde_json::json;

use crate::app::Run;
use crate::container::Status;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::output::list::unescape;
use crate::output::template::{Template, shown};
use crate::output::{human, json};

/// Show what this instance is and holds
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// A Go template, or json
    #[arg(short = 'f', long, value_name = "FORMAT")]
    format: Option<String>,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let kernel = nix::sys::utsname::uname().map_err(Error::system("ask for the kernel's version"))?;
        let states: Vec<Status> = ctx.containers().list()?.iter().map(|c| c.state().status).collect();
        let count = |status: Status| states.iter().filter(|s| **s == status).count();
        let v2 = std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
        let memory = memory_total().unwrap_or(0);
        let info = json!({
            "Containers": states.len(),
            "ContainersRunning": count(Status::Running),
            "ContainersPaused": count(Status::Paused),
            "ContainersStopped": states.len() - count(Status::Running) - count(Status::Paused),
            "Images": ctx.store()?.list()?.len(),
            "Driver": "overlayfs",
            "LoggingDriver": "json-file",
            "CgroupDriver": "cgroupfs",
            "CgroupVersion": if v2 { "2" } else { "1" },
            "KernelVersion": kernel.release().to_string_lossy(),
            "OSType": std::env::consts::OS,
            "Architecture": std::env::consts::ARCH,
            "NCPU": std::thread::available_parallelism().map_or(1, usize::from),
            "MemTotal": memory,
            "DhowRootDir": ctx.root.path(),
            "DhowRunRootDir": ctx.runroot.path(),
            "ServerVersion": env!("CARGO_PKG_VERSION"),
            "Name": kernel.nodename().to_string_lossy(),
            "DefaultRuntime": "dhow",
        });
        ctx.print(|out| match self.format.as_deref() {
            Some("json") => json::line(out, &info).map_err(Error::output),
            Some(text) => {
                let text = Template::parse(&unescape(text))?.render(&info)?;
                writeln!(out, "{text}").map_err(Error::output)
            }
            None => LINES.iter().try_for_each(|(title, key)| {
                let value = if *key == "MemTotal" { human::binary_size(memory) } else { shown(&info[*key]) };
                writeln!(out, "{title}: {value}").map_err(Error::output)
            }),
        })?;
        Ok(0)
    }
}

const LINES: [(&str, &str); 16] = [
    ("Containers", "Containers"),
    (" Running", "ContainersRunning"),
    (" Paused", "ContainersPaused"),
    (" Stopped", "ContainersStopped"),
    ("Images", "Images"),
    ("Version", "ServerVersion"),
    ("Storage Driver", "Driver"),
    ("Logging Driver", "LoggingDriver"),
    ("Cgroup Version", "CgroupVersion"),
    ("Kernel Version", "KernelVersion"),
    ("Architecture", "Architecture"),
    ("CPUs", "NCPU"),
    ("Total Memory", "MemTotal"),
    ("Name", "Name"),
    ("Root Dir", "DhowRootDir"),
    ("Run Root Dir", "DhowRunRootDir"),
];

fn memory_total() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}
