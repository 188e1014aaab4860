//! `dhow cp`

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use clap::Args;
use dhow_sys::openat2::Root;
use nix::fcntl::OFlag;

use crate::app::Run;
use crate::archive;
use crate::container::Container;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::parse::mount::normalise;
use crate::rootfs::copy::{self, Keep};
use crate::rootfs::pack;
use crate::rootfs::view::{Node, View};
use crate::snapshot;

/// Copy files between a container and the host
///
/// One side is CONTAINER:PATH. A directory is copied with all that is in it; SOURCE/. means what is in it. The container
/// may run or not. - is a tar on standard input or output.
#[derive(Debug, Args)]
pub(crate) struct Command {
    /// Keep owners
    #[arg(short = 'a', long)]
    archive: bool,
    /// Copy what a link of the source leads to
    #[arg(short = 'L', long)]
    follow_link: bool,
    /// Accepted for scripts written for docker: there is no output anyway
    #[arg(short = 'q', long)]
    quiet: bool,
    /// What to copy: PATH or CONTAINER:PATH
    #[arg(value_name = "SOURCE")]
    source: String,
    /// Where to: PATH or CONTAINER:PATH
    #[arg(value_name = "TARGET")]
    target: String,
}

impl Run for Command {
    fn run(self, ctx: &Context) -> Result<u8> {
        match (split(&self.source), split(&self.target)) {
            (Some((name, path)), None) if self.target == "-" => {
                self.stream_out(ctx, &ctx.containers().find(name)?, path)?;
            }
            (None, Some((name, path))) if self.source == "-" => {
                stream_in(ctx, &ctx.containers().find(name)?, path)?;
            }
            (Some((name, path)), None) => self.copy_out(ctx, &ctx.containers().find(name)?, path)?,
            (None, Some((name, path))) => self.copy_in(ctx, &ctx.containers().find(name)?, path)?,
            (Some(_), Some(_)) => return Err(Error::Usage("copying between containers is not supported".into())),
            (None, None) => return Err(Error::Usage("one side must be CONTAINER:PATH".into())),
        }
        Ok(0)
    }
}

/// `CONTAINER:PATH`; a colon after a slash or a leading dot belongs to a path of the host.
fn split(text: &str) -> Option<(&str, &str)> {
    let (name, path) = text.split_once(':')?;
    (!name.is_empty() && !name.contains('/') && !name.starts_with('.')).then_some((name, path))
}

impl Command {
    fn copy_out(&self, ctx: &Context, container: &Container, path: &str) -> Result<()> {
        let fail = |source| Error::InContainer { action: "copy", path: path.to_owned(), source };
        let view = View::of(root(ctx, container)?);
        let entry = view.lookup(Path::new(path), self.follow_link || path.ends_with("/.")).map_err(fail)?;
        let target = Path::new(&self.target);
        let keep = if self.archive { Keep::All } else { Keep::Mode };
        let name = normalise(path);
        let name = Path::new(&name).file_name().unwrap_or(OsStr::new("."));
        if path.ends_with("/.") || name == "." {
            let Node::Directory(directory) = &entry.node else { return Err(fail(io::ErrorKind::NotADirectory.into())) };
            std::fs::create_dir_all(target).map_err(Error::file("create", target))?;
            let into = File::open(target).map_err(Error::file("open", target))?;
            return copy::contents(directory, into.as_fd(), keep).map_err(fail);
        }
        let (directory, name) = if target.is_dir() { (target, name) } else { parent_and_name(target, &entry.node)? };
        let into = File::open(directory).map_err(Error::file("open", directory))?;
        copy::entry(&entry, into.as_fd(), name, keep).map_err(fail)
    }

    /// Writes a tar of `path` to standard output.
    fn stream_out(&self, ctx: &Context, container: &Container, path: &str) -> Result<()> {
        let fail = |source| Error::InContainer { action: "read", path: path.to_owned(), source };
        let view = View::of(root(ctx, container)?);
        let entry = view.lookup(Path::new(path), self.follow_link || path.ends_with("/.")).map_err(fail)?;
        let name = normalise(path);
        let name = Path::new(&name).file_name().map_or(Path::new("."), Path::new);
        archive::write(None, |out| {
            let mut tar = tar::Builder::new(out);
            pack::entry(&entry, name, &mut tar).and_then(|()| tar.finish()).map_err(fail)
        })
    }

