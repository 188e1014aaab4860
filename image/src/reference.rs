//! Image references: `[registry/]repository[:tag][@digest]`, read and written as docker does.
//!
//! The grammar is distribution's (reference/reference.go documents it) with docker's normalisation: no registry
//! means `docker.io`, a one-word repository there means `library/…`, and no tag and no digest means `latest`.
//! A hand-written parser: the grammar's regular expression costs 65 ms to compile, a whole container start.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::digest::Digest;

/// A normalised reference: the registry and the repository are always there.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Reference {
    registry: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a string is not a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid reference {reference:?}: {reason}")]
pub struct ReferenceError {
    /// What was given, cut to a printable length.
    pub reference: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl Reference {
    /// Parses what a user wrote; without tag and digest it means the tag `latest`.
    ///
    /// # Errors
    /// [`ReferenceError`] where docker refuses the text too: upper case in a repository, 64 hexadecimal digits (an
    /// image id), empty components, a bad tag or digest, more than 255 characters of name.
    pub fn parse(text: &str) -> Result<Self, ReferenceError> {
        let mut reference = Self::parse_as_written(text)?;
        if reference.tag.is_none() && reference.digest.is_none() {
            reference.tag = Some("latest".to_owned());
        }
        Ok(reference)
    }

    /// Parses what a user wrote and adds no tag: for "all tags of this repository".
    ///
    /// # Errors
    /// As [`Reference::parse`].
    pub fn parse_as_written(text: &str) -> Result<Self, ReferenceError> {
        parse(text).map_err(|reason| ReferenceError { reference: text.chars().take(200).collect(), reason })
    }

    /// The registry: `docker.io`, `localhost`, `127.0.0.1:5000`, `[::1]:5000`.
    #[must_use]
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// The repository within the registry: `library/debian`.
    #[must_use]
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Registry and repository: `docker.io/library/debian`.
    #[must_use]
    pub fn repository(&self) -> String {
        format!("{}/{}", self.registry, self.path)
    }

    /// The repository as docker prints it: `debian`, `user/app`, `127.0.0.1:5000/app`.
    #[must_use]
    pub fn familiar_repository(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return self.repository();
        }
        match self.path.strip_prefix("library/") {
            // A first component that looks like a registry has to keep its prefix to be read back the same way.
            Some(name) if !name.contains('/') => name.to_owned(),
            _ if self.path.split_once('/').is_some_and(|(first, _)| is_registry(first)) => self.repository(),
            _ => self.path.clone(),
        }
    }

    /// The tag, if there is one.
    #[must_use]
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// The digest, if there is one. With a tag beside it the digest decides.
    #[must_use]
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The whole reference as docker prints it: `debian:12`.
    #[must_use]
    pub fn familiar(&self) -> String {
        self.with_suffix(self.familiar_repository())
    }

    /// The same repository with this tag and no digest.
    ///
    /// # Errors
    /// [`ReferenceError`] if `tag` is no tag.
    pub fn with_tag(&self, tag: &str) -> Result<Self, ReferenceError> {
        check_tag(tag).map_err(|reason| ReferenceError { reference: tag.to_owned(), reason })?;
        Ok(Self { tag: Some(tag.to_owned()), digest: None, ..self.clone() })
    }

    /// The same repository with this digest and no tag.
    #[must_use]
    pub fn with_digest(&self, digest: &Digest) -> Self {
        Self { tag: None, digest: Some(digest.clone()), ..self.clone() }
    }

    /// What stands in a manifest request's path: the digest if there is one, else the tag.
    pub(crate) fn selector(&self) -> &str {
        self.digest.as_ref().map(Digest::as_str).or(self.tag.as_deref()).unwrap_or("latest")
    }

    fn with_suffix(&self, mut text: String) -> String {
        if let Some(tag) = &self.tag {
            text.push(':');
            text.push_str(tag);
        }
        if let Some(digest) = &self.digest {
            text.push('@');
            text.push_str(digest.as_str());
        }
        text
    }
}

/// The full form: `docker.io/library/debian:12`.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.with_suffix(self.repository()))
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::parse(text)
    }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse_as_written(&text)
    }
}

impl From<Reference> for String {
    fn from(reference: Reference) -> Self {
        reference.to_string()
    }
}

