//! `cargo xtask build`: the five binaries, side by side in `target/dist`, as a user would install them. `rustc.sh` decides
//! which of them are static.

use std::path::{Path, PathBuf};

use crate::shell::{Result, cargo, command, file_error, output, run, target, workspace};

/// (package, binary).
const PROGRAMS: [(&str, &str); 5] = [
    ("dhow-cli", "dhow"),
    ("dhow-runtime", "dhow-runtime"),
    ("dhow-shim", "containerd-shim-dhow-v2"),
    ("dhow-snapshotter", "dhow-snapshotter"),
    ("dhow-netplug", "dhow-netplug"),
];

/// Builds them for users, and returns the directory that they lie in.
pub(crate) fn build() -> Result<PathBuf> {
    let mut build = cargo(["build", "--locked", "--quiet", "--release", "--bins"]);
    build.args(PROGRAMS.iter().flat_map(|(package, _)| ["-p", package]));
    // What `dhow-runtime --version` says; sources without a history have none.
    if let Ok(commit) = output(command("git", ["rev-parse", "HEAD"]).current_dir(workspace())) {
        build.env("DHOW_COMMIT", commit.trim());
    }
    run(&mut build)?;

    let dist = target().join("dist");
    std::fs::create_dir_all(&dist).map_err(file_error("create", &dist))?;
    for (_, program) in PROGRAMS {
        place(&target().join("release").join(program), &dist.join(program))?;
    }
    Ok(dist)
}

/// Builds them for their tests, in `target/debug`, of the same dependencies as the tests themselves.
pub(crate) fn build_for_tests() -> Result<()> {
    run(&mut cargo(["build", "--locked", "--quiet", "--workspace", "--bins"]))
}

/// Puts a copy beside and renames it, so that a running binary is not in the way.
pub(crate) fn place(from: &Path, to: &Path) -> Result<()> {
    let new = to.with_extension("new");
    std::fs::copy(from, &new).map_err(file_error("copy", from))?;
    std::fs::rename(&new, to).map_err(file_error("rename", &new))
}
