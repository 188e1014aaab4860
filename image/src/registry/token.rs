//! Proving who we are: challenges answered with passwords or with tokens from the registry's token service.
//!
//! Source: distribution's "Token Authentication Specification" and "OAuth 2.0 token" pages. A token service may be on
//! another host (auth.docker.io), but then only over https; see [`Url::may_lead_to`].

use std::collections::{BTreeSet, HashMap};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use ureq::http::Method;

use super::client::{Answer, Client, Payload, Request, Target, forbidden};
use super::url::{Scheme, Url, escape};
use crate::auth::challenge::{self, Challenge};
use crate::auth::{self, Credentials};
use crate::error::Error;

/// What a client knows about getting in.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    credentials: Option<Credentials>,
    mode: Mode,
    /// By the scopes they are for.
    access: HashMap<String, Access>,
}

#[derive(Debug, Clone, Default)]
enum Mode {
    /// The registry has asked for nothing yet.
    #[default]
    Open,
    Basic,
    Bearer(Service),
}

/// A token service.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Service {
    realm: Url,
    name: Option<String>,
}

struct Access {
    header: String,
    expires: Instant,
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("expires", &self.expires).finish_non_exhaustive()
    }
}

/// A token service's answer.
#[derive(Deserialize)]
struct Issued {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
    #[serde(default)]
    refresh_token: String,
    /// Seconds; null, 0 and nonsense mean the minimum.
    #[serde(default)]
    expires_in: serde_json::Value,
}

