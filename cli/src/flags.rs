//! The flags of `run` and `create`.

use clap::Args;

/// What a container is to be.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct CreateFlags {
    /// Keep standard input open even if nobody is attached
    #[arg(short = 'i', long)]
    pub interactive: bool,
    /// Give the container a terminal
    #[arg(short = 't', long)]
    pub tty: bool,
    /// Remove the container (and its anonymous volumes) when it ends
    #[arg(long)]
    pub rm: bool,
    /// Call the container NAME (default: a generated name)
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Set an environment variable; without a value it is taken from your environment
    #[arg(short = 'e', long, value_name = "NAME[=VALUE]")]
    pub env: Vec<String>,
    /// Read environment variables from a file, one per line
    #[arg(long, value_name = "FILE")]
    pub env_file: Vec<String>,
    /// Mount a directory of the host or a volume: [SOURCE:]TARGET[:ro]
    #[arg(short = 'v', long, value_name = "[SOURCE:]TARGET[:OPTIONS]")]
    pub volume: Vec<String>,
    /// Mount something, in long form: type=bind|volume|tmpfs,source=…,target=…[,readonly]
    #[arg(long, value_name = "KEY=VALUE,…")]
    pub mount: Vec<String>,
    /// Mount an empty file system in memory: TARGET[:size=64m,mode=1777]
    #[arg(long, value_name = "TARGET[:OPTIONS]")]
    pub tmpfs: Vec<String>,
    /// Mount what another container has mounted: CONTAINER[:ro]
    #[arg(long, value_name = "CONTAINER")]
    pub volumes_from: Vec<String>,
    /// Publish a port of the container on the host
    #[arg(short = 'p', long, value_name = "[[IP:]HOST:]CONTAINER[/PROTOCOL]")]
    pub publish: Vec<String>,
    /// Publish all exposed ports on free ports of the host
    #[arg(short = 'P', long)]
    pub publish_all: bool,
    /// Declare that the container listens on a port
    #[arg(long, value_name = "PORT[/PROTOCOL]")]
    pub expose: Vec<String>,
    /// Connect to a network: bridge, host, none, container:NAME, or a network's name
    #[arg(long, visible_alias = "net", value_name = "NETWORK")]
    pub network: Option<String>,
    /// A further name of the container in its network
    #[arg(long, visible_alias = "net-alias", value_name = "NAME")]
    pub network_alias: Vec<String>,
    /// The container's IPv4 address
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Option<String>,
    /// The container's hardware address
    #[arg(long, value_name = "ADDRESS")]
    pub mac_address: Option<String>,
    /// A DNS server
    #[arg(long, value_name = "ADDRESS")]
    pub dns: Vec<String>,
    /// A domain that names are looked up in
    #[arg(long, value_name = "DOMAIN")]
    pub dns_search: Vec<String>,
    /// An option of resolv.conf
    #[arg(long, visible_alias = "dns-opt", value_name = "OPTION")]
    pub dns_option: Vec<String>,
    /// Add a line to /etc/hosts; the address may be host-gateway
    #[arg(long, value_name = "NAME:ADDRESS")]
    pub add_host: Vec<String>,
    /// Run as this user and group, by name or number
    #[arg(short = 'u', long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    /// Add the process to a group
    #[arg(long, value_name = "GROUP")]
    pub group_add: Vec<String>,
    /// The working directory in the container
    #[arg(short = 'w', long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// Replace the image's entry point
    #[arg(long, value_name = "PROGRAM")]
    pub entrypoint: Option<String>,
    /// The host name in the container
    #[arg(long, short = 'h', value_name = "NAME")]
    pub hostname: Option<String>,
    /// The NIS domain name in the container
    #[arg(long, value_name = "NAME")]
    pub domainname: Option<String>,
    /// Run an init as process 1 that passes signals on and reaps processes
    #[arg(long)]
    pub init: bool,
    /// Start it again when it ends: no, on-failure[:MAX], always, unless-stopped
    #[arg(long, value_name = "POLICY")]
    pub restart: Option<String>,
    /// When to pull the image: always, missing or never
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pub pull: String,
    /// Take the image of this platform: OS/ARCH[/VARIANT]
    #[arg(long, value_name = "PLATFORM")]
    pub platform: Option<String>,
    /// Print nothing while pulling
    #[arg(short = 'q', long)]
    pub quiet: bool,
    /// Most memory
    #[arg(short = 'm', long, value_name = "BYTES")]
    pub memory: Option<String>,
    /// Most memory and swap together; -1 is unlimited
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub memory_swap: Option<String>,
    /// Memory that is left to the container when it gets scarce
    #[arg(long, value_name = "BYTES")]
    pub memory_reservation: Option<String>,
    /// Most processors, such as 1.5
    #[arg(long, value_name = "NUMBER")]
    pub cpus: Option<f64>,
    /// Weight against other containers (default 1024)
    #[arg(short = 'c', long, value_name = "WEIGHT")]
    pub cpu_shares: Option<i64>,
    /// Length of a scheduling period in microseconds
    #[arg(long, value_name = "MICROSECONDS")]
    pub cpu_period: Option<i64>,
    /// Processor time in each period in microseconds
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    pub cpu_quota: Option<i64>,
    /// Processors to run on, such as 0-2,5
    #[arg(long, value_name = "LIST")]
    pub cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST")]
    pub cpuset_mems: Option<String>,
    /// Most processes and threads; -1 is unlimited
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub pids_limit: Option<i64>,
    /// Give the container a device of the host
    #[arg(long, value_name = "HOST[:CONTAINER][:rwm]")]
    pub device: Vec<String>,
    /// Add a capability
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_add: Vec<String>,
    /// Take a capability away
    #[arg(long, value_name = "CAPABILITY")]
    pub cap_drop: Vec<String>,
    /// All capabilities, all devices, no filter: no protection of the host
    #[arg(long)]
    pub privileged: bool,
    /// seccomp=FILE|unconfined, no-new-privileges, apparmor=PROFILE, label=…, systempaths=unconfined
    #[arg(long, value_name = "OPTION")]
    pub security_opt: Vec<String>,
    /// Mount the root file system read-only
    #[arg(long)]
    pub read_only: bool,
    /// Set a resource limit: NAME=SOFT[:HARD]
    #[arg(long, value_name = "LIMIT")]
    pub ulimit: Vec<String>,
    /// Set a kernel parameter of the container's namespaces
    #[arg(long, value_name = "NAME=VALUE")]
    pub sysctl: Vec<String>,
    /// Size of /dev/shm (default 64m)
    #[arg(long, value_name = "BYTES")]
    pub shm_size: Option<String>,
    /// The PID namespace: private, host or container:NAME
    #[arg(long, value_name = "MODE")]
    pub pid: Option<String>,
    /// The IPC namespace: private, none, host or container:NAME
    #[arg(long, value_name = "MODE")]
    pub ipc: Option<String>,
    /// The UTS namespace: private or host
    #[arg(long, value_name = "MODE")]
    pub uts: Option<String>,
    /// The user namespace: host (others are still to come)
    #[arg(long, value_name = "MODE")]
    pub userns: Option<String>,
    /// The cgroup namespace: private or host
    #[arg(long, value_name = "MODE")]
    pub cgroupns: Option<String>,
    /// The cgroup below which the container's is made
    #[arg(long, value_name = "PATH")]
    pub cgroup_parent: Option<String>,
    /// Label the container
    #[arg(short = 'l', long, value_name = "KEY[=VALUE]")]
    pub label: Vec<String>,
    /// Read labels from a file, one per line
    #[arg(long, value_name = "FILE")]
    pub label_file: Vec<String>,
    /// Annotate the container for the runtime
    #[arg(long, value_name = "KEY=VALUE")]
    pub annotation: Vec<String>,
    /// The signal that asks the container to end (default: the image's, else SIGTERM)
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// Seconds from that signal to SIGKILL (default 10)
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    pub stop_timeout: Option<i64>,
    /// How readily the kernel kills it for want of memory: -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub oom_score_adj: Option<i64>,
    /// Let it wait instead of killing it when its memory is used up (cgroup v1)
    #[arg(long)]
    pub oom_kill_disable: bool,
    /// How readily its memory is swapped out: 0 to 100, -1 as the host (cgroup v1)
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pub memory_swappiness: Option<i64>,
    /// Don't run the image's health check: there are none yet
    #[arg(long)]
    pub no_healthcheck: bool,
    #[command(flatten)]
    pub unsupported: UnsupportedFlags,
    /// Write the container's id to a new file
    #[arg(long, value_name = "FILE")]
    pub cidfile: Option<String>,
    /// Where the output is kept: json-file or none
    #[arg(long, value_name = "DRIVER")]
    pub log_driver: Option<String>,
    /// max-size=BYTES or max-file=NUMBER
    #[arg(long, value_name = "KEY=VALUE")]
    pub log_opt: Vec<String>,
    /// Don't check TLS certificates, and allow plain http, when pulling
    #[arg(long, value_name = "BOOL", default_value = "true", num_args = 0..=1, default_missing_value = "true", require_equals = true, action = clap::ArgAction::Set)]
    pub tls_verify: bool,
}

