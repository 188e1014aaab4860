//! Images for containers: finding one here, pulling it where it is not, and unpacking it where its layers are missing.

use std::io::Write;

use dhow_image::{Cancel, Image, Platform, PullOptions, PullPolicy, PulledImage, Reference};

use crate::context::{Context, registry_options};
use crate::error::Result;
use crate::output::progress::{Display, Target};
use crate::parse::Invalid;
use crate::signals::Interrupt;
use crate::sink::SnapshotSink;
use crate::{events, leftovers};

/// How an image is brought here.
#[derive(Debug, Clone)]
pub(crate) struct Request<'a> {
    /// As the user called it.
    pub name: &'a str,
    /// When to ask the registry.
    pub policy: PullPolicy,
    /// `OS/ARCH[/VARIANT]`.
    pub platform: Option<&'a str>,
    /// Show nothing.
    pub quiet: bool,
    /// Check certificates.
    pub tls_verify: bool,
}

/// `always`, `missing` or `never`.
pub(crate) fn policy(text: &str) -> std::result::Result<PullPolicy, Invalid> {
    match text {
        "always" => Ok(PullPolicy::Always),
        "missing" => Ok(PullPolicy::Missing),
        "never" => Ok(PullPolicy::Never),
        _ => Err(Invalid::new("--pull", text, "it is none of always, missing, never")),
    }
}

/// `linux/amd64`, `linux/arm/v7`.
pub(crate) fn platform(text: &str) -> std::result::Result<Platform, Invalid> {
    text.parse().map_err(|error: dhow_image::PlatformError| Invalid::new("--platform", text, error.to_string()))
}

/// The image for a new container: the local one, or what the registry has, by the policy. Its layers are unpacked.
pub(crate) fn obtain(ctx: &Context, request: &Request<'_>) -> Result<Image> {
    let store = ctx.store()?;
    if request.policy != PullPolicy::Always {
        match store.resolve(request.name) {
            Ok(image) if fits(&image, request.platform)? => {
                ensure_unpacked(ctx, &image)?;
                return Ok(image);
            }
            Ok(_other_platform) => {}
            Err(error) if request.policy == PullPolicy::Never => return Err(error.into()),
            Err(dhow_image::Error::NoSuchImage { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let reference = Reference::parse(request.name).map_err(dhow_image::Error::from)?;
    if !request.quiet {
        ctx.note(&format!("Unable to find image '{}' locally", reference.familiar()));
    }
    let target = if request.quiet { Target::Nowhere } else { Target::Stderr };
    Ok(pull(ctx, &reference, request, target)?.image)
}

/// Pulls `reference`; ctrl-c stops it.
pub(crate) fn pull(ctx: &Context, reference: &Reference, request: &Request<'_>, target: Target) -> Result<PulledImage> {
    ctx.make_roots()?;
    let cancel = Cancel::new();
    let _interrupt = Interrupt::watch(&cancel)?;
    let options = PullOptions {
        platform: request.platform.map(platform).transpose()?,
        policy: PullPolicy::Always,
        registry: registry_options(request.tls_verify),
        cancel,
        ..PullOptions::default()
    };
    leftovers::sweep(ctx)?;
    let display = Display::new(target);
    let sink = SnapshotSink::new(ctx.snapshots());
    let pulled = dhow_image::pull(reference, &options, ctx.store()?, &sink, &display);
    display.finish();
    let pulled = pulled?;
    events::image(ctx, "pull", &reference.familiar(), &reference.familiar_repository());
    if target != Target::Nowhere {
        let status = if pulled.changed { "Downloaded newer image for" } else { "Image is up to date for" };
        let mut out = target.writer();
        let lines = format!("Digest: {}\nStatus: {status} {}\n", pulled.digest, reference.familiar());
        out.write_all(lines.as_bytes()).map_err(crate::error::Error::output)?;
    }
    Ok(pulled)
}

/// Unpacks what is missing of a local image: a killed pull, or a state root whose snapshots were lost.
pub(crate) fn ensure_unpacked(ctx: &Context, image: &Image) -> Result<()> {
    let sink = SnapshotSink::new(ctx.snapshots());
    let Some(top) = image.config.chain_ids().pop() else { return Ok(()) };
    // A committed layer has all its parents: asking for the top one is enough. The snapshotter's own directory is not
    // looked at, only its answer counts.
    let has = dhow_image::LayerSink::has(&sink, &top);
    if has.map_err(|source| dhow_image::Error::Sink { operation: "look up", chain: top, source })? {
        return Ok(());
    }
    leftovers::sweep(ctx)?;
    let cancel = Cancel::new();
    let _interrupt = Interrupt::watch(&cancel)?;
    dhow_image::unpack(image, ctx.store()?, &sink, 3, &cancel, &dhow_image::Silent)?;
    Ok(())
}

fn fits(image: &Image, wanted: Option<&str>) -> Result<bool> {
    Ok(match wanted {
        None => true,
        Some(text) => platform(text)?.distance(&image.config.platform()).is_some(),
    })
}
