//! Manifests on a registry (distribution-spec, "Pulling manifests", "Pushing manifests").

use ureq::http::Method;

use super::client::{Client, OnRetry, Payload, Request, Target};
use crate::digest::Digest;
use crate::document::media_type;
use crate::error::Error;
use crate::reference::Reference;

/// A manifest as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawManifest {
    pub(crate) bytes: Vec<u8>,
    pub(crate) content_type: String,
    /// Computed from the bytes, and the one asked for if one was.
    pub(crate) digest: Digest,
}

impl Client {
    /// Fetches the manifest `reference` names: verified if it names a digest.
    pub(crate) fn manifest(&self, reference: &Reference, on_retry: OnRetry<'_>) -> Result<RawManifest, Error> {
        let scopes = [pull_scope(reference.path())];
        let request = self.manifest_request(Method::GET, reference, &scopes, on_retry);
        let answer = self.expect(&request, &[200]).map_err(|error| not_found(error, reference))?;
        let content_type = answer.header("content-type").unwrap_or_default().to_owned();
        let told = answer.header("docker-content-digest").and_then(|text| Digest::parse(text).ok());
        let bytes = answer.read(MAX_MANIFEST)?;
        let expected = reference.digest().cloned().or(told);
        let Some(expected) = expected else {
            let digest = Digest::of(&bytes);
            return Ok(RawManifest { bytes, content_type, digest });
        };
        let actual = Digest::with(expected.algorithm(), &bytes);
        if actual != expected {
            return Err(Error::DigestMismatch { what: format!("the manifest of {reference}"), expected, actual });
        }
        Ok(RawManifest { bytes, content_type, digest: actual })
    }

    /// The digest the registry has for `reference`; `None` if it does not tell without the manifest.
    pub(crate) fn manifest_digest(
        &self,
        reference: &Reference,
        on_retry: OnRetry<'_>,
    ) -> Result<Option<Digest>, Error> {
        let scopes = [pull_scope(reference.path())];
        let request = self.manifest_request(Method::HEAD, reference, &scopes, on_retry);
        let answer = self.send(&request)?;
        Ok(match answer.status {
            200 => answer.header("docker-content-digest").and_then(|text| Digest::parse(text).ok()),
            // A HEAD has no body to tell what is wrong: let the GET fail.
            _ => None,
        })
    }

    /// Stores a manifest, byte for byte, under the tag (or digest) of `reference`.
    pub(crate) fn put_manifest(
        &self,
        reference: &Reference,
        content_type: &str,
        bytes: &[u8],
        on_retry: OnRetry<'_>,
    ) -> Result<(), Error> {
        let scopes = [push_scope(reference.path())];
        let request = Request {
            method: Method::PUT,
            target: Target::Path(path(reference)),
            headers: vec![("content-type", content_type.to_owned())],
            payload: Payload::Bytes(bytes),
            scopes: &scopes,
            on_retry,
        };
        let answer = self.expect(&request, &[200, 201, 202])?;
        let expected = Digest::of(bytes);
        if let Some(told) = answer.header("docker-content-digest").and_then(|text| Digest::parse(text).ok())
            && told.algorithm() == expected.algorithm()
            && told != expected
        {
            let what = format!("what the registry stored as {reference}");
            return Err(Error::DigestMismatch { what, expected, actual: told });
        }
        Ok(())
    }

    fn manifest_request<'a>(
        &self,
        method: Method,
        reference: &Reference,
        scopes: &'a [String],
        on_retry: OnRetry<'a>,
    ) -> Request<'a> {
        let accept =
            [media_type::OCI_INDEX, media_type::OCI_MANIFEST, media_type::DOCKER_LIST, media_type::DOCKER_MANIFEST];
        Request {
            method,
            target: Target::Path(path(reference)),
            headers: vec![("accept", accept.join(", "))],
            payload: Payload::None,
            scopes,
            on_retry,
        }
    }
}

/// The scope for reading `repository`.
pub(crate) fn pull_scope(repository: &str) -> String {
    format!("repository:{repository}:pull")
}

/// The scope for writing `repository`.
pub(crate) fn push_scope(repository: &str) -> String {
    format!("repository:{repository}:pull,push")
}

fn path(reference: &Reference) -> String {
    format!("/v2/{}/manifests/{}", reference.path(), reference.selector())
}

fn not_found(error: Error, reference: &Reference) -> Error {
    match error {
        Error::Registry { status: 404, .. } => Error::NotInRegistry { reference: reference.familiar() },
        other => other,
    }
}

/// Larger manifests are refused: distribution-spec asks registries to take 4 MiB.
const MAX_MANIFEST: u64 = 4 << 20;
