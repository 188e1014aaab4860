//! The files that name things in a container: hostname, hosts and resolv.conf.
//!
//! They are written on the host, where the container's engine binds them into its root. A container may have written into
//! what it was given before; nothing of that is read, and each file is a new one.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use crate::error::{Result, file, invalid};
use crate::names::check_hostname;
use crate::store;

/// What the files are to say.
#[derive(Clone, Debug)]
pub struct FilesRequest {
    /// Where they are written.
    pub directory: PathBuf,
    /// The container's hostname.
    pub hostname: String,
    /// Other names of the container.
    pub aliases: Vec<String>,
    /// Nameservers instead of the host's.
    pub dns: Vec<IpAddr>,
    /// Search domains instead of the host's; a single `.` means none.
    pub dns_search: Vec<String>,
    /// Resolver options instead of the host's.
    pub dns_options: Vec<String>,
    /// Additional lines of the hosts file.
    pub extra_hosts: Vec<ExtraHost>,
}

/// A name for an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraHost {
    /// The name.
    pub name: String,
    /// None: the host, as the container reaches it.
    pub address: Option<IpAddr>,
}

/// What the container's kind of network means for its files.
#[derive(Clone, Copy, Debug)]
pub(crate) enum View {
    /// The host's own network: the host's files hold for the container too.
    Host,
    /// A namespace of its own.
    Own {
        /// The container's address.
        address: Option<IpAddr>,
        /// The host's address as the container sees it.
        gateway: Option<IpAddr>,
    },
}

/// A resolver's configuration (resolv.conf(5)).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Resolver {
    nameservers: Vec<String>,
    search: Vec<String>,
    options: Vec<String>,
}

impl ExtraHost {
    /// Parses `name:address` or `name=address`, where the address may be `host-gateway`.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = |reason: &str| invalid("extra host", text, reason);
        let (name, address) =
            text.split_once([':', '=']).ok_or_else(|| wrong("want NAME:ADDRESS or NAME:host-gateway"))?;
        check_hostname("extra host", name)?;
        let address = match address {
            "host-gateway" => None,
            // IPv6 addresses are also written in brackets.
            text => {
                let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
                Some(bare.parse().map_err(|_error| wrong("not an IP address"))?)
            }
        };
        Ok(Self { name: name.to_owned(), address })
    }
}