/// Flags of docker's that dhow knows in order to say why it cannot do them.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct UnsupportedFlags {
    #[arg(long, hide = true)]
    pub health_cmd: Option<String>,
    #[arg(long, hide = true)]
    pub health_interval: Option<String>,
    #[arg(long, hide = true)]
    pub health_retries: Option<String>,
    #[arg(long, hide = true)]
    pub health_start_period: Option<String>,
    #[arg(long, hide = true)]
    pub health_timeout: Option<String>,
    #[arg(long, hide = true)]
    pub gpus: Option<String>,
    #[arg(long, hide = true)]
    pub link: Vec<String>,
    #[arg(long, hide = true)]
    pub storage_opt: Vec<String>,
    #[arg(long, hide = true)]
    pub runtime: Option<String>,
}

impl UnsupportedFlags {
    /// The first one that was given, and what to do instead.
    pub(crate) fn given(&self) -> Option<(&'static str, &'static str)> {
        const HEALTH: &str = "health checks are still to come; run the check by `dhow exec`";
        let health = [
            ("--health-cmd", &self.health_cmd),
            ("--health-interval", &self.health_interval),
            ("--health-retries", &self.health_retries),
            ("--health-start-period", &self.health_start_period),
            ("--health-timeout", &self.health_timeout),
        ];
        let health = health.into_iter().find(|(_, value)| value.is_some()).map(|(flag, _)| (flag, HEALTH));
        let others = [
            (self.gpus.is_some(), "--gpus", "name the devices by --device"),
            (!self.link.is_empty(), "--link", "give both containers a network, or use --add-host"),
            (!self.storage_opt.is_empty(), "--storage-opt", "the size of a container's files cannot be limited"),
            (self.runtime.is_some(), "--runtime", "dhow has one runtime, its own"),
        ];
        health.or_else(|| others.into_iter().find(|(given, ..)| *given).map(|(_, flag, why)| (flag, why)))
    }
}

/// The words after the flags.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct ImageAndCommand {
    /// The image to run.
    pub image: String,
    /// The command and its arguments.
    pub command: Vec<String>,
}
