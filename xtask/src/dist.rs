//! `cargo xtask build`: the five binaries, side by side in `target/dist`, as a user would install them.
//!
//! Everything that a container's life depends on is static: it starts faster and needs nothing from the system it
//! lies on. `dhow` itself is dynamic, because resolving a registry's name the way the machine is configured to
//! (nsswitch.conf) is something glibc can only do with its shared libraries.

use std::path::{Path, PathBuf};

use crate::shell::{Error, Result, cargo, command, file_error, output, run, target, workspace};

/// (package, binary) of what is linked statically.
const STATIC: [(&str, &str); 4] = [
    ("dhow-runtime", "dhow-runtime"),
    ("dhow-shim", "containerd-shim-dhow-v2"),
    ("dhow-snapshotter", "dhow-snapshotter"),
    ("dhow-netplug", "dhow-netplug"),
];

/// How much the compiler should try.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// What users get.
    Release,
    /// Quickly compiled, for work on the tests (`cargo xtask build --dev`).
    Dev,
}

impl Profile {
    fn flag(self) -> &'static [&'static str] {
        match self {
            Self::Release => &["--release"],
            Self::Dev => &[],
        }
    }

    fn folder(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Dev => "debug",
        }
    }
}

/// Builds, and returns the directory with the five binaries.
pub(crate) fn build(profile: Profile) -> Result<PathBuf> {
    let triple = host_triple()?;
    let mut args: Vec<&str> = vec!["build", "--locked", "--quiet", "--target", &triple];
    args.extend(profile.flag());
    for (package, bin) in STATIC {
        args.extend(["-p", package, "--bin", bin]);
    }
    let flags = format!("CARGO_TARGET_{}_RUSTFLAGS", triple.to_uppercase().replace('-', "_"));
    // At a fixed address: a program of this size that starts thousands of times spends a tenth of a start on relocations.
    let mut build = cargo(args);
    build.env(flags, "-C target-feature=+crt-static -C relocation-model=static");
    // What `dhow-runtime --version` says; sources without a history have none.
    if let Ok(commit) = output(command("git", ["rev-parse", "HEAD"]).current_dir(workspace())) {
        build.env("DHOW_COMMIT", commit.trim());
    }
    run(&mut build)?;
    run(cargo(["build", "--locked", "--quiet", "-p", "dhow-cli", "--bin", "dhow"]).args(profile.flag()))?;

    let dist = target().join("dist");
    std::fs::create_dir_all(&dist).map_err(file_error("create", &dist))?;
    for (_, bin) in STATIC {
        place(&target().join(&triple).join(profile.folder()).join(bin), &dist.join(bin))?;
    }
    place(&target().join(profile.folder()).join("dhow"), &dist.join("dhow"))?;
    Ok(dist)
}

/// Puts a copy beside and renames it, so that a running binary is not in the way.
fn place(from: &Path, to: &Path) -> Result<()> {
    let new = to.with_extension("new");
    std::fs::copy(from, &new).map_err(file_error("copy", from))?;
    std::fs::rename(&new, to).map_err(file_error("rename", &new))
}

fn host_triple() -> Result<String> {
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    let said = output(&mut command(&rustc, ["-vV"]))?;
    let host = said.lines().find_map(|line| line.strip_prefix("host: "));
    host.map(str::to_owned).ok_or_else(|| Error::Check(format!("{rustc} -vV names no host")))
}
