//! Just enough of URLs: what a registry's answers may send us to, and whether we go there.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

/// An absolute http or https URL without user, fragment or white space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    pub(crate) scheme: Scheme,
    /// As written: `host`, `host:port`, `[v6]:port`.
    pub(crate) authority: String,
    /// Begins with `/`; may contain a query.
    pub(crate) path: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

impl Url {
    pub(crate) fn new(scheme: Scheme, authority: &str, path: &str) -> Self {
        Self { scheme, authority: authority.to_owned(), path: path.to_owned() }
    }

    /// Parses an absolute URL.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return None,
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let path = path.split('#').next().unwrap_or_default();
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let url = Self { scheme, authority: authority.to_owned(), path };
        url.is_sane().then_some(url)
    }

    /// What `location`, found in an answer to a request for `self`, means.
    pub(crate) fn join(&self, location: &str) -> Option<Self> {
        let here = |path: String| Self { path, ..self.clone() };
        let url = if location.contains("://") && !location.starts_with(['/', '?', '.']) {
            return Self::parse(location);
        } else if let Some(rest) = location.strip_prefix("//") {
            return Self::parse(&format!("{}://{rest}", self.scheme.name()));
        } else if location.starts_with('/') {
            here(location.to_owned())
        } else if location.starts_with('?') {
            here(format!("{}{location}", self.without_query()))
        } else {
            let path = self.without_query();
            let base = path.rfind('/').map_or("/", |slash| &path[..=slash]);
            here(format!("{base}{location}"))
        };
        url.is_sane().then_some(url)
    }

    /// With one more query parameter. `value` is escaped.
    #[must_use]
    pub(crate) fn with_query(mut self, key: &str, value: &str) -> Self {
        self.path.push(if self.path.contains('?') { '&' } else { '?' });
        self.path.push_str(key);
        self.path.push('=');
        self.path.push_str(&escape(value));
        self
    }

    /// The path without the query.
    pub(crate) fn without_query(&self) -> &str {
        self.path.split('?').next().unwrap_or("/")
    }

    /// The host without port and brackets.
    pub(crate) fn host(&self) -> &str {
        host_of(&self.authority)
    }

    pub(crate) fn port(&self) -> u16 {
        port_of(&self.authority).unwrap_or_else(|| self.scheme.default_port())
    }

    /// Whether credentials for `self` may go to `other`: the same scheme, host and port.
    pub(crate) fn same_origin(&self, other: &Self) -> bool {
        self.scheme == other.scheme && self.host().eq_ignore_ascii_case(other.host()) && self.port() == other.port()
    }

    /// Whether an answer from `self` may send us to `target`; if not, why. Encryption is never lost, and nothing from
    /// outside leads to this machine's own services.
    pub(crate) fn may_lead_to(&self, target: &Self) -> Result<(), &'static str> {
        let same_host = self.host().eq_ignore_ascii_case(target.host());
        if is_loopback(target.host()) && !is_loopback(self.host()) {
            return Err("it is this machine's loopback");
        }
        if is_link_local(target.host()) && !same_host {
            return Err("it is a link-local address");
        }
        match (self.scheme, target.scheme) {
            (_, Scheme::Https) => Ok(()),
            (Scheme::Https, Scheme::Http) => Err("it is not encrypted"),
            (Scheme::Http, Scheme::Http) if same_host || is_loopback(target.host()) => Ok(()),
            (Scheme::Http, Scheme::Http) => Err("it is another host and not encrypted"),
        }
    }

    fn is_sane(&self) -> bool {
        let visible = |text: &str| text.bytes().all(|b| b.is_ascii_graphic() && !b"\"<>\\^`{|}".contains(&b));
        !self.host().is_empty()
            && !self.authority.contains('@')
            && visible(&self.authority)
            && visible(&self.path)
            && crate::reference::check_registry(&self.authority.replace('_', "-")).is_ok()
    }
}

/// Without the query, which may hold a signature.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}{}", self.scheme.name(), self.authority, self.without_query())
    }
}

/// Whether a registry (`host[:port]`) is on this machine.
pub(crate) fn is_loopback(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V6(address)) => {
            address.is_loopback() || address.to_ipv4_mapped().is_some_and(|mapped| mapped.is_loopback())
        }
        Ok(address) => address.is_loopback(),
        Err(_) => {
            let host = host.trim_end_matches('.').to_ascii_lowercase();
            host == "localhost" || host.ends_with(".localhost")
        }
    }
}

