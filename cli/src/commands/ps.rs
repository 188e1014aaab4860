//! `dhow ps`

use clap::Args;
use dhow_image::Image;
use jiff::Timestamp;
use serde::Serialize;

use super::port::host_side;
use crate::app::Run;
use crate::container::record::{Port, Record};
use crate::container::{Container, State, Status};
use crate::context::Context;
use crate::error::Result;
use crate::names;
use crate::output::human;
use crate::output::list::{self, Format, Row};
use crate::parse::filter::Filters;
use crate::sizes::Sizes;
use crate::snapshot;

/// List containers (the running ones, unless -a is given)
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// Show all, not only those that run
    #[arg(short = 'a', long)]
    all: bool,
    /// Show ids only
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Show some only: id, name, status, exited, label, ancestor, volume, network, publish, before, since
    #[arg(short = 'f', long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// table, json, 'table TEMPLATE' or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Don't cut ids and commands short
    #[arg(long)]
    no_trunc: bool,
    /// Show the last created ones, whatever their state
    #[arg(short = 'n', long, value_name = "NUMBER", default_value = "-1", allow_hyphen_values = true)]
    last: i64,
    /// Show the last created one
    #[arg(short = 'l', long)]
    latest: bool,
    /// Show how much they have written
    #[arg(short = 's', long)]
    size: bool,
}

const FILTERS: [&str; 13] = [
    "id", "name", "status", "exited", "label", "ancestor", "volume", "network", "publish", "expose", "before", "since",
    "health",
];

/// docker's fields of a container in a list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Line {
    command: String,
    created_at: String,
    #[serde(rename = "ID")]
    id: String,
    image: String,
    labels: String,
    local_volumes: String,
    mounts: String,
    names: String,
    networks: String,
    ports: String,
    running_for: String,
    size: String,
    state: String,
    status: String,
}

impl Row for Line {
    const COLUMNS: &'static [(&'static str, &'static str)] = &[
        ("CONTAINER ID", "ID"),
        ("IMAGE", "Image"),
        ("COMMAND", "Command"),
        ("CREATED", "RunningFor"),
        ("STATUS", "Status"),
        ("PORTS", "Ports"),
        ("NAMES", "Names"),
        ("SIZE", "Size"),
    ];
    const MORE: &'static [(&'static str, &'static str)] = &[
        ("CREATED AT", "CreatedAt"),
        ("LABELS", "Labels"),
        ("LOCAL VOLUMES", "LocalVolumes"),
        ("MOUNTS", "Mounts"),
        ("NETWORKS", "Networks"),
        ("STATE", "State"),
    ];
    const ID: &'static str = "ID";
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let filters = Filters::parse(&self.filter, &FILTERS)?;
        let newest = if self.latest { 1 } else { usize::try_from(self.last).unwrap_or(0) };
        let containers = ctx.containers().list()?;
        let bounds = Bounds::of(ctx, &filters)?;
        let asks_state = !filters.values("status").is_empty() || !filters.values("exited").is_empty();
        let mut chosen: Vec<(Container, State)> = containers
            .into_iter()
            .filter_map(|container| {
                let state = container.state();
                let shown = self.all || newest > 0 || asks_state || state.is_up();
                (shown && wanted(&container, &state, &filters, &bounds)).then_some((container, state))
            })
            .collect();
        if newest > 0 {
            chosen.truncate(newest);
        }
        let now = Timestamp::now();
        let sized = self.size || self.format.as_deref().is_some_and(|format| format.contains(".Size"));
        let measure = sized.then(|| Measure::new(ctx)).transpose()?;
        let lines = chosen
            .iter()
            .map(|(container, state)| self.line(container, state, now, measure.as_ref()))
            .collect::<Vec<_>>();
        let format = Format::of(self.format.as_deref(), self.quiet);
        ctx.print(|out| list::print_columns(out, &lines, &format, |field| field != "Size" || self.size))?;
        Ok(0)
    }
}

impl Command {
    fn line(&self, container: &Container, state: &State, now: Timestamp, measure: Option<&Measure<'_>>) -> Line {
        let record = &container.record;
        let created = record.created.parse::<Timestamp>().ok();
        let id = if self.no_trunc { record.id.clone() } else { names::short(&record.id).to_owned() };
        let labels: Vec<String> = record.config.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let mounts: Vec<&str> =
            record.mounts.iter().map(|m| if m.name.is_empty() { m.source.as_str() } else { m.name.as_str() }).collect();
        let networks: Vec<&str> = record.attached.interfaces.iter().map(|i| i.network.as_str()).collect();
        let ports = if state.is_up() { record.attached.ports.as_slice() } else { &[] };
        Line {
            command: command(&record.command, self.no_trunc),
            created_at: created
                .map_or_else(|| record.created.clone(), |at| at.strftime("%Y-%m-%d %H:%M:%S +0000 UTC").to_string()),
            id,
            image: record.config.image.clone(),
            labels: labels.join(","),
            local_volumes: record.volumes().count().to_string(),
            mounts: mounts.join(","),
            names: record.name.clone(),
            networks: if networks.is_empty() { record.network.mode.clone() } else { networks.join(",") },
            ports: shown_ports(ports, record, state),
            running_for: created.map_or_else(String::new, |at| human::ago(at, now)),
            size: measure.map_or_else(String::new, |measure| measure.text(record)),
            state: state.status.name().to_owned(),
            status: state.words(now),
        }
    }
}

