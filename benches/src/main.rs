//! `dhow-bench`, started by `cargo xtask bench` in namespaces of its own.
#![forbid(unsafe_code)]
#![expect(clippy::print_stderr, clippy::print_stdout, reason = "a command that talks to a person")]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{SystemTime, UNIX_EPOCH};

use dhow_benches::engines::{Containerd, Docker, Engine};
use dhow_benches::measure::{Candidate, Series, keep};
use dhow_benches::runtimes;
use dhow_tests::{BUSYBOX, Instance, Registry, Sandbox, tool};
use serde_json::json;

const USAGE: &str = "\
usage: cargo xtask bench [--runs N] [--only WORD] [--peers]

  --runs N     runs of the quick commands (default 40; pulls and the like take a tenth of it)
  --only WORD  only series whose name contains WORD: runtime, run, exec, pull, commit, push
  --peers      in the root of the command in DHOW_PEERS, with the engines that are there
";

struct Options {
    runs: usize,
    only: Option<String>,
}

fn main() -> ExitCode {
    let mut options = Options { runs: 40, only: None };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match (arg.as_str(), args.next()) {
            ("--prepare", None) => {
                // Needs the machine's network, which the namespaces to come have not.
                println!("{}", dhow_tests::fixtures::debian_tar().display());
                return ExitCode::SUCCESS;
            }
            ("--runs", Some(number)) if number.parse::<usize>().is_ok_and(|runs| runs > 0) => {
                options.runs = number.parse().unwrap_or(1);
            }
            ("--only", Some(word)) => options.only = Some(word),
            _ => {
                eprint!("{USAGE}");
                return ExitCode::from(2);
            }
        }
    }
    let scratch = match tempdir() {
        Ok(scratch) => scratch,
        Err(why) => {
            eprintln!("dhow-bench: {why}");
            return ExitCode::FAILURE;
        }
    };
    tool("busybox", ["ip", "link", "set", "lo", "up"]).run().ok();
    tool("mount", ["-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run"]).run().ok();
    let series = all(&Sandbox::at(&scratch), &options);
    drop(tool("rm", ["-rf"]).arg(&scratch).run());
    finish(&series)
}

fn tempdir() -> Result<PathBuf, String> {
    let made = tool("mktemp", ["-d", "/var/tmp/dhow-bench-XXXXXX"]).run();
    if made.code == 0 { Ok(made.out().into()) } else { Err(made.stderr) }
}

fn finish(series: &[Series]) -> ExitCode {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let target = std::env::var_os("DHOW_TARGET").map_or_else(|| PathBuf::from("target"), PathBuf::from);
    let file = target.join("bench").join(format!("{seconds}.json"));
    let text = |path: &str| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let processors = std::thread::available_parallelism().map_or(0, usize::from);
    let about = json!({"seconds": seconds, "kernel": text("/proc/sys/kernel/osrelease"), "processors": processors});
    if let Err(error) = keep(series, &about, &file) {
        eprintln!("dhow-bench: {}: {error}", file.display());
        return ExitCode::FAILURE;
    }
    println!("\nraw runs: {}", file.display());
    ExitCode::SUCCESS
}

