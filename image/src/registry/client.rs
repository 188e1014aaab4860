//! One registry: requests with credentials, redirects and patience.
//!
//! Credentials go to the registry's own scheme, host and port and to its token service, nowhere else: a redirect that
//! leaves the origin loses them (CVE-2020-15157 and its kin), and where an answer may lead at all is
//! [`Url::may_lead_to`]'s to say.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use ureq::http::{HeaderMap, Method};
use ureq::{Agent, Body};

use super::RegistryOptions;
use super::tls::TlsSettings;
use super::token::Tokens;
use super::transport::{Dialer, Fault, Names};
use super::url::{Scheme, Url, is_loopback, port_of};
use crate::cancel::Cancel;
use crate::error::Error;
use crate::reference::DEFAULT_REGISTRY;

/// A connection pool to one registry and what it knows of us.
#[derive(Debug)]
pub(crate) struct Client {
    pub(super) registry: String,
    pub(super) options: RegistryOptions,
    pub(crate) cancel: Cancel,
    agent: Agent,
    /// Decided by the first answer.
    scheme: Mutex<Option<Scheme>>,
    pub(super) tokens: Mutex<Tokens>,
}

/// Called before a pause with its length and its reason.
pub(crate) type OnRetry<'a> = &'a (dyn Fn(Duration, &str) + Sync);

/// A request to the registry.
#[derive(Clone)]
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) target: Target,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) payload: Payload<'a>,
    /// What a token must allow: `repository:NAME:pull`.
    pub(super) scopes: &'a [String],
    pub(super) on_retry: OnRetry<'a>,
}

/// Where a request goes.
#[derive(Clone)]
pub(super) enum Target {
    /// A path of the registry.
    Path(String),
    /// A place the registry told, such as an upload's.
    Url(Url),
}

/// What a request carries.
#[derive(Clone, Copy)]
pub(super) enum Payload<'a> {
    None,
    Bytes(&'a [u8]),
    /// The part of a file from `offset`, `size` bytes. Such a request is not tried again: the caller asks the registry
    /// first how much of it has arrived.
    File {
        file: &'a File,
        offset: u64,
        size: u64,
        sent: &'a (dyn Fn(u64) + Sync),
    },
}

/// An answer whose body has not been read yet.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Where it came from, after redirects.
    pub(super) url: Url,
    pub(super) method: &'static str,
    pub(super) headers: HeaderMap,
    pub(super) body: Body,
}

