//! Making a container: cgroup, state, one clone, and the parent's half of the handshake.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use dhow_sys::clone::{Child, Namespaces};
use dhow_sys::mountfd::{Change, Propagation, clone_tree, set_attr};
use dhow_sys::openat2::c_path;
use dhow_sys::{fd, pidfd, process, seqpacket};
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::sys::stat::Mode;
use nix::unistd::{geteuid, linkat};
use serde_json::value::RawValue;

use crate::birth::{self, Birth, Entered};
use crate::cgroup::{Cgroup, CgroupPlan, is_unified};
use crate::child::init::{self, Init};
use crate::child::{Agent, Common, bind_source};
use crate::config::Spec;
use crate::handshake::{Channel, Message};
use crate::hooks::{self, StateDocument};
use crate::intel_rdt::{self, Group};
use crate::net_devices::{self, Found};
use crate::notify;
use crate::plan::{Mount, MountKind, Plan};
use crate::request::{Held, RootfsSource, Stdio};
use crate::seccomp::{self, Filter};
use crate::state::{self, Lock, START, State};
use crate::{CreateRequest, Created, Error, Result, Runtime, checkpoint, idmap, lsm};

/// See [`Runtime::create`].
pub(crate) fn create(runtime: &Runtime, request: CreateRequest) -> Result<Created> {
    let document = Document::read(runtime, &request)?;
    let plan = &document.plan;
    lsm::check(&plan.process, plan.mount_label.as_deref())?;
    let net_devices = net_devices::find(&plan.net_devices)?;
    let filter = plan.seccomp.as_ref().map(seccomp::compile).transpose()?;
    let cgroup_plan = CgroupPlan::new(&runtime.cgroup_request(plan, &request.id, &document.annotations))?;
    let unfinished = Unfinished::begin(runtime, &request, &document)?;
    let given = Given { plan, filter: filter.as_ref(), document: &document.state, net_devices };
    unfinished.complete(&document, |unfinished| unfinished.make(request, &given, cgroup_plan))
}

/// What a bundle says.
pub(crate) struct Document {
    pub(crate) plan: Plan,
    /// For hooks.
    pub(crate) state: StateDocument,
    pub(crate) annotations: BTreeMap<String, String>,
    bundle: PathBuf,
    config: Box<RawValue>,
}

impl Document {
    /// Reads it, and judges it. Nothing is made.
    pub(crate) fn read(runtime: &Runtime, request: &CreateRequest) -> Result<Self> {
        state::valid_id(&request.id)?;
        let bundle = std::path::absolute(&request.bundle).map_err(Error::file("find", &request.bundle))?;
        let file = bundle.join(request.config.as_deref().unwrap_or(Path::new("config.json")));
        let text = std::fs::read_to_string(&file).map_err(Error::file("read", &file))?;
        let mut spec = Spec::from_json(text.as_bytes())?;
        if request.notify {
            notify::add(&mut spec, &runtime.root().join(&request.id));
        }
        let plan = Plan::new(&spec, &bundle)?;
        if plan.process.terminal != request.stdio.is_terminal() {
            return Err(Error::config("process.terminal", "does not fit the stdio that was asked for"));
        }
        let config = RawValue::from_string(text).map_err(|e| Error::config("config.json", e.to_string()))?;
        let state = StateDocument::new(&request.id, &bundle, &spec.annotations);
        Ok(Self { plan, state, annotations: spec.annotations, bundle, config })
    }
}

/// What a container is made from, beside the request.
struct Given<'a> {
    plan: &'a Plan,
    filter: Option<&'a Filter>,
    document: &'a StateDocument,
    net_devices: Vec<Found<'a>>,
}

/// A container that is being made. Dropped before it is complete, everything of it is undone.
pub(crate) struct Unfinished {
    state: State,
    /// ROOT/<id>
    dir: PathBuf,
    lock: Lock,
    pub(crate) child: Option<Child>,
    pub(crate) cgroup: Option<Cgroup>,
    intel_rdt: Option<Group>,
    done: bool,
}

