//! Making a container: everything that `create` does, and `run` before it starts it.
//!
//! Order and undoing: the directory is made and locked first, so that what a killed command leaves can be told from a
//! container in the making; `container.json` comes last and makes it one. Until then [`Undo`] takes everything back.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use dhow_api::network;
use dhow_api::snapshots::Mount;
use dhow_api::{Error as ApiError, Kind};

use crate::container::record::{Attached, Interface, Port, Record};
use crate::container::{Claim, Container};
use crate::context::Context;
use crate::error::{Error, Result};
use crate::flags::{CreateFlags, ImageAndCommand};
use crate::plan::{Inputs, plan};
use crate::snapshot::Layers;
use crate::{events, files, images, names, remove, snapshot, volumes};

/// A container that was made and is not yet final.
#[derive(Debug)]
pub(crate) struct Made<'a> {
    /// The container; its record is not written yet.
    pub container: Container,
    /// The mounts of its snapshot.
    pub mounts: Vec<Mount>,
    /// Takes everything back unless told otherwise.
    pub undo: Undo<'a>,
    /// Held until it is a container.
    _claim: Claim,
}

impl Made<'_> {
    /// Writes the record: from now on it is a container.
    pub(crate) fn finish(self) -> Result<Container> {
        self.container.save()?;
        Ok(self.keep())
    }

    /// Leaves what was made as it is; its record was written.
    pub(crate) fn keep(self) -> Container {
        self.undo.keep();
        self.container
    }
}

/// Makes a container; with `attach` also its network, side by side with the snapshot.
pub(crate) fn make<'a>(
    ctx: &'a Context,
    flags: &CreateFlags,
    what: &ImageAndCommand,
    attach: bool,
) -> Result<Made<'a>> {
    if let Some(name) = &flags.name {
        names::check(name)?;
    }
    let cidfile = flags.cidfile.as_deref().map(Path::new);
    if let Some(path) = cidfile.filter(|path| path.exists()) {
        let why = "the file exists: make sure the other container is not running, or delete it";
        return Err(crate::parse::Invalid::new("--cidfile", path.to_string_lossy(), why).into());
    }
    let request = images::Request {
        name: &what.image,
        policy: images::policy(&flags.pull)?,
        platform: flags.platform.as_deref(),
        quiet: flags.quiet,
        tls_verify: flags.tls_verify,
    };
    let image = images::obtain(ctx, &request)?;
    let cwd =
        std::env::current_dir().map_err(|source| Error::System { action: "find the working directory", source })?;
    let id = names::new_id()?;
    let mut record = plan(
        flags,
        &Inputs {
            id: &id,
            image_name: &what.image,
            image: &image,
            chain: image.config.chain_ids().last().map(ToString::to_string),
            command: &what.command,
            cwd: &cwd.to_string_lossy(),
            now: dhow_api::Timestamp::now().to_string(),
            variable: &|name| std::env::var(name).ok(),
            container: &|name| Ok(ctx.containers().find(name)?.record),
        },
    )?;
    ctx.make_roots()?;
    let claim = ctx.containers().claim(&id)?;
    let mut undo = Undo::new(ctx, &id);
    record.name = claim_name(ctx, flags.name.as_deref(), &id)?;
    undo.name.clone_from(&record.name);
    files::make_dir(&claim.bundle.rootfs())?;
    let mounts = provide(ctx, &mut record, &claim, attach, &mut undo)?;
    undo.volumes = volumes::provide(ctx, &mut record, &Layers::of(&mounts).all())?;
    if let Some(path) = cidfile {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(path)
            .map_err(Error::file("create", path))?;
        undo.cidfile = Some(path.to_owned());
        file.write_all(id.as_bytes()).map_err(Error::file("write", path))?;
    }
    let container = Container::new(record, claim.bundle.clone(), &ctx.runroot);
    events::container(ctx, &container.record, "create", &[]);
    events::connected(ctx, &container.record);
    undo.told = Some(container.record.clone());
    Ok(Made { container, mounts, undo, _claim: claim })
}

/// Snapshot and network at once: neither needs the other's answer.
fn provide(ctx: &Context, record: &mut Record, claim: &Claim, attach: bool, undo: &mut Undo<'_>) -> Result<Vec<Mount>> {
    undo.snapshot = true;
    undo.network = attach;
    let chain = record.chain.clone();
    let (mounts, attached) = std::thread::scope(|scope| {
        let record = &*record;
        let network = attach.then(|| scope.spawn(move || self::attach(ctx, record, claim.bundle.path())));
        let mounts = snapshot::prepare(ctx, &record.id, chain.as_deref());
        let attached = network.map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        (mounts, attached)
    });
    let mounts = mounts?;
    if let Some(attached) = attached {
        record.attached = given(&attached?);
    }
    Ok(mounts)
}

/// Attaches a container to its networks. Where a port may be one of several, the next one is tried when one is taken.
pub(crate) fn attach(ctx: &Context, record: &Record, bundle: &Path) -> Result<network::AttachResponse> {
    let mut request = attach_request(record, bundle);
    loop {
        match ctx.network().attach(&request) {
            Err(error) if error.is(Kind::AlreadyExists) && next_port(&mut request.ports, record, &error) => {}
            other => return Ok(other?),
        }
    }
}

