//! Blobs to a registry (distribution-spec, "Pushing blobs", "Mounting a blob from another repository").
//!
//! Small blobs go in one PUT. Larger ones go in one PATCH and a closing PUT: when the connection breaks, the registry
//! tells how much has arrived and only the rest goes again.

use std::fs::File;

use ureq::http::Method;

use super::client::{Answer, Client, OnRetry, Payload, Request, Target, backoff};
use super::manifest::{pull_scope, push_scope};
use super::url::{Url, escape};
use crate::digest::Digest;
use crate::document::Descriptor;
use crate::error::Error;

/// How a blob got where it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Placed {
    /// It was there.
    Exists,
    /// The registry took it from this repository of its own.
    Mounted(String),
    /// We sent it.
    Uploaded,
}

/// One blob to be placed.
pub(crate) struct Upload<'a> {
    pub(crate) repository: &'a str,
    pub(crate) descriptor: &'a Descriptor,
    pub(crate) file: &'a File,
    /// Repositories of the same registry that have it.
    pub(crate) sources: &'a [String],
    /// Called with the bytes sent so far.
    pub(crate) sent: &'a (dyn Fn(u64) + Sync),
    pub(crate) on_retry: OnRetry<'a>,
}

impl Client {
    /// Whether `repository` has the blob.
    pub(crate) fn has_blob(&self, repository: &str, digest: &Digest, on_retry: OnRetry<'_>) -> Result<bool, Error> {
        let scopes = [push_scope(repository)];
        let request = Request {
            method: Method::HEAD,
            target: Target::Path(format!("/v2/{repository}/blobs/{digest}")),
            headers: Vec::new(),
            payload: Payload::None,
            scopes: &scopes,
            on_retry,
        };
        let answer = self.send(&request)?;
        match answer.status {
            200 => Ok(true),
            404 => Ok(false),
            _ => Err(answer.into_error(&self.registry)),
        }
    }

    /// Makes sure that the repository has the blob.
    pub(crate) fn place_blob(&self, upload: &Upload<'_>) -> Result<Placed, Error> {
        if self.has_blob(upload.repository, &upload.descriptor.digest, upload.on_retry)? {
            return Ok(Placed::Exists);
        }
        let mut session = None;
        // One try: whoever has the blob there has it under the same name.
        if let Some(source) = upload.sources.first() {
            let answer = self.start(upload, Some(source))?;
            if answer.status == 201 {
                return Ok(Placed::Mounted(source.clone()));
            }
            // 202: not mounted, but an upload has begun.
            session = Some(self.upload_location(&answer)?);
        }
        let mut failures = 0;
        loop {
            let location = match session.take() {
                Some(location) => location,
                None => self.upload_location(&self.start(upload, None)?)?,
            };
            let sent = if upload.descriptor.size <= MONOLITHIC {
                self.send_whole(upload, &location)
            } else {
                self.send_resumable(upload, &location)
            };
            match sent {
                Ok(()) => return Ok(Placed::Uploaded),
                Err(error) => {
                    failures += 1;
                    // A lost session starts again; anything else the registry means.
                    let lost = matches!(error, Error::Registry { status: 404 | 416, .. });
                    if failures >= self.options.attempts || !(lost || self.is_transient(&error)) {
                        return Err(error);
                    }
                    let pause = backoff(failures);
                    (upload.on_retry)(pause, &error.to_string());
                    self.cancel.sleep(pause)?;
                }
            }
        }
    }

    /// Begins an upload, or mounts the blob from `source`.
    fn start(&self, upload: &Upload<'_>, source: Option<&String>) -> Result<Answer, Error> {
        let mut path = format!("/v2/{}/blobs/uploads/", upload.repository);
        let mut scopes = vec![push_scope(upload.repository)];
        if let Some(source) = source {
            path.push_str(&format!("?mount={}&from={}", escape(upload.descriptor.digest.as_str()), escape(source)));
            scopes.push(pull_scope(source));
        }
        let request = Request {
            method: Method::POST,
            target: Target::Path(path),
            headers: Vec::new(),
            payload: Payload::Bytes(&[]),
            scopes: &scopes,
            on_retry: upload.on_retry,
        };
        let result = self.expect(&request, &[201, 202]);
        match (result, source) {
            // Not allowed to read the source, or a registry that does not know mounting: upload instead.
            (Err(Error::Unauthorized { .. } | Error::Denied { .. } | Error::Registry { .. }), Some(_)) => {
                self.start(upload, None)
            }
            (Ok(answer), None) if answer.status == 201 => Err(answer.into_error(&self.registry)),
            (result, _) => result,
        }
    }

