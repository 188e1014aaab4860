//! `linux.netDevices`.

use dhow_sys::clone::Namespaces;

use super::NamespacePlan;
use crate::config::Linux;
use crate::{Error, Result};

/// A network device that moves into the container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetDevice {
    /// Its name in the runtime's namespace.
    pub name: String,
    /// Its name in the container, maybe with a `%d` that the kernel fills in.
    pub rename: String,
}

impl NetDevice {
    /// For errors.
    pub(crate) fn field(&self) -> String {
        format!("linux.netDevices.{}", self.name)
    }
}

pub(super) fn all(linux: &Linux, namespaces: &NamespacePlan) -> Result<Vec<NetDevice>> {
    let mut devices: Vec<NetDevice> = Vec::with_capacity(linux.net_devices.len());
    for (name, given) in &linux.net_devices {
        let rename = if given.name.is_empty() { name } else { &given.name };
        let device = NetDevice { name: name.clone(), rename: rename.clone() };
        let error = |problem: &str| Error::config(device.field(), problem);
        if !namespaces.has(Namespaces::NETWORK) {
            return Err(error("unable to move network devices without a NET namespace of the container's own"));
        }
        if !is_name(name) || !is_name(rename) {
            return Err(error("is no name of a network device"));
        }
        if !rename.contains('%') && devices.iter().any(|other| other.rename == *rename) {
            return Err(error("two devices can't have the same name in the container"));
        }
        devices.push(device);
    }
    Ok(devices)
}

/// The kernel's rules.
fn is_name(name: &str) -> bool {
    let fits = !name.is_empty() && name.len() < 16 && !matches!(name, "." | "..");
    let template = match name.matches('%').count() {
        0 => true,
        1 => name.contains("%d"),
        _ => false,
    };
    fits && template && !name.contains(|c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert!(["eth0", "eth%d", "a.b-c", "123456789012345"].iter().all(|name| is_name(name)));
        assert!(["", ".", "..", "a/b", "a b", "a:b", "1234567890123456", "%s", "%d%d"].iter().all(|n| !is_name(n)));
    }

    #[test]
    fn two_of_one_name() {
        let namespaces = NamespacePlan { new: Namespaces::NETWORK, ..NamespacePlan::default() };
        let linux = |json: &str| serde_json::from_str::<Linux>(json).unwrap();
        let good = linux(r#"{"netDevices":{"a":{"name":"eth%d"},"b":{"name":"eth%d"},"c":{}}}"#);
        assert_eq!(all(&good, &namespaces).unwrap()[2].rename, "c");
        let bad = linux(r#"{"netDevices":{"a":{"name":"c"},"c":{}}}"#);
        assert!(all(&bad, &namespaces).unwrap_err().to_string().starts_with("linux.netDevices.c: "));
    }
}
