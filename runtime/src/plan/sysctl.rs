//! `linux.sysctl`: only what belongs to a namespace of the container's own.

use std::path::PathBuf;

use dhow_sys::clone::Namespaces;

use super::NamespacePlan;
use crate::config::Linux;
use crate::{Error, Result};

/// A kernel parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// Below /proc/sys.
    pub path: PathBuf,
    /// As written.
    pub value: String,
}

/// Parameters of the System V IPC namespace.
const IPC: [&str; 8] = [
    "kernel/msgmax",
    "kernel/msgmnb",
    "kernel/msgmni",
    "kernel/sem",
    "kernel/shmall",
    "kernel/shmmax",
    "kernel/shmmni",
    "kernel/shm_rmid_forced",
];

pub(super) fn all(linux: &Linux, namespaces: &NamespacePlan) -> Result<Vec<Sysctl>> {
    linux.sysctl.iter().map(|(key, value)| one(key, value, namespaces)).collect()
}

fn one(key: &str, value: &str, namespaces: &NamespacePlan) -> Result<Sysctl> {
    let field = || format!("linux.sysctl[{key:?}]");
    let path = path(key);
    if path.split('/').any(|part| matches!(part, "" | "." | "..")) {
        return Err(Error::config(field(), "is no kernel parameter"));
    }
    let needed = if IPC.contains(&path.as_str()) || path.starts_with("fs/mqueue/") {
        Namespaces::IPC
    } else if path.starts_with("net/") {
        Namespaces::NETWORK
    } else if path == "kernel/domainname" {
        Namespaces::UTS
    } else if path.starts_with("user/") {
        Namespaces::USER
    } else if path == "kernel/hostname" {
        return Err(Error::config(field(), "is the field hostname's"));
    } else {
        return Err(Error::config(field(), "belongs to no namespace: it would change the host's"));
    };
    if !namespaces.has(needed) {
        return Err(Error::config(field(), "the container has no namespace of its own for it"));
    }
    Ok(Sysctl { path: PathBuf::from(path), value: value.to_owned() })
}

/// As sysctl(8): the first separator decides which one it is, the other one is part of a name.
fn path(key: &str) -> String {
    match key.find(['.', '/']).map(|at| &key[at..=at]) {
        Some(".") => key
            .chars()
            .map(|c| {
                if c == '.' {
                    '/'
                } else if c == '/' {
                    '.'
                } else {
                    c
                }
            })
            .collect(),
        _ => key.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(path("net.ipv4.conf.eth0/1.forwarding"), "net/ipv4/conf/eth0.1/forwarding");
        assert_eq!(path("net/ipv4/conf/eth0.1/forwarding"), "net/ipv4/conf/eth0.1/forwarding");
    }

    #[test]
    fn only_the_containers_own() {
        let own = NamespacePlan { new: Namespaces::NETWORK | Namespaces::IPC, ..NamespacePlan::default() };
        assert!(one("net.core.somaxconn", "1", &own).is_ok());
        assert!(one("fs.mqueue.msg_max", "1", &own).is_ok());
        for key in ["kernel.domainname", "kernel.hostname", "vm.swappiness", "net/../kernel/core_pattern", "net..x"] {
            assert!(one(key, "1", &own).is_err(), "{key}");
        }
    }
}
