//! What is measured: the series, one after another.

use std::path::Path;
use std::process::Command;

use dhow_tests::bundle::Bundle;
use dhow_tests::{BUSYBOX, Instance, Registry, Sandbox, tool};

use crate::engines::{Containerd, Docker, Engine};
use crate::measure::{Candidate, Series, quiet};
use crate::runtimes::{self, Operation};

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Runs of quick commands; slow ones take a tenth.
    pub runs: usize,
    /// Only series whose name contains it.
    pub only: Option<String>,
}

/// The series so far, and where words for a person go.
struct Suite<'a> {
    sandbox: &'a Sandbox,
    options: &'a Options,
    say: &'a dyn Fn(&str),
    series: Vec<Series>,
}

const CGROUPS: &str = "/sys/fs/cgroup";

/// Measures everything that is wanted; each table goes to `say` as soon as it is there.
///
/// # Panics
/// When ours cannot even pull busybox.
#[must_use]
pub fn all(sandbox: &Sandbox, options: &Options, say: &dyn Fn(&str)) -> Vec<Series> {
    let mut suite = Suite { sandbox, options, say, series: Vec::new() };
    let registry = Registry::with_images(sandbox);
    let dhow = Instance::new(sandbox);
    let image = registry.image(BUSYBOX);
    dhow.ok(&format!("pull -q {image}"));
    suite.runtimes("the machine's cgroups", &runtimes::bundles(sandbox, &dhow, &image, None));
    if suite.wants("runtime v2") {
        // The configuration comes from a container on the machine's own tree.
        tool("mount", ["-t", "cgroup2", "cgroup2", CGROUPS]).run().ok();
        let there = std::fs::read_to_string(format!("{CGROUPS}/cgroup.controllers")).unwrap_or_default();
        tool("umount", [CGROUPS]).run().ok();
        let bundles = runtimes::bundles(sandbox, &dhow, &image, Some(&there));
        tool("mount", ["-t", "cgroup2", "cgroup2", CGROUPS]).run().ok();
        suite.runtimes("cgroup v2", &bundles);
        tool("umount", [CGROUPS]).run().ok();
    }
    if ["run", "run network", "exec", "pull", "commit", "push"].iter().any(|name| suite.wants(name)) {
        suite.engines(&dhow, &registry, &image);
    }
    suite.series
}