/// The registry a name without one belongs to.
pub const DEFAULT_REGISTRY: &str = "docker.io";

const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

fn parse(text: &str) -> Result<Reference, &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
        return Err("64 hexadecimal digits are an image id, not a name");
    }
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(Digest::parse(digest).map_err(|error| error.reason)?)),
        None => (text, None),
    };
    // A colon behind the last slash starts the tag; one before it belongs to a port or an IPv6 address.
    let name_start = rest.rfind('/').map_or(0, |slash| slash + 1);
    let (name, tag) = match rest[name_start..].find(':') {
        Some(colon) => (&rest[..name_start + colon], Some(&rest[name_start + colon + 1..])),
        None => (rest, None),
    };
    if let Some(tag) = tag {
        check_tag(tag)?;
    }
    let (registry, path) = match name.split_once('/') {
        Some((first, path)) if is_registry(first) => (first, path),
        _ => (DEFAULT_REGISTRY, name),
    };
    let registry = if registry == "index.docker.io" { DEFAULT_REGISTRY } else { registry };
    check_registry(registry)?;
    check_path(path)?;
    let path =
        if registry == DEFAULT_REGISTRY && !path.contains('/') { format!("library/{path}") } else { path.to_owned() };
    if registry.len() + 1 + path.len() > MAX_NAME {
        return Err("the name is longer than 255 characters");
    }
    Ok(Reference { registry: registry.to_owned(), path, tag: tag.map(str::to_owned), digest })
}

/// Docker's rule: the part before the first slash names a registry if it could not be a repository's.
fn is_registry(first: &str) -> bool {
    first == "localhost" || first.contains(['.', ':']) || first.bytes().any(|b| b.is_ascii_uppercase())
}

/// Checks a registry's name: `host`, `host:port`, or an IPv6 address in brackets.
pub(crate) fn check_registry(registry: &str) -> Result<(), &'static str> {
    const BAD: &str = "the registry is not a host name with an optional port";
    let (host, port) = if let Some(inner) = registry.strip_prefix('[') {
        let (address, rest) = inner.split_once(']').ok_or(BAD)?;
        address.parse::<std::net::Ipv6Addr>().map_err(|_not_an_address| BAD)?;
        ("v6", if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or(BAD)?) })
    } else {
        match registry.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (registry, None),
        }
    };
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if !host.split('.').all(label) {
        return Err(BAD);
    }
    match port {
        Some(port) if port.parse::<u16>().is_err() || !port.bytes().all(|b| b.is_ascii_digit()) => Err(BAD),
        _ => Ok(()),
    }
}

fn check_path(path: &str) -> Result<(), &'static str> {
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err("a repository's name must be lower case");
    }
    for component in path.split('/') {
        check_component(component)?;
    }
    Ok(())
}

/// Lower-case letters and digits, separated by one `.`, one or two `_`, or any number of `-`.
fn check_component(component: &str) -> Result<(), &'static str> {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if component.is_empty() {
        return Err("a part of the name between slashes is empty");
    }
    let separators = component.split(|c: char| c.is_ascii() && alphanumeric(c as u8));
    if !separators.clone().all(|s| matches!(s, "" | "." | "_" | "__") || s.bytes().all(|b| b == b'-')) {
        return Err("a name has only lower-case letters, digits and single separators . _ __ -");
    }
    let bytes = component.as_bytes();
    if !alphanumeric(bytes[0]) || !alphanumeric(bytes[bytes.len() - 1]) {
        return Err("a name's parts begin and end with a letter or a digit");
    }
    Ok(())
}

