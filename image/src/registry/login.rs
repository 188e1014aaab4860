//! Checking credentials against a registry.

use ureq::http::Method;

use super::RegistryOptions;
use super::client::{Client, Payload, Request, Target};
use crate::auth::Credentials;
use crate::cancel::Cancel;
use crate::error::Error;

/// Checks credentials against `registry` and returns what is to be stored: the credentials themselves, or an identity
/// token if the registry's token service gave one for them.
///
/// # Errors
/// [`Error::Unauthorized`] if the registry refuses them; what talking to it may fail with.
pub fn login(
    registry: &str,
    credentials: &Credentials,
    options: &RegistryOptions,
    cancel: &Cancel,
) -> Result<Credentials, Error> {
    let options = RegistryOptions { credentials: Some(credentials.clone()), ..options.clone() };
    let client = Client::new(registry, &options, cancel);
    let request = Request {
        method: Method::GET,
        target: Target::Path("/v2/".into()),
        headers: Vec::new(),
        payload: Payload::None,
        scopes: &[],
        on_retry: &|_, _| {},
    };
    client.expect(&request, &[200])?;
    if let Credentials::Basic { username, .. } = credentials
        && let Some(token) = client.offline_token()?
    {
        return Ok(Credentials::IdentityToken { username: username.clone(), token });
    }
    Ok(credentials.clone())
}