impl Suite<'_> {
    fn wants(&self, name: &str) -> bool {
        self.options.only.as_ref().is_none_or(|word| name.contains(word.as_str()))
    }

    fn show(&mut self, name: &str, ours: &str, measure: impl FnOnce(&Self) -> Series) {
        if self.wants(name) {
            let measured = measure(self);
            (self.say)(&measured.table(ours));
            self.series.push(measured);
        }
    }

    fn runtimes(&mut self, tree: &str, bundles: &[(&str, Bundle)]) {
        let runs = self.options.runs;
        for operation in Operation::ALL {
            let name = if tree.contains("v2") { "runtime v2" } else { "runtime" };
            for (configuration, bundle) in bundles {
                let runs = if operation == Operation::Sixteen { runs.div_ceil(4) } else { runs };
                self.show(name, runtimes::OURS, |suite| {
                    runtimes::series(suite.sandbox, operation, &format!("{configuration}, {tree}"), bundle, runs)
                });
            }
        }
    }

    fn engines(&mut self, dhow: &Instance, registry: &Registry, image: &str) {
        let containerd = self.noted("containerd", Containerd::start(self.sandbox));
        let docker =
            containerd.as_ref().and_then(|containerd| self.noted("docker", Docker::start(self.sandbox, containerd)));
        let mut engines = vec![Engine::dhow(dhow), Engine::podman(self.sandbox, registry)];
        engines.extend(docker.as_ref().map(Engine::docker));
        engines.retain(|engine| self.noted(engine.name, engine.now(&["pull", image])).is_some());
        for engine in &engines {
            (self.say)(&format!("{}: {}", engine.name, engine.version()));
        }
        let runs = self.options.runs;
        let few = (runs / 10).max(3);
        self.show("run", "dhow", |suite| {
            let mut candidates = each(&engines, &["run", "--rm", "--net", "none", image, "true"]);
            candidates.extend(containerd.as_ref().and_then(|containerd| suite.ctr_run(containerd, image)));
            Series::measure("run --rm --net none busybox true", candidates, runs)
        });
        self.show("run network", "dhow", |_| {
            let candidates = each(&engines, &["run", "--rm", image, "true"]);
            Series::measure("run --rm busybox true, on the bridge network", candidates, runs)
        });
        self.show("exec", "dhow", |suite| suite.exec(&engines, image, runs));
        self.show("pull", "dhow", |suite| suite.pull(registry, &engines, "layered", few));
        self.show("commit", "dhow", |suite| suite.commit(&engines, registry, image, few));
        self.show("push", "dhow", |suite| suite.push(&engines, registry, image, few));
        for engine in &engines {
            self.noted(engine.name, engine.now(&["rm", "-f", CONTAINER])).unwrap_or_default();
        }
    }

    /// What went wrong is said and left out.
    fn noted<T>(&self, name: &str, result: Result<T, String>) -> Option<T> {
        result.map_err(|why| (self.say)(&format!("left out: {name}: {why}"))).ok()
    }

    /// Those engines that could do something first.
    fn ready<'e>(&self, engines: &'e [Engine], args: &[&str]) -> Vec<&'e Engine> {
        engines.iter().filter(|engine| self.noted(engine.name, engine.now(args)).is_some()).collect()
    }

    fn ctr_run(&self, containerd: &Containerd, image: &str) -> Option<Candidate> {
        let name = format!("{image}:latest");
        self.noted("ctr", quiet(&mut containerd.ctr(&["images", "pull", "--plain-http", &name])))?;
        let command = containerd.ctr(&["run", "--rm", "--null-io", &name, CONTAINER, "/bin/true"]);
        Some(Candidate::new("ctr", command))
    }

    fn exec(&self, engines: &[Engine], image: &str, runs: usize) -> Series {
        let ready = self.ready(engines, &["run", "-d", "--name", CONTAINER, image, "sleep", "100000"]);
        let candidates = ready.iter().map(|engine| engine.candidate(&["exec", CONTAINER, "true"])).collect();
        let measured = Series::measure("exec true in a running container", candidates, runs);
        for engine in ready {
            self.noted(engine.name, engine.now(&["rm", "-f", CONTAINER])).unwrap_or_default();
        }
        measured
    }

    /// Every pull begins without the image; removing it is not timed.
    fn pull(&self, registry: &Registry, engines: &[Engine], name: &str, runs: usize) -> Series {
        let image = registry.image(name);
        let mut candidates: Vec<Candidate> = engines
            .iter()
            .map(|engine| {
                let mut candidate = engine.candidate(&["pull", "-q", &image]);
                candidate.after = removal(engine, &image);
                candidate
            })
            .collect();
        let copy = self.sandbox.path().join("skopeo");
        let mut skopeo = Command::new("skopeo");
        skopeo.args(["copy", "--quiet", "--src-tls-verify=false", &format!("docker://{image}")]);
        skopeo.arg(format!("dir:{}", copy.display()));
        let mut candidate = Candidate::new("skopeo copy (no unpacking)", skopeo);
        candidate.after = vec![remove(&copy)];
        candidates.push(candidate);
        Series::measure("pull of four layers: a Debian and three of 30 MB each", candidates, runs)
    }

    /// Removing the image is not timed.
    fn commit(&self, engines: &[Engine], registry: &Registry, image: &str, runs: usize) -> Series {
        let ready = self.ready(engines, &["run", "--name", CONTAINER, image, "sh", "-c", CHANGE]);
        let candidates = ready
            .iter()
            .map(|engine| {
                let target = registry.image(&format!("bench-{}", engine.name));
                let mut candidate = engine.candidate(&["commit", CONTAINER, &target]);
                candidate.after = removal(engine, &target);
                candidate
            })
            .collect();
        let measured = Series::measure("commit of 500 small files and 24 MB", candidates, runs);
        for engine in ready {
            self.noted(engine.name, engine.now(&["rm", "-f", CONTAINER])).unwrap_or_default();
        }
        measured
    }

    /// Every push is of a layer that the registry has not seen: the change is made and committed anew before it.
    fn push(&self, engines: &[Engine], registry: &Registry, image: &str, runs: usize) -> Series {
        let candidates = engines
            .iter()
            .map(|engine| {
                let target = registry.image(&format!("push-{}", engine.name));
                let mut candidate = engine.candidate(&["push", &target]);
                let change = format!("{CHANGE}; head -c 1000 /dev/urandom >/unique");
                candidate.before = vec![
                    engine.command(&["run", "--name", CONTAINER, image, "sh", "-c", &change]),
                    engine.command(&["commit", CONTAINER, &target]),
                    engine.command(&["rm", "-f", CONTAINER]),
                ];
                candidate.after = removal(engine, &target);
                candidate
            })
            .collect();
        Series::measure("push of that layer (whoever compresses only now does so here)", candidates, runs)
    }
}

/// Every engine's container in these series.
const CONTAINER: &str = "bench";

/// Some hundred small files and 24 MB of text, made in a container.
const CHANGE: &str = "mkdir /many; for i in $(seq 500); do cp /etc/passwd /many/$i; done; cp /bin/busybox /copy; \
                      seq 3000000 >/numbers";

fn each(engines: &[Engine], args: &[&str]) -> Vec<Candidate> {
    engines.iter().map(|engine| engine.candidate(args)).collect()
}

fn removal(engine: &Engine, image: &str) -> Vec<Command> {
    vec![engine.command(&["rmi", "-f", image])]
}

fn remove(path: &Path) -> Command {
    let mut command = Command::new("rm");
    command.arg("-rf").arg(path);
    command
}