fn check_tag(tag: &str) -> Result<(), &'static str> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    match tag.as_bytes() {
        [] => Err("the tag is empty"),
        bytes if bytes.len() > MAX_TAG => Err("the tag is longer than 128 characters"),
        [first, rest @ ..] if word(*first) && rest.iter().all(|&b| word(b) || b == b'.' || b == b'-') => Ok(()),
        _ => Err("a tag has only letters, digits, _ . - and begins with none of . -"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn normalises_like_docker() {
        let at = |name: &str| format!("{name}@{HEX}");
        for (text, full, familiar) in [
            ("debian", "docker.io/library/debian:latest", "debian:latest"),
            ("debian:12", "docker.io/library/debian:12", "debian:12"),
            ("docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
            ("index.docker.io/debian", "docker.io/library/debian:latest", "debian:latest"),
            ("docker.io/library/debian", "docker.io/library/debian:latest", "debian:latest"),
            ("user/app", "docker.io/user/app:latest", "user/app:latest"),
            ("library/app/x", "docker.io/library/app/x:latest", "library/app/x:latest"),
            ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
            ("localhost", "docker.io/library/localhost:latest", "localhost:latest"),
            ("localhost:5000", "docker.io/library/localhost:5000", "localhost:5000"),
            ("localhost:5000/app:v1", "localhost:5000/app:v1", "localhost:5000/app:v1"),
            ("127.0.0.1:5000/debian:12", "127.0.0.1:5000/debian:12", "127.0.0.1:5000/debian:12"),
            ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
            ("[fe80::1]/a", "[fe80::1]/a:latest", "[fe80::1]/a:latest"),
            ("UPPER/app", "UPPER/app:latest", "UPPER/app:latest"),
            ("Host.Example/app", "Host.Example/app:latest", "Host.Example/app:latest"),
            ("ghcr.io/a/b/c:1.2-x_y", "ghcr.io/a/b/c:1.2-x_y", "ghcr.io/a/b/c:1.2-x_y"),
            ("a.b", "docker.io/library/a.b:latest", "a.b:latest"),
            ("a__b/c--d/e.f", "docker.io/a__b/c--d/e.f:latest", "a__b/c--d/e.f:latest"),
        ] {
            let reference = Reference::parse(text).unwrap();
            assert_eq!((reference.to_string().as_str(), reference.familiar().as_str()), (full, familiar), "{text}");
            assert_eq!(Reference::parse(familiar).unwrap(), reference, "{text}");
        }
        let pinned = Reference::parse(&at("debian:12")).unwrap();
        assert_eq!(pinned.to_string(), at("docker.io/library/debian:12"));
        assert_eq!(pinned.selector(), HEX);
        assert_eq!(Reference::parse(&at("debian")).unwrap().tag(), None);
        assert_eq!(Reference::parse_as_written("debian").unwrap().tag(), None);
    }

    #[test]
    fn refuses_like_docker() {
        let id = "a".repeat(64);
        let long = format!("a/{}", "a".repeat(254));
        let tag = format!("a:{}", "t".repeat(129));
        for text in [
            "",
            ":tag",
            "@",
            "/",
            "/a",
            "a/",
            "a//b",
            "Debian",
            "debian:",
            "debian@",
            "debian:a b",
            "debian:-x",
            "debian:.x",
            "a..b",
            "a___b",
            "-a",
            "a-",
            "_a",
            "a._b",
            "a/-b",
            "docker.io/Debian",
            "host:port/a",
            "host:/a",
            "-host.x/a",
            "host-.x/a",
            "a@sha256:abc",
            "a@md5:d41d8cd98f00b204e9800998ecf8427e",
            "a b",
            "ä",
            "[::1/a",
            "[zz::1]/a",
            "http://host/a",
            "host:+80/a",
            "host:99999/a",
            ".x/a",
            "a:b:c",
            id.as_str(),
            long.as_str(),
            tag.as_str(),
        ] {
            assert!(Reference::parse(text).is_err(), "{text:?} was accepted");
        }
        assert!(Reference::parse(&"a".repeat(63)).is_ok());
        assert!(Reference::parse(&format!("localhost/{id}")).is_ok());
    }

    #[test]
    fn changes_tag_and_digest() {
        let reference = Reference::parse("h:1/a:b").unwrap();
        assert_eq!(reference.with_tag("c").unwrap().to_string(), "h:1/a:c");
        assert!(reference.with_tag("c/d").is_err());
        assert_eq!(reference.with_digest(&Digest::parse(HEX).unwrap()).to_string(), format!("h:1/a@{HEX}"));
    }

    proptest! {
        #[test]
        fn never_panics_and_round_trips(text in "\\PC{0,80}|[a-zA-Z0-9./:@_\\[\\]-]{0,80}") {
            if let Ok(reference) = Reference::parse(&text) {
                prop_assert_eq!(&Reference::parse(&reference.to_string()).unwrap(), &reference);
                prop_assert_eq!(&Reference::parse(&reference.familiar()).unwrap(), &reference);
            }
        }
    }
}
