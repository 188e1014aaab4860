//! Kernel settings of the calling thread's network namespace, under `/proc/sys/net`.

use std::fs;
use std::path::Path;

use crate::error::{Result, file};

/// Writes a setting, if the kernel has it (IPv6 may be compiled out).
pub(crate) fn write(name: &str, value: &str) -> Result<()> {
    let path = Path::new("/proc/sys/net").join(name);
    match fs::write(&path, value) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        outcome => outcome.map_err(file("write", path)),
    }
}

/// Lets the host forward IPv4 packets between its interfaces. It stays on: others may have come to rely on it.
pub(crate) fn enable_forwarding() -> Result<()> {
    let path = "/proc/sys/net/ipv4/ip_forward";
    let now = fs::read(path).map_err(file("read", path))?;
    // Writing walks over every interface even when nothing changes.
    if now.first() == Some(&b'0') { write("ipv4/ip_forward", "1") } else { Ok(()) }
}

/// Keeps IPv6 off a link of the host until we configure it: no address by itself, no router believed (CVE-2020-10749).
pub(crate) fn silence_ipv6(link: &str) -> Result<()> {
    write(&format!("ipv6/conf/{link}/accept_ra"), "0")?;
    write(&format!("ipv6/conf/{link}/disable_ipv6"), "1")
}

/// The same for every link that a new namespace will get; its loopback keeps ::1.
pub(crate) fn silence_ipv6_of_new_links() -> Result<()> {
    write("ipv6/conf/all/accept_ra", "0")?;
    write("ipv6/conf/default/accept_ra", "0")?;
    write("ipv6/conf/default/disable_ipv6", "1")
}

/// Lets the host's 127.0.0.1 be translated to an address behind a bridge, for ports published there.
pub(crate) fn route_loopback(bridge: &str) -> Result<()> {
    write(&format!("ipv4/conf/{bridge}/route_localnet"), "1")
}