/// Prints each table as soon as it is there.
fn all(sandbox: &Sandbox, options: &Options) -> Vec<Series> {
    let mut series = Vec::new();
    let wanted = |name: &str| options.only.as_ref().is_none_or(|word| name.contains(word.as_str()));
    let mut show = |name: &str, ours: &str, measure: &mut dyn FnMut() -> Series| {
        if wanted(name) {
            let measured = measure();
            println!("{}", measured.table(ours));
            series.push(measured);
        }
    };
    let runs = options.runs;
    let few = (runs / 10).max(3);
    let registry = Registry::with_images(sandbox);
    let dhow = Instance::new(sandbox);
    let image = registry.image(BUSYBOX);
    dhow.ok(&format!("pull -q {image}"));

    show("runtime", runtimes::OURS, &mut || {
        runtimes::default_bundle(sandbox, runs, "run, the specification's default configuration, the machine's cgroups")
    });
    show("runtime v2", runtimes::OURS, &mut || {
        tool("mount", ["-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"]).run().ok();
        let measured =
            runtimes::default_bundle(sandbox, runs, "run, the specification's default configuration, cgroup v2");
        tool("umount", ["/sys/fs/cgroup"]).run().ok();
        measured
    });
    show("runtime engine", runtimes::OURS, &mut || runtimes::engine_bundle(sandbox, &dhow, &image, runs));

    if !["run", "exec", "pull", "commit", "push"].iter().any(|name| wanted(name)) {
        return series;
    }
    let containerd = noted("containerd", Containerd::start(sandbox));
    let docker = containerd.as_ref().and_then(|containerd| noted("docker", Docker::start(sandbox, containerd)));
    let mut engines = vec![Engine::dhow(&dhow), Engine::podman(sandbox, &registry)];
    engines.extend(docker.as_ref().map(Engine::docker));
    engines.iter().for_each(|engine| println!("{}: {}", engine.name, engine.version()));
    engines.retain(|engine| noted(engine.name, engine.now(&["pull", &image])).is_some());

    show("run", "dhow", &mut || {
        let mut candidates = each(&engines, &["run", "--rm", "--net", "none", &image, "true"]);
        if let Some(containerd) = &containerd {
            candidates.extend(ctr_run(containerd, &image));
        }
        Series::measure(
            "run --rm --net none busybox true (ctr: its own network namespace, no network)",
            candidates,
            runs,
        )
    });
    show("run network", "dhow", &mut || {
        Series::measure(
            "run --rm busybox true (bridge network)",
            each(&engines, &["run", "--rm", &image, "true"]),
            runs,
        )
    });
    show("exec", "dhow", &mut || {
        let prepare: Vec<&Engine> = engines
            .iter()
            .filter(|engine| {
                noted(engine.name, engine.now(&["run", "-d", "--name", "bench", &image, "sleep", "100000"])).is_some()
            })
            .collect();
        let candidates = prepare.iter().map(|engine| engine.candidate(&["exec", "bench", "true"])).collect();
        let measured = Series::measure("exec true in a running container", candidates, runs);
        for engine in prepare {
            noted(engine.name, engine.now(&["rm", "-f", "bench"]));
        }
        measured
    });
    show("pull", "dhow", &mut || pull(sandbox, &registry, &engines, "layered", few));
    show("commit", "dhow", &mut || commit(&engines, &registry, &image, few));
    for engine in &engines {
        drop(engine.now(&["rm", "-f", "bench"]));
    }
    series
}

/// What went wrong is said and left out.
fn noted<T>(name: &str, result: Result<T, String>) -> Option<T> {
    result.map_err(|why| println!("left out: {name}: {why}")).ok()
}

fn each(engines: &[Engine], args: &[&str]) -> Vec<Candidate> {
    engines.iter().map(|engine| engine.candidate(args)).collect()
}

fn ctr_run(containerd: &Containerd, image: &str) -> Option<Candidate> {
    let name = format!("{image}:latest");
    let mut pull = containerd.ctr(&["images", "pull", "--plain-http", &name]);
    noted("ctr", dhow_benches::measure::quiet(&mut pull))?;
    Some(Candidate::new("ctr", containerd.ctr(&["run", "--rm", "--null-io", &name, "bench", "/bin/true"])))
}

/// Every pull begins without the image; removing it is not timed.
fn pull(sandbox: &Sandbox, registry: &Registry, engines: &[Engine], name: &str, runs: usize) -> Series {
    let image = registry.image(name);
    let mut candidates: Vec<Candidate> = engines
        .iter()
        .map(|engine| {
            let mut candidate = engine.candidate(&["pull", "-q", &image]);
            candidate.after = vec![engine.command(&["rmi", "-f", &image])];
            if engine.name == "dhow" {
                candidate.after.push(engine.command(&["system", "prune", "-f"]));
            }
            candidate
        })
        .collect();
    let copy = sandbox.path().join("skopeo");
    let mut skopeo = Command::new("skopeo");
    skopeo
        .args(["copy", "--quiet", "--src-tls-verify=false"])
        .arg(format!("docker://{image}"))
        .arg(format!("dir:{}", copy.display()));
    let mut candidate = Candidate::new("skopeo copy (no unpacking)", skopeo);
    candidate.after = vec![remove(&copy)];
    candidates.push(candidate);
    Series::measure("pull, 4 layers: a Debian and three of 30 MB each", candidates, runs)
}

/// A container with some megabytes of changes is committed and pushed; removing the image is not timed.
fn commit(engines: &[Engine], registry: &Registry, image: &str, runs: usize) -> Series {
    let script = "mkdir /many; for i in $(seq 500); do cp /etc/passwd /many/$i; done; cp /bin/busybox /copy; seq 3000000 >/numbers";
    let ready: Vec<&Engine> = engines
        .iter()
        .filter(|engine| {
            noted(engine.name, engine.now(&["run", "--name", "bench", image, "sh", "-c", script])).is_some()
        })
        .collect();
    let candidates = ready
        .iter()
        .map(|engine| {
            let target = registry.image(&format!("bench-{}", engine.name));
            let mut candidate = engine.candidate(&["commit", "bench", &target]);
            candidate.after = vec![engine.command(&["rmi", "-f", &target])];
            candidate
        })
        .collect();
    Series::measure("commit of 500 small files and 25 MB", candidates, runs)
}

fn remove(path: &Path) -> Command {
    let mut command = Command::new("rm");
    command.arg("-rf").arg(path);
    command
}
