//! `cargo xtask bench`: builds ours, installs the peers, and runs `dhow-bench` in namespaces of its own.

use crate::dist::{self, Profile};
use crate::packages;
use crate::shell::{Result, cargo, command, run, target};

/// Takes the arguments of `dhow-bench`; see its `--help`.
pub(crate) fn bench(args: &[&str]) -> Result<()> {
    packages::install(&[packages::DEMO, packages::TEST, packages::PEERS])?;
    let dist = dist::build(Profile::Release)?;
    run(&mut cargo(["build", "--locked", "--quiet", "--release", "-p", "dhow-benches", "--bins"]))?;
    let bins = target().join("release");
    // Its own mounts and network: engines' daemons, bridges and firewall rules never touch the machine's.
    let unshare = ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"];
    let mut bench = command("unshare", unshare);
    bench.arg("--").arg(bins.join("dhow-bench")).args(args);
    run(bench.env("DHOW_BIN_DIR", dist).env("DHOW_FLOOR", bins.join("dhow-floor")).env("DHOW_TARGET", target()))
}
