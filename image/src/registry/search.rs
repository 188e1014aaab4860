//! Finding repositories: docker hub's search, elsewhere the catalogue.

use serde::Deserialize;
use ureq::http::Method;

use super::RegistryOptions;
use super::client::{Client, Payload, Request, Target};
use super::url::escape;
use crate::cancel::Cancel;
use crate::error::Error;
use crate::reference::DEFAULT_REGISTRY;

/// One hit of [`search`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchResult {
    /// The repository, with its registry unless that is docker.io.
    pub name: String,
    /// What its owner says.
    pub description: String,
    /// How many like it.
    pub stars: u64,
    /// Whether docker calls it official.
    pub official: bool,
}

/// Repositories of `registry` whose name contains `term`, at most `limit`.
///
/// # Errors
/// What talking to the registry may fail with; many registries show their catalogue to nobody.
pub fn search(
    registry: &str,
    term: &str,
    limit: usize,
    options: &RegistryOptions,
    cancel: &Cancel,
) -> Result<Vec<SearchResult>, Error> {
    if registry == DEFAULT_REGISTRY {
        // Not part of the registry: docker's index, which asks for no credentials.
        let client = Client::new("index.docker.io", options, cancel);
        let path = format!("/v1/search?q={}&n={}", escape(term), limit.clamp(1, 100));
        let found: HubAnswer = get(&client, path, &[])?.0;
        return Ok(found.results.into_iter().map(SearchResult::from).take(limit).collect());
    }
    let client = Client::new(registry, options, cancel);
    let scopes = ["registry:catalog:*".to_owned()];
    let mut results = Vec::new();
    let mut path = Some(format!("/v2/_catalog?n={PAGE}"));
    let mut pages = 0;
    while let Some(next) = path.take()
        && results.len() < limit
        && pages < MAX_PAGES
    {
        let (page, link): (Catalogue, Option<String>) = get(&client, next, &scopes)?;
        let hits = page.repositories.into_iter().filter(|name| name.contains(term));
        results.extend(hits.map(|name| SearchResult {
            name: format!("{registry}/{name}"),
            description: String::new(),
            stars: 0,
            official: false,
        }));
        path = link;
        pages += 1;
    }
    results.truncate(limit);
    Ok(results)
}

#[derive(Deserialize)]
struct HubAnswer {
    #[serde(default)]
    results: Vec<HubResult>,
}

#[derive(Deserialize)]
struct HubResult {
    #[serde(default)]
    name: String,
    #[serde(default)]
    description: Option<String>,
    #[serde(default)]
    star_count: u64,
    #[serde(default)]
    is_official: bool,
}

impl From<HubResult> for SearchResult {
    fn from(hit: HubResult) -> Self {
        let clean = |text: String| text.chars().filter(|c| !c.is_control()).collect();
        Self {
            name: clean(hit.name),
            description: clean(hit.description.unwrap_or_default()),
            stars: hit.star_count,
            official: hit.is_official,
        }
    }
}

#[derive(Deserialize)]
struct Catalogue {
    #[serde(default)]
    repositories: Vec<String>,
}

/// Gets a JSON document and the path of the next page.
fn get<T: for<'de> Deserialize<'de>>(
    client: &Client,
    path: String,
    scopes: &[String],
) -> Result<(T, Option<String>), Error> {
    let request = Request {
        method: Method::GET,
        target: Target::Path(path),
        headers: vec![("accept", "application/json".into())],
        payload: Payload::None,
        scopes,
        on_retry: &|_, _| {},
    };
    let answer = client.expect(&request, &[200])?;
    // RFC 8288: <URL>; rel="next". Only the path counts: a catalogue does not continue elsewhere.
    let next = answer
        .header("link")
        .filter(|link| link.contains("next"))
        .and_then(|link| link.split_once('<')?.1.split_once('>'))
        .and_then(|(target, _)| answer.url.join(target))
        .filter(|target| answer.url.same_origin(target))
        .map(|target| target.path);
    let what = format!("the answer to GET {}", answer.url);
    let bytes = answer.read(MAX_ANSWER)?;
    let value = serde_json::from_slice(&bytes).map_err(|source| Error::Parse { what, source })?;
    Ok((value, next))
}

const PAGE: usize = 1000;
const MAX_PAGES: usize = 100;
const MAX_ANSWER: u64 = 16 << 20;
