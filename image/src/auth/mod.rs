//! Credentials for registries: where they are kept, and what a registry asks for.

pub(crate) mod challenge;
mod file;
mod helper;

use std::fmt;
use std::path::PathBuf;

pub use file::AuthFile;

use crate::error::Error;
use crate::reference::DEFAULT_REGISTRY;

/// What proves who we are to a registry. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Credentials {
    /// None.
    #[default]
    Anonymous,
    /// User and password.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: String,
    },
    /// An OAuth2 refresh token, exchanged for access tokens at the registry's token service.
    IdentityToken {
        /// The account it belongs to; may be empty.
        username: String,
        /// The token.
        token: String,
    },
    /// An access token, sent as it is.
    RegistryToken(String),
}

impl Credentials {
    /// The account, if it is known.
    #[must_use]
    pub fn username(&self) -> Option<&str> {
        match self {
            Self::Basic { username, .. } | Self::IdentityToken { username, .. } => Some(username),
            Self::Anonymous | Self::RegistryToken(_) => None,
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => f.write_str("Anonymous"),
            Self::Basic { username, .. } => f.debug_struct("Basic").field("username", username).finish_non_exhaustive(),
            Self::IdentityToken { .. } => f.write_str("IdentityToken"),
            Self::RegistryToken(_) => f.write_str("RegistryToken"),
        }
    }
}

/// The credentials for `registry` from the first of `files` that has some; podman's files may also have them for a
/// repository (`path` is `library/debian`) or a part of its name.
///
/// # Errors
/// [`Error::Credentials`] if a file does not read or a helper fails.
pub fn lookup(files: &[PathBuf], registry: &str, path: &str) -> Result<Credentials, Error> {
    for file in files {
        let found = AuthFile::open(file)?.lookup(registry, path)?;
        if found != Credentials::Anonymous {
            return Ok(found);
        }
    }
    Ok(Credentials::Anonymous)
}

/// The key under which docker keeps the credentials of `registry`.
#[must_use]
pub fn storage_key(registry: &str) -> &str {
    if registry == DEFAULT_REGISTRY { DOCKER_HUB_KEY } else { registry }
}

const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
