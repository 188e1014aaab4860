//! Whole engines beside each other: dhow, podman, docker and containerd's ctr, each with roots of its own.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dhow_tests::{Instance, Registry, Sandbox, instance};

use crate::measure::{Candidate, quiet};

/// Something that speaks docker's command line.
#[derive(Debug)]
pub struct Engine {
    /// `dhow`, `podman`, `docker`.
    pub name: &'static str,
    words: Vec<String>,
    environment: Vec<(&'static str, PathBuf)>,
}

impl Engine {
    /// ours
    #[must_use]
    pub fn dhow(dhow: &Instance) -> Self {
        Self {
            name: "dhow",
            words: vec![instance::binary("dhow").display().to_string()],
            environment: vec![
                ("DHOW_ROOT", dhow.root().to_owned()),
                ("DHOW_RUNROOT", dhow.runroot().to_owned()),
                ("HOME", dhow.home().to_owned()),
            ],
        }
    }

    /// podman with its storage in the sandbox, and the registry allowed without TLS.
    ///
    /// # Panics
    /// When the sandbox cannot be written.
    #[must_use]
    pub fn podman(sandbox: &Sandbox, registry: &Registry) -> Self {
        let dir = sandbox.dir("podman");
        let registries = dir.join("registries.conf");
        let text = format!("[[registry]]\nlocation = \"{}\"\ninsecure = true\n", registry.host);
        std::fs::write(&registries, text).expect("registries.conf");
        let place = |name: &str| dir.join(name).display().to_string();
        let words = [
            "podman",
            "--root",
            &place("root"),
            "--runroot",
            &place("run"),
            "--storage-driver",
            "overlay",
            "--cgroup-manager",
            "cgroupfs",
            "--events-backend",
            "none",
        ];
        Self {
            name: "podman",
            words: words.map(str::to_owned).into(),
            environment: vec![("CONTAINERS_REGISTRIES_CONF", registries), ("HOME", dir.clone()), ("TMPDIR", dir)],
        }
    }

    /// The client of a [`Docker`].
    #[must_use]
    pub fn docker(docker: &Docker) -> Self {
        Self {
            name: "docker",
            words: vec!["/usr/bin/docker".into(), "--host".into(), format!("unix://{}", docker.socket.display())],
            environment: vec![("DOCKER_CONFIG", docker.socket.with_file_name("config"))],
        }
    }

    /// A command of it.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.words[0]);
        command.args(&self.words[1..]).args(args).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }

    /// A candidate that runs one command.
    #[must_use]
    pub fn candidate(&self, args: &[&str]) -> Candidate {
        Candidate::new(self.name, self.command(args))
    }

    /// Runs a command now.
    ///
    /// # Errors
    /// When it fails.
    pub fn now(&self, args: &[&str]) -> Result<(), String> {
        quiet(&mut self.command(args))
    }

    /// Its version, for the record.
    #[must_use]
    pub fn version(&self) -> String {
        let out = self.command(&["--version"]).output();
        String::from_utf8_lossy(&out.map(|out| out.stdout).unwrap_or_default())
            .lines()
            .next()
            .unwrap_or_default()
            .to_owned()
    }
}

/// A daemon of ours; ends on drop.
#[derive(Debug)]
struct Daemon(Child);

impl Daemon {
    fn start(command: &mut Command, log: &Path) -> Result<Self, String> {
        let file = std::fs::File::create(log).map_err(|error| error.to_string())?;
        let copy = file.try_clone().map_err(|error| error.to_string())?;
        let child = command.stdin(Stdio::null()).stdout(copy).stderr(file).spawn();
        child.map(Self).map_err(|error| format!("{command:?}: {error}"))
    }

    /// Waits until `ready` succeeds; the log's end when it does not.
    fn wait(&mut self, mut ready: impl FnMut() -> Result<(), String>, log: &Path) -> Result<(), String> {
        let end = Instant::now() + Duration::from_secs(30);
        loop {
            let Err(why) = ready() else { return Ok(()) };
            if Instant::now() > end || self.0.try_wait().is_ok_and(|status| status.is_some()) {
                let said = std::fs::read_to_string(log).unwrap_or_default();
                return Err(format!("{why}: {}", said.lines().last().unwrap_or_default()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.0.id().cast_signed());
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).ok();
        drop(self.0.wait());
    }
}

/// containerd with its storage in the sandbox.
#[derive(Debug)]
pub struct Containerd {
    socket: PathBuf,
    _daemon: Daemon,
}

impl Containerd {
    /// Starts it.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(sandbox: &Sandbox) -> Result<Self, String> {
        let dir = sandbox.dir("containerd");
        let (socket, log, config) = (dir.join("sock"), dir.join("log"), dir.join("config.toml"));
        let text = format!(
            "version = 2\nroot = \"{0}/root\"\nstate = \"{0}/state\"\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = \"{0}/sock\"\n",
            dir.display()
        );
        std::fs::write(&config, text).map_err(|error| error.to_string())?;
        let mut daemon = Daemon::start(Command::new("containerd").arg("--config").arg(config), &log)?;
        daemon.wait(|| quiet(Command::new("ctr").arg("-a").arg(&socket).arg("version")), &log)?;
        Ok(Self { socket, _daemon: daemon })
    }

    /// A command of its client.
    #[must_use]
    pub fn ctr(&self, args: &[&str]) -> Command {
        let mut command = Command::new("ctr");
        command.arg("-a").arg(&self.socket).args(args);
        command
    }
}

/// dockerd with its storage in the sandbox, over a containerd.
#[derive(Debug)]
pub struct Docker {
    socket: PathBuf,
    _daemon: Daemon,
}

impl Docker {
    /// Starts it.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start(sandbox: &Sandbox, containerd: &Containerd) -> Result<Self, String> {
        let dir = sandbox.dir("docker");
        let (socket, log) = (dir.join("sock"), dir.join("log"));
        let mut command = Command::new("dockerd");
        command
            .arg("--data-root")
            .arg(dir.join("root"))
            .arg("--exec-root")
            .arg(dir.join("run"))
            .arg("--pidfile")
            .arg(dir.join("pid"))
            .arg("--host")
            .arg(format!("unix://{}", socket.display()))
            .arg("--containerd")
            .arg(&containerd.socket);
        let mut daemon = Daemon::start(&mut command, &log)?;
        let mut probe = || {
            let mut client = Command::new("/usr/bin/docker");
            quiet(client.arg("--host").arg(format!("unix://{}", socket.display())).arg("version"))
        };
        daemon.wait(&mut probe, &log)?;
        Ok(Self { socket, _daemon: daemon })
    }
}