impl Client {
    pub(crate) fn new(registry: &str, options: &RegistryOptions, cancel: &Cancel) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .accept_encoding("identity")
            .user_agent(options.user_agent.as_str())
            .input_buffer_size(128 << 10)
            .output_buffer_size(128 << 10)
            .max_idle_connections_per_host(16)
            .build();
        let dialer = Dialer {
            tls: TlsSettings::new(&options.cert_dirs, options.verify_tls),
            cancel: cancel.clone(),
            idle: options.idle_timeout,
        };
        Self {
            registry: registry.to_owned(),
            options: options.clone(),
            cancel: cancel.clone(),
            agent: Agent::with_parts(config, dialer, Names { cancel: cancel.clone() }),
            scheme: Mutex::new(None),
            tokens: Mutex::default(),
        }
    }

    /// Sends a request until it is answered: with credentials if the registry wants some, again after a pause if it
    /// is busy or the connection broke. Any status may come back but those of a busy or refusing registry.
    pub(super) fn send(&self, request: &Request<'_>) -> Result<Answer, Error> {
        let repeatable = !matches!(request.payload, Payload::File { .. });
        let mut attempt = 1;
        loop {
            let result = self.authorized(request);
            let (pause, reason) = match &result {
                Ok(answer) if is_busy(answer.status) => (retry_after(&answer.headers), busy_reason(answer.status)),
                Err(error) if self.is_transient(error) => (None, error.to_string()),
                _ => return result,
            };
            let pause = pause.unwrap_or_else(|| backoff(attempt));
            if !repeatable || attempt >= self.options.attempts || pause > MAX_RETRY_AFTER {
                return result.and_then(|answer| Err(answer.into_error(&self.registry)));
            }
            log::debug!("{}: {reason}: again in {pause:?}", self.registry);
            (request.on_retry)(pause, &reason);
            self.cancel.sleep(pause)?;
            attempt += 1;
        }
    }

    /// As [`Client::send`], and any status that is not in `accepted` is an error.
    pub(super) fn expect(&self, request: &Request<'_>, accepted: &[u16]) -> Result<Answer, Error> {
        let answer = self.send(request)?;
        if accepted.contains(&answer.status) { Ok(answer) } else { Err(answer.into_error(&self.registry)) }
    }

    /// Whether the same request may go through a little later. A registry that never answered is down; one that did
    /// may be restarting.
    pub(super) fn is_transient(&self, error: &Error) -> bool {
        match error {
            Error::Unreachable { .. } => self.decided_scheme().is_some(),
            Error::Registry { status, .. } => is_busy(*status),
            _ => false,
        }
    }

    /// One request, with the answer to a challenge if there is one.
    fn authorized(&self, request: &Request<'_>) -> Result<Answer, Error> {
        self.cancel.check()?;
        let url = self.url(&request.target)?;
        let own = Url::new(url.scheme, self.authority(), "/");
        if !url.same_origin(&own) {
            // An upload's place on another host gets no credentials.
            return self.follow(request, &url, None);
        }
        let known = self.authorization(url.scheme, request.scopes)?;
        let answer = self.follow(request, &url, known.as_deref())?;
        if answer.status != 401 || !answer.url.same_origin(&own) {
            return Ok(answer);
        }
        let fresh = self.answer_challenge(&answer, request.scopes, known.as_deref())?;
        let Some(fresh) = fresh else { return Err(answer.into_error(&self.registry)) };
        let second = self.follow(request, &url, Some(&fresh))?;
        if second.status == 401 {
            self.forget_tokens();
            return Err(second.into_error(&self.registry));
        }
        Ok(second)
    }

    /// One request and the redirects of its answer.
    pub(super) fn follow(
        &self,
        request: &Request<'_>,
        url: &Url,
        mut authorization: Option<&str>,
    ) -> Result<Answer, Error> {
        let mut url = url.clone();
        for _ in 0..=MAX_REDIRECTS {
            let answer = self.exchange(request, &url, authorization)?;
            let redirected = matches!(answer.status, 301 | 302 | 303 | 307 | 308);
            if !redirected || !matches!(request.method, Method::GET | Method::HEAD) {
                return Ok(answer);
            }
            let target = answer.location()?;
            url.may_lead_to(&target).map_err(|reason| forbidden(&url, &target, reason))?;
            if !url.same_origin(&target) {
                authorization = None;
            }
            log::debug!("{url} redirects to {target}");
            url = target;
        }
        Err(Error::Protocol { host: url.authority, reason: format!("more than {MAX_REDIRECTS} redirects") })
    }

    /// One request on the wire.
    fn exchange(&self, request: &Request<'_>, url: &Url, authorization: Option<&str>) -> Result<Answer, Error> {
        let invalid = |error: &dyn std::fmt::Display| Error::Protocol {
            host: url.authority.clone(),
            reason: format!("cannot send the request: {error}"),
        };
        let mut builder = ureq::http::Request::builder().method(request.method.clone()).uri(format!(
            "{}://{}{}",
            url.scheme.name(),
            url.authority,
            url.path
        ));
        for (name, value) in &request.headers {
            builder = builder.header(*name, value);
        }
        if let Some(value) = authorization {
            builder = builder.header("authorization", value);
        }
        let sent = match request.payload {
            Payload::None => self.agent.run(builder.body(()).map_err(|error| invalid(&error))?),
            Payload::Bytes(bytes) => self.agent.run(builder.body(bytes).map_err(|error| invalid(&error))?),
            Payload::File { file, offset, size, sent } => {
                let mut reader = FileReader { file, offset, left: size, sent };
                let body = ureq::SendBody::from_reader(&mut reader);
                let request = builder.header("content-length", size.to_string()).body(body);
                self.agent.run(request.map_err(|error| invalid(&error))?)
            }
        };
        let (parts, body) = sent.map_err(|error| explain(error, &url.authority))?.into_parts();
        let method = method_name(&request.method);
        let answer = Answer { status: parts.status.as_u16(), url: url.clone(), method, headers: parts.headers, body };
        log::debug!("{method} {url}: {}", answer.status);
        Ok(answer)
    }

    /// The registry's own host and port.
    pub(super) fn authority(&self) -> &str {
        if self.registry == DEFAULT_REGISTRY { DOCKER_HUB_HOST } else { &self.registry }
    }

    fn url(&self, target: &Target) -> Result<Url, Error> {
        match target {
            Target::Url(url) => Ok(url.clone()),
            Target::Path(path) => Ok(Url::new(self.scheme()?, self.authority(), path)),
        }
    }

    fn decided_scheme(&self) -> Option<Scheme> {
        *self.scheme.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// https, unless the registry is on loopback or allowed to be insecure and does not speak TLS. Held while it is
    /// found out, so that many threads ask once.
    fn scheme(&self) -> Result<Scheme, Error> {
        let mut scheme = self.scheme.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = *scheme {
            return Ok(known);
        }
        let authority = self.authority();
        let may_be_plain = !self.options.verify_tls || is_loopback(super::url::host_of(authority));
        let no_retry: OnRetry<'_> = &|_, _| {};
        let ping = Request {
            method: Method::GET,
            target: Target::Path(String::new()),
            headers: Vec::new(),
            payload: Payload::None,
            scopes: &[],
            on_retry: no_retry,
        };
        let found = match self.exchange(&ping, &Url::new(Scheme::Https, authority, "/v2/"), None) {
            Ok(answer) => {
                self.learn_challenge(&answer)?;
                Scheme::Https
            }
            Err(error) if may_be_plain && is_not_tls(&error, port_of(authority).is_none()) => {
                let answer = self.exchange(&ping, &Url::new(Scheme::Http, authority, "/v2/"), None)?;
                self.learn_challenge(&answer)?;
                Scheme::Http
            }
            Err(error) => return Err(error),
        };
        *scheme = Some(found);
        Ok(found)
    }
}

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Where its `Location` leads.
    pub(super) fn location(&self) -> Result<Url, Error> {
        let location = self.header("location").and_then(|location| self.url.join(location));
        location.ok_or_else(|| Error::Protocol {
            host: self.url.authority.clone(),
            reason: format!("{} {} answered {} without a usable location", self.method, self.url, self.status),
        })
    }

    /// The whole body, which may not be longer than `limit`.
    pub(super) fn read(self, limit: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let read = self.body.into_reader().take(limit + 1).read_to_end(&mut bytes);
        read.map_err(|error| explain(error.into(), &self.url.authority))?;
        if bytes.len() as u64 > limit {
            return Err(Error::Protocol {
                host: self.url.authority.clone(),
                reason: format!("the answer to {} {} is longer than {limit} bytes", self.method, self.url),
            });
        }
        Ok(bytes)
    }

    /// What a status that was not wanted means.
    pub(super) fn into_error(self, registry: &str) -> Error {
        let (status, method, url) = (self.status, self.method, self.url.to_string());
        let message = self.read(MAX_ERROR).map(|bytes| message(&bytes)).unwrap_or_default();
        match status {
            401 => Error::Unauthorized { registry: registry.to_owned(), message },
            403 => Error::Denied { registry: registry.to_owned(), what: url, message },
            _ => Error::Registry { method, url, status, message },
        }
    }
}

