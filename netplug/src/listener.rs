//! Who on the host listens on a port: for the error message that says so, and nothing else.

use std::fs;
use std::path::Path;

use crate::port::{Port, Transport};

/// Names the process that listens on a port, as far as it can be found.
pub(crate) fn describe(port: &Port) -> String {
    inode_of(port).and_then(|inode| process_with(&inode)).unwrap_or_else(|| "it is in use on the host".to_owned())
}

/// The inode of a socket that is bound to the port.
fn inode_of(port: &Port) -> Option<String> {
    let tables: &[&str] = match port.transport {
        Transport::Tcp => &["tcp", "tcp6"],
        Transport::Udp => &["udp", "udp6"],
        Transport::Sctp => return None,
    };
    // proc(5): sl, local address:port, remote, state, queues, timer, retransmissions, uid, timeout, inode
    let wanted = format!(":{:04X}", port.host_port);
    tables.iter().find_map(|table| {
        let text = fs::read_to_string(Path::new("/proc/thread-self/net").join(table)).ok()?;
        text.lines().skip(1).find_map(|line| {
            let fields: Vec<_> = line.split_ascii_whitespace().collect();
            let (local, state, inode) = (fields.get(1)?, fields.get(3)?, fields.get(9)?);
            let bound = port.transport == Transport::Udp || *state == TCP_LISTEN;
            (bound && local.ends_with(&wanted) && *inode != "0").then(|| (*inode).to_owned())
        })
    })
}

fn process_with(inode: &str) -> Option<String> {
    let wanted = format!("socket:[{inode}]");
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let holds = fs::read_dir(entry.path().join("fd")).ok()?.flatten().any(|descriptor| {
            fs::read_link(descriptor.path()).is_ok_and(|target| target.as_os_str() == wanted.as_str())
        });
        let name = fs::read_to_string(entry.path().join("comm")).ok()?;
        holds.then(|| format!("process {pid} ({}) listens on it", name.trim_end()))
    })
}

const TCP_LISTEN: &str = "0A";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_this_process() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let host_port = listener.local_addr().unwrap().port();
        let port = Port { transport: Transport::Tcp, host: None, host_port, container_port: 80 };
        assert!(describe(&port).starts_with(&format!("process {} (", std::process::id())), "{}", describe(&port));
    }
}
