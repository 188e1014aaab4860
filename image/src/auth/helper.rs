//! Credential helpers: programs called `docker-credential-NAME` that keep secrets elsewhere.
//!
//! The protocol (docker/docker-credential-helpers): the action is the argument, the server's address or a JSON document
//! comes on stdin, the answer or an error's text on stdout.

use std::ffi::OsStr;
use std::io::{ErrorKind, Write};
use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

use super::Credentials;
use crate::error::Error;

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Secret {
    #[serde(rename = "ServerURL", default)]
    server_url: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Asks helper `name` (looked for in `path`, or the process's own PATH) for the credentials of `server`.
pub(super) fn get(name: &str, path: Option<&OsStr>, server: &str) -> Result<Credentials, Error> {
    let (success, answer) = run(name, path, "get", server.as_bytes())?;
    if !success {
        let text = String::from_utf8_lossy(&answer);
        // The helpers' fixed text for "there is nothing".
        if text.contains("credentials not found") {
            return Ok(Credentials::Anonymous);
        }
        return Err(failed(name, "get", text.trim()));
    }
    let secret: Secret = serde_json::from_slice(&answer).map_err(|error| failed(name, "get", &error.to_string()))?;
    Ok(match secret.username.as_str() {
        "" if secret.secret.is_empty() => Credentials::Anonymous,
        IDENTITY_TOKEN_USER => Credentials::IdentityToken { username: String::new(), token: secret.secret },
        _ => Credentials::Basic { username: secret.username, password: secret.secret },
    })
}

/// Gives helper `name` the credentials of `server`.
pub(super) fn store(name: &str, path: Option<&OsStr>, server: &str, credentials: &Credentials) -> Result<(), Error> {
    let (username, secret) = match credentials {
        Credentials::Basic { username, password } => (username.as_str(), password),
        Credentials::IdentityToken { token, .. } => (IDENTITY_TOKEN_USER, token),
        Credentials::Anonymous | Credentials::RegistryToken(_) => {
            return Err(failed(name, "store", "it keeps only passwords and identity tokens"));
        }
    };
    let secret = Secret { server_url: server.to_owned(), username: username.to_owned(), secret: secret.to_owned() };
    let input = serde_json::to_vec(&secret).map_err(|error| failed(name, "store", &error.to_string()))?;
    done(name, "store", run(name, path, "store", &input)?)
}

/// Makes helper `name` forget `server`.
pub(super) fn erase(name: &str, path: Option<&OsStr>, server: &str) -> Result<(), Error> {
    let (success, answer) = run(name, path, "erase", server.as_bytes())?;
    if !success && String::from_utf8_lossy(&answer).contains("credentials not found") {
        return Ok(());
    }
    done(name, "erase", (success, answer))
}

fn done(name: &str, action: &str, (success, answer): (bool, Vec<u8>)) -> Result<(), Error> {
    if success { Ok(()) } else { Err(failed(name, action, String::from_utf8_lossy(&answer).trim())) }
}

/// Runs the helper; its stderr is the user's terminal, where it may ask something.
fn run(name: &str, path: Option<&OsStr>, action: &str, input: &[u8]) -> Result<(bool, Vec<u8>), Error> {
    // The name becomes part of a program's name: it must stay one.
    if name.is_empty() || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)) {
        return Err(failed(name, action, "its name is not one"));
    }
    let fail = |error: std::io::Error| match error.kind() {
        ErrorKind::NotFound => failed(name, action, "there is no such program in PATH"),
        _ => failed(name, action, &error.to_string()),
    };
    let mut command = Command::new(format!("docker-credential-{name}"));
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let mut child = command.arg(action).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().map_err(fail)?;
    if let Some(mut stdin) = child.stdin.take()
        && let Err(error) = stdin.write_all(input)
    {
        // A helper that ended early says why itself.
        log::debug!("docker-credential-{name}: {error}");
    }
    let output = child.wait_with_output().map_err(fail)?;
    Ok((output.status.success(), output.stdout))
}

fn failed(name: &str, action: &str, reason: &str) -> Error {
    Error::Credentials { reason: format!("docker-credential-{name} {action}: {reason}") }
}

/// The user name that says that the secret is an identity token.
const IDENTITY_TOKEN_USER: &str = "<token>";

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// A helper that keeps what it gets in a file of its directory.
    const KEEPER: &str = r#"#!/bin/sh
cd "$(dirname "$0")"
case $1 in
store) cat >kept ;;
erase) rm kept ;;
get) read -r server; case $server in
    broken) echo not json ;;
    *) if [ -e kept ]; then cat kept; else echo "credentials not found in native keychain"; exit 1; fi ;;
    esac ;;
esac
"#;

    #[test]
    fn talks_to_a_helper() {
        let dir = tempfile::TempDir::new().unwrap();
        let program = dir.path().join("docker-credential-keeper");
        fs::write(&program, KEEPER).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let search = format!("{}:/usr/bin:/bin", dir.path().display());
        let path = Some(OsStr::new(&search));
        assert_eq!(get("keeper", path, "h").unwrap(), Credentials::Anonymous);
        let password = Credentials::Basic { username: "u".into(), password: "p".into() };
        store("keeper", path, "h", &password).unwrap();
        assert_eq!(get("keeper", path, "h").unwrap(), password);
        let token = Credentials::IdentityToken { username: String::new(), token: "t".into() };
        store("keeper", path, "h", &token).unwrap();
        assert_eq!(get("keeper", path, "h").unwrap(), token);
        erase("keeper", path, "h").unwrap();
        assert_eq!(get("keeper", path, "h").unwrap(), Credentials::Anonymous);
        assert!(get("keeper", path, "broken").is_err());
        let missing = get("absent", path, "h").unwrap_err().to_string();
        assert_eq!(missing, "credentials: docker-credential-absent get: there is no such program in PATH");
        assert!(get("../evil", path, "h").unwrap_err().to_string().ends_with("its name is not one"));
    }
}