/// Reads the part of a file that a request carries.
struct FileReader<'a> {
    file: &'a File,
    offset: u64,
    left: u64,
    sent: &'a (dyn Fn(u64) + Sync),
}

impl Read for FileReader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.file.read_at(&mut buffer[..want], self.offset)?;
        self.offset += count as u64;
        self.left -= count as u64;
        (self.sent)(self.offset);
        Ok(count)
    }
}

/// Turns ureq's error into ours.
pub(super) fn explain(error: ureq::Error, host: &str) -> Error {
    let host = host.to_owned();
    match error {
        ureq::Error::Io(error) => {
            let text = if error.raw_os_error().is_some() { error.kind().to_string() } else { error.to_string() };
            // ureq wraps its own errors where it reads a body.
            let inner = match error.into_inner() {
                None => return Error::Unreachable { host, reason: text },
                Some(inner) => inner,
            };
            let inner = match inner.downcast::<ureq::Error>() {
                Ok(nested) => return explain(*nested, &host),
                Err(inner) => inner,
            };
            match inner.downcast::<Fault>().map(|fault| *fault) {
                Ok(Fault::Cancelled) => Error::Cancelled,
                Ok(Fault::Untrusted(reason)) => Error::Untrusted { host, reason },
                Ok(Fault::Settings(error)) => error,
                Ok(Fault::NotTls) => Error::Protocol { host, reason: NOT_TLS.to_owned() },
                Ok(Fault::Tls(reason)) => Error::Protocol { host, reason },
                Ok(fault) => Error::Unreachable { host, reason: fault.to_string() },
                Err(_) => Error::Unreachable { host, reason: text },
            }
        }
        ureq::Error::HostNotFound => Error::Unreachable { host, reason: "no such host".into() },
        ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed => {
            Error::Unreachable { host, reason: error.to_string() }
        }
        other => Error::Protocol { host, reason: other.to_string() },
    }
}

