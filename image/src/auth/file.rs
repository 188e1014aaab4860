//! docker's `config.json` and podman's `auth.json`.
//!
//! ```text
//! { "auths":       { "host:5000": { "auth": base64("user:password"), "identitytoken": "…", "registrytoken": "…" } },
//!   "credHelpers": { "host": "name of docker-credential-*" },
//!   "credsStore":  "name of docker-credential-*" }
//! ```

use std::ffi::OsString;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

use super::{Credentials, DOCKER_HUB_KEY, helper, storage_key};
use crate::error::Error;
use crate::reference::DEFAULT_REGISTRY;

/// One file of credentials. A file that does not exist is an empty one.
#[derive(Debug, Clone)]
pub struct AuthFile {
    path: PathBuf,
    content: Map<String, Value>,
    helper_path: Option<OsString>,
}

impl AuthFile {
    /// Reads the file.
    ///
    /// # Errors
    /// [`Error::Credentials`] if it is there and does not read.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let content = match fs::read(path) {
            Ok(bytes) if bytes.iter().all(u8::is_ascii_whitespace) => Map::new(),
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| bad(path, &error))?,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Map::new(),
            Err(error) => return Err(bad(path, &error)),
        };
        Ok(Self { path: path.to_owned(), content, helper_path: None })
    }

    /// Looks for credential helpers in these directories (written as in PATH) instead of the process's PATH.
    #[must_use]
    pub fn with_helper_path(self, path: OsString) -> Self {
        Self { helper_path: Some(path), ..self }
    }

    /// The credentials for `registry`; for podman's finer keys also those of `registry/path` and its parents.
    ///
    /// # Errors
    /// [`Error::Credentials`] if an entry is malformed or a helper fails.
    pub fn lookup(&self, registry: &str, path: &str) -> Result<Credentials, Error> {
        if let Some(name) = self.helper(registry) {
            let found = helper::get(name, self.helper_path.as_deref(), storage_key(registry))?;
            if found != Credentials::Anonymous {
                return Ok(found);
            }
        }
        let Some(auths) = self.content.get("auths").and_then(Value::as_object) else {
            return Ok(Credentials::Anonymous);
        };
        let mut keys = Vec::new();
        let mut longer = format!("{registry}/{path}");
        while longer.contains('/') {
            keys.push(longer.clone());
            longer.truncate(longer.rfind('/').unwrap_or(0));
        }
        keys.push(registry.to_owned());
        if registry == DEFAULT_REGISTRY {
            keys.extend([DOCKER_HUB_KEY.to_owned(), "index.docker.io".to_owned(), "registry-1.docker.io".to_owned()]);
        }
        let exact = keys.iter().find_map(|key| auths.get(key));
        // Old dockers wrote `https://host/v1/`.
        let by_host = || auths.iter().find(|(key, _)| key.contains("://") && host(key) == registry).map(|(_, v)| v);
        match exact.or_else(by_host) {
            Some(entry) => self.read(entry),
            None => Ok(Credentials::Anonymous),
        }
    }

    /// Keeps `credentials` for `registry`: with the file's credential helper if it names one, else in the file.
    ///
    /// # Errors
    /// [`Error::Credentials`] if that fails.
    pub fn store(&mut self, registry: &str, credentials: &Credentials) -> Result<(), Error> {
        let key = storage_key(registry);
        if let Some(name) = self.helper(registry).map(str::to_owned) {
            helper::store(&name, self.helper_path.as_deref(), key, credentials)?;
            // docker leaves an empty entry to remember that there is something in the helper.
            self.auths()?.insert(key.to_owned(), Value::Object(Map::new()));
            return self.save();
        }
        let mut entry = Map::new();
        match credentials {
            Credentials::Anonymous => return self.remove(registry).map(drop),
            Credentials::Basic { username, password } => {
                entry.insert("auth".into(), STANDARD.encode(format!("{username}:{password}")).into());
            }
            Credentials::IdentityToken { username, token } => {
                entry.insert("auth".into(), STANDARD.encode(format!("{username}:")).into());
                entry.insert("identitytoken".into(), token.clone().into());
            }
            Credentials::RegistryToken(token) => {
                entry.insert("registrytoken".into(), token.clone().into());
            }
        }
        self.auths()?.insert(key.to_owned(), Value::Object(entry));
        self.save()
    }

    /// Forgets the credentials of `registry`. Returns whether there were any.
    ///
    /// # Errors
    /// [`Error::Credentials`] if that fails.
    pub fn remove(&mut self, registry: &str) -> Result<bool, Error> {
        let key = storage_key(registry);
        if let Some(name) = self.helper(registry) {
            helper::erase(name, self.helper_path.as_deref(), key)?;
        }
        let auths = self.auths()?;
        let mut found = auths.remove(key).is_some();
        found |= auths.remove(registry).is_some();
        if found {
            self.save()?;
        }
        Ok(found)
    }

    /// Whether secrets go into the file itself, where anyone who reads it has them: docker warns then.
    #[must_use]
    pub fn stores_in_file(&self, registry: &str) -> bool {
        self.helper(registry).is_none()
    }

    fn helper(&self, registry: &str) -> Option<&str> {
        let helpers = self.content.get("credHelpers").and_then(Value::as_object);
        let own = helpers.and_then(|helpers| helpers.get(registry).or_else(|| helpers.get(storage_key(registry))));
        own.or_else(|| self.content.get("credsStore")).and_then(Value::as_str).filter(|name| !name.is_empty())
    }

    fn auths(&mut self) -> Result<&mut Map<String, Value>, Error> {
        let auths = self.content.entry("auths").or_insert_with(|| Value::Object(Map::new()));
        auths.as_object_mut().ok_or_else(|| bad(&self.path, &"auths is no object"))
    }

    fn read(&self, entry: &Value) -> Result<Credentials, Error> {
        let text = |key| entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        if let Some(token) = text("registrytoken") {
            return Ok(Credentials::RegistryToken(token.to_owned()));
        }
        let pair = match text("auth") {
            Some(auth) => {
                let decoded = STANDARD.decode(auth.trim()).map_err(|error| bad(&self.path, &error))?;
                let decoded = String::from_utf8(decoded).map_err(|error| bad(&self.path, &error))?;
                let (username, password) =
                    decoded.split_once(':').ok_or_else(|| bad(&self.path, &"an auth is not user:password"))?;
                Some((username.to_owned(), password.trim_matches('\0').to_owned()))
            }
            None => text("username").map(|user| (user.to_owned(), text("password").unwrap_or_default().to_owned())),
        };
        Ok(match (text("identitytoken"), pair) {
            (Some(token), pair) => Credentials::IdentityToken {
                username: pair.map(|(username, _)| username).unwrap_or_default(),
                token: token.to_owned(),
            },
            (None, Some((username, password))) => Credentials::Basic { username, password },
            (None, None) => Credentials::Anonymous,
        })
    }

    /// Replaces the file by rename; only its owner may read it.
    fn save(&self) -> Result<(), Error> {
        // A link (as dotfile managers make) stays: its target is replaced.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        let temp = path.with_extension(format!("tmp-{}", std::process::id()));
        let written = (|| {
            if let Some(parent) = path.parent() {
                fs::DirBuilder::new().recursive(true).mode(0o700).create(parent)?;
            }
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temp)?;
            file.write_all(&serde_json::to_vec_pretty(&self.content)?)?;
            file.sync_data()?;
            fs::rename(&temp, &path)
        })();
        written.map_err(|error| bad(&self.path, &error))
    }
}