impl Client {
    /// The `Authorization` for a request, as far as it is known without asking the registry.
    pub(super) fn authorization(&self, scheme: Scheme, scopes: &[String]) -> Result<Option<String>, Error> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        match tokens.mode.clone() {
            Mode::Open => Ok(None),
            Mode::Basic => self.basic(&mut tokens, scopes),
            Mode::Bearer(service) => {
                let own = Url::new(scheme, self.authority(), "/v2/");
                self.bearer(&mut tokens, &own, &service, scopes, "").map(Some)
            }
        }
    }

    /// Remembers what the registry asks for in its answer to a ping.
    pub(super) fn learn_challenge(&self, answer: &Answer) -> Result<(), Error> {
        if answer.status == 401 {
            let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
            tokens.mode = mode(answer)?.0;
        }
        Ok(())
    }

    /// The `Authorization` for a second try after a 401; `None` if there is nothing better than what was `tried`.
    pub(super) fn answer_challenge(
        &self,
        answer: &Answer,
        scopes: &[String],
        tried: Option<&str>,
    ) -> Result<Option<String>, Error> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let (mode, scope) = mode(answer)?;
        tokens.mode = mode.clone();
        let fresh = match mode {
            Mode::Open => None,
            Mode::Basic => self.basic(&mut tokens, scopes)?,
            Mode::Bearer(service) => {
                // The token that was refused is of no use to anybody.
                tokens.access.retain(|_, access| Some(access.header.as_str()) != tried);
                Some(self.bearer(&mut tokens, &answer.url, &service, scopes, &scope)?)
            }
        };
        Ok(fresh.filter(|fresh| Some(fresh.as_str()) != tried))
    }

    pub(super) fn forget_tokens(&self) {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).access.clear();
    }

    /// Gets a token for nothing in particular with `offline` access: the refresh token that a login stores, if the
    /// service gives one.
    pub(super) fn offline_token(&self) -> Result<Option<String>, Error> {
        let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
        let Mode::Bearer(service) = tokens.mode.clone() else { return Ok(None) };
        let credentials = self.credentials(&mut tokens, &[])?;
        let issued = self.issue(&service, &credentials, &BTreeSet::new(), true)?;
        Ok((!issued.refresh_token.is_empty()).then_some(issued.refresh_token))
    }

    fn credentials(&self, tokens: &mut Tokens, scopes: &[String]) -> Result<Credentials, Error> {
        if let Some(known) = &tokens.credentials {
            return Ok(known.clone());
        }
        let found = match &self.options.credentials {
            Some(given) => given.clone(),
            None => {
                let path = scopes.first().and_then(|scope| scope.split(':').nth(1)).unwrap_or_default();
                auth::lookup(&self.options.auth_files, &self.registry, path)?
            }
        };
        tokens.credentials = Some(found.clone());
        Ok(found)
    }

    fn basic(&self, tokens: &mut Tokens, scopes: &[String]) -> Result<Option<String>, Error> {
        Ok(match self.credentials(tokens, scopes)? {
            Credentials::Basic { username, password } => Some(basic_header(&username, &password)),
            Credentials::RegistryToken(token) => Some(format!("Bearer {token}")),
            Credentials::Anonymous | Credentials::IdentityToken { .. } => None,
        })
    }

    fn bearer(
        &self,
        tokens: &mut Tokens,
        registry: &Url,
        service: &Service,
        scopes: &[String],
        challenged: &str,
    ) -> Result<String, Error> {
        registry.may_lead_to(&service.realm).map_err(|reason| forbidden(registry, &service.realm, reason))?;
        let credentials = self.credentials(tokens, scopes)?;
        if let Credentials::RegistryToken(token) = &credentials {
            return Ok(format!("Bearer {token}"));
        }
        let mut wanted: BTreeSet<String> = scopes.iter().cloned().collect();
        if wanted.is_empty() {
            wanted.extend(challenged.split(' ').filter(|scope| !scope.is_empty()).map(str::to_owned));
        }
        let key = wanted.iter().cloned().collect::<Vec<_>>().join(" ");
        if let Some(access) = tokens.access.get(&key)
            && access.expires > Instant::now()
        {
            return Ok(access.header.clone());
        }
        let issued = self.issue(service, &credentials, &wanted, false)?;
        let token = if issued.token.is_empty() { issued.access_token } else { issued.token };
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            let host = service.realm.authority.clone();
            return Err(Error::Protocol { host, reason: "the token service gave no token".into() });
        }
        let lifetime = issued.expires_in.as_u64().unwrap_or(0).max(MIN_LIFETIME);
        let expires = Instant::now() + Duration::from_secs(lifetime - EXPIRY_MARGIN);
        let header = format!("Bearer {token}");
        tokens.access.insert(key, Access { header: header.clone(), expires });
        Ok(header)
    }

    /// Asks the token service.
    fn issue(
        &self,
        service: &Service,
        credentials: &Credentials,
        scopes: &BTreeSet<String>,
        offline: bool,
    ) -> Result<Issued, Error> {
        let mut form: Vec<(&str, String)> = Vec::new();
        form.extend(service.name.iter().map(|name| ("service", name.clone())));
        let answer = if let Credentials::IdentityToken { token, .. } = credentials {
            form.push(("client_id", CLIENT_ID.into()));
            form.push(("grant_type", "refresh_token".into()));
            form.push(("refresh_token", token.clone()));
            form.push(("scope", scopes.iter().cloned().collect::<Vec<_>>().join(" ")));
            let body = encode(&form);
            let headers = vec![("content-type", "application/x-www-form-urlencoded".to_owned())];
            self.ask(&service.realm, Method::POST, headers, Payload::Bytes(body.as_bytes()), None)?
        } else {
            form.extend(scopes.iter().map(|scope| ("scope", scope.clone())));
            let mut header = None;
            if let Credentials::Basic { username, password } = credentials {
                form.push(("account", username.clone()));
                header = Some(basic_header(username, password));
            }
            if offline {
                form.push(("client_id", CLIENT_ID.into()));
                form.push(("offline_token", "true".into()));
            }
            let url = form.iter().fold(service.realm.clone(), |url, (key, value)| url.with_query(key, value));
            self.ask(&url, Method::GET, Vec::new(), Payload::None, header.as_deref())?
        };
        if answer.status != 200 {
            // Token services say 400 to a stale refresh token and 403 to a wrong password now and then.
            let error = answer.into_error(&self.registry);
            return Err(match error {
                Error::Registry { status: 400, message, .. } | Error::Denied { message, .. } => {
                    Error::Unauthorized { registry: self.registry.clone(), message }
                }
                other => other,
            });
        }
        let bytes = answer.read(MAX_TOKEN)?;
        serde_json::from_slice(&bytes)
            .map_err(|source| Error::Parse { what: format!("the answer of {}", service.realm), source })
    }

    /// A request to the token service, with patience for a busy one.
    fn ask(
        &self,
        url: &Url,
        method: Method,
        headers: Vec<(&'static str, String)>,
        payload: Payload<'_>,
        authorization: Option<&str>,
    ) -> Result<Answer, Error> {
        let request =
            Request { method, target: Target::Url(url.clone()), headers, payload, scopes: &[], on_retry: &|_, _| {} };
        let mut attempt = 1;
        loop {
            let result = self.follow(&request, url, authorization);
            let again = match &result {
                Ok(answer) => matches!(answer.status, 429 | 500 | 502 | 503 | 504),
                Err(error) => matches!(error, Error::Unreachable { .. }),
            };
            if !again || attempt >= TOKEN_ATTEMPTS {
                return result;
            }
            self.cancel.sleep(super::client::backoff(attempt))?;
            attempt += 1;
        }
    }
}

/// What a 401 asks for, tokens before passwords; and the scope it names.
fn mode(answer: &Answer) -> Result<(Mode, String), Error> {
    let headers = answer.headers.get_all("www-authenticate");
    let challenges: Vec<Challenge> =
        headers.iter().filter_map(|value| value.to_str().ok()).flat_map(challenge::parse).collect();
    for challenge in &challenges {
        if let Challenge::Bearer { realm, service, scope, .. } = challenge {
            let realm = answer.url.join(realm).filter(|_| realm.contains("://")).ok_or_else(|| Error::Protocol {
                host: answer.url.authority.clone(),
                reason: "its token service's address is not one".into(),
            })?;
            return Ok((Mode::Bearer(Service { realm, name: service.clone() }), scope.clone().unwrap_or_default()));
        }
    }
    let basic = challenges.contains(&Challenge::Basic);
    Ok((if basic { Mode::Basic } else { Mode::Open }, String::new()))
}

fn basic_header(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

fn encode(form: &[(&str, String)]) -> String {
    form.iter().map(|(key, value)| format!("{key}={}", escape(value))).collect::<Vec<_>>().join("&")
}

const CLIENT_ID: &str = "dhow";
/// The specification's shortest lifetime, seconds.
const MIN_LIFETIME: u64 = 60;
const EXPIRY_MARGIN: u64 = 15;
const MAX_TOKEN: u64 = 1 << 20;
const TOKEN_ATTEMPTS: u32 = 3;