pub(super) fn forbidden(from: &Url, target: &Url, reason: &'static str) -> Error {
    Error::Forbidden { host: from.authority.clone(), target: target.to_string(), reason }
}

/// 0.2 s, 0.4 s, 0.8 s, … at most 10 s, plus up to a quarter so that many clients don't come back at once.
pub(super) fn backoff(attempt: u32) -> Duration {
    let base = Duration::from_millis(200) * 2u32.saturating_pow(attempt.min(10) - 1);
    let mut random = [0; 1];
    let jitter = getrandom::fill(&mut random).map_or(0, |()| u32::from(random[0]));
    base.min(Duration::from_secs(10)).mul_f64(1.0 + f64::from(jitter) / 1024.0)
}

fn is_not_tls(error: &Error, default_port: bool) -> bool {
    match error {
        Error::Protocol { reason, .. } => reason == NOT_TLS,
        // Nothing on 443 says nothing about 80.
        Error::Unreachable { .. } => default_port,
        _ => false,
    }
}

fn is_busy(status: u16) -> bool {
    matches!(status, 408 | 429 | 500 | 502 | 503 | 504)
}

fn busy_reason(status: u16) -> String {
    match status {
        429 => "the registry asks us to slow down".into(),
        _ => format!("the registry answers {status}"),
    }
}

/// `Retry-After`: seconds or a date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("retry-after")?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(text).ok()?;
    Some(date.duration_since(SystemTime::now()).unwrap_or_default())
}

/// What the registry says, in one line: distribution's `{"errors":[{"code":…,"message":…}]}`, or nothing.
fn message(bytes: &[u8]) -> String {
    let value: serde_json::Value = serde_json::from_slice(bytes).unwrap_or_default();
    let first = value.get("errors").and_then(|errors| errors.get(0)).unwrap_or(&value);
    let text = |key| first.get(key).and_then(serde_json::Value::as_str).filter(|text| !text.is_empty());
    let found = text("message").or_else(|| text("code")).or_else(|| text("details")).or_else(|| text("error"));
    // It ends on a terminal: no control characters of a stranger's.
    found.unwrap_or_default().chars().filter(|c| !c.is_control()).take(300).collect()
}

fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::PUT => "PUT",
        Method::POST => "POST",
        Method::PATCH => "PATCH",
        Method::DELETE => "DELETE",
        _ => "request",
    }
}

const DOCKER_HUB_HOST: &str = "registry-1.docker.io";
const NOT_TLS: &str = "it does not speak TLS";
const MAX_REDIRECTS: usize = 5;
const MAX_ERROR: u64 = 64 << 10;
/// A registry that wants a longer pause gets an error instead.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(120);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_one_clean_line() {
        for (body, want) in [
            (&br#"{"errors":[{"code":"DENIED","message":"no\u001b[2J way"}]}"#[..], "no[2J way"),
            (br#"{"errors":[{"code":"UNKNOWN","message":""}]}"#, "UNKNOWN"),
            (br#"{"details":"bad password"}"#, "bad password"),
            (b"<html>", ""),
            (b"", ""),
        ] {
            assert_eq!(message(body), want);
        }
    }

    #[test]
    fn reads_retry_after() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("retry-after", text.parse().unwrap());
            retry_after(&headers)
        };
        assert_eq!(of("7"), Some(Duration::from_secs(7)));
        assert_eq!(of("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        let soon = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(30));
        assert!((25..=30).contains(&of(&soon).unwrap().as_secs()));
        assert_eq!(of("soon"), None);
    }

    #[test]
    fn backs_off() {
        let millis: Vec<u128> = (1..=8).map(|n| backoff(n).as_millis()).collect();
        assert!((200..=250).contains(&millis[0]), "{millis:?}");
        assert!((6400..=8000).contains(&millis[5]), "{millis:?}");
        assert!(millis[7] <= 12_500, "{millis:?}");
    }
}