/// The command in quotes, cut at twenty characters.
fn command(words: &[String], whole: bool) -> String {
    let text = words.join(" ");
    if whole || text.chars().count() <= 20 {
        return format!("\"{text}\"");
    }
    let cut: String = text.chars().take(19).collect();
    format!("\"{cut}…\"")
}

/// Published ports, and those that are only exposed.
fn shown_ports(published: &[Port], record: &Record, state: &State) -> String {
    if !state.is_up() {
        return String::new();
    }
    let mut list: Vec<String> = Vec::new();
    for port in published {
        let inner = format!("{}/{}", port.container_port, port.protocol);
        list.push(if port.host_port == 0 { inner } else { format!("{}->{inner}", host_side(port)) });
    }
    for exposed in record.config.exposed_ports.keys() {
        let known = |port: &Port| *exposed == format!("{}/{}", port.container_port, port.protocol);
        if !published.iter().any(known) {
            list.push(exposed.clone());
        }
    }
    list.join(", ")
}

/// `--size`: what a container takes by itself, and with its image.
struct Measure<'a> {
    ctx: &'a Context,
    sizes: Sizes<'a>,
    images: Vec<Image>,
}

impl<'a> Measure<'a> {
    fn new(ctx: &'a Context) -> Result<Self> {
        Ok(Self { ctx, sizes: Sizes::new(ctx), images: ctx.store()?.list()? })
    }

    fn text(&self, record: &Record) -> String {
        let own = snapshot::usage(self.ctx, &record.id).unwrap_or(0);
        let image = self.images.iter().find(|image| image.id.as_str() == record.image);
        let whole = own + image.map_or(0, |image| self.sizes.image(image));
        format!("{} (virtual {})", human::size(own), human::size(whole))
    }
}

/// Times that `before` and `since` compare with.
struct Bounds {
    before: Option<String>,
    since: Option<String>,
}

impl Bounds {
    fn of(ctx: &Context, filters: &Filters) -> Result<Self> {
        let created = |key: &str| {
            let name = filters.values(key).last();
            name.map(|name| ctx.containers().find(name).map(|c| c.record.created)).transpose()
        };
        Ok(Self { before: created("before")?, since: created("since")? })
    }
}

fn wanted(container: &Container, state: &State, filters: &Filters, bounds: &Bounds) -> bool {
    let record = &container.record;
    let image = |name: &str| {
        let plain = record.config.image.as_str();
        plain == name
            || plain.split_once(':').is_some_and(|(repository, _)| repository == name)
            || record.image == name
            || names::short(&record.image) == name
            || record.image.strip_prefix("sha256:").is_some_and(|hex| name.len() >= 4 && hex.starts_with(name))
    };
    let published = |text: &str| {
        let wanted = crate::parse::port::parse_exposed(text).unwrap_or_default();
        record.attached.ports.iter().any(|p| wanted.iter().any(|w| w.port == p.container_port || w.port == p.host_port))
    };
    filters.any("id", |id| record.id.starts_with(id))
        && filters.any("name", |name| record.name.contains(name.trim_start_matches(['^', '/']).trim_end_matches('$')))
        && filters.any("status", |status| state.status.name() == status)
        && filters.any("exited", |code| state.status == Status::Exited && state.exit_code().to_string() == code)
        && filters.labels(|key| record.config.labels.get(key).map(String::as_str))
        && filters.any("ancestor", image)
        && filters.any("volume", |v| record.mounts.iter().any(|m| m.name == v || m.destination == v || m.source == v))
        && filters
            .any("network", |n| record.network.mode == n || record.attached.interfaces.iter().any(|i| i.network == n))
        && filters.any("publish", published)
        && filters.any("expose", |text| {
            let wanted = crate::parse::port::parse_exposed(text).unwrap_or_default();
            wanted.iter().any(|port| record.config.exposed_ports.contains_key(&port.to_string()))
        })
        && filters.any("health", |health| health == "none")
        && bounds.before.as_ref().is_none_or(|at| record.created < *at)
        && bounds.since.as_ref().is_none_or(|at| record.created > *at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands() {
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(command(&words("sleep 1d"), false), "\"sleep 1d\"");
        assert_eq!(command(&words("sh -c aaaaaaaaaaaaaaaaaaaa"), false), "\"sh -c aaaaaaaaaaaaa…\"");
        assert_eq!(command(&words("sh -c aaaaaaaaaaaaaaaaaaaa"), true), "\"sh -c aaaaaaaaaaaaaaaaaaaa\"");
    }

    #[test]
    fn ports() {
        let mut record = Record::default();
        record.config.exposed_ports =
            [("80/tcp".to_owned(), serde_json::json!({})), ("90/udp".to_owned(), serde_json::json!({}))].into();
        let port = Port {
            protocol: "tcp".into(),
            host_ip: String::new(),
            host_port: 8080,
            container_port: 80,
            ..Port::default()
        };
        let up = State { status: Status::Running, pid: 1, start_time: 1, started: None, exit: None };
        assert_eq!(shown_ports(&[port], &record, &up), "0.0.0.0:8080->80/tcp, 90/udp");
        let down = State { status: Status::Exited, ..up };
        assert_eq!(shown_ports(&[], &record, &down), "");
    }
}
