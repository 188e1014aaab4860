//! `dhow-runtime run` beside crun, runc and the floor, on one bundle.

use std::path::PathBuf;
use std::process::Command;

use dhow_tests::bundle::Bundle;
use dhow_tests::{Instance, Sandbox, instance};
use serde_json::{Value, json};

use crate::measure::{Candidate, Series};

/// Ours, in tables.
pub const OURS: &str = "dhow-runtime";

/// The specification's default configuration.
#[must_use]
pub fn default_bundle(sandbox: &Sandbox, runs: usize, title: &str) -> Series {
    let bundle = Bundle::new(sandbox, "default", &["/bin/true"]);
    Series::measure(title, candidates(sandbox, &bundle), runs)
}

/// What an engine like docker asks for: its capabilities, its seccomp profile, masked paths, limits. The configuration
/// is the one that `dhow run` writes, with the bundle's own root file system and a new network namespace.
#[must_use]
pub fn engine_bundle(sandbox: &Sandbox, dhow: &Instance, image: &str, runs: usize) -> Series {
    let id = dhow.ok(&format!("run -d --net none --memory 512m --pids-limit 100 {image} sleep 1000"));
    let written = dhow_tests::command::text(dhow.root().join("containers").join(&id).join("config.json"));
    dhow.ok(&format!("rm -f {id}"));
    let wanted: Value = serde_json::from_str(&written).unwrap_or_default();
    let bundle = Bundle::new(sandbox, "engine", &["/bin/true"]).with(|config| {
        *config = wanted;
        config["root"] = json!({"path": "rootfs"});
        config["process"]["args"] = json!(["/bin/true"]);
        if let Some(linux) = config["linux"].as_object_mut() {
            linux.remove("cgroupsPath");
            if let Some(namespaces) = linux["namespaces"].as_array_mut() {
                namespaces.retain(|namespace| namespace["type"] != "network");
                namespaces.push(json!({"type": "network"}));
            }
        }
        if let Some(mounts) = config["mounts"].as_array_mut() {
            // The files that netplug writes are gone with the container.
            mounts.retain(|mount| mount["type"] != "bind");
        }
    });
    Series::measure(
        "run, docker's configuration (seccomp, capabilities, masked paths, limits)",
        candidates(sandbox, &bundle),
        runs,
    )
}

fn candidates(sandbox: &Sandbox, bundle: &Bundle) -> Vec<Candidate> {
    let state = sandbox.dir("runtime-state");
    let run = |name: &str, program: PathBuf| {
        let mut command = Command::new(&program);
        command.arg("--root").arg(state.join(name)).args(["run", "-b"]).arg(bundle.dir()).arg(format!("bench-{name}"));
        Candidate::new(name, command)
    };
    let mut floor = Command::new(std::env::var_os("DHOW_FLOOR").unwrap_or_else(|| "dhow-floor".into()));
    floor.arg(bundle.dir().join("rootfs")).arg("/bin/true");
    vec![
        Candidate::new("floor (bare system calls)", floor),
        run(OURS, instance::binary(OURS)),
        run("crun", "crun".into()),
        run("runc", "runc".into()),
    ]
}
