//! A container's root file system as a detached mount, made from mounts as containerd describes them.
//!
//! Nothing appears in the caller's mount namespace. Overlay takes its lower layers one by one (`lowerdir+`), so their
//! number and the length of their paths are limited only by overlay itself; kernels without that (before 6.5) get one
//! string when it fits, else a helper process mounts the classic way in a mount namespace of its own and sends the
//! result back.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::mount::MsFlags;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::clone::{Namespaces, Request, spawn};
use crate::mountfd::{Change, Context, MAX_STRING, Propagation, attr, clone_tree, move_mount, set_attr};
use crate::mountopt::Options;
use crate::openat2::Root;
use crate::{Errno, fd, pidfd};

/// One mount, as in containerd's `types.Mount`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Mount {
    /// File system type (`overlay`, `bind`, …).
    pub kind: String,
    /// Device or directory.
    pub source: String,
    /// Where inside the root it goes; empty: it is the root.
    pub target: String,
    /// Options as in fstab.
    pub options: Vec<String>,
}

/// Why a root file system could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No mount was given, or the first one is not the root.
    #[error("no mount describes the root")]
    NoRoot,
    /// The source of a bind mount could not be copied.
    #[error("bind {from}")]
    Bind {
        /// The directory or file.
        from: String,
        /// Why.
        source: Errno,
    },
    /// The file system refused an option.
    #[error("{kind}: option {option}{log}")]
    Option {
        /// File system type.
        kind: String,
        /// The option.
        option: String,
        /// What the file system said, with a leading separator.
        log: String,
        /// Why.
        source: Errno,
    },
    /// The file system could not be made.
    #[error("{kind}: {step}{log}")]
    Create {
        /// File system type.
        kind: String,
        /// `open`, `create`, `mount`, `attributes`, `helper`.
        step: &'static str,
        /// What the file system said, with a leading separator.
        log: String,
        /// Why.
        source: Errno,
    },
    /// A further mount could not be attached.
    #[error("attach to {target}")]
    Attach {
        /// Inside the root.
        target: String,
        /// Why.
        source: Errno,
    },
}

/// Makes the detached mount. `mounts` are applied in order; the first is the root.
///
/// The result is private: nothing propagates to or from it.
///
/// # Errors
/// See [`Error`]. Nothing is left behind.
pub fn detached(mounts: &[Mount]) -> Result<OwnedFd, Error> {
    let (first, more) = mounts.split_first().ok_or(Error::NoRoot)?;
    if !matches!(first.target.as_str(), "" | "/") {
        return Err(Error::NoRoot);
    }
    let root = make(first)?;
    if more.is_empty() {
        return Ok(root);
    }
    let inside = Root::new(root);
    for mount in more {
        let attach = |source| Error::Attach { target: mount.target.clone(), source };
        let made = make(mount)?;
        let target = inside.find(Path::new(&mount.target)).map_err(attach)?;
        move_mount(made.as_fd(), target.as_fd()).map_err(attach)?;
    }
    inside.dir().try_clone_to_owned().map_err(|e| Error::Create {
        kind: first.kind.clone(),
        step: "open",
        log: String::new(),
        source: Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)),
    })
}

fn make(mount: &Mount) -> Result<OwnedFd, Error> {
    let options = Options::parse(&mount.options);
    if mount.kind == "bind" || options.bind.is_some() {
        return bind(mount, &options);
    }
    match Overlay::parse(mount, &options) {
        Some(overlay) => overlay.make(mount, &options),
        None => {
            let context = open(&mount.kind)?;
            if !mount.source.is_empty() {
                set(&mount.kind, &context, "source", &mount.source)?;
            }
            if options.attributes.set & attr::RDONLY != 0 && mount.kind != "tmpfs" {
                context.set_flag(c"ro").map_err(|source| refused(&mount.kind, &context, "ro".into(), source))?;
            }
            configure(&mount.kind, &context, &options)?;
            finish(&mount.kind, &context, &options)
        }
    }
}

fn bind(mount: &Mount, options: &Options) -> Result<OwnedFd, Error> {
    let error = |source| Error::Bind { from: mount.source.clone(), source };
    let source = CString::new(mount.source.as_str()).map_err(|_nul| error(Errno::EINVAL))?;
    let copy = clone_tree(cwd(), &source, options.bind.unwrap_or(false)).map_err(error)?;
    let private = Change { propagation: Some(Propagation::Private), recursive: true, ..Change::default() };
    set_attr(copy.as_fd(), &private).map_err(error)?;
    options.change_attributes(&copy).map_err(error)?;
    options.change_propagation(&copy).map_err(error)?;
    Ok(copy)
}

