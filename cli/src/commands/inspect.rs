//! `dhow inspect`, `dhow container inspect`

use clap::Args;
use serde::Serialize;
use serde_json::Value;

use crate::app::Run;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::inspect::{self, ContainerView, ImageView};
use crate::output::json;
use crate::output::list::unescape;
use crate::output::template::Template;
use crate::volumes::{self, Volume};

/// Show all about containers, images, volumes and networks, as JSON
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// A Go template for each object instead, such as '{{.State.Status}}'; json is one line each
    #[arg(short = 'f', long, value_name = "FORMAT")]
    format: Option<String>,
    /// Say how much a container has written
    #[arg(short = 's', long)]
    size: bool,
    /// Look only for a container, image, volume or network
    #[arg(long = "type", value_name = "TYPE")]
    kind: Option<String>,
    /// Names or ids
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

/// Show all about containers, as JSON
#[derive(Debug, Args)]
pub(crate) struct Container {
    /// A Go template for each object instead, such as '{{.State.Status}}'; json is one line each
    #[arg(short = 'f', long, value_name = "FORMAT")]
    format: Option<String>,
    /// Say how much a container has written
    #[arg(short = 's', long)]
    size: bool,
    /// Names or ids
    #[arg(required = true, value_name = "CONTAINER")]
    names: Vec<String>,
}

/// Any object.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Object {
    Container(Box<ContainerView>),
    Image(Box<ImageView>),
    Volume(Volume),
    Network(Value),
}

const KINDS: [&str; 4] = ["container", "image", "volume", "network"];

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let kind = self.kind.as_deref();
        if let Some(kind) = kind.filter(|kind| !KINDS.contains(kind)) {
            return Err(
                crate::parse::Invalid::new("--type", kind, format!("it is none of {}", KINDS.join(", "))).into()
            );
        }
        show(ctx, &self.names, self.format.as_deref(), |name| object(ctx, name, kind))
    }
}

impl Run for Container {
    fn run(self, ctx: &Context) -> Result<u8> {
        show(ctx, &self.names, self.format.as_deref(), |name| {
            Ok(inspect::container(ctx, &ctx.containers().find(name)?))
        })
    }
}

fn object(ctx: &Context, name: &str, kind: Option<&str>) -> Result<Object> {
    let wanted = |what: &str| kind.is_none_or(|kind| kind == what);
    if wanted("container") {
        match ctx.containers().find_maybe(name) {
            Ok(Some(container)) => return Ok(Object::Container(Box::new(inspect::container(ctx, &container)))),
            Ok(None) => {}
            Err(error) => return Err(error),
        }
    }
    if wanted("image") {
        match ctx.store()?.resolve(name) {
            Ok(image) => return Ok(Object::Image(Box::new(inspect::image(ctx, &image)))),
            Err(error) if kind.is_none() && error.kind() == dhow_image::ErrorKind::NotFound => {}
            // A text that is no reference may still be a volume or a network.
            Err(dhow_image::Error::Reference(_)) if kind.is_none() => {}
            Err(error) => return Err(error.into()),
        }
    }
    if wanted("volume")
        && let Ok(volume) = volumes::inspect(ctx, name)
    {
        return Ok(Object::Volume(volume));
    }
    if wanted("network") {
        match super::network::describe(ctx, name) {
            Ok(network) => return Ok(Object::Network(network)),
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
    }
    Err(Error::NoSuchObject(name.to_owned()))
}

/// Prints what `find` finds for each name: a JSON list, or a line per object by the format. What is found is printed
/// even where something else is not.
pub(crate) fn show<T: Serialize>(
    ctx: &Context,
    names: &[String],
    format: Option<&str>,
    mut find: impl FnMut(&str) -> Result<T>,
) -> Result<u8> {
    // Parsed before anything is looked up.
    let template = match format {
        None | Some("" | "json") => None,
        Some(text) => Some(Template::parse(&unescape(text))?),
    };
    let (mut found, mut errors) = (Vec::new(), Vec::new());
    for name in names {
        match find(name) {
            Ok(object) => found.push(object),
            Err(error) => errors.push(error),
        }
    }
    ctx.print(|out| match (&template, format) {
        (Some(template), _) => found.iter().try_for_each(|object| {
            let value =
                serde_json::to_value(object).map_err(|source| Error::Encode { what: "a description", source })?;
            writeln!(out, "{}", template.render(&value)?).map_err(Error::output)
        }),
        (None, Some("json")) => found.iter().try_for_each(|object| json::line(out, object).map_err(Error::output)),
        (None, _) => json::pretty(out, &found).map_err(Error::output),
    })?;
    Error::of_all(errors).map(|()| 0)
}
