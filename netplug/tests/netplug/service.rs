//! The service as a process: what callers see over ttrpc.

use std::path::Path;
use std::process::{Child, Command};
use std::time::Instant;

use dhow_api::Kind;
use dhow_api::clients::Network;
use dhow_api::network as message;
use dhow_api::rpc::Client;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::{HOST, Host, LIMIT, OUTSIDE, Server, ask, on_host};

/// Seconds after which a service leaves that nobody needs; enough for a busy machine to get to the next call.
const IDLE: u32 = 4;

/// A service of the host's instance, killed when dropped.
pub(crate) struct Process {
    child: Child,
    pub(crate) network: Network,
}

impl Process {
    /// Starts the service, `under` another program, and waits until it listens.
    pub(crate) fn start(host: &Host, idle: u32, under: &[&str]) -> Self {
        std::fs::create_dir_all(host.runroot()).unwrap();
        let mut words: Vec<&str> = under.to_vec();
        words.push(env!("CARGO_BIN_EXE_dhow-netplug"));
        let socket = host.runroot().join("netplug.sock");
        let mut child = Command::new(words[0])
            .args(&words[1..])
            .args(["--root".as_ref(), host.root().as_os_str(), "--runroot".as_ref(), host.runroot().as_os_str()])
            .args(["--idle", &idle.to_string()])
            .spawn()
            .unwrap();
        let deadline = Instant::now() + LIMIT;
        // One that is to be killed may not come that far.
        while std::os::unix::net::UnixStream::connect(&socket).is_err() && child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the service does not listen on {}", socket.display());
            std::thread::yield_now();
        }
        Self { child, network: Network::over(Client::at(&socket)) }
    }

    pub(crate) fn kill(&mut self) {
        self.kill_tracee();
        let _ended = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Kills what the child runs: a service outlives the strace that watched it. Then strace ends by itself.
    fn kill_tracee(&mut self) {
        let pid = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        let children: Vec<i32> = children.split_ascii_whitespace().map(|pid| pid.parse().unwrap()).collect();
        for child in &children {
            let _ended = kill(Pid::from_raw(*child), Signal::SIGKILL);
        }
        if !children.is_empty() {
            self.child.wait().unwrap();
        }
    }

    /// Waits for its own end.
    pub(crate) fn wait(&mut self) -> std::process::ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.try_wait().unwrap().is_none() {
            self.kill();
        }
    }
}

/// An Attach to the default network.
pub(crate) fn attach_request(id: &str, ports: &[(u32, u32)]) -> message::AttachRequest {
    let port = |(host_port, container_port): &(u32, u32)| message::Port {
        host_port: *host_port,
        container_port: *container_port,
        ..Default::default()
    };
    message::AttachRequest {
        container_id: id.to_owned(),
        mode: "bridge".to_owned(),
        ports: ports.iter().map(port).collect(),
        ..Default::default()
    }
}

#[test]
fn answers_over_ttrpc() {
    on_host(|host| {
        let service = Process::start(host, 60, &[]);
        let answer = service.network.attach(&attach_request("one", &[(8080, 80)])).unwrap();
        assert_eq!(answer.interfaces[0].addresses, ["10.88.0.2/16"]);
        assert_eq!(answer.interfaces[0].name, "eth0");
        let _server = Server::tcp(Some(Path::new(&answer.netns)), 80);
        assert_eq!(ask(Some(&host.outside), HOST, 8080).unwrap(), OUTSIDE);
        let again = service.network.attach(&attach_request("one", &[])).unwrap_err();
        assert_eq!(
            (again.kind(), again.to_string().as_str()),
            (Kind::AlreadyExists, "container one is attached already")
        );
        let invalid = service.network.attach(&attach_request("../one", &[])).unwrap_err();
        assert_eq!(invalid.kind(), Kind::InvalidArgument);
        let config = message::NetworkConfig { name: "mine".to_owned(), ..Default::default() };
        let create = message::CreateNetworkRequest { network: Some(config).into(), ..Default::default() };
        assert_eq!(service.network.create_network(&create).unwrap().network.subnets[0].gateway, "10.89.0.1");
        let named = |name: &str| message::InspectNetworkRequest { name: name.to_owned(), ..Default::default() };
        assert_eq!(service.network.inspect_network(&named("bridge")).unwrap().network.containers, ["one"]);
        let remove = message::RemoveNetworkRequest { name: "mine".to_owned(), ..Default::default() };
        service.network.remove_network(&remove).unwrap();
        assert_eq!(service.network.remove_network(&remove).unwrap_err().kind(), Kind::NotFound);
        let check = message::CheckRequest { container_id: "one".to_owned(), ..Default::default() };
        service.network.check(&check).unwrap();
        let detach = message::DetachRequest { container_id: "one".to_owned(), ..Default::default() };
        service.network.detach(&detach).unwrap();
        service.network.detach(&detach).unwrap();
        service.network.gc(&message::GcRequest::default()).unwrap();
    });
}

#[test]
fn leaves_nothing_when_idle() {
    on_host(|host| {
        let mut service = Process::start(host, IDLE, &[]);
        service.network.attach(&attach_request("one", &[(8080, 80)])).unwrap();
        let detach = message::DetachRequest { container_id: "one".to_owned(), ..Default::default() };
        service.network.detach(&detach).unwrap();
        assert!(service.wait().success());
        host.assert_clean();
    });
}

#[test]
fn stays_up_for_what_is_attached() {
    on_host(|host| {
        let mut service = Process::start(host, IDLE, &[]);
        let answer = service.network.attach(&attach_request("one", &[(8080, 80)])).unwrap();
        assert!(service.wait().success());
        let _server = Server::tcp(Some(Path::new(&answer.netns)), 80);
        assert_eq!(ask(Some(&host.outside), HOST, 8080).unwrap(), OUTSIDE);
        // The next service goes on where the last one left.
        let service = Process::start(host, 60, &[]);
        assert_eq!(service.network.attach(&attach_request("one", &[])).unwrap_err().kind(), Kind::AlreadyExists);
        assert_eq!(
            service.network.attach(&attach_request("two", &[(8080, 80)])).unwrap_err().kind(),
            Kind::AlreadyExists
        );
    });
}
