//! `dhow network …`

use std::collections::BTreeMap;

use clap::Args;
use dhow_api::network::{
    CreateNetworkRequest, InspectNetworkRequest, ListNetworksRequest, NetworkConfig, RemoveNetworkRequest, Subnet,
};
use protobuf::MessageField;
use serde::Serialize;
use serde_json::{Value, json};

use super::{confirm, for_each};
use crate::app::Run;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::output::list::{self, Format, Row};
use crate::parse::filter::Filters;
use crate::parse::key_value;
use crate::{events, names};

/// Create a network, and print its id
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// bridge
    #[arg(short = 'd', long, value_name = "DRIVER", default_value = "bridge")]
    driver: String,
    /// Its addresses, as ADDRESS/LENGTH
    #[arg(long, value_name = "SUBNET")]
    subnet: Vec<String>,
    /// The address of the host in it
    #[arg(long, value_name = "ADDRESS")]
    gateway: Vec<String>,
    /// Without a way out
    #[arg(long)]
    internal: bool,
    /// Label it
    #[arg(long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// An option of the driver
    #[arg(short = 'o', long, value_name = "KEY=VALUE")]
    opt: Vec<String>,
    /// Its name
    #[arg(value_name = "NAME")]
    name: String,
}

impl Run for Create {
    fn run(self, ctx: &Context) -> Result<u8> {
        ctx.make_roots()?;
        if self.gateway.len() > self.subnet.len() {
            return Err(Error::Usage("every --gateway needs a --subnet".into()));
        }
        let subnets = self.subnet.iter().enumerate().map(|(i, subnet)| Subnet {
            subnet: subnet.clone(),
            gateway: self.gateway.get(i).cloned().unwrap_or_default(),
            ..Default::default()
        });
        let network = NetworkConfig {
            name: self.name.clone(),
            driver: self.driver.clone(),
            subnets: subnets.collect(),
            internal: self.internal,
            labels: self.label.iter().map(|text| key_value(text)).collect(),
            options: self.opt.iter().map(|text| key_value(text)).collect(),
            ..Default::default()
        };
        let request = CreateNetworkRequest { network: MessageField::some(network), ..Default::default() };
        let made = ctx.network().create_network(&request)?;
        events::network(ctx, "create", made.network.id.as_str(), &self.name);
        ctx.say(made.network.id.as_str())?;
        Ok(0)
    }
}

/// List networks
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Show some only: name, driver, id, label
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
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    created_at: String,
    driver: String,
    #[serde(rename = "ID")]
    id: String,
    #[serde(rename = "IPv6")]
    ipv6: String,
    internal: String,
    labels: String,
    name: String,
    scope: &'static str,
}

impl Row for Line {
    const COLUMNS: &'static [(&'static str, &'static str)] =
        &[("NETWORK ID", "ID"), ("NAME", "Name"), ("DRIVER", "Driver"), ("SCOPE", "Scope")];
    const ID: &'static str = "ID";
}

impl Run for List {
    fn run(self, ctx: &Context) -> Result<u8> {
        let filters = Filters::parse(&self.filter, &["name", "driver", "id", "label"])?;
        ctx.make_roots()?;
        let mut networks = ctx.network().list_networks(&ListNetworksRequest::default())?.networks;
        networks.retain(|network| {
            filters.any("name", |name| network.name.contains(name))
                && filters.any("driver", |driver| network.driver == driver)
                && filters.any("id", |id| network.id.starts_with(id))
                && filters.labels(|key| network.labels.get(key).map(String::as_str))
        });
        networks.sort_by(|a, b| a.name.cmp(&b.name));
        let lines: Vec<Line> = networks
            .into_iter()
            .map(|network| Line {
                created_at: network.created,
                driver: network.driver,
                id: if self.no_trunc { network.id } else { names::short(&network.id).to_owned() },
                ipv6: network.subnets.iter().any(|s| s.subnet.contains(':')).to_string(),
                internal: network.internal.to_string(),
                labels: network.labels.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(","),
                name: network.name,
                scope: "local",
            })
            .collect();
        ctx.print(|out| list::print(out, &lines, &Format::of(self.format.as_deref(), self.quiet)))?;
        Ok(0)
    }
}