fn is_link_local(host: &str) -> bool {
    match host.parse::<IpAddr>() {
        Ok(IpAddr::V4(address)) => address.is_link_local() || address.is_unspecified(),
        Ok(IpAddr::V6(address)) => address.is_unicast_link_local() || address == Ipv6Addr::UNSPECIFIED,
        Err(_) => false,
    }
}

pub(crate) fn host_of(authority: &str) -> &str {
    match authority.strip_prefix('[') {
        Some(inner) => inner.split(']').next().unwrap_or_default(),
        None => authority.split(':').next().unwrap_or_default(),
    }
}

pub(crate) fn port_of(authority: &str) -> Option<u16> {
    let after = authority.rsplit_once(']').map_or(authority, |(_, rest)| rest);
    after.rsplit_once(':')?.1.parse().ok()
}

/// Percent-encoding of everything but unreserved characters.
pub(crate) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap_or_else(|| panic!("{text}"))
    }

    fn text(url: &Url) -> String {
        format!("{}://{}{}", url.scheme.name(), url.authority, url.path)
    }

    #[test]
    fn parses_and_refuses() {
        for (given, want) in [
            ("https://h/p?q=1#f", "https://h/p?q=1"),
            ("HTTP://h:80", "http://h:80/"),
            ("https://h?x", "https://h/?x"),
            ("http://[::1]:5000/v2/", "http://[::1]:5000/v2/"),
        ] {
            assert_eq!(text(&url(given)), want);
        }
        for bad in [
            "",
            "h/p",
            "ftp://h/",
            "https://",
            "https:///p",
            "https://user@h/",
            "https://u:p@h/",
            "https://h/a b",
            "https://h/\r\nX: y",
            "file:///etc/passwd",
            "https://h:99999/",
            "https://a:b:c/",
            "https://h\\@evil/",
        ] {
            assert_eq!(Url::parse(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn joins_locations() {
        let base = url("https://h:5/v2/a/blobs/uploads/?q=1");
        for (location, want) in [
            ("https://o/x", "https://o/x"),
            ("//o/x", "https://o/x"),
            ("/abs?y=http://z", "https://h:5/abs?y=http://z"),
            ("?n=2", "https://h:5/v2/a/blobs/uploads/?n=2"),
            ("uuid", "https://h:5/v2/a/blobs/uploads/uuid"),
        ] {
            assert_eq!(text(&base.join(location).unwrap()), want, "{location}");
        }
        assert_eq!(base.join("javascript://x"), None);
        assert_eq!(base.join("/a b"), None);
        assert_eq!(
            text(&url("http://h/x?a=b").with_query("digest", "sha256:00+/")),
            "http://h/x?a=b&digest=sha256%3A00%2B%2F"
        );
    }

    #[test]
    fn knows_where_not_to_go() {
        for (from, to, ok) in [
            ("https://a/", "https://b/", true),
            ("https://a/", "http://a/", false),
            ("https://a/", "http://b/", false),
            ("http://127.0.0.1:1/", "http://127.0.0.1:2/", true),
            ("http://127.0.0.1:1/", "http://localhost:2/", true),
            ("http://127.0.0.1:1/", "http://b/", false),
            ("http://127.0.0.1:1/", "https://b/", true),
            ("http://a/", "http://a:81/", true),
            ("https://a/", "https://127.0.0.1/", false),
            ("https://a/", "https://localhost/", false),
            ("https://a/", "https://169.254.169.254/", false),
            ("http://a/", "http://[::1]/", false),
            ("https://a/", "https://[::ffff:127.0.0.1]/", false),
        ] {
            assert_eq!(url(from).may_lead_to(&url(to)).is_ok(), ok, "{from} to {to}");
        }
        assert!(url("https://a/x").same_origin(&url("https://A:443/y")));
        assert!(!url("https://a/").same_origin(&url("http://a/")));
        assert!(!url("https://a/").same_origin(&url("https://a:444/")));
        assert!(!url("https://a.b/").same_origin(&url("https://a/")));
    }
}
