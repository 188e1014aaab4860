//! `dhow events`

use std::collections::BTreeMap;
use std::io::Write;
use std::time::Duration;

use clap::Args;
use dhow_api::events::{Event, EventReader};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use serde_json::{Value, json};

use crate::app::Run;
use crate::container::logs::Watch;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::output::json;
use crate::output::list::unescape;
use crate::output::template::Template;
use crate::parse::filter::Filters;
use crate::parse::timestamp;

/// Show what happens to containers, images, volumes and networks, as it happens
///
/// With --since or --until also what has happened: about the last megabyte of events since the machine was started.
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// Show some only: container, daemon, event, image, label, network, scope, type, volume
    #[arg(short = 'f', long, value_name = "KEY=VALUE")]
    filter: Vec<String>,
    /// json or a Go template
    #[arg(long, value_name = "FORMAT")]
    format: Option<String>,
    /// Show what has happened since: a time, or how long ago
    #[arg(long, value_name = "TIME")]
    since: Option<String>,
    /// End at: a time, or how long ago
    #[arg(long, value_name = "TIME")]
    until: Option<String>,
}

const FILTERS: [&str; 9] = ["container", "daemon", "event", "image", "label", "network", "scope", "type", "volume"];

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let now = Timestamp::now();
        let time = |text: &Option<String>| text.as_deref().map(|text| timestamp::parse(text, now)).transpose();
        let past = self.since.is_some() || self.until.is_some();
        let until = time(&self.until)?;
        let wanted = Wanted {
            filters: Filters::parse(&self.filter, &FILTERS)?,
            since: time(&self.since)?,
            until,
            format: Format::of(self.format.as_deref())?,
        };
        let log = ctx.events();
        log.make_dir()?;
        // Before the first look, so that nothing falls between the two.
        let watch = Watch::new(log.dir())?;
        let mut reader = log.reader();
        if !past {
            reader.read(|_old| Ok::<(), Error>(()))?;
        }
        loop {
            wanted.show(ctx, &mut reader)?;
            let rest = match until {
                None => None,
                Some(until) => match left(until) {
                    Some(rest) => Some(rest),
                    None => return Ok(0),
                },
            };
            watch.wait_for(rest)?;
        }
    }
}

/// How long it is until then; `None` when it is past.
fn left(until: Timestamp) -> Option<Duration> {
    let rest = until.duration_since(Timestamp::now());
    if rest <= SignedDuration::ZERO { None } else { Some(rest.unsigned_abs()) }
}

struct Wanted {
    filters: Filters,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
    format: Format,
}

enum Format {
    Text,
    Json,
    Template(Template),
}

impl Format {
    fn of(text: Option<&str>) -> Result<Self> {
        match text {
            None | Some("") => Ok(Self::Text),
            Some("json") => Ok(Self::Json),
            // The fields have other names in docker's JSON than in its templates.
            Some(text) if text.replace(' ', "") == "{{json.}}" => Ok(Self::Json),
            Some(text) => Ok(Self::Template(Template::parse(&unescape(text))?)),
        }
    }
}

impl Wanted {
    fn show(&self, ctx: &Context, reader: &mut EventReader) -> Result<()> {
        ctx.print(|out| {
            reader.read(|event| {
                if self.in_time(&event) && fits(&self.filters, &event) { self.print(out, &event) } else { Ok(()) }
            })
        })
    }

    fn in_time(&self, event: &Event) -> bool {
        let time = moment(event);
        self.since.is_none_or(|since| time >= since) && self.until.is_none_or(|until| time <= until)
    }

    fn print(&self, out: &mut dyn Write, event: &Event) -> Result<()> {
        let line = match &self.format {
            Format::Text => text(event),
            Format::Json => return json::line(out, &Document::of(event)).map_err(Error::output),
            Format::Template(template) => template.render(&fields(event))?,
        };
        writeln!(out, "{line}").map_err(Error::output)
    }
}

fn moment(event: &Event) -> Timestamp {
    Timestamp::new(event.time.seconds(), event.time.nanos().cast_signed()).unwrap_or(Timestamp::MAX)
}

fn fits(filters: &Filters, event: &Event) -> bool {
    let attribute = |key: &str| event.attributes.get(key).map(String::as_str);
    let called =
        |text: &str| event.id.starts_with(text) || attribute("name").is_some_and(|name| name.starts_with(text));
    filters.any("type", |kind| event.kind == kind)
        && filters.any("event", |action| event.action == action || event.action.split(':').next() == Some(action))
        && filters.any("scope", |scope| scope == "local")
        && filters.any("daemon", |_name| false)
        && filters.labels(attribute)
        && ["container", "network", "volume"]
            .iter()
            .all(|kind| filters.any(kind, |text| event.kind == *kind && called(text)))
        && filters.any("image", |text| match event.kind.as_str() {
            "image" => is_image(text, &event.id) || attribute("name").is_some_and(|name| is_image(text, name)),
            _ => attribute("image").is_some_and(|name| is_image(text, name)),
        })
}

