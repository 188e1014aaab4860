//! `cargo xtask bench`: builds ours, installs the peers, and runs `dhow-bench` in namespaces of its own.

use std::process::Stdio;

use crate::dist;
use crate::packages;
use crate::shell::{Error, Result, cargo, command, run, target};

/// Takes the arguments of `dhow-bench`, and `--peers`: the same in the root of the command in `DHOW_PEERS`.
pub(crate) fn bench(args: &[&str]) -> Result<()> {
    let peers = args.contains(&"--peers");
    let args: Vec<&str> = args.iter().copied().filter(|arg| *arg != "--peers").collect();
    packages::install(&[packages::DEMO, packages::TEST])?;
    if !peers {
        packages::install(&[packages::PEERS])?;
    }
    let dist = dist::build()?;
    run(&mut cargo(["build", "--locked", "--quiet", "--release", "-p", "dhow-benches", "--bins"]))?;
    let bins = target().join("release");
    let program = bins.join("dhow-bench");
    run(command(&program.to_string_lossy(), ["--prepare"]).stdout(Stdio::null()))?;
    // Its own mounts and network: engines' daemons, bridges and firewall rules never touch the machine's.
    let unshare =
        ["--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private", "--"];
    let mut bench = command("unshare", unshare);
    if peers {
        let Ok(wrapper) = std::env::var("DHOW_PEERS") else {
            return Err(Error::Check("DHOW_PEERS must be a command that runs another in the peers' root".into()));
        };
        bench.args(wrapper.split_whitespace());
    }
    bench.arg(program).args(args).current_dir(target());
    run(bench.env("DHOW_BIN_DIR", dist).env("DHOW_FLOOR", bins.join("dhow-floor")).env("DHOW_TARGET", target()))
}
