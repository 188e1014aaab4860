//! Talking to registries.

use std::path::PathBuf;
use std::time::Duration;

use crate::auth::Credentials;
use crate::cancel::Cancel;
use crate::error::Error;

/// How registries are reached. The caller resolves environment and home directory; this crate reads neither.
#[derive(Debug, Clone)]
pub struct RegistryOptions {
    /// Credentials given by the user for this call; they win over the files.
    pub credentials: Option<Credentials>,
    /// docker's `config.json` or podman's `auth.json` files, in the order of lookup.
    pub auth_files: Vec<PathBuf>,
    /// Directories with one directory per `host[:port]` holding `*.crt`, `*.cert` and `*.key`.
    pub cert_dirs: Vec<PathBuf>,
    /// Whether certificates are checked and plain http is refused on hosts other than loopback.
    pub verify_tls: bool,
    /// Name of the program in the `User-Agent`.
    pub user_agent: String,
    /// How long a peer may be silent.
    pub idle_timeout: Duration,
    /// How often a request is tried in all.
    pub attempts: u32,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            credentials: None,
            auth_files: Vec::new(),
            cert_dirs: vec!["/etc/containers/certs.d".into(), "/etc/docker/certs.d".into()],
            verify_tls: true,
            user_agent: concat!("dhow/", env!("CARGO_PKG_VERSION")).to_owned(),
            idle_timeout: Duration::from_secs(60),
            attempts: 5,
        }
    }
}

/// One hit of [`search`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchResult {
    /// The repository, with its registry unless that is docker.io.
    pub name: String,
    /// What its owner says.
    pub description: String,
    /// How many like it.
    pub stars: u64,
    /// Whether docker calls it official.
    pub official: bool,
}

/// Checks credentials against `registry` and returns what is to be stored: the credentials themselves, or an identity
/// token if the registry's token service gave one for them.
///
/// # Errors
/// [`Error::Unauthorized`] if the registry refuses them; what talking to it may fail with.
pub fn login(
    _registry: &str,
    _credentials: &Credentials,
    _options: &RegistryOptions,
    _cancel: &Cancel,
) -> Result<Credentials, Error> {
    Err(Error::Cancelled)
}

/// Repositories of `registry` whose name contains `term`, at most `limit`.
///
/// # Errors
/// What talking to the registry may fail with.
pub fn search(
    _registry: &str,
    _term: &str,
    _limit: usize,
    _options: &RegistryOptions,
    _cancel: &Cancel,
) -> Result<Vec<SearchResult>, Error> {
    Err(Error::Cancelled)
}