/// Goes on to the next of several ports where the error tells that one is taken; false when it was the last.
fn next_port(ports: &mut [network::Port], record: &Record, error: &ApiError) -> bool {
    let text = error.to_string();
    let taken = |port: &network::Port| text.contains(&format!(":{}/{} is already", port.host_port, port.protocol));
    let last = |index: usize| record.network.ports.get(index).map_or(0, |port| u32::from(port.host_last));
    let found = ports.iter_mut().enumerate().find(|(index, port)| taken(port) && port.host_port < last(*index));
    found.map(|(_, port)| port.host_port += 1).is_some()
}

/// What netplug is asked for.
pub(crate) fn attach_request(record: &Record, bundle: &Path) -> network::AttachRequest {
    let ports = record.network.ports.iter().map(|port| network::Port {
        protocol: port.protocol.clone(),
        host_ip: port.host_ip.clone(),
        host_port: port.host_port.into(),
        container_port: port.container_port.into(),
        ..Default::default()
    });
    network::AttachRequest {
        container_id: record.id.clone(),
        mode: record.network.mode.clone(),
        hostname: record.config.hostname.clone(),
        container_name: record.name.clone(),
        aliases: record.network.aliases.clone(),
        ports: ports.collect(),
        ip: record.network.ip.clone(),
        mac: record.network.mac.clone(),
        files_dir: bundle.to_string_lossy().into_owned(),
        dns: record.host.dns.clone(),
        dns_search: record.host.dns_search.clone(),
        dns_options: record.host.dns_options.clone(),
        extra_hosts: record.host.extra_hosts.clone().unwrap_or_default(),
        ..Default::default()
    }
}

/// What netplug gave, as it is recorded.
pub(crate) fn given(answer: &network::AttachResponse) -> Attached {
    // Ports beyond 16 bits cannot come from netplug; 0 is what "none" looks like.
    let short = |port: u32| u16::try_from(port).unwrap_or(0);
    Attached {
        netns: answer.netns.clone(),
        interfaces: answer
            .interfaces
            .iter()
            .map(|i| Interface {
                network: i.network.clone(),
                name: i.name.clone(),
                mac: i.mac.clone(),
                addresses: i.addresses.clone(),
                gateways: i.gateways.clone(),
            })
            .collect(),
        ports: answer
            .ports
            .iter()
            .map(|p| Port {
                protocol: p.protocol.clone(),
                host_ip: p.host_ip.clone(),
                host_port: short(p.host_port),
                container_port: short(p.container_port),
                host_last: 0,
            })
            .collect(),
    }
}

/// Claims the wanted name, or a generated one. A name that a killed command holds is freed first.
fn claim_name(ctx: &Context, wanted: Option<&str>, id: &str) -> Result<String> {
    if let Some(name) = wanted {
        match ctx.containers().names().claim(name, id) {
            Err(Error::NameTaken { .. }) => {
                remove::abandoned(ctx)?;
                ctx.containers().names().claim(name, id)?;
            }
            other => other?,
        }
        return Ok(name.to_owned());
    }
    let mut attempt = 0;
    loop {
        let name = names::new_name(attempt)?;
        match ctx.containers().names().claim(&name, id) {
            Ok(()) => return Ok(name),
            Err(Error::NameTaken { .. }) if attempt < MOST_ATTEMPTS => attempt += 1,
            Err(error) => return Err(error),
        }
    }
}

const MOST_ATTEMPTS: u32 = 100;

/// Takes back what was made, newest first, unless [`Undo::keep`] was called. What cannot be taken back is logged; the
/// error that led here is the one to tell.
#[derive(Debug)]
pub(crate) struct Undo<'a> {
    ctx: &'a Context,
    id: String,
    name: String,
    snapshot: bool,
    network: bool,
    volumes: Vec<String>,
    cidfile: Option<PathBuf>,
    /// The record whose creation was told.
    told: Option<Record>,
    armed: bool,
}

impl<'a> Undo<'a> {
    fn new(ctx: &'a Context, id: &str) -> Self {
        Self {
            ctx,
            id: id.to_owned(),
            name: String::new(),
            snapshot: false,
            network: false,
            volumes: Vec::new(),
            cidfile: None,
            told: None,
            armed: true,
        }
    }

    /// Everything stays.
    pub(crate) fn keep(mut self) {
        self.armed = false;
    }
}

impl Drop for Undo<'_> {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let mut steps = Vec::new();
        // A shim that was told to go is taking the same directories away.
        steps.push(remove::await_shim(self.ctx, &self.id));
        steps.push(remove::runtime_leftovers(self.ctx, &self.id));
        if self.network {
            steps.push(remove::detach(self.ctx, &self.id));
        }
        if self.snapshot {
            steps.push(snapshot::remove(self.ctx, &self.id));
        }
        volumes::discard(self.ctx, &self.volumes);
        if let Some(path) = &self.cidfile {
            steps.push(files::remove_if_there(path));
        }
        if !self.name.is_empty() {
            steps.push(self.ctx.containers().names().release(&self.name, &self.id));
        }
        let path = self.ctx.root.container(&self.id);
        // With --rm the shim has removed it and told so.
        if let Some(record) = self.told.as_ref().filter(|_| path.path().exists()) {
            events::container(self.ctx, record, "destroy", &[]);
        }
        steps.push(files::remove_dir_if_there(path.path()));
        for error in steps.into_iter().filter_map(Result::err) {
            log::warn!("undoing container {}: {}", names::short(&self.id), dhow_api::error::chain(&error));
        }
    }
}
