//! `--device HOST[:CONTAINER][:rwm]`.

use super::Invalid;

/// A host device that the container gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    /// Path on the host, absolute.
    pub host: String,
    /// Path in the container, absolute.
    pub container: String,
    /// Some of `r`, `w` and `m`.
    pub access: String,
}

/// Parses one device.
pub(crate) fn parse(text: &str) -> Result<Device, Invalid> {
    let refuse = |why: &str| Invalid::new("--device", text, why);
    let is_access = |text: &str| !text.is_empty() && text.bytes().all(|b| b"rwm".contains(&b));
    let parts: Vec<&str> = text.split(':').collect();
    let (host, container, access) = match parts[..] {
        [host] => (host, host, "rwm"),
        [host, access] if is_access(access) => (host, host, access),
        [host, container] => (host, container, "rwm"),
        [host, container, access] if is_access(access) => (host, container, access),
        [_, _, _] => return Err(refuse("the permissions are none of r, w, m")),
        _ => return Err(refuse("HOST[:CONTAINER][:rwm] is expected")),
    };
    if !host.starts_with('/') || !container.starts_with('/') {
        return Err(refuse("a device's path is not absolute"));
    }
    Ok(Device { host: host.to_owned(), container: container.to_owned(), access: access.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices() {
        let show = |text: &str| parse(text).map(|d| format!("{} {} {}", d.host, d.container, d.access)).unwrap();
        assert_eq!(show("/dev/fuse"), "/dev/fuse /dev/fuse rwm");
        assert_eq!(show("/dev/fuse:r"), "/dev/fuse /dev/fuse r");
        assert_eq!(show("/dev/a:/dev/b"), "/dev/a /dev/b rwm");
        assert_eq!(show("/dev/a:/dev/b:rw"), "/dev/a /dev/b rw");
        for bad in ["", "dev/a", "/dev/a:/dev/b:x", "/a:/b:r:w", "/dev/a:b"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
