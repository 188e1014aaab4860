//! Blobs from a registry: one stream per blob that survives broken connections.

use std::io::Read;
use std::time::Duration;

use ureq::http::Method;

use super::client::{Answer, Client, OnRetry, Payload, Request, Target, backoff, explain};
use super::manifest::pull_scope;
use crate::document::Descriptor;
use crate::error::Error;

/// The bytes of a blob from some offset on. Where a connection breaks it asks for the rest.
pub(crate) struct BlobStream<'a> {
    client: &'a Client,
    path: String,
    scopes: [String; 1],
    size: u64,
    offset: u64,
    body: Option<Box<dyn Read + Send>>,
    /// In a row, without a byte in between.
    failures: u32,
    on_retry: OnRetry<'a>,
}

impl Client {
    /// Starts to read a blob of `repository` at `offset`. Its size is the descriptor's; its content is not verified.
    pub(crate) fn blob<'a>(
        &'a self,
        repository: &str,
        descriptor: &Descriptor,
        offset: u64,
        on_retry: OnRetry<'a>,
    ) -> BlobStream<'a> {
        BlobStream {
            client: self,
            path: format!("/v2/{repository}/blobs/{}", descriptor.digest),
            scopes: [pull_scope(repository)],
            size: descriptor.size,
            offset,
            body: None,
            failures: 0,
            on_retry,
        }
    }

    /// A small blob as a whole, not verified. Its descriptor's size must be under `limit`.
    pub(crate) fn small_blob(
        &self,
        repository: &str,
        descriptor: &Descriptor,
        limit: u64,
        on_retry: OnRetry<'_>,
    ) -> Result<Vec<u8>, Error> {
        if descriptor.size > limit {
            let what = descriptor.digest.to_string();
            return Err(Error::SizeMismatch { what, expected: limit, actual: descriptor.size });
        }
        let mut bytes = vec![0; usize::try_from(descriptor.size).unwrap_or_default()];
        let mut stream = self.blob(repository, descriptor, 0, on_retry);
        let mut filled = 0;
        while filled < bytes.len() {
            filled += stream.read(&mut bytes[filled..])?;
        }
        Ok(bytes)
    }
}

impl BlobStream<'_> {
    /// Reads some bytes; 0 only when all are read (or `buffer` is empty).
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        loop {
            let left = usize::try_from(self.size - self.offset).unwrap_or(usize::MAX);
            let want = left.min(buffer.len());
            if want == 0 {
                return Ok(0);
            }
            let result = match self.body.take() {
                Some(body) => self.read_some(body, &mut buffer[..want]),
                None => self.open().map(|body| {
                    self.body = Some(body);
                    None
                }),
            };
            match result {
                Ok(Some(count)) => return Ok(count),
                Ok(None) => {}
                Err(error) => self.pause(error)?,
            }
        }
    }

    fn read_some(&mut self, mut body: Box<dyn Read + Send>, buffer: &mut [u8]) -> Result<Option<usize>, Error> {
        match body.read(buffer) {
            Ok(0) => Err(self.broken("the connection ended early")),
            Ok(count) => {
                self.body = Some(body);
                self.offset += count as u64;
                self.failures = 0;
                Ok(Some(count))
            }
            Err(error) => match explain(error.into(), self.client.authority()) {
                Error::Cancelled => Err(Error::Cancelled),
                other => Err(self.broken(&other.to_string())),
            },
        }
    }

    /// Counts a failure and waits, or gives up.
    fn pause(&mut self, error: Error) -> Result<(), Error> {
        self.failures += 1;
        if !self.client.is_transient(&error) || self.failures >= self.client.options.attempts {
            return Err(error);
        }
        let pause: Duration = backoff(self.failures);
        log::debug!("{}: {error}: again at byte {} in {pause:?}", self.path, self.offset);
        (self.on_retry)(pause, &error.to_string());
        self.client.cancel.sleep(pause)
    }

    /// Asks for the blob from the offset on.
    fn open(&mut self) -> Result<Box<dyn Read + Send>, Error> {
        let mut headers = Vec::new();
        if self.offset > 0 {
            headers.push(("range", format!("bytes={}-", self.offset)));
        }
        let request = Request {
            method: Method::GET,
            target: Target::Path(self.path.clone()),
            headers,
            payload: Payload::None,
            scopes: &self.scopes,
            on_retry: self.on_retry,
        };
        let answer = self.client.expect(&request, &[200, 206])?;
        let whole = answer.status == 200;
        self.check_length(&answer, whole)?;
        let authority = answer.url.authority.clone();
        let mut reader: Box<dyn Read + Send> = Box::new(answer.body.into_reader());
        if whole && self.offset > 0 {
            // A server without ranges: what we have comes once more.
            let skipped = std::io::copy(&mut reader.by_ref().take(self.offset), &mut std::io::sink())
                .map_err(|error| explain(error.into(), &authority))?;
            if skipped < self.offset {
                return Err(self.broken("the connection ended early"));
            }
        }
        Ok(reader)
    }

    /// Whether the answer is the part we asked for of a blob as long as its descriptor says.
    fn check_length(&self, answer: &Answer, whole: bool) -> Result<(), Error> {
        if whole {
            let length = answer.header("content-length").and_then(|text| text.parse::<u64>().ok());
            return match length {
                Some(actual) if actual != self.size => {
                    Err(Error::SizeMismatch { what: self.path.clone(), expected: self.size, actual })
                }
                _ => Ok(()),
            };
        }
        let protocol = |reason: String| Error::Protocol { host: answer.url.authority.clone(), reason };
        let range = answer.header("content-range").unwrap_or_default();
        let parsed = range.strip_prefix("bytes ").and_then(|text| {
            let (span, total) = text.split_once('/')?;
            let (start, _) = span.split_once('-')?;
            Some((start.trim().parse::<u64>().ok()?, total.trim().parse::<u64>().ok()))
        });
        match parsed {
            Some((_, Some(total))) if total != self.size => {
                Err(Error::SizeMismatch { what: self.path.clone(), expected: self.size, actual: total })
            }
            Some((start, _)) if start == self.offset => Ok(()),
            _ => Err(protocol(format!("asked for bytes from {} on, got {range:?}", self.offset))),
        }
    }

    fn broken(&self, reason: &str) -> Error {
        let host = self.client.authority().to_owned();
        Error::Unreachable { host, reason: format!("{reason} (byte {} of {})", self.offset, self.size) }
    }
}

impl std::fmt::Debug for BlobStream<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlobStream").field("path", &self.path).field("offset", &self.offset).finish_non_exhaustive()
    }
}