fn cwd() -> BorrowedFd<'static> {
    nix::fcntl::AT_FDCWD
}

/// Overlay's options, with the lower layers apart.
struct Overlay {
    /// The top one first.
    lower: Vec<String>,
    rest: Options,
}

impl Overlay {
    fn parse(mount: &Mount, options: &Options) -> Option<Self> {
        if mount.kind != "overlay" {
            return None;
        }
        let mut rest = options.clone();
        let at = rest.data.iter().position(|(key, value)| key == "lowerdir" && value.is_some())?;
        let (_, joined) = rest.data.remove(at);
        Some(Self { lower: split_layers(&joined.unwrap_or_default()), rest })
    }

    fn make(&self, mount: &Mount, options: &Options) -> Result<OwnedFd, Error> {
        let context = open("overlay")?;
        match self.layers(&context) {
            Ok(()) => {}
            Err((0, Errno::EINVAL)) => return self.make_old(mount, options),
            Err((layer, source)) => {
                let option = format!("lowerdir+={}", self.lower[layer]);
                return Err(refused("overlay", &context, option, source));
            }
        }
        configure("overlay", &context, &self.rest)?;
        finish("overlay", &context, options)
    }

    /// Adds the layers; on failure which one.
    fn layers(&self, context: &Context) -> Result<(), (usize, Errno)> {
        for (i, layer) in self.lower.iter().enumerate() {
            let path = CString::new(layer.as_str()).or(Err((i, Errno::EINVAL)))?;
            if layer.len() <= MAX_STRING {
                context.set_string(c"lowerdir+", &path).map_err(|e| (i, e))?;
            } else {
                let flags = nix::fcntl::OFlag::O_PATH | nix::fcntl::OFlag::O_CLOEXEC;
                let dir =
                    nix::fcntl::open(path.as_c_str(), flags, nix::sys::stat::Mode::empty()).map_err(|e| (i, e))?;
                context.set_fd(c"lowerdir+", dir.as_fd()).map_err(|e| (i, e))?;
            }
        }
        Ok(())
    }

    fn make_old(&self, mount: &Mount, options: &Options) -> Result<OwnedFd, Error> {
        let joined = self.lower.iter().map(|l| escape(l)).collect::<Vec<_>>().join(":");
        if joined.len() > MAX_STRING {
            return helper(mount, options);
        }
        let context = open("overlay")?;
        set("overlay", &context, "lowerdir", &joined)?;
        configure("overlay", &context, &self.rest)?;
        finish("overlay", &context, options)
    }
}

/// Splits at colons that no backslash protects, and takes the backslashes away.
fn split_layers(joined: &str) -> Vec<String> {
    let mut layers = vec![String::new()];
    let mut chars = joined.chars();
    while let Some(c) = chars.next() {
        match c {
            ':' => layers.push(String::new()),
            '\\' => layers.last_mut().into_iter().for_each(|l| l.extend(chars.next())),
            c => layers.last_mut().into_iter().for_each(|l| l.push(c)),
        }
    }
    layers
}

fn escape(layer: &str) -> String {
    layer.replace('\\', "\\\\").replace(':', "\\:")
}

/// Mounts with mount(2), whose options may fill a page, where nobody sees it: in a child with its own mount namespace.
fn helper(mount: &Mount, options: &Options) -> Result<OwnedFd, Error> {
    let error = |source| Error::Create { kind: mount.kind.clone(), step: "helper", log: String::new(), source };
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).map_err(error)?;
    let data: Vec<String> =
        options.data.iter().map(|(k, v)| v.as_ref().map_or(k.clone(), |v| format!("{k}={v}"))).collect();
    let data = data.join(",");
    let request = Request { namespaces: Namespaces::MOUNT, ..Request::default() };
    let child = spawn(&request, |_| {
        let none: Option<&str> = None;
        let made = nix::mount::mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
            .and_then(|()| {
                nix::mount::mount(
                    Some("overlay"),
                    "/proc",
                    Some(mount.kind.as_str()),
                    MsFlags::empty(),
                    Some(data.as_str()),
                )
            })
            .and_then(|()| clone_tree(cwd(), c"/proc", false));
        let sent = match made {
            Ok(made) => fd::send(theirs.as_fd(), &[0], &[made.as_fd()]),
            Err(e) => fd::send(theirs.as_fd(), &(e as i32).to_ne_bytes(), &[]),
        };
        u8::from(sent.is_err())
    })
    .map_err(error)?;
    let mut buffer = [0; 4];
    let received = fd::receive(ours.as_fd(), &mut buffer);
    pidfd::reap(child.pidfd.as_fd(), true).map_err(error)?;
    let (_, mut fds) = received.map_err(error)?;
    let made = fds.pop().ok_or_else(|| error(Errno::from_raw(i32::from_ne_bytes(buffer))))?;
    options.change_attributes(&made).map_err(error)?;
    Ok(made)
}