impl FilesRequest {
    /// Refuses what would break out of its line.
    pub(crate) fn check(&self) -> Result<()> {
        if !self.directory.is_absolute() {
            return Err(invalid("files directory", self.directory.display().to_string(), "not an absolute path"));
        }
        if !self.hostname.is_empty() {
            check_hostname("hostname", &self.hostname)?;
        }
        for alias in &self.aliases {
            check_hostname("alias", alias)?;
        }
        for word in self.dns_search.iter().chain(&self.dns_options) {
            let fits = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'#' | b';');
            if word.is_empty() || !word.bytes().all(fits) {
                return Err(invalid("resolver setting", word, "want one word"));
            }
        }
        Ok(())
    }

    /// Writes the three files; returns the nameservers in them.
    pub(crate) fn write(&self, view: View) -> Result<Vec<IpAddr>> {
        let hosts = self.hosts(view)?;
        let resolver = self.resolver(view)?;
        self.put("hostname", format!("{}\n", self.hostname).as_bytes())?;
        self.put("hosts", hosts.as_bytes())?;
        self.put("resolv.conf", resolver.render().as_bytes())?;
        Ok(resolver.nameservers.iter().filter_map(|server| server.parse().ok()).collect())
    }

    /// Copies the files of the container whose network is shared.
    pub(crate) fn copy(&self, from: &Path) -> Result<()> {
        for name in ["hostname", "hosts", "resolv.conf"] {
            let path = from.join(name);
            self.put(name, &read_capped(&path)?)?;
        }
        Ok(())
    }

    fn put(&self, name: &str, bytes: &[u8]) -> Result<()> {
        store::replace(&self.directory.join(name), bytes, 0o644)
    }

    fn hosts(&self, view: View) -> Result<String> {
        let mut text = match view {
            View::Host => String::from_utf8_lossy(&read_if_there(Path::new("/etc/hosts"))?).into_owned(),
            View::Own { .. } => LOCALHOST.to_owned(),
        };
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        for host in &self.extra_hosts {
            let gateway = match view {
                View::Host => Some(IpAddr::from([127, 0, 0, 1])),
                View::Own { gateway, .. } => gateway,
            };
            let address = host.address.or(gateway).ok_or_else(|| {
                invalid("extra host", format!("{}:host-gateway", host.name), "this container has no way to the host")
            })?;
            line(&mut text, address, [host.name.as_str()]);
        }
        if let View::Own { address: Some(address), .. } = view {
            let mut names: Vec<&str> = Vec::new();
            for name in std::iter::once(&self.hostname).chain(&self.aliases) {
                if !name.is_empty() && !names.contains(&name.as_str()) {
                    names.push(name);
                }
            }
            if !names.is_empty() {
                line(&mut text, address, names);
            }
        }
        Ok(text)
    }

    fn resolver(&self, view: View) -> Result<Resolver> {
        let host = Resolver::parse(&String::from_utf8_lossy(&read_if_there(Path::new(RESOLV_CONF))?));
        let mut resolver = match view {
            View::Host => host,
            View::Own { .. } => {
                // systemd-resolved listens on the loopback and keeps what it asks itself elsewhere.
                let stub = host.nameservers.iter().any(|server| server == SYSTEMD_STUB);
                let upstream = if stub { read_if_there(Path::new(SYSTEMD_UPSTREAM))? } else { Vec::new() };
                let source =
                    if upstream.is_empty() { host } else { Resolver::parse(&String::from_utf8_lossy(&upstream)) };
                source.reachable()
            }
        };
        if !self.dns.is_empty() {
            resolver.nameservers = self.dns.iter().map(ToString::to_string).collect();
        }
        if !self.dns_search.is_empty() {
            resolver.search = self.dns_search.iter().filter(|domain| *domain != ".").cloned().collect();
        }
        if !self.dns_options.is_empty() {
            resolver.options.clone_from(&self.dns_options);
        }
        Ok(resolver)
    }
}

impl Resolver {
    fn parse(text: &str) -> Self {
        let mut resolver = Self::default();
        for line in text.lines() {
            let mut words =
                line.split_ascii_whitespace().take_while(|word| !word.starts_with(['#', ';'])).map(str::to_owned);
            match words.next().as_deref() {
                Some("nameserver") => resolver.nameservers.extend(words.next()),
                // The last of several counts.
                Some("search" | "domain") => resolver.search = words.collect(),
                Some("options") => resolver.options.extend(words),
                _ => {}
            }
        }
        resolver
    }

    /// Without the nameservers that a container cannot reach: those on the host's loopback, and, while containers have no
    /// IPv6, those with IPv6 addresses.
    fn reachable(mut self) -> Self {
        self.nameservers.retain(|server| server.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv4() && !ip.is_loopback()));
        self
    }

    fn render(&self) -> String {
        let mut text = String::new();
        for server in &self.nameservers {
            push(&mut text, format_args!("nameserver {server}\n"));
        }
        if self.nameservers.is_empty() {
            // Nobody's questions are sent to a public resolver unasked.
            text.push_str("# no nameserver of the host can be reached from here; name one with --dns\n");
        }
        if !self.search.is_empty() {
            push(&mut text, format_args!("search {}\n", self.search.join(" ")));
        }
        if !self.options.is_empty() {
            push(&mut text, format_args!("options {}\n", self.options.join(" ")));
        }
        text
    }
}

fn line<'a>(text: &mut String, address: IpAddr, names: impl IntoIterator<Item = &'a str>) {
    let names: Vec<_> = names.into_iter().collect();
    push(text, format_args!("{address}\t{}\n", names.join(" ")));
}