impl Unfinished {
    /// Takes the name, and writes down what is needed to clean up after a death of this process.
    pub(crate) fn begin(runtime: &Runtime, request: &CreateRequest, document: &Document) -> Result<Self> {
        let Document { plan, bundle, config, .. } = document;
        let group = |rdt| intel_rdt::root().map(|root| Group::new(&root, rdt, &request.id));
        let unit = runtime.cgroup_request(plan, &request.id, &document.annotations).unit()?;
        let intel_rdt = plan.intel_rdt.as_ref().map(group).transpose()?;
        let root = runtime.root();
        let dir = root.join(&request.id);
        let mut builder = std::fs::DirBuilder::new();
        let made = match builder.mode(0o700).create(&dir) {
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                builder.recursive(true).create(root).map_err(Error::file("make", root))?;
                builder.recursive(false).create(&dir)
            }
            other => other,
        };
        match made {
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {
                return Err(Error::Exists { id: request.id.clone() });
            }
            other => other.map_err(Error::file("make", &dir))?,
        }
        let lock = Lock::take(root, &request.id)?;
        let state = State {
            id: request.id.clone(),
            init_process_pid: 0,
            init_process_start: 0,
            created: jiff::Timestamp::now().to_string(),
            bundle: bundle.clone(),
            rootfs: plan.rootfs.path.clone(),
            cgroup_paths: BTreeMap::new(),
            unit,
            namespace_paths: BTreeMap::new(),
            external_descriptors: checkpoint::descriptors(&request.stdio),
            restored: false,
            owner: geteuid().as_raw(),
            resources: None,
            keyring: (!request.no_new_keyring).then(|| format!("_ses.{}", request.id)),
            config: config.clone(),
        };
        let unfinished = Self { state, dir, lock, child: None, cgroup: None, intel_rdt, done: false };
        unfinished.state.store(&unfinished.dir)?;
        if request.notify {
            notify::make(&unfinished.dir)?;
        }
        Ok(unfinished)
    }

    /// Does the rest. The container stays when that succeeds.
    pub(crate) fn complete(
        mut self,
        document: &Document,
        rest: impl FnOnce(&mut Self) -> Result<Created>,
    ) -> Result<Created> {
        let made = rest(&mut self);
        match made {
            Ok(created) => {
                self.done = true;
                Ok(created)
            }
            Err(e) => {
                // What the container's hooks have set up outside of it has to be undone by them, too.
                let poststop = &document.plan.hooks.poststop;
                drop(hooks::run("poststop", poststop, &document.state.render("stopped", 0)));
                Err(e)
            }
        }
    }

    /// Makes a directory in the container's; its path without symlinks.
    pub(crate) fn make_directory(&self, name: &str) -> Result<PathBuf> {
        let path = self.dir.join(name);
        std::fs::create_dir(&path).map_err(Error::file("make", &path))?;
        path.canonicalize().map_err(Error::file("find", &path))
    }

    /// Puts a process, whose children are the container's, where `linux.intelRdt` wants them.
    pub(crate) fn enter_resctrl(&self, plan: &Plan, pid: i32) -> Result<()> {
        match (&self.intel_rdt, &plan.intel_rdt) {
            (Some(group), Some(rdt)) => group.create(rdt).and_then(|()| group.attach(pid)),
            _ => Ok(()),
        }
    }

    fn make(&mut self, mut request: CreateRequest, given: &Given<'_>, mut cgroup_plan: CgroupPlan) -> Result<Created> {
        let Given { plan, document, .. } = *given;
        let unified = is_unified();
        let born_in_cgroup = unified && !cgroup_plan.needs_process();
        if born_in_cgroup {
            let cgroup = self.cgroup.insert(cgroup_plan.create_unfiltered(plan.resources.as_ref(), None)?);
            plan.cgroup_owner.map_or(Ok(()), |uid| cgroup.give_to(uid))?;
        }
        let (ours, theirs) = Channel::pair().map_err(Error::sys("make a socket pair"))?;
        let pid_file = request.pid_file.take();
        let held = request.held;
        self.spawn(request, given, unified, (&ours, theirs))?;
        let pid = self.child.as_ref().map_or(0, |c| c.pid);
        if let Some(cgroup) = &mut self.cgroup {
            // The kernel takes its time to verify the filter: the child mounts meanwhile.
            cgroup.filter_devices(plan.resources.as_ref())?;
        }
        let mut handshake = Handshake { channel: &ours, plan, document, pid, console: None };
        handshake.map_ids()?;
        net_devices::move_into(&given.net_devices, &network(plan, pid))?;
        self.enter_resctrl(plan, pid)?;
        if !born_in_cgroup {
            // Writing a v1 hierarchy costs milliseconds, and so does systemd: the child mounts meanwhile.
            let cgroup = self.cgroup.insert(cgroup_plan.create(plan.resources.as_ref(), Some(pid))?);
            let given = plan.cgroup_owner.map_or(Ok(()), |uid| cgroup.give_to(uid));
            let attached = given.and_then(|()| cgroup.attach(pid));
            attached.map_err(|e| self.reason(&handshake).unwrap_or(e.into()))?;
        }
        handshake.oom_score()?;
        ours.send(&Message::Attached { pid }).map_err(Error::sys("tell the container's process its pid"))?;
        handshake.finish()?;
        let console = handshake.console;
        self.record(pid, plan)?;
        // Last, for a container that could not be made leaves no file.
        pid_file.map_or(Ok(()), |file| write_pid(&file, pid))?;
        if !held {
            ours.send(&Message::Recorded).map_err(Error::sys("let go of the container's process"))?;
        }
        let child = self.child.as_ref().ok_or(Error::ChildGone { step: "clone" })?;
        let pidfd = child.pidfd.try_clone().map_err(Error::file("duplicate", Path::new("a pidfd")))?;
        let held = held.then(|| Held { channel: ours, state: self.state.clone() });
        let filter_flags = given.filter.map(|filter| filter.flags().bits());
        Ok(Created { pid, pidfd, console, warnings: plan.warnings.clone(), filter_flags, held })
    }

    /// Clones the container's process. The request's descriptors are closed here afterwards.
    fn spawn(
        &mut self,
        request: CreateRequest,
        given: &Given<'_>,
        unified: bool,
        (ours, theirs): (&Channel, Channel),
    ) -> Result<()> {
        let Given { plan, filter, document, .. } = *given;
        let listener = if request.held {
            None
        } else {
            let listener = seqpacket::listen(self.lock.dir(), OsStr::new(START));
            Some(listener.map_err(Error::sys("listen on start.sock"))?)
        };
        let preserve_fds = request.preserve_fds + request.listen_fds;
        inherited(preserve_fds)?;
        let mut join = Vec::new();
        for joined in &plan.namespaces.join {
            let open = nix::fcntl::open(&joined.path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
            let error = |e: dhow_sys::Errno| {
                Error::config(&joined.field, format!("{}: {}", joined.path.display(), crate::error::errno_text(e)))
            };
            join.push((joined.kind, joined.field.as_str(), open.map_err(error)?));
        }
        let (root_mount, sources) = prepared(&request.rootfs, plan)?;
        let root_mount = match request.rootfs {
            RootfsSource::DetachedMount(fd) => Some(fd),
            RootfsSource::Config => root_mount,
        };
        let birth = Birth {
            namespaces: plan.namespaces.new.without(Namespaces::TIME | Namespaces::CGROUP),
            user: birth::take(&mut join, Namespaces::USER),
            pid: birth::take(&mut join, Namespaces::PID),
            cgroup: self.cgroup.as_ref().and_then(Cgroup::clone_target),
        };
        let user_namespace = plan.namespaces.has(Namespaces::USER);
        let mut job = Init {
            common: Common {
                process: &plan.process,
                channel: theirs,
                stdio: above_stdio(request.stdio)?,
                filter,
                agent: filter.map(|f| agent(f, document, None)).transpose()?.flatten(),
                keyring: self.state.keyring.as_deref().map(CString::new).transpose().ok().flatten(),
                user_namespace,
                preserve_fds,
                listen_fds: request.listen_fds,
                pid: None,
            },
            plan,
            listener,
            join,
            root_mount,
            sources,
            readonly_later: Vec::new(),
            no_pivot: request.no_pivot,
            unified,
            state: document,
            root: None,
            cgroup_namespace_done: false,
        };
        let mut none = Vec::new();
        let entered = Entered::enter(if user_namespace { &mut job.join } else { &mut none })?;
        let born = birth.spawn(ours, job, init::main);
        let back = entered.leave();
        self.child = Some(born?);
        back
    }

    /// Why the process is gone, if it has told: that explains better what could not be done to it.
    fn reason(&self, handshake: &Handshake<'_>) -> Option<Error> {
        let child = self.child.as_ref()?;
        pidfd::send_signal(child.pidfd.as_fd(), libc::SIGKILL).ok();
        loop {
            match handshake.channel.receive() {
                Ok(Some((Message::Failed(f), _))) => return Some(Error::Child { text: f.text, kind: f.kind }),
                Ok(Some(_)) => {}
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// Writes the second and last state of a container that was brought back.
    pub(crate) fn record_restored(&mut self, pid: i32, plan: &Plan) -> Result<()> {
        self.state.restored = true;
        self.record(pid, plan)
    }

    /// Writes the second and last state.
    fn record(&mut self, pid: i32, plan: &Plan) -> Result<()> {
        let stat = process::stat(pid).ok_or(Error::ChildGone { step: "the last step" })?;
        self.state.init_process_pid = pid;
        self.state.init_process_start = stat.start_time;
        self.state.cgroup_paths = self.cgroup.as_ref().map(|c| c.paths().clone()).unwrap_or_default();
        self.state.namespace_paths = plan.namespaces.paths(pid);
        self.state.store(&self.dir)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if self.done {
            return;
        }
        if let Some(child) = &self.child {
            // It may be dead, and somebody else may have reaped it.
            pidfd::send_signal(child.pidfd.as_fd(), libc::SIGKILL).ok();
            pidfd::reap(child.pidfd.as_fd(), true).ok();
        }
        if let Some(cgroup) = &self.cgroup {
            drop(cgroup.remove());
        }
        if let Some(group) = &self.intel_rdt {
            drop(group.remove());
        }
        drop(std::fs::remove_dir_all(&self.dir));
    }
}

/// The parent's half of the conversation.
struct Handshake<'a> {
    channel: &'a Channel,
    plan: &'a Plan,
    document: &'a StateDocument,
    pid: i32,
    console: Option<OwnedFd>,
}

impl Handshake<'_> {
    /// What has to be written from outside into a new user or time namespace.
    fn map_ids(&mut self) -> Result<()> {
        let namespaces = &self.plan.namespaces;
        let user = namespaces.new.contains(Namespaces::USER);
        if !user && !namespaces.new.contains(Namespaces::TIME) {
            return Ok(());
        }
        self.wait(&Message::Unshared, "joining namespaces")?;
        if user {
            idmap::write(self.pid, &namespaces.uid_mappings, &namespaces.gid_mappings)?;
        }
        if !namespaces.clocks.is_empty() {
            let lines = namespaces.clocks.iter().map(|c| format!("{} {} {}\n", c.name, c.seconds, c.nanoseconds));
            let path = format!("/proc/{}/timens_offsets", self.pid);
            std::fs::write(&path, lines.collect::<String>()).map_err(Error::file("write", Path::new(&path)))?;
        }
        // Before the process hides from this one, should it not be root.
        if user {
            self.oom_score()?;
        }
        self.channel.send(&Message::Mapped).map_err(Error::sys("tell the container's process of its ids"))
    }

    fn map_mount(&self, index: u32, made: &OwnedFd) -> Result<()> {
        let mount = usize::try_from(index).ok().and_then(|index| self.plan.mounts.get(index));
        mount.map_or(Ok(()), |mount| map_ids_of(mount, self.plan, made))?;
        self.channel.send(&Message::MountMapped).map_err(Error::sys("tell the container's process of its mount"))
    }

    fn oom_score(&self) -> Result<()> {
        match self.plan.process.oom_score_adj {
            None => Ok(()),
            Some(score) => set_oom_score(self.pid, score),
        }
    }

    /// Everything up to the process's being ready.
    fn finish(&mut self) -> Result<()> {
        loop {
            match self.receive("setting up the container")? {
                Message::RootReady => {
                    let state = self.document.render("creating", self.pid);
                    hooks::run("prestart", &self.plan.hooks.prestart, &state)?;
                    hooks::run("createRuntime", &self.plan.hooks.create_runtime, &state)?;
                    self.channel.send(&Message::HooksDone).map_err(Error::sys("tell of the hooks"))?;
                }
                Message::Ready => return Ok(()),
                other => return Err(unexpected(&other)),
            }
        }
    }

    fn wait(&mut self, wanted: &Message, step: &'static str) -> Result<()> {
        match self.receive(step)? {
            message if message == *wanted => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// The next message that is neither the terminal nor a failure.
    fn receive(&mut self, step: &'static str) -> Result<Message> {
        loop {
            match self.channel.receive().map_err(Error::sys("hear from the container's process"))? {
                None => return Err(Error::ChildGone { step }),
                Some((Message::Failed(f), _)) => return Err(Error::Child { text: f.text, kind: f.kind }),
                Some((Message::Console, fd)) => self.console = fd,
                Some((Message::MapMount { index }, Some(made))) => self.map_mount(index, &made)?,
                Some((message, _)) => return Ok(message),
            }
        }
    }
}

/// The container's network namespace.
fn network(plan: &Plan, pid: i32) -> PathBuf {
    match plan.namespaces.joined(Namespaces::NETWORK) {
        Some(joined) => joined.path.clone(),
        None => format!("/proc/{pid}/ns/net").into(),
    }
}

/// The other side broke the protocol.
pub(crate) fn unexpected(message: &Message) -> Error {
    let text = format!("unexpected message {message:?}");
    Error::Child { text, kind: crate::Kind::Internal }
}

/// Adjusts the score of another process.
pub(crate) fn set_oom_score(pid: i32, score: i32) -> Result<()> {
    let path = format!("/proc/{pid}/oom_score_adj");
    match std::fs::write(&path, score.to_string()) {
        // Without privileges it can only be raised: what an unprivileged engine inherits has to do.
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied && !geteuid().is_root() => Ok(()),
        other => other.map_err(Error::file("write", Path::new(&path))),
    }
}

/// Descriptors to be passed on must be there: a number that is not open would be taken by one of ours.
pub(crate) fn inherited(count: u32) -> Result<()> {
    let last = i32::try_from(count).unwrap_or(i32::MAX).saturating_add(3);
    match (3..last).find(|number| !fd::is_open(*number)) {
        Some(number) => Err(Error::config("--preserve-fds", format!("descriptor {number} is not open"))),
        None => Ok(()),
    }
}

/// Descriptors for stdio with numbers from 3 on, so that placing one never covers another.
pub(crate) fn above_stdio(stdio: Stdio) -> Result<Stdio> {
    let lift = |fd: OwnedFd| {
        if fd.as_raw_fd() > 2 { Ok(fd) } else { fd.try_clone().map_err(Error::file("duplicate", Path::new("stdio"))) }
    };
    Ok(match stdio {
        // try_clone gives a number from 3 on.
        Stdio::Fds { stdin, stdout, stderr } => {
            Stdio::Fds { stdin: lift(stdin)?, stdout: lift(stdout)?, stderr: lift(stderr)? }
        }
        other => other,
    })
}

/// A connection to the seccomp agent, if the profile notifies one. `running` is the first process of a container that runs.
pub(crate) fn agent<'a>(
    filter: &Filter,
    document: &'a StateDocument,
    running: Option<i32>,
) -> Result<Option<Agent<'a>>> {
    let Some(listener) = filter.listener() else { return Ok(None) };
    let socket = std::os::unix::net::UnixStream::connect(&listener.path)
        .map_err(Error::file("linux.seccomp.listenerPath: failed to connect with seccomp agent", &listener.path))?;
    let metadata = listener.metadata.clone();
    Ok(Some(Agent { socket: socket.into(), document, running, metadata }))
}

/// What only this process can open for a child in a user namespace of its own: it may not be able to reach the paths,
/// and mapping a mount's ids is a privilege over the file system.
fn prepared(rootfs: &RootfsSource, plan: &Plan) -> Result<(Option<OwnedFd>, Vec<Option<OwnedFd>>)> {
    let foreign = plan.namespaces.has(Namespaces::USER) && geteuid().is_root();
    let root = match rootfs {
        RootfsSource::Config if foreign => Some(cut_off(&plan.rootfs.path, true, plan)?),
        _ => None,
    };
    if !foreign && plan.mounts.iter().all(|m| m.idmap.is_none()) {
        return Ok((root, Vec::new()));
    }
    let one = |mount: &Mount| {
        if mount.kind != MountKind::Bind || mount.within.is_some() || !(foreign || mount.idmap.is_some()) {
            return Ok(None);
        }
        let error = |e: dhow_sys::Errno| {
            Error::config(
                format!("{}.source", mount.field),
                format!("{}: {}", mount.source, crate::error::errno_text(e)),
            )
        };
        let made = bind_source(mount).map_err(error)?;
        let change = Change { propagation: Some(below(plan)), recursive: true, ..Change::default() };
        set_attr(made.as_fd(), &change).map_err(error)?;
        map_ids_of(mount, plan, &made)?;
        Ok(Some(made))
    };
    let sources = plan.mounts.iter().map(one).collect::<Result<_>>()?;
    Ok((root, sources))
}

/// Makes a detached mount an id-mapped one, if it is to be.
fn map_ids_of(mount: &Mount, plan: &Plan, made: &OwnedFd) -> Result<()> {
    let Some(map) = &mount.idmap else { return Ok(()) };
    let (uid, gid) = if map.uid.is_empty() {
        (&plan.namespaces.uid_mappings, &plan.namespaces.gid_mappings)
    } else {
        (&map.uid, &map.gid)
    };
    let namespace = idmap::namespace(uid, gid)?;
    let change = Change { idmap: Some(namespace.as_fd()), recursive: map.recursive, ..Change::default() };
    let field = format!("{}.uidMappings", mount.field);
    set_attr(made.as_fd(), &change).map_err(|e| Error::config(field, crate::error::errno_text(e)))
}

/// A mount copied here is in the host's peer group; what the container's namespace would do to it as a whole has to be
/// done at once.
fn below(plan: &Plan) -> Propagation {
    plan.rootfs.propagation.0
}

fn cut_off(path: &Path, recursive: bool, plan: &Plan) -> Result<OwnedFd> {
    let error =
        |e: dhow_sys::Errno| Error::config("root.path", format!("{}: {}", path.display(), crate::error::errno_text(e)));
    let mount = c_path(path).and_then(|name| clone_tree(AT_FDCWD, &name, recursive)).map_err(error)?;
    let change = Change { propagation: Some(below(plan)), recursive: true, ..Change::default() };
    set_attr(mount.as_fd(), &change).map_err(error)?;
    Ok(mount)
}

/// Writes a pid file: whoever waits for it never reads half of it, and a runtime that is killed leaves no other file.
pub(crate) fn write_pid(path: &Path, pid: i32) -> Result<()> {
    let dir = path.parent().unwrap_or(Path::new("/"));
    let nameless =
        nix::fcntl::open(dir, OFlag::O_TMPFILE | OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::from_bits_truncate(0o666));
    if let Ok(fd) = nameless {
        let file = std::fs::File::from(fd);
        (&file).write_all(pid.to_string().as_bytes()).map_err(Error::file("write", path))?;
        let link = format!("/proc/self/fd/{}", file.as_raw_fd());
        if linkat(AT_FDCWD, link.as_str(), AT_FDCWD, path, AtFlags::AT_SYMLINK_FOLLOW).is_ok() {
            return Ok(());
        }
    }
    // There is one already, or the file system has no nameless files.
    let mut name = OsStr::new(".").to_owned();
    name.push(path.file_name().unwrap_or_default());
    let fresh = path.with_file_name(name);
    std::fs::write(&fresh, pid.to_string()).map_err(Error::file("write", &fresh))?;
    std::fs::rename(&fresh, path).map_err(Error::file("write", path))
}
