//! `dhow-runtime` beside crun, runc and the floor, each on the same bundles.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use dhow_tests::bundle::Bundle;
use dhow_tests::{Instance, Sandbox, instance};
use serde_json::{Value, json};

use crate::measure::{Candidate, Series, Timed, quiet};

/// Ours, in tables.
pub const OURS: &str = "dhow-runtime";

/// What the runtimes are compared at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// `run` of a program that ends at once.
    Run,
    /// `create`, `start` and `delete --force` of one.
    Life,
    /// `exec` of a program that ends at once.
    Exec,
    /// Sixteen `run` at a time.
    Sixteen,
}

impl Operation {
    /// In the order of the tables.
    pub const ALL: [Self; 4] = [Self::Run, Self::Life, Self::Exec, Self::Sixteen];

    fn title(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Life => "create, start, delete",
            Self::Exec => "exec",
            Self::Sixteen => "run, sixteen at a time",
        }
    }
}

/// The bundles, each with its title: the specification's default configuration, docker's, and docker's in a user namespace. Limits
/// for which a version 2 tree has no controller `there` are left out.
#[must_use]
pub fn bundles(sandbox: &Sandbox, dhow: &Instance, image: &str, there: Option<&str>) -> Vec<(&'static str, Bundle)> {
    let wanted = engine_configuration(dhow, image, there);
    let engine = |name| Bundle::new(sandbox, name, &["/bin/true"]).with(|config| *config = wanted.clone());
    let default = Bundle::new(sandbox, "default", &["/bin/true"]).with(|config| {
        // Every container has its own, named after it.
        config["linux"].as_object_mut().map(|linux| linux.remove("cgroupsPath"));
    });
    let mapped = engine("mapped").with(|config| {
        if let Some(namespaces) = config["linux"]["namespaces"].as_array_mut() {
            namespaces.push(json!({"type": "user"}));
        }
        let mapping = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
        config["linux"]["uidMappings"] = mapping.clone();
        config["linux"]["gidMappings"] = mapping;
        // It names ids that are not mapped.
        config["linux"].as_object_mut().map(|linux| linux.remove("sysctl"));
    });
    vec![
        ("the specification's default configuration", default),
        ("docker's configuration (seccomp, capabilities, masked paths, limits, network namespace)", engine("engine")),
        ("docker's configuration in a user namespace", mapped),
    ]
}

/// What `dhow run` asks for, with the bundle's own root file system and a new network namespace.
fn engine_configuration(dhow: &Instance, image: &str, there: Option<&str>) -> Value {
    let id = dhow.ok(&format!("run -d --net none --memory 512m --pids-limit 100 --cpus 1.5 {image} sleep 1000"));
    let written = dhow_tests::command::text(dhow.root().join("containers").join(&id).join("config.json"));
    dhow.ok(&format!("rm -f {id}"));
    let mut config: Value = serde_json::from_str(&written).unwrap_or_default();
    config["root"] = json!({"path": "rootfs"});
    config["process"]["args"] = json!(["/bin/true"]);
    if let Some(linux) = config["linux"].as_object_mut() {
        linux.remove("cgroupsPath");
        if let Some(namespaces) = linux["namespaces"].as_array_mut() {
            namespaces.retain(|namespace| namespace["type"] != "network");
            namespaces.push(json!({"type": "network"}));
        }
        if let (Some(there), Some(resources)) = (there, linux["resources"].as_object_mut()) {
            resources.retain(|name, _| name == "devices" || there.split_whitespace().any(|other| other == name));
        }
    }
    if let Some(mounts) = config["mounts"].as_array_mut() {
        // The files that netplug writes are gone with the container.
        mounts.retain(|mount| mount["type"] != "bind");
    }
    config
}

/// Measures one operation on one bundle.
#[must_use]
pub fn series(sandbox: &Sandbox, operation: Operation, title: &str, bundle: &Bundle, runs: usize) -> Series {
    // The root of a user namespace has to find its way in.
    for directory in [sandbox.path(), bundle.dir()] {
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).ok();
    }
    let runtimes = [(OURS, instance::binary(OURS)), ("crun", "crun".into()), ("runc", "runc".into())];
    let runtimes = runtimes.map(|(name, program)| Runtime { name, program });
    let mut candidates: Vec<Candidate> =
        runtimes.iter().map(|runtime| Candidate::new(runtime.name, runtime.timed(operation, bundle.dir()))).collect();
    if operation == Operation::Run {
        let mut floor = Command::new(std::env::var_os("DHOW_FLOOR").unwrap_or_else(|| "dhow-floor".into()));
        floor.arg(bundle.dir().join("rootfs")).arg("/bin/true");
        candidates.insert(0, Candidate::new("floor (bare system calls)", floor));
    }
    if operation == Operation::Exec {
        let sleeper = sleeper(bundle.dir());
        for runtime in &runtimes {
            // Without it exec fails, too, and the table says so.
            quiet(&mut runtime.command(&["run", "-d", &runtime.sleeper()], &sleeper)).ok();
        }
    }
    let measured = Series::measure(&format!("{}, {title}", operation.title()), candidates, runs);
    if operation == Operation::Exec {
        for runtime in &runtimes {
            quiet(&mut runtime.command(&["delete", "--force", &runtime.sleeper()], bundle.dir())).ok();
        }
    }
    measured
}

/// A bundle with the same configuration, whose program stays.
fn sleeper(bundle: &Path) -> PathBuf {
    let dir = bundle.join("sleeper");
    let read = std::fs::read(bundle.join("config.json")).unwrap_or_default();
    let mut config: Value = serde_json::from_slice(&read).unwrap_or_default();
    config["root"]["path"] = bundle.join("rootfs").display().to_string().into();
    config["process"]["args"] = json!(["/bin/sleep", "100000"]);
    std::fs::create_dir_all(&dir).ok();
    std::fs::write(dir.join("config.json"), config.to_string()).ok();
    dir
}

/// One that is compared.
#[derive(Debug)]
struct Runtime {
    name: &'static str,
    program: PathBuf,
}

impl Runtime {
    fn command(&self, args: &[&str], bundle: &Path) -> Command {
        let mut command = Command::new(&self.program);
        // In memory, where a runtime keeps its state on a real machine.
        command.arg("--root").arg(Path::new("/run/bench").join(self.name)).args(args).current_dir(bundle);
        command
    }

    fn timed(&self, operation: Operation, bundle: &Path) -> Timed {
        let id = format!("bench-{}", self.name);
        match operation {
            Operation::Run => self.command(&["run", &id], bundle).into(),
            Operation::Life => Timed::InTurn(vec![
                self.command(&["create", &id], bundle),
                self.command(&["start", &id], bundle),
                self.command(&["delete", "--force", &id], bundle),
            ]),
            Operation::Exec => self.command(&["exec", &self.sleeper(), "/bin/true"], bundle).into(),
            Operation::Sixteen => {
                let one = |number| self.command(&["run", &format!("{id}-{number}")], bundle);
                Timed::AtOnce((0..16).map(one).collect())
            }
        }
    }

    /// The container that exec goes to.
    fn sleeper(&self) -> String {
        format!("sleeper-{}", self.name)
    }
}
