//! systemd's manager object, as far as a scope needs it (org.freedesktop.systemd1(5)).

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::super::error::{CgroupError, Result};
use super::super::limits::systemd::Property;
use super::super::path::clean;
use super::{Unit, list};
use crate::dbus::{Address, BusError, Call, Connection, Message, Value};

/// How long systemd may take for one answer, or for one job. It is one process, and under load a slow one.
const PATIENCE: Duration = Duration::from_secs(30);

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const INTERFACE: &str = "org.freedesktop.systemd1.Manager";
const JOB_REMOVED: &str = "JobRemoved";
const NO_SUCH_UNIT: &str = "org.freedesktop.systemd1.NoSuchUnit";
const UNIT_EXISTS: &str = "org.freedesktop.systemd1.UnitExists";

/// A connection to systemd.
#[derive(Debug)]
pub(in super::super) struct Manager {
    bus: Connection,
    root: PathBuf,
    version: u32,
}

impl Manager {
    /// Connects, and asks for what everything else depends on.
    pub(super) fn open(addresses: &[Address]) -> Result<Self> {
        let mut bus = Connection::open(addresses, PATIENCE)?;
        let mut property = |name: &str| -> Result<String> {
            let get = Call { interface: "org.freedesktop.DBus.Properties", ..method("Get") };
            let mut texts = bus.call(get, &[INTERFACE.into(), name.into()])?.texts("v")?;
            Ok(texts.pop().unwrap_or_default())
        };
        let root = clean(Path::new(&property("ControlGroup")?));
        let version = property("Version")?;
        // `252.39-1~deb12u1`, `v257`.
        let digits: String = version.trim_start_matches('v').chars().take_while(char::is_ascii_digit).collect();
        Ok(Self { bus, root, version: digits.parse().unwrap_or(0) })
    }

    /// The cgroup that everything of this systemd's lies in, without the leading slash.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// Its version's first number; 0 when it does not tell.
    pub(super) fn version(&self) -> u32 {
        self.version
    }

    /// Starts a scope and waits for it. A failed one that has the name is forgotten first.
    pub(super) fn start(&mut self, unit: &Unit, properties: &[Property]) -> Result<()> {
        self.listen()?;
        let arguments =
            [unit.name().into(), "replace".into(), list(properties), Value::Array("(sa(sv))".into(), Vec::new())];
        let started = match self.bus.call(method("StartTransientUnit"), &arguments) {
            Err(error) if error.is(UNIT_EXISTS) => {
                self.reset_failed(unit.name())?;
                self.bus.call(method("StartTransientUnit"), &arguments)
            }
            other => other,
        };
        let result = started.map_err(CgroupError::from).and_then(|job| self.finished(&job, "StartTransientUnit"));
        match result.as_deref() {
            Ok("done") => Ok(()),
            Ok(other) => {
                drop(self.reset_failed(unit.name()));
                Err(CgroupError::Unit { unit: unit.name().to_owned(), result: other.to_owned() })
            }
            Err(_) => {
                // It may still come up: nobody would end it then.
                if matches!(result, Err(CgroupError::Bus(BusError::Timeout { .. }))) {
                    drop(self.bus.call(method("StopUnit"), &[unit.name().into(), "replace".into()]));
                }
                result.map(drop)
            }
        }
    }

    /// Changes properties of a unit until it ends.
    pub(super) fn set(&mut self, unit: &str, properties: &[Property]) -> Result<()> {
        let arguments = [unit.into(), Value::Bool(true), list(properties)];
        self.bus.call(method("SetUnitProperties"), &arguments)?;
        Ok(())
    }

    /// Moves a process into a unit.
    pub(in super::super) fn attach(&mut self, unit: &str, pid: i32) -> Result<()> {
        let pids = Value::Array("u".into(), vec![Value::Uint32(pid.cast_unsigned())]);
        self.bus.call(method("AttachProcessesToUnit"), &[unit.into(), "".into(), pids])?;
        Ok(())
    }

    /// Ends a unit and forgets how it ended. One that is gone already is fine.
    pub(in super::super) fn stop(&mut self, unit: &str) -> Result<()> {
        self.listen()?;
        // Else it would ask first, and wait for an answer.
        match self.bus.call(method("KillUnit"), &[unit.into(), "all".into(), Value::Int32(libc::SIGKILL)]) {
            // It went with its last process.
            Err(error) if error.is(NO_SUCH_UNIT) => return Ok(()),
            // It has none any more.
            Err(BusError::Answer { .. }) | Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
        let stopped = match self.bus.call(method("StopUnit"), &[unit.into(), "replace".into()]) {
            Ok(job) => self.finished(&job, "StopUnit").map(drop),
            Err(error) if error.is(NO_SUCH_UNIT) => return Ok(()),
            Err(error) => Err(error.into()),
        };
        self.reset_failed(unit).and(stopped)
    }

    fn reset_failed(&mut self, unit: &str) -> Result<()> {
        match self.bus.call(method("ResetFailedUnit"), &[unit.into()]) {
            Err(error) if !error.is(NO_SUCH_UNIT) => Err(error.into()),
            _ => Ok(()),
        }
    }

    fn listen(&mut self) -> Result<()> {
        let rule =
            format!("type='signal',sender='{NAME}',path='{PATH}',interface='{INTERFACE}',member='{JOB_REMOVED}'");
        Ok(self.bus.listen(&rule)?)
    }

    /// Waits for the end of a job, which is the answer to what began it; how it ended.
    fn finished(&mut self, begun: &Message, what: &'static str) -> Result<String> {
        let job = begun.texts("o")?.pop();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let signal = self.bus.signal((INTERFACE, JOB_REMOVED), &begun.sender, deadline, what)?;
            // Number, job, unit, result.
            let mut texts = signal.texts("uoss")?;
            if texts.first() == job.as_ref() {
                return Ok(texts.pop().unwrap_or_default());
            }
        }
    }
}

fn method(method: &'static str) -> Call {
    Call { destination: NAME, path: PATH, interface: INTERFACE, method }
}