fn host(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

fn bad(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::Credentials { reason: format!("{}: {error}", path.display()) }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn file(text: &str) -> (TempDir, AuthFile) {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("config.json");
        fs::write(&path, text).unwrap();
        (dir, AuthFile::open(&path).unwrap())
    }

    fn basic(username: &str, password: &str) -> Credentials {
        Credentials::Basic { username: username.into(), password: password.into() }
    }

    #[test]
    fn looks_up_like_docker_and_podman() {
        // u:p, hub:h, old:o, deep:d, and one with a colon in the password.
        let (_dir, file) = file(
            r#"{"auths":{
              "host:5000":{"auth":"dTpw"},
              "https://index.docker.io/v1/":{"auth":"aHViOmg="},
              "https://old.example/v1/":{"auth":"b2xkOm8="},
              "pod.example/team":{"auth":"ZGVlcDpk"},
              "colon.example":{"auth":"dTphOmI="},
              "id.example":{"auth":"dXNlcjo=","identitytoken":"tok"},
              "reg.example":{"registrytoken":"raw"},
              "plain.example":{"username":"n","password":"w"},
              "empty.example":{}}}"#,
        );
        for (registry, path, want) in [
            ("host:5000", "a", basic("u", "p")),
            ("host", "a", Credentials::Anonymous),
            ("host:5001", "a", Credentials::Anonymous),
            ("docker.io", "library/a", basic("hub", "h")),
            ("old.example", "a", basic("old", "o")),
            ("evil-old.example", "a", Credentials::Anonymous),
            ("pod.example", "team/app", basic("deep", "d")),
            ("pod.example", "teamx/app", Credentials::Anonymous),
            ("colon.example", "a", basic("u", "a:b")),
            ("id.example", "a", Credentials::IdentityToken { username: "user".into(), token: "tok".into() }),
            ("reg.example", "a", Credentials::RegistryToken("raw".into())),
            ("plain.example", "a", basic("n", "w")),
            ("empty.example", "a", Credentials::Anonymous),
        ] {
            assert_eq!(file.lookup(registry, path).unwrap(), want, "{registry}/{path}");
        }
    }

    #[test]
    fn first_file_with_an_entry_wins() {
        let (one, _) = file(r#"{"auths":{"a":{"auth":"dTpw"}}}"#);
        let (two, _) = file(r#"{"auths":{"a":{"auth":"b2xkOm8="},"b":{"auth":"b2xkOm8="}}}"#);
        let files = [one.path().join("none"), one.path().join("config.json"), two.path().join("config.json")];
        assert_eq!(super::super::lookup(&files, "a", "x").unwrap(), basic("u", "p"));
        assert_eq!(super::super::lookup(&files, "b", "x").unwrap(), basic("old", "o"));
        assert_eq!(super::super::lookup(&files, "c", "x").unwrap(), Credentials::Anonymous);
    }

    #[test]
    fn stores_and_removes_and_keeps_the_rest() {
        use std::os::unix::fs::PermissionsExt;
        let (dir, mut file) = file(r#"{"HttpHeaders":{"X":"y"},"auths":{"a":{"auth":"dTpw"}}}"#);
        let path = dir.path().join("config.json");
        file.store("b:1", &basic("n", "w")).unwrap();
        file.store("docker.io", &Credentials::IdentityToken { username: "u".into(), token: "t".into() }).unwrap();
        let again = AuthFile::open(&path).unwrap();
        assert_eq!(again.lookup("b:1", "x").unwrap(), basic("n", "w"));
        assert_eq!(again.lookup("a", "x").unwrap(), basic("u", "p"));
        assert!(matches!(again.lookup("docker.io", "x").unwrap(), Credentials::IdentityToken { .. }));
        assert!(again.content["auths"].get("https://index.docker.io/v1/").is_some());
        assert_eq!(again.content["HttpHeaders"]["X"], "y");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(file.remove("b:1").unwrap());
        assert!(!file.remove("b:1").unwrap());
        assert_eq!(AuthFile::open(&path).unwrap().lookup("b:1", "x").unwrap(), Credentials::Anonymous);
    }

    #[test]
    fn malformed_files_are_named() {
        for text in ["{", r#"{"auths":{"a":{"auth":"%%"}}}"#, r#"{"auths":{"a":{"auth":"bm9jb2xvbg=="}}}"#] {
            let dir = TempDir::new().unwrap();
            let path = dir.path().join("config.json");
            fs::write(&path, text).unwrap();
            let error = AuthFile::open(&path).and_then(|file| file.lookup("a", "x")).unwrap_err();
            assert!(error.to_string().contains("config.json"), "{error}");
        }
    }
}
