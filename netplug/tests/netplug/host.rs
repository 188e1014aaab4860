//! A host of the test's own: a thread in new network and mount namespaces with a neighbour outside, and programs that
//! listen and connect in any namespace.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dhow_netplug::{AttachRequest, Attachment, ContainerId, FilesRequest, Mode, Netplug, Port, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::socket::{Shutdown, shutdown};

/// The host's address on the network outside, and its neighbour's.
pub(crate) const HOST: &str = "192.0.2.1";
pub(crate) const OUTSIDE: &str = "192.0.2.2";

/// Longest time that anything here may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(300);

/// How long a test listens to silence.
const SOON: Duration = Duration::from_millis(700);

/// The machine that a test runs on.
pub(crate) struct Host {
    pub(crate) directory: tempfile::TempDir,
    pub(crate) plug: Netplug,
    /// The neighbour's network namespace.
    pub(crate) outside: PathBuf,
    baseline: Traces,
}

/// What an instance could leave behind.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Traces {
    links: Vec<String>,
    tables: String,
    mounts: Vec<String>,
}

/// Runs a test on a host of its own, in a thread that no other test uses.
pub(crate) fn on_host(test: impl FnOnce(&Host) + Send + 'static) {
    assert!(nix::unistd::geteuid().is_root(), "these tests make namespaces: run them as root");
    let outcome = thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_SLAVE, None::<&str>).unwrap();
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>).unwrap();
        let host = Host::new();
        test(&host);
        host.plug.gc(&[]).unwrap();
        host.assert_clean();
    })
    .join();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

impl Host {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let outside = directory.path().join("outside");
        File::create(&outside).unwrap();
        run("ip link set lo up");
        thread::scope(|scope| {
            scope.spawn(|| {
                unshare(CloneFlags::CLONE_NEWNET).unwrap();
                run("ip link set lo up");
                mount(Some("/proc/thread-self/ns/net"), &outside, None::<&str>, MsFlags::MS_BIND, None::<&str>)
                    .unwrap();
            });
        });
        run("ip link add wan type veth peer name lan");
        run(&format!("ip link set lan netns {}", outside.display()));
        run("ip addr add 192.0.2.1/24 dev wan");
        run("ip link set wan up");
        inside(&outside, || {
            run("ip addr add 192.0.2.2/24 dev lan");
            run("ip link set lan up");
        });
        run("ip route add default via 192.0.2.2");
        let plug = Netplug::new(&directory.path().join("root"), &directory.path().join("run")).unwrap();
        Self { plug, outside, baseline: Traces::now(directory.path()), directory }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.directory.path().join("root")
    }

    pub(crate) fn runroot(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// Another instance on the same host.
    pub(crate) fn other(&self, name: &str) -> Netplug {
        Netplug::new(&self.directory.path().join(name), &self.directory.path().join(format!("{name}-run"))).unwrap()
    }

    /// Attaches a container; `ports` as docker writes them: `[HOST:]PORT:PORT[/PROTOCOL]`.
    pub(crate) fn attach(&self, id: &str, mode: &str, ports: &[&str]) -> Result<Attachment> {
        self.plug.attach(&request(id, mode, ports))
    }

    pub(crate) fn detach(&self, id: &str) {
        self.plug.detach(&ContainerId::parse(id).unwrap()).unwrap();
    }

    /// Waits until nothing of any instance is left. Namespaces are freed by the kernel in its own time.
    pub(crate) fn assert_clean(&self) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let now = Traces::now(self.directory.path());
            if now == self.baseline {
                break;
            }
            assert!(Instant::now() < deadline, "left behind: {now:?}, at first there was {:?}", self.baseline);
            thread::sleep(Duration::from_millis(5));
        }
        let networks = self.root().join("networks");
        let left = |name: &str| std::fs::read_dir(networks.join(name)).map(|list| list.count()).unwrap_or(0);
        assert_eq!((left("leases"), left("ports"), left("attachments")), (0, 0, 0));
        assert!(!self.runroot().join("netns").exists());
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // A mount point cannot be removed with the directory.
        let _unmounted = umount2(&self.outside, MntFlags::MNT_DETACH);
    }
}

impl Traces {
    fn now(directory: &Path) -> Self {
        let list = run("ip -o link");
        let mut links: Vec<_> = list.lines().filter_map(|line| line.split(": ").nth(1)).map(str::to_owned).collect();
        links.sort();
        let own = |line: &&str| line.contains(&*directory.to_string_lossy());
        let mounts = std::fs::read_to_string("/proc/thread-self/mounts").unwrap();
        let mounts = mounts.lines().filter(own).map(str::to_owned).collect();
        Self { links, tables: run("nft list tables"), mounts }
    }
}