    fn send_whole(&self, upload: &Upload<'_>, location: &Url) -> Result<(), Error> {
        let payload = Payload::File { file: upload.file, offset: 0, size: upload.descriptor.size, sent: upload.sent };
        self.close(upload, location, payload)
    }

    fn send_resumable(&self, upload: &Upload<'_>, location: &Url) -> Result<(), Error> {
        let size = upload.descriptor.size;
        let mut location = location.clone();
        let mut offset = 0;
        let mut failures = 0;
        while offset < size {
            match self.patch(upload, &location, offset) {
                Ok(answer) => {
                    location = self.upload_location(&answer)?;
                    let received = received(&answer).unwrap_or(size);
                    if received <= offset {
                        return Err(answer.into_error(&self.registry));
                    }
                    offset = received;
                    failures = 0;
                }
                Err(error) => {
                    failures += 1;
                    if failures >= self.options.attempts || !self.is_transient(&error) {
                        return Err(error);
                    }
                    let pause = backoff(failures);
                    (upload.on_retry)(pause, &error.to_string());
                    self.cancel.sleep(pause)?;
                    let status = self.expect(&self.session_request(upload, Method::GET, &location), &[204])?;
                    location = self.upload_location(&status).unwrap_or(location);
                    offset = received(&status).unwrap_or(0);
                }
            }
        }
        self.close(upload, &location, Payload::Bytes(&[]))
    }

    fn patch(&self, upload: &Upload<'_>, location: &Url, offset: u64) -> Result<Answer, Error> {
        let size = upload.descriptor.size;
        let mut request = self.session_request(upload, Method::PATCH, location);
        request.headers.push(("content-type", "application/octet-stream".into()));
        request.headers.push(("content-range", format!("{offset}-{}", size - 1)));
        request.payload = Payload::File { file: upload.file, offset, size: size - offset, sent: upload.sent };
        self.expect(&request, &[202, 204])
    }

    /// The PUT that ends an upload.
    fn close(&self, upload: &Upload<'_>, location: &Url, payload: Payload<'_>) -> Result<(), Error> {
        let location = location.clone().with_query("digest", upload.descriptor.digest.as_str());
        let scopes = [push_scope(upload.repository)];
        let request = Request {
            method: Method::PUT,
            target: Target::Url(location),
            headers: vec![("content-type", "application/octet-stream".into())],
            payload,
            scopes: &scopes,
            on_retry: upload.on_retry,
        };
        let result = self.expect(&request, &[200, 201, 204]).map(drop);
        match result {
            // A PUT whose answer was lost may have done its work.
            Err(Error::Registry { status: 404, .. } | Error::Unreachable { .. })
                if self.has_blob(upload.repository, &upload.descriptor.digest, upload.on_retry)? =>
            {
                Ok(())
            }
            other => other,
        }
    }

    fn session_request<'a>(&self, upload: &Upload<'a>, method: Method, location: &Url) -> Request<'a> {
        Request {
            method,
            target: Target::Url(location.clone()),
            headers: Vec::new(),
            payload: Payload::None,
            scopes: &[],
            on_retry: upload.on_retry,
        }
    }

    /// Where the registry wants the bytes, if we go there.
    fn upload_location(&self, answer: &Answer) -> Result<Url, Error> {
        let target = answer.location()?;
        answer.url.may_lead_to(&target).map_err(|reason| super::client::forbidden(&answer.url, &target, reason))?;
        Ok(target)
    }
}

impl std::fmt::Debug for Upload<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Upload").field("descriptor", self.descriptor).finish_non_exhaustive()
    }
}

/// How many bytes the registry has: `Range: 0-N` means N + 1, but `0-0` is distribution's word for none.
fn received(answer: &Answer) -> Option<u64> {
    let range = answer.header("range")?;
    let range = range.strip_prefix("bytes=").unwrap_or(range);
    let end: u64 = range.split_once('-')?.1.trim().parse().ok()?;
    Some(if end == 0 { 0 } else { end + 1 })
}

/// Up to here a blob goes in one request: to send it again costs less than one more round trip.
const MONOLITHIC: u64 = 1 << 20;
