//! `dhow version`

use clap::Args;
use serde_json::json;

use crate::app::Run;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::output::json;
use crate::output::list::unescape;
use crate::output::template::Template;

/// Show the version
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// A Go template, or json
    #[arg(short = 'f', long, value_name = "FORMAT")]
    format: Option<String>,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let version = env!("CARGO_PKG_VERSION");
        let kernel = nix::sys::utsname::uname().map_err(Error::system("ask for the kernel's version"))?;
        let part = json!({
            "Version": version,
            "Os": std::env::consts::OS,
            "Arch": std::env::consts::ARCH,
            "KernelVersion": kernel.release().to_string_lossy(),
        });
        // There is no server: scripts that ask for its version get ours.
        let all = json!({ "Client": part, "Server": part });
        ctx.print(|out| match self.format.as_deref() {
            None => {
                let kernel = kernel.release().to_string_lossy();
                writeln!(
                    out,
                    "dhow version {version}\n OS/Arch: {}/{}\n Kernel:  {kernel}",
                    std::env::consts::OS,
                    std::env::consts::ARCH
                )
                .map_err(Error::output)
            }
            Some("json") => json::line(out, &all).map_err(Error::output),
            Some(text) => {
                let text = Template::parse(&unescape(text))?.render(&all)?;
                writeln!(out, "{text}").map_err(Error::output)
            }
        })?;
        Ok(0)
    }
}