fn push(text: &mut String, what: std::fmt::Arguments<'_>) {
    text.write_fmt(what).expect("a string takes everything that is written to it");
}

fn read_if_there(path: &Path) -> Result<Vec<u8>> {
    match fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        opened => read_at_most(opened.map_err(file("open", path))?, path),
    }
}

fn read_capped(path: &Path) -> Result<Vec<u8>> {
    read_at_most(fs::File::open(path).map_err(file("open", path))?, path)
}

/// Reads a file that somebody else may have grown, to its first megabyte.
fn read_at_most(from: fs::File, path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    io::Read::read_to_end(&mut io::Read::take(from, 1 << 20), &mut bytes).map_err(file("read", path))?;
    Ok(bytes)
}

const RESOLV_CONF: &str = "/etc/resolv.conf";
const SYSTEMD_STUB: &str = "127.0.0.53";
const SYSTEMD_UPSTREAM: &str = "/run/systemd/resolve/resolv.conf";
const LOCALHOST: &str = "\
127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
";

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> FilesRequest {
        FilesRequest {
            directory: "/nowhere".into(),
            hostname: "web".to_owned(),
            aliases: vec!["web".to_owned(), "www".to_owned()],
            dns: Vec::new(),
            dns_search: Vec::new(),
            dns_options: Vec::new(),
            extra_hosts: vec![
                ExtraHost::parse("db:10.0.0.9").unwrap(),
                ExtraHost::parse("six=[fd00::1]").unwrap(),
                ExtraHost::parse("host:host-gateway").unwrap(),
            ],
        }
    }

    #[test]
    fn hosts_name_the_container_and_what_was_asked() {
        let view = View::Own { address: "10.88.0.2".parse().ok(), gateway: "10.88.0.1".parse().ok() };
        let text = request().hosts(view).unwrap();
        let own = "10.0.0.9\tdb\nfd00::1\tsix\n10.88.0.1\thost\n10.88.0.2\tweb www\n";
        assert_eq!(text, format!("{LOCALHOST}{own}"));
        assert!(request().hosts(View::Own { address: None, gateway: None }).is_err());
    }

    #[test]
    fn resolver_keeps_what_can_be_reached() {
        let text = "# made by hand\nnameserver 127.0.0.53\nnameserver ::1\nnameserver 9.9.9.9 # quad\nnameserver fd00::1\n\
                    domain old\nsearch a.example b.example\noptions ndots:2\noptions edns0\n";
        let resolver = Resolver::parse(text).reachable();
        assert_eq!(resolver.render(), "nameserver 9.9.9.9\nsearch a.example b.example\noptions ndots:2 edns0\n");
        assert!(Resolver::parse("nameserver 127.0.0.1\n").reachable().render().starts_with("# no nameserver"));
    }

    #[test]
    fn requests_replace_the_hosts_settings() {
        let mut request = request();
        request.dns = vec!["1.2.3.4".parse().unwrap()];
        request.dns_search = vec![".".to_owned()];
        request.dns_options = vec!["ndots:5".to_owned()];
        let resolver = request.resolver(View::Own { address: None, gateway: None }).unwrap();
        assert_eq!(resolver.render(), "nameserver 1.2.3.4\noptions ndots:5\n");
    }

    #[test]
    fn nothing_breaks_out_of_its_line() {
        for bad in ["", "name", "a b:1.2.3.4", "a\n:1.2.3.4", "a:1.2.3", "a:host", ":1.2.3.4"] {
            assert!(ExtraHost::parse(bad).is_err(), "{bad:?}");
        }
        let changes: [fn(&mut FilesRequest); 5] = [
            |request| request.hostname = "a\nb".to_owned(),
            |request| request.aliases.push("a b".to_owned()),
            |request| request.dns_search.push("a\nnameserver 6.6.6.6".to_owned()),
            |request| request.dns_options.push(String::new()),
            |request| request.directory = "relative".into(),
        ];
        for change in changes {
            let mut request = request();
            change(&mut request);
            assert!(request.check().is_err());
        }
        assert!(request().check().is_ok());
    }
}
