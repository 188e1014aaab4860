//! Bringing a container back.

use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use dhow_sys::clone::Child;
use dhow_sys::openat2::Root;
use dhow_sys::pidfd;

use super::dump::DESCRIPTORS;
use super::message::{Kind, Notification, option, pair, request as encode};
use super::options::{Directories, common};
use super::service::{Criu, FIRST_PASSED, Start};
use super::wire::Writer;
use super::{RestoreRequest, external};
use crate::cgroup::{Cgroup, CgroupPlan};
use crate::create::{Document, Unfinished};
use crate::hooks;
use crate::plan::Plan;
use crate::request::RootfsSource;
use crate::{Created, Error, Result, Runtime, pid_file};

/// See [`Runtime::restore`].
pub(crate) fn restore(runtime: &Runtime, request: &RestoreRequest) -> Result<Created> {
    let document = Document::read(runtime, &request.create)?;
    let unfinished = Unfinished::begin(runtime, &request.create, &document)?;
    unfinished.complete(&document, |unfinished| bring_back(runtime, unfinished, request, &document))
}

fn bring_back(
    runtime: &Runtime,
    unfinished: &mut Unfinished,
    request: &RestoreRequest,
    document: &Document,
) -> Result<Created> {
    let plan = &document.plan;
    let mut cgroup_plan = CgroupPlan::new(&runtime.cgroup_request(plan, &request.create.id, &document.annotations))?;
    let directories = Directories::new(&request.criu, LOG)?;
    let mut options = common(&request.criu, &directories, &document.annotations);
    inherit_pipes(&request.criu.image_path, &mut options)?;
    let passed = external::hand_in_namespaces(plan, FIRST_PASSED, &mut options)?;
    let root = match &request.create.rootfs {
        RootfsSource::Config => Root::open_path(&plan.rootfs.path),
        RootfsSource::DetachedMount(mount) => {
            mount.as_fd().try_clone_to_owned().map(Root::new).or(Err(dhow_sys::Errno::EMFILE))
        }
    };
    let root = root.map_err(|e| Error::file("open", &plan.rootfs.path)(e.into()))?;
    external::make_places(plan, &root)?;
    let place = unfinished.make_directory(ROOT)?;
    let born_in_cgroup = !cgroup_plan.needs_process();
    if born_in_cgroup {
        unfinished.cgroup = Some(cgroup_plan.create(plan.resources.as_ref(), None)?);
    }
    let criu = Criu::start(&Start {
        cgroup: unfinished.cgroup.as_ref().and_then(Cgroup::clone_target),
        stdio: Some(&request.create.stdio),
        passed: &passed,
        root: Some((&request.create.rootfs, &plan.rootfs.path, &place)),
        directories: &directories,
    })?;
    let cgroup = match unfinished.cgroup.take() {
        Some(cgroup) => cgroup,
        None => cgroup_plan.create(plan.resources.as_ref(), Some(criu.pid()))?,
    };
    let cgroup = unfinished.cgroup.insert(cgroup);
    if !born_in_cgroup || cgroup.clone_target().is_none() {
        cgroup.attach(criu.pid())?;
    }
    unfinished.enter_resctrl(plan, criu.pid())?;
    own(request, &place, &mut options);
    outside(plan, &root, &criu, unfinished.cgroup.as_ref(), &mut options)?;
    let mut console = None;
    let done = criu.call(Kind::Restore, &encode(Kind::Restore, options), |notification, fd| {
        if notification.script == "orphan-pts-master" {
            console = fd;
            return Ok(());
        }
        notice(unfinished, document, notification)
    });
    done.map_err(|e| directories.explain(e))?;
    let exit = criu.end()?;
    let child = unfinished.child.as_ref().filter(|_| exit.code() == 0).ok_or_else(|| {
        directories
            .explain(Error::Criu { request: Kind::Restore.name(), problem: format!("exit status {}", exit.code()) })
    })?;
    let pid = child.pid;
    let pidfd = child.pidfd.try_clone().map_err(Error::file("duplicate", Path::new("a pidfd")))?;
    std::fs::remove_dir(&place).map_err(Error::file("remove", &place))?;
    if let Some(file) = &request.create.pid_file {
        pid_file::write(file, pid)?;
    }
    unfinished.record_restored(pid, plan)?;
    Ok(Created { pid, pidfd, console, warnings: Vec::new(), filter_flags: None, held: None })
}

/// A moment in the restore.
fn notice(unfinished: &mut Unfinished, document: &Document, notification: &Notification) -> Result<()> {
    let pid = notification.pid;
    match notification.script.as_str() {
        // The namespaces are there, and nothing runs in them: engines set up the network now.
        "setup-namespaces" => {
            let state = document.state.render("creating", pid);
            hooks::run("prestart", &document.plan.hooks.prestart, &state)?;
            hooks::run("createRuntime", &document.plan.hooks.create_runtime, &state)
        }
        // All is as it was, and stands still until this is answered.
        "post-restore" => {
            let pidfd = pidfd::open(pid).map_err(Error::sys("open a pidfd"))?;
            unfinished.child = Some(Child { pid, pidfd });
            Ok(())
        }
        _ => Ok(()),
    }
}

/// The options that only restoring has.
fn own(request: &RestoreRequest, root: &Path, options: &mut Writer) {
    options.text(option::ROOT, &root.to_string_lossy());
    options.flag(option::EVASIVE_DEVICES, true);
    options.flag(option::TCP_CLOSE, request.tcp_close);
    options.flag(option::RST_SIBLING, true);
    for (field, value) in
        [(option::LSM_PROFILE, &request.lsm_profile), (option::LSM_MOUNT_CONTEXT, &request.lsm_mount_context)]
    {
        if let Some(value) = value {
            options.text(field, value);
        }
    }
}

/// What the names in the image stand for, and where the cgroups of the image are now.
fn outside(plan: &Plan, root: &Root, criu: &Criu, cgroup: Option<&Cgroup>, options: &mut Writer) -> Result<()> {
    let path = format!("/proc/{}/cgroup", criu.pid());
    let cgroups = std::fs::read_to_string(&path).map_err(Error::file("read", Path::new(&path)))?;
    let paths = cgroup.map(|cgroup| cgroup.paths().clone()).unwrap_or_default();
    external::hand_in_mounts(plan, root, &cgroups, &paths, options);
    for line in cgroups.lines().filter(|_| !paths.is_empty()) {
        let mut parts = line.splitn(3, ':').skip(1);
        if let (Some(controllers), Some(path)) = (parts.next(), parts.next()) {
            controllers.split(',').for_each(|controller| pair(options, option::CG_ROOT, controller, path));
        }
    }
    Ok(())
}

/// The pipes and fifos that the container had for stdio are replaced by what it is given now.
fn inherit_pipes(images: &Path, options: &mut Writer) -> Result<()> {
    let path: PathBuf = images.join(DESCRIPTORS);
    let bytes = std::fs::read(&path).map_err(Error::file("read", &path))?;
    let names: Vec<String> =
        serde_json::from_slice(&bytes).map_err(|e| Error::config(path.to_string_lossy(), e.to_string()))?;
    for (name, number) in names.iter().zip(0..3).filter(|(name, _)| name.contains("pipe:") || name.starts_with("file["))
    {
        external::inherit(options, name, number);
    }
    Ok(())
}

const LOG: &str = "restore.log";
/// Where criu finds the root, in the container's own directory.
const ROOT: &str = "criu-root";
