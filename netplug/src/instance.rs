//! The names that an instance (a ROOT) gives to what it makes in the kernel, so that two instances never meet.

use std::path::Path;

use crate::names::hash;

/// An instance's names.
#[derive(Clone, Debug)]
pub(crate) struct Instance {
    /// A hash of the root.
    hash: String,
    /// The one with the system's root gets the plain names.
    is_default: bool,
}

impl Instance {
    /// How the names of the host's ends of veth pairs begin.
    pub(crate) const HOST_END: &str = "dhv";

    /// The instance of a root, as it was given and without symbolic links, so that every way to it means the same.
    pub(crate) fn new(given: &Path, resolved: &Path) -> Self {
        Self { hash: hash(&[resolved.as_os_str().as_encoded_bytes()], 8), is_default: given == Path::new(DEFAULT_ROOT) }
    }

    /// The nftables table.
    pub(crate) fn table(&self) -> String {
        if self.is_default { "dhow".to_owned() } else { format!("dhow_{}", self.hash) }
    }

    /// The bridge of the default network; the first try is the plain name, where there is one.
    pub(crate) fn default_bridge(&self, attempt: u32) -> String {
        match (self.is_default, attempt) {
            (true, 0) => "dhow0".to_owned(),
            (_, 0) => format!("dhow-{}", self.hash),
            _ => self.bridge("bridge", attempt),
        }
    }

    /// The bridge of another network.
    pub(crate) fn bridge(&self, network: &str, attempt: u32) -> String {
        format!("dhow-{}", hash(&[self.hash.as_bytes(), network.as_bytes(), &attempt.to_le_bytes()], 10))
    }

    /// The host's end of a container's veth pair.
    pub(crate) fn host_end(&self, container: &str, attempt: u32) -> String {
        format!("{}{}", Self::HOST_END, hash(&[self.hash.as_bytes(), container.as_bytes(), &attempt.to_le_bytes()], 12))
    }

    /// What a bridge's alias says, so that it is known as ours.
    pub(crate) fn alias(&self, network: &str) -> String {
        format!("{}{network}", self.alias_prefix())
    }

    /// How the aliases of all of our bridges begin.
    pub(crate) fn alias_prefix(&self) -> String {
        format!("dhow {} ", self.hash)
    }
}

const DEFAULT_ROOT: &str = "/var/lib/dhow";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::{LINK_NAME_MAX, check_link_name};

    #[test]
    fn names_fit_and_differ() {
        let plain = Instance::new(Path::new(DEFAULT_ROOT), Path::new("/data/dhow"));
        let other = Instance::new(Path::new("/tmp/other"), Path::new("/tmp/other"));
        assert_eq!((plain.table().as_str(), plain.default_bridge(0).as_str()), ("dhow", "dhow0"));
        let names = |instance: &Instance| {
            vec![
                instance.default_bridge(0),
                instance.default_bridge(1),
                instance.bridge("n", 0),
                instance.host_end("c", 0),
            ]
        };
        for name in names(&plain).iter().chain(&names(&other)) {
            assert!(name.len() <= LINK_NAME_MAX && check_link_name(name).is_ok(), "{name}");
        }
        assert!(names(&plain).iter().all(|name| !names(&other).contains(name)));
        assert_ne!(plain.host_end("c", 0), plain.host_end("c", 1));
        assert_ne!(plain.table(), other.table());
    }
}
