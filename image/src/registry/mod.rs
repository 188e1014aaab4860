//! Talking to registries: the distribution protocol over HTTP/1.1, blocking, on threads.

mod client;
mod download;
mod login;
mod manifest;
mod search;
mod tls;
mod token;
mod transport;
mod upload;
mod url;

use std::path::PathBuf;
use std::time::Duration;

pub(crate) use client::{Client, OnRetry};
pub(crate) use download::BlobStream;
pub use login::login;
pub use search::{SearchResult, search};
pub(crate) use upload::{Placed, Upload};

use crate::auth::Credentials;

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