/// Whether a filter means this name or id: with or without its tag.
fn is_image(filter: &str, name: &str) -> bool {
    let bare = match name.rsplit_once(':') {
        Some((bare, tag)) if !tag.contains('/') => bare,
        _ => name,
    };
    filter == name || filter == bare
}

/// docker's line.
fn text(event: &Event) -> String {
    let time = moment(event).to_zoned(TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S.%9f%:z").to_string();
    let time = time.strip_suffix("+00:00").map_or(time.clone(), |utc| format!("{utc}Z"));
    let attributes: Vec<String> = event.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let attributes = if attributes.is_empty() { String::new() } else { format!(" ({})", attributes.join(", ")) };
    format!("{time} {} {} {}{attributes}", event.kind, event.action, event.id)
}

fn nanoseconds(event: &Event) -> i64 {
    event.time.seconds().saturating_mul(1_000_000_000).saturating_add(event.time.nanos().into())
}

/// docker's JSON, in its order; `status`, `id` and `from` are those of its first version.
#[derive(Serialize)]
struct Document<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<&'a str>,
    #[serde(rename = "Type")]
    kind: &'a str,
    #[serde(rename = "Action")]
    action: &'a str,
    #[serde(rename = "Actor")]
    actor: Actor<'a>,
    scope: &'a str,
    time: i64,
    #[serde(rename = "timeNano")]
    time_nano: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Actor<'a> {
    #[serde(rename = "ID")]
    id: &'a str,
    attributes: &'a BTreeMap<String, String>,
}

impl<'a> Document<'a> {
    fn of(event: &'a Event) -> Self {
        let old = matches!(event.kind.as_str(), "container" | "image");
        let image = event.attributes.get("image").filter(|_| event.kind == "container");
        Self {
            status: old.then_some(&event.action),
            id: old.then_some(&event.id),
            from: image.map(String::as_str),
            kind: &event.kind,
            action: &event.action,
            actor: Actor { id: &event.id, attributes: &event.attributes },
            scope: "local",
            time: event.time.seconds(),
            time_nano: nanoseconds(event),
        }
    }
}

/// The same as templates name it.
fn fields(event: &Event) -> Value {
    json!({
        "Status": event.action,
        "ID": event.id,
        "From": event.attributes.get("image").map_or("", String::as_str),
        "Type": event.kind,
        "Action": event.action,
        "Actor": { "ID": event.id, "Attributes": event.attributes },
        "Scope": "local",
        "Time": event.time.seconds(),
        "TimeNano": nanoseconds(event),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        let mut event = Event::new("container", "exec_create: sh -c x", "0123abc");
        event = event.with("name", "web").with("image", "h:5000/app:1").with("tier", "front");
        Event { time: dhow_api::Timestamp::new(1_700_000_000, 5), ..event }
    }

    #[test]
    fn filters() {
        let passes = |values: &[&str]| {
            let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
            fits(&Filters::parse(&values, &FILTERS).unwrap(), &event())
        };
        for values in [
            &[][..],
            &["type=container"],
            &["event=exec_create"],
            &["event=die", "event=exec_create: sh -c x"],
            &["container=web"],
            &["container=0123", "type=container"],
            &["image=h:5000/app"],
            &["image=h:5000/app:1"],
            &["label=tier"],
            &["label=tier=front"],
        ] {
            assert!(passes(values), "{values:?}");
        }
        for values in [
            &["type=image"][..],
            &["event=exec"],
            &["container=other"],
            &["image=h:5000/ap"],
            &["label=tier=back"],
            &["network=web"],
            &["daemon=x"],
        ] {
            assert!(!passes(values), "{values:?}");
        }
    }

    #[test]
    fn forms() {
        let event = event();
        let document = serde_json::to_value(Document::of(&event)).unwrap();
        for (pointer, want) in [
            ("/Type", json!("container")),
            ("/Action", json!("exec_create: sh -c x")),
            ("/status", json!("exec_create: sh -c x")),
            ("/from", json!("h:5000/app:1")),
            ("/Actor/ID", json!("0123abc")),
            ("/Actor/Attributes/name", json!("web")),
            ("/timeNano", json!(1_700_000_000_000_000_005_i64)),
        ] {
            assert_eq!(document.pointer(pointer), Some(&want), "{pointer}");
        }
        let line = text(&event);
        let (time, rest) = line.split_once(' ').unwrap();
        assert_eq!(time.parse::<Timestamp>().unwrap(), Timestamp::new(1_700_000_000, 5).unwrap());
        assert_eq!(rest, "container exec_create: sh -c x 0123abc (image=h:5000/app:1, name=web, tier=front)");
        let template = Template::parse("{{.Type}} {{.Actor.Attributes.name}} {{.Time}}").unwrap();
        assert_eq!(template.render(&fields(&event)).unwrap(), "container web 1700000000");
    }
}
