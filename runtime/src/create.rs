//! Making a container: state, cgroup, one clone, and what the parent does for the container's process.

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr};
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use dhow_sys::clone::{Child, Namespaces};
use dhow_sys::{pidfd, process, seqpacket};
use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::geteuid;
use serde_json::value::RawValue;

use crate::birth::{self, Birth, Entered};
use crate::cgroup::{Buses, Cgroup, CgroupPlan, is_unified};
use crate::child::Common;
use crate::child::init::{self, Init};
use crate::config::Spec;
use crate::handshake::{Channel, Message};
use crate::hooks::{self, StateDocument};
use crate::intel_rdt::{self, Group};
use crate::net_devices::{self, Found};
use crate::notify;
use crate::parent::{self, Handshake};
use crate::plan::Plan;
use crate::request::{Held, RootfsSource, Stdio};
use crate::state::{self, Known, Lock, START, Stamp, State};
use crate::{CreateRequest, Created, Error, Result, Runtime, checkpoint, descriptors, lsm, pid_file, sources};

/// See [`Runtime::create`].
pub(crate) fn create(runtime: &Runtime, request: CreateRequest) -> Result<Created> {
    let document = Document::read(runtime, &request)?;
    let plan = &document.plan;
    lsm::check(&plan.process, plan.mount_label.as_deref())?;
    let net_devices = net_devices::find(&plan.net_devices)?;
    let cgroup_plan = CgroupPlan::new(&runtime.cgroup_request(plan, &request.id, &document.annotations))?;
    let unfinished = Unfinished::begin(runtime, &request, &document)?;
    let given = Given { plan, document: &document.state, net_devices };
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
        let text = match request.document.clone() {
            Some(text) => text,
            None => std::fs::read_to_string(&file).map_err(Error::file("read", &file))?,
        };
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
    /// Where the systemd answers that may have made the cgroup, and whether it is the user's.
    systemd: (Buses, bool),
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
            external_descriptors: match &request.stdio {
                // They stay as they are, and can be looked at when there is time for it.
                Stdio::Inherit => Vec::new(),
                given => checkpoint::descriptors(given),
            },
            restored: false,
            owner: geteuid().as_raw(),
            resources: None,
            intel_rdt: false,
            keyring: (!request.no_new_keyring).then(|| format!("_ses.{}", request.id)),
            config: config.clone(),
        };
        let (buses, rootless) = runtime.systemd();
        let systemd = (buses.clone(), rootless);
        let unfinished = Self { state, dir, lock, child: None, cgroup: None, intel_rdt, systemd, done: false };
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
        net_devices::move_into(&given.net_devices, &parent::network(plan, pid))?;
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
        // Written while the child goes on; in its place when the container is made.
        let stamp = self.write(pid, plan)?;
        handshake.finish()?;
        let console = handshake.console;
        state::put(&self.dir)?;
        // Last, for a container that could not be made leaves no file.
        pid_file.map_or(Ok(()), |file| pid_file::write(&file, pid))?;
        if !held {
            ours.send(&Message::Recorded).map_err(Error::sys("let go of the container's process"))?;
        }
        let child = self.child.as_ref().ok_or(Error::ChildGone { step: "clone" })?;
        let pidfd = child.pidfd.try_clone().map_err(Error::file("duplicate", Path::new("a pidfd")))?;
        let known = || Known { state: self.state.clone(), stamp };
        let held = held.then(|| Held { channel: ours, known: known() });
        let filter_flags = plan.seccomp.as_ref().map(|filter| filter.flags().bits());
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
        let Given { plan, document, .. } = *given;
        let filter = plan.seccomp.as_ref();
        let listener = if request.held {
            None
        } else {
            let listener = seqpacket::listen(self.lock.dir(), OsStr::new(START));
            Some(listener.map_err(Error::sys("listen on start.sock"))?)
        };
        let preserve_fds = request.preserve_fds + request.listen_fds;
        descriptors::inherited(preserve_fds)?;
        let mut join = Vec::new();
        for joined in &plan.namespaces.join {
            let open = nix::fcntl::open(&joined.path, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty());
            let error = |e: dhow_sys::Errno| {
                Error::config(&joined.field, format!("{}: {}", joined.path.display(), crate::error::errno_text(e)))
            };
            join.push((joined.kind, joined.field.as_str(), open.map_err(error)?));
        }
        let user = birth::take(&mut join, Namespaces::USER);
        let (root_mount, sources) = sources::prepared(&request.rootfs, plan, user.as_ref().map(AsFd::as_fd))?;
        let root_mount = match request.rootfs {
            RootfsSource::DetachedMount(fd) => Some(fd),
            RootfsSource::Config => root_mount,
        };
        let birth = Birth {
            namespaces: plan.namespaces.new.without(init::made_later(&plan.namespaces)),
            user,
            pid: birth::take(&mut join, Namespaces::PID),
            cgroup: self.cgroup.as_ref().and_then(Cgroup::clone_target),
        };
        let user_namespace = plan.namespaces.has(Namespaces::USER);
        let mut job = Init {
            common: Common {
                process: &plan.process,
                channel: theirs,
                stdio: descriptors::above_stdio(request.stdio)?,
                filter,
                agent: filter.map(|f| descriptors::agent(f, document, None)).transpose()?.flatten(),
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
            device_nodes: sources::device_nodes(plan)?,
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
        self.write(pid, plan)?;
        state::put(&self.dir)
    }

    /// Writes the second and last state, but not yet to its place.
    fn write(&mut self, pid: i32, plan: &Plan) -> Result<Stamp> {
        let stat = process::stat(pid).ok_or(Error::ChildGone { step: "the last step" })?;
        self.state.init_process_pid = pid;
        self.state.init_process_start = stat.start_time;
        self.state.cgroup_paths = self.cgroup.as_ref().map(|c| c.paths().clone()).unwrap_or_default();
        self.state.namespace_paths = plan.namespaces.paths(pid);
        if self.state.external_descriptors.is_empty() {
            self.state.external_descriptors = checkpoint::descriptors(&Stdio::Inherit);
        }
        self.state.write(&self.dir)
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
            let (buses, rootless) = &self.systemd;
            // A scope whose process was dead before it was moved there never empties, so it does not end by itself.
            drop(match &self.state.unit {
                Some(unit) => cgroup.remove_unit(unit, buses, *rootless),
                None => cgroup.remove(),
            });
        }
        if let Some(group) = &self.intel_rdt {
            drop(group.remove());
        }
        drop(std::fs::remove_dir_all(&self.dir));
    }
}