/// Show all about networks, as JSON
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// A Go template for each network instead; json is one line each
    #[arg(short = 'f', long, value_name = "FORMAT")]
    format: Option<String>,
    /// The networks
    #[arg(required = true, value_name = "NETWORK")]
    names: Vec<String>,
}

impl Run for Inspect {
    fn run(self, ctx: &Context) -> Result<u8> {
        ctx.make_roots()?;
        super::inspect::show(ctx, &self.names, self.format.as_deref(), |name| describe(ctx, name))
    }
}

/// docker's description of a network.
pub(crate) fn describe(ctx: &Context, name: &str) -> Result<Value> {
    let request = InspectNetworkRequest { name: name.to_owned(), ..Default::default() };
    let network = ctx.network().inspect_network(&request)?.network.unwrap_or_default();
    let subnets: Vec<Value> =
        network.subnets.iter().map(|s| json!({ "Subnet": s.subnet, "Gateway": s.gateway })).collect();
    let mut containers = BTreeMap::new();
    for id in &network.containers {
        let Ok(Some(container)) = ctx.containers().load(id) else { continue };
        let record = container.record;
        let interface = record.attached.interfaces.iter().find(|i| i.network == network.name);
        let address = |v6: bool| {
            interface.and_then(|i| i.addresses.iter().find(|a| a.contains(':') == v6)).cloned().unwrap_or_default()
        };
        let described = json!({
            "Name": record.name,
            "EndpointID": "",
            "MacAddress": interface.map(|i| i.mac.clone()).unwrap_or_default(),
            "IPv4Address": address(false),
            "IPv6Address": address(true),
        });
        containers.insert(id.clone(), described);
    }
    Ok(json!({
        "Name": network.name,
        "Id": network.id,
        "Created": network.created,
        "Scope": "local",
        "Driver": network.driver,
        "EnableIPv6": network.subnets.iter().any(|s| s.subnet.contains(':')),
        "IPAM": { "Driver": "default", "Options": null, "Config": subnets },
        "Internal": network.internal,
        "Attachable": false,
        "Ingress": false,
        "Containers": containers,
        "Options": network.options,
        "Labels": network.labels,
        "Interface": network.interface,
    }))
}

/// Remove networks that no container uses
#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Say nothing about what is not there
    #[arg(short = 'f', long)]
    force: bool,
    /// The networks
    #[arg(required = true, value_name = "NETWORK")]
    names: Vec<String>,
}

impl Run for Remove {
    fn run(self, ctx: &Context) -> Result<u8> {
        ctx.make_roots()?;
        for_each(&self.names, |name| {
            match remove(ctx, name) {
                Err(error) if self.force && error.is_not_found() => return Ok(()),
                other => other?,
            }
            ctx.say(name)
        })
    }
}

fn remove(ctx: &Context, name: &str) -> Result<()> {
    ctx.network().remove_network(&RemoveNetworkRequest { name: name.to_owned(), ..Default::default() })?;
    events::network(ctx, "destroy", name, name);
    Ok(())
}

/// Remove all networks that no container uses
#[derive(Debug, Args)]
pub(crate) struct Prune {
    /// Don't ask
    #[arg(short = 'f', long)]
    force: bool,
}

impl Run for Prune {
    fn run(self, ctx: &Context) -> Result<u8> {
        if !self.force && !confirm(ctx, "This will remove all networks that no container uses.")? {
            return Ok(0);
        }
        for name in prune(ctx)? {
            ctx.say(&name)?;
        }
        Ok(0)
    }
}

/// Removes the user's networks that no container, running or not, asks for. Returns their names.
pub(crate) fn prune(ctx: &Context) -> Result<Vec<String>> {
    ctx.make_roots()?;
    let containers = ctx.containers().list()?;
    let mut removed = Vec::new();
    for network in ctx.network().list_networks(&ListNetworksRequest::default())?.networks {
        let own = !matches!(network.name.as_str(), "bridge" | "host" | "none");
        let used =
            containers.iter().any(|c| c.record.network.mode == network.name || c.record.network.mode == network.id);
        if own && !used && network.containers.is_empty() {
            remove(ctx, &network.name)?;
            removed.push(network.name);
        }
    }
    Ok(removed)
}
