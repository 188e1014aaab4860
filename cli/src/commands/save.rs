//! `dhow save`

use std::path::PathBuf;

use clap::Args;
use dhow_image::{Cancel, Image, Reference};

use crate::app::Run;
use crate::context::Context;
use crate::error::Result;
use crate::signals::Interrupt;
use crate::{archive, events};

/// Write images into an archive, on standard output unless -o
///
/// The archive is an OCI image layout and a docker archive at once: `dhow load`, docker, podman and skopeo read it. A name
/// without a tag means all tags of that repository.
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// Write to this file
    #[arg(short = 'o', long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// The images
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let store = ctx.store()?;
        let mut chosen: Vec<(Image, Vec<Reference>)> = Vec::new();
        for name in &self.images {
            for (image, references) in find(ctx, name)? {
                match chosen.iter_mut().find(|(known, _)| known.manifest == image.manifest) {
                    Some((_, known)) => {
                        known.extend(references);
                        known.sort();
                        known.dedup();
                    }
                    None => chosen.push((image, references)),
                }
            }
        }
        let cancel = Cancel::new();
        let _interrupt = Interrupt::watch(&cancel)?;
        archive::write(self.output.as_deref(), |out| Ok(dhow_image::archive::save(&chosen, store, out, &cancel)?))?;
        for (image, _) in &chosen {
            events::image(ctx, "save", image.id.as_str(), image.id.as_str());
        }
        Ok(0)
    }
}

/// The images that a word names, each with the names it is saved under: none where it was called by its id.
fn find(ctx: &Context, name: &str) -> Result<Vec<(Image, Vec<Reference>)>> {
    let store = ctx.store()?;
    let repository = Reference::parse(name).ok().filter(|_| !name.contains('@') && !has_tag(name));
    if let Some(wanted) = repository {
        let of = |image: Image| {
            let same = |r: &Reference| r.registry() == wanted.registry() && r.path() == wanted.path();
            let names: Vec<_> = image.names.iter().map(|n| n.reference.clone()).filter(same).collect();
            (!names.is_empty()).then_some((image, names))
        };
        let all: Vec<_> = store.list()?.into_iter().filter_map(of).collect();
        if !all.is_empty() {
            return Ok(all);
        }
    }
    let image = store.resolve(name)?;
    let named = Reference::parse(name).ok().filter(|r| image.names.iter().any(|n| n.reference == *r));
    Ok(vec![(image, named.into_iter().collect())])
}

/// Whether a tag is spelled out, which a registry's port is not.
fn has_tag(name: &str) -> bool {
    name.rsplit('/').next().is_some_and(|last| last.contains(':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags() {
        for (name, want) in [("a", false), ("a:1", true), ("h:5000/a", false), ("h:5000/a:1", true), ("x/y", false)] {
            assert_eq!(has_tag(name), want, "{name}");
        }
    }
}
