//! `dhow port`

use clap::Args;

use crate::app::Run;
use crate::container::record::Port;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::parse::port;

/// Show a container's published ports, or where one of them is
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// The container
    #[arg(value_name = "CONTAINER")]
    container: String,
    /// PORT[/PROTOCOL] in the container
    #[arg(value_name = "PORT")]
    port: Option<String>,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let container = ctx.containers().find(&self.container)?;
        let running = container.state().is_up();
        let mut ports = if running { container.record.attached.ports.clone() } else { Vec::new() };
        ports.sort_by_key(|p| (p.container_port, p.protocol.clone(), p.host_ip.clone()));
        if let Some(text) = &self.port {
            let wanted = port::parse_exposed(text)?;
            ports.retain(|p| wanted.iter().any(|w| w.port == p.container_port && w.protocol.to_string() == p.protocol));
            if ports.is_empty() {
                return Err(Error::Usage(format!("no public port '{text}' published for {}", self.container)));
            }
        }
        ctx.print(|out| {
            for port in &ports {
                let host = host_side(port);
                let line = if self.port.is_some() {
                    host
                } else {
                    format!("{}/{} -> {host}", port.container_port, port.protocol)
                };
                writeln!(out, "{line}").map_err(Error::output)?;
            }
            Ok(())
        })?;
        Ok(0)
    }
}

/// `0.0.0.0:8080`, `[::1]:8080`
pub(crate) fn host_side(port: &Port) -> String {
    match port.host_ip.as_str() {
        "" => format!("0.0.0.0:{}", port.host_port),
        ip if ip.contains(':') => format!("[{ip}]:{}", port.host_port),
        ip => format!("{ip}:{}", port.host_port),
    }
}