/// A request as a test writes it.
pub(crate) fn request(id: &str, mode: &str, ports: &[&str]) -> AttachRequest {
    let port = |text: &&str| {
        let (rest, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let mut parts: Vec<_> = rest.split(':').collect();
        let container = parts.pop().unwrap().parse().unwrap();
        let host_port = parts.pop().unwrap().parse().unwrap();
        Port::parse(protocol, parts.pop().unwrap_or(""), host_port, container).unwrap()
    };
    AttachRequest {
        container: ContainerId::parse(id).unwrap(),
        mode: Mode::parse(mode).unwrap(),
        ports: ports.iter().map(port).collect(),
        ip: None,
        mac: None,
        files: None,
    }
}

/// Files in a directory, for a hostname.
pub(crate) fn files(directory: &Path, hostname: &str) -> FilesRequest {
    FilesRequest {
        directory: directory.to_owned(),
        hostname: hostname.to_owned(),
        aliases: Vec::new(),
        dns: Vec::new(),
        dns_search: Vec::new(),
        dns_options: Vec::new(),
        extra_hosts: Vec::new(),
    }
}

/// Runs a command line in the caller's namespaces.
pub(crate) fn run(line: &str) -> String {
    let mut words = line.split_ascii_whitespace();
    let output = Command::new(words.next().unwrap()).args(words).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs something in a network namespace.
pub(crate) fn inside<T: Send>(namespace: &Path, run: impl FnOnce() -> T + Send) -> T {
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            setns(File::open(namespace).unwrap(), CloneFlags::CLONE_NEWNET).unwrap();
            run()
        });
        worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// The namespace of an attachment.
pub(crate) fn namespace(attachment: &Attachment) -> &Path {
    attachment.netns.as_deref().unwrap()
}

/// The first address of an attachment.
pub(crate) fn address(attachment: &Attachment) -> IpAddr {
    attachment.interfaces[0].addresses[0].address()
}

/// A server that tells each client the address that it sees. Stopped when dropped.
pub(crate) struct Server {
    socket: Socket,
    worker: Option<JoinHandle<()>>,
}

enum Socket {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl Server {
    /// Listens in a namespace (none: the caller's).
    pub(crate) fn tcp(namespace: Option<&Path>, port: u16) -> Self {
        let listener = there(namespace, || TcpListener::bind(("0.0.0.0", port)).unwrap());
        let copy = listener.try_clone().unwrap();
        let worker = thread::spawn(move || {
            while let Ok((mut stream, peer)) = copy.accept() {
                let _gone = write!(stream, "{}", peer.ip());
            }
        });
        Self { socket: Socket::Tcp(listener), worker: Some(worker) }
    }

    /// The same over UDP.
    pub(crate) fn udp(namespace: Option<&Path>, port: u16) -> Self {
        let socket = there(namespace, || UdpSocket::bind(("0.0.0.0", port)).unwrap());
        let copy = socket.try_clone().unwrap();
        let worker = thread::spawn(move || {
            let mut buffer = [0; 64];
            while let Ok((length, peer)) = copy.recv_from(&mut buffer) {
                if length == 0 {
                    break;
                }
                let _gone = copy.send_to(peer.ip().to_string().as_bytes(), peer);
            }
        });
        Self { socket: Socket::Udp(socket), worker: Some(worker) }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let descriptor = match &self.socket {
            Socket::Tcp(listener) => listener.as_raw_fd(),
            Socket::Udp(socket) => socket.as_raw_fd(),
        };
        // An unconnected UDP socket answers ENOTCONN and wakes its reader all the same.
        let _not_connected = shutdown(descriptor, Shutdown::Both);
        if let Some(worker) = self.worker.take() {
            worker.join().unwrap();
        }
    }
}

/// What a server at the address says, asked from a namespace.
pub(crate) fn ask(from: Option<&Path>, to: &str, port: u16) -> io::Result<String> {
    ask_within(LIMIT, from, to, port)
}

/// Whether nobody answers, or nobody within the time in which a machine that is not busy would.
pub(crate) fn is_silent(from: Option<&Path>, to: &str, port: u16) -> bool {
    ask_within(SOON, from, to, port).is_err()
}

fn ask_within(limit: Duration, from: Option<&Path>, to: &str, port: u16) -> io::Result<String> {
    let to = SocketAddr::new(to.parse().unwrap(), port);
    there(from, || {
        let mut stream = TcpStream::connect_timeout(&to, limit)?;
        stream.set_read_timeout(Some(limit))?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text)
    })
}

/// The same over UDP, from a port (0: any).
pub(crate) fn ask_udp(from: Option<&Path>, from_port: u16, to: &str, port: u16) -> io::Result<String> {
    ask_udp_within(LIMIT, from, from_port, to, port)
}

/// The same as [`is_silent`] over UDP.
pub(crate) fn is_silent_udp(from: Option<&Path>, from_port: u16, to: &str, port: u16) -> bool {
    ask_udp_within(SOON, from, from_port, to, port).is_err()
}

fn ask_udp_within(limit: Duration, from: Option<&Path>, from_port: u16, to: &str, port: u16) -> io::Result<String> {
    there(from, || {
        let socket = UdpSocket::bind(("0.0.0.0", from_port))?;
        socket.set_read_timeout(Some(limit))?;
        socket.connect((to, port))?;
        socket.send(b"?")?;
        let mut buffer = [0; 64];
        let length = socket.recv(&mut buffer)?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    })
}

fn there<T: Send>(namespace: Option<&Path>, run: impl FnOnce() -> T + Send) -> T {
    match namespace {
        Some(namespace) => inside(namespace, run),
        None => run(),
    }
}
