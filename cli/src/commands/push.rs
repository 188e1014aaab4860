//! `dhow push`

use clap::{ArgAction, Args};
use dhow_image::{Cancel, PushOptions, Reference};

use crate::app::Run;
use crate::context::{Context, registry_options};
use crate::error::{Error, Result};
use crate::events;
use crate::output::progress::{Display, Target};
use crate::signals::Interrupt;

/// Upload an image to the registry that its name says
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// Push all tags of the repository
    #[arg(short = 'a', long)]
    all_tags: bool,
    /// Show no progress
    #[arg(short = 'q', long)]
    quiet: bool,
    /// Check TLS certificates, and refuse plain http except on loopback
    #[arg(long, value_name = "BOOL", default_value = "true", num_args = 0..=1, default_missing_value = "true", require_equals = true, action = ArgAction::Set)]
    tls_verify: bool,
    /// The image
    #[arg(value_name = "NAME[:TAG]")]
    name: String,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        let reference = Reference::parse(&self.name).map_err(dhow_image::Error::from)?;
        let references = if self.all_tags { all_tags(ctx, &reference)? } else { vec![reference] };
        let cancel = Cancel::new();
        let _interrupt = Interrupt::watch(&cancel)?;
        let options = PushOptions { registry: registry_options(self.tls_verify), cancel, ..PushOptions::default() };
        for reference in &references {
            let target = if self.quiet { Target::Nowhere } else { Target::Stdout };
            if !self.quiet {
                ctx.say(&format!("The push refers to repository [{}]", reference.repository()))?;
            }
            let display = Display::new(target);
            let pushed = dhow_image::push(reference, &options, ctx.store()?, &display);
            display.finish();
            let pushed = pushed?;
            events::image(ctx, "push", &reference.familiar(), &reference.familiar_repository());
            if self.quiet {
                ctx.say(&reference.to_string())?;
            } else {
                let tag = reference.tag().unwrap_or("latest");
                ctx.say(&format!("{tag}: digest: {} size: {}", pushed.digest, pushed.size))?;
            }
        }
        Ok(0)
    }
}

fn all_tags(ctx: &Context, repository: &Reference) -> Result<Vec<Reference>> {
    let images = ctx.store()?.list()?;
    let names = images.into_iter().flat_map(|image| image.names).map(|name| name.reference);
    let mut list: Vec<Reference> =
        names.filter(|r| r.repository() == repository.repository() && r.tag().is_some()).collect();
    list.sort_by_key(ToString::to_string);
    if list.is_empty() {
        return Err(Error::Image(dhow_image::Error::NoSuchImage { name: repository.repository() }));
    }
    Ok(list)
}