fn open(kind: &str) -> Result<Context, Error> {
    let error = |source| Error::Create { kind: kind.to_owned(), step: "open", log: String::new(), source };
    let name = CString::new(kind).map_err(|_nul| error(Errno::EINVAL))?;
    Context::open(&name).map_err(error)
}

fn set(kind: &str, context: &Context, key: &str, value: &str) -> Result<(), Error> {
    let option = || format!("{key}={value}");
    let c = |s: &str| CString::new(s).map_err(|_nul| refused(kind, context, option(), Errno::EINVAL));
    context.set_string(&c(key)?, &c(value)?).map_err(|e| refused(kind, context, option(), e))
}

fn configure(kind: &str, context: &Context, options: &Options) -> Result<(), Error> {
    options.configure(context).map_err(|(option, source)| refused(kind, context, option, source))
}

fn refused(kind: &str, context: &Context, option: String, source: Errno) -> Error {
    Error::Option { kind: kind.to_owned(), option, log: log_of(context), source }
}

fn log_of(context: &Context) -> String {
    let log = context.log();
    if log.is_empty() { log } else { format!(": {log}") }
}

fn finish(kind: &str, context: &Context, options: &Options) -> Result<OwnedFd, Error> {
    let error = |step, source| Error::Create { kind: kind.to_owned(), step, log: log_of(context), source };
    context.create().map_err(|e| error("create", e))?;
    let mount = context.mount(options.new_mount()).map_err(|e| error("mount", e))?;
    options.change_recursive(&mount).map_err(|e| error("attributes", e))?;
    options.change_propagation(&mount).map_err(|e| error("attributes", e))?;
    Ok(mount)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_are_split_and_unescaped() {
        assert_eq!(split_layers("/a:/b"), ["/a", "/b"]);
        assert_eq!(split_layers(r"/a\:b:/c\\d"), ["/a:b", r"/c\d"]);
        assert_eq!(escape(r"/a:b\c"), r"/a\:b\\c");
    }

    #[test]
    fn overlay_with_many_long_layers_is_detached() {
        assert!(nix::unistd::geteuid().is_root(), "needs root");
        let dir = tempfile::tempdir().unwrap();
        // Upper and work directory need a file system that overlay accepts: a tmpfs of the test's own.
        let tmpfs = detached(&[Mount { kind: "tmpfs".into(), source: "t".into(), ..Mount::default() }]).unwrap();
        let base = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&tmpfs));
        let long = "l".repeat(120);
        let mut lower = Vec::new();
        for i in 0..40 {
            let layer = format!("{base}/{long}/{i}");
            std::fs::create_dir_all(&layer).unwrap();
            std::fs::write(format!("{layer}/file{i}"), "x").unwrap();
            lower.push(layer);
        }
        for name in ["upper", "work"] {
            std::fs::create_dir(format!("{base}/{name}")).unwrap();
        }
        let options = vec![
            format!("lowerdir={}", lower.join(":")),
            format!("upperdir={base}/upper"),
            format!("workdir={base}/work"),
            "index=off".into(),
            "volatile".into(),
        ];
        let overlay = Mount { kind: "overlay".into(), source: "overlay".into(), options, ..Mount::default() };
        let mounted = detached(std::slice::from_ref(&overlay)).unwrap();
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&mounted));
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 40);
        std::fs::write(format!("{path}/new"), "y").unwrap();
        assert!(Path::new(&format!("{base}/upper/new")).exists());

        let mut wrong = overlay;
        wrong.options[0] = format!("lowerdir={}", dir.path().join("missing").display());
        let error = detached(&[wrong]).unwrap_err().to_string();
        assert!(error.contains("lowerdir+"), "{error}");
    }
}