    fn copy_in(&self, ctx: &Context, container: &Container, path: &str) -> Result<()> {
        let source = std::path::absolute(&self.source).map_err(Error::file("resolve", &self.source))?;
        let view = View::open(&[PathBuf::from("/")]).map_err(Error::file("open", "/"))?;
        let follow = self.follow_link || self.source.ends_with("/.");
        let entry = view.lookup(&source, follow).map_err(Error::file("read", &self.source))?;
        let fail = |source| Error::InContainer { action: "copy to", path: path.to_owned(), source };
        let root = Root::new(root(ctx, container)?);
        let open = |path: &Path| root.open(path, OFlag::O_RDONLY | OFlag::O_DIRECTORY);
        // docker keeps owners on the way in.
        let keep = Keep::All;
        let wanted = PathBuf::from(normalise(path));
        let name = source.file_name().unwrap_or(OsStr::new("."));
        if self.source.ends_with("/.") {
            let Node::Directory(directory) = &entry.node else { return Err(fail(io::ErrorKind::NotADirectory.into())) };
            let into = open(&wanted).map_err(|errno| fail(errno.into()))?;
            return copy::contents(directory, into.as_fd(), keep).map_err(fail);
        }
        let (into, name) = match open(&wanted) {
            Ok(directory) => (directory, name),
            Err(_) if path.ends_with('/') => return Err(fail(io::ErrorKind::NotFound.into())),
            Err(_) => {
                let (parent, name) = parent_and_name(&wanted, &entry.node)?;
                (open(parent).map_err(|errno| fail(errno.into()))?, name)
            }
        };
        copy::entry(&entry, into.as_fd(), name, keep).map_err(fail)
    }
}

/// Unpacks a tar from standard input into the directory `path`. It is unpacked beside the container first, where no link of
/// the container's can lead it astray.
fn stream_in(ctx: &Context, container: &Container, path: &str) -> Result<()> {
    let fail = |source| Error::InContainer { action: "copy to", path: path.to_owned(), source };
    let reader = archive::read(None)?;
    let root = Root::new(root(ctx, container)?);
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    let into = root.open(Path::new(&normalise(path)), flags).map_err(|errno| fail(errno.into()))?;
    let scratch = Scratch::new(container)?;
    dhow_image::archive::unpack_files(reader, &scratch.0)?;
    let view = View::open(std::slice::from_ref(&scratch.0)).map_err(Error::file("open", &scratch.0))?;
    let Node::Directory(top) = view.lookup(Path::new("/"), true).map_err(fail)?.node else { return Ok(()) };
    copy::contents(&top, into.as_fd(), Keep::All).map_err(fail)
}

/// A directory of the container's that is removed on drop, and at the latest with the container.
struct Scratch(PathBuf);

impl Scratch {
    fn new(container: &Container) -> Result<Self> {
        let path = container.bundle.path().join(format!("cp-{}", crate::names::new_id()?));
        crate::files::make_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = crate::files::remove_dir_if_there(&self.0) {
            log::warn!("{}", dhow_api::error::chain(&error));
        }
    }
}

/// Splits a target that is no directory yet; only a directory may be copied to a name that ends in a slash.
fn parent_and_name<'p>(target: &'p Path, source: &Node) -> Result<(&'p Path, &'p OsStr)> {
    let slash = target.as_os_str().to_string_lossy().ends_with('/');
    if slash && !matches!(source, Node::Directory(_)) {
        return Err(Error::File { action: "open", path: target.to_owned(), source: io::ErrorKind::NotFound.into() });
    }
    let name = target.file_name().ok_or_else(|| Error::Usage("the target has no name".into()))?;
    let parent = target.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    Ok((parent, name))
}

/// The root directory as the container sees it: that of its first process, or a mount of its snapshot that nobody else
/// sees and that goes with the handle.
fn root(ctx: &Context, container: &Container) -> Result<OwnedFd> {
    let state = container.state();
    if state.is_up() {
        let path = PathBuf::from(format!("/proc/{}/root", state.pid));
        return File::open(&path).map(OwnedFd::from).map_err(Error::file("open", path));
    }
    let mounts: Vec<_> = snapshot::mounts(ctx, container.id())?
        .into_iter()
        .map(|mount| dhow_sys::rootfs::Mount {
            kind: mount.type_,
            source: mount.source,
            target: mount.target,
            options: mount.options,
        })
        .collect();
    let detached = dhow_sys::rootfs::detached(&mounts).map_err(|error| Error::InContainer {
        action: "mount",
        path: "/".into(),
        source: io::Error::other(error),
    })?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY;
    Root::new(detached).open(Path::new("/"), flags).map_err(|errno| Error::InContainer {
        action: "open",
        path: "/".into(),
        source: errno.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides() {
        assert_eq!(split("web:/etc"), Some(("web", "/etc")));
        for host in ["/a:b", "./a:b", "plain", ":x"] {
            assert_eq!(split(host), None, "{host}");
        }
    }
}
