//! Pushes to a registry that counts, mounts and breaks.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use dhow_image::*;
use support::*;

#[derive(Default)]
struct Stored {
    /// By repository and digest.
    blobs: BTreeMap<(String, String), Vec<u8>>,
    uploads: BTreeMap<String, Vec<u8>>,
    started: usize,
    manifests: BTreeMap<String, (String, Vec<u8>)>,
}

/// A registry that can be pushed to; `/v2/REPO/…` with one-part repositories.
fn registry(stored: &Arc<Mutex<Stored>>) -> impl Fn(&Asked) -> Reply + Send + Sync + 'static {
    let stored = stored.clone();
    move |asked| {
        let mut stored = stored.lock().unwrap();
        let parts: Vec<&str> = asked.path.trim_matches('/').split('/').collect();
        let parameters: BTreeMap<&str, String> = asked
            .query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(key, value)| (key, value.replace("%3A", ":").replace("%2F", "/")))
            .collect();
        let place = |session: &str, have: usize, status: u16| {
            let reply = Reply::new(status).with("Location", format!("/v2/app/blobs/uploads/{session}?state=x"));
            reply.with("Range", format!("0-{}", have.saturating_sub(1)))
        };
        match (asked.method.as_str(), parts.as_slice()) {
            ("GET", ["v2"]) => Reply::new(200),
            ("HEAD", ["v2", repository, "blobs", digest]) => {
                let known = stored.blobs.contains_key(&((*repository).into(), (*digest).into()));
                Reply::new(if known { 200 } else { 404 })
            }
            ("POST", ["v2", repository, "blobs", "uploads"]) => {
                if let (Some(digest), Some(from)) = (parameters.get("mount"), parameters.get("from"))
                    && let Some(blob) = stored.blobs.get(&(from.clone(), digest.clone())).cloned()
                {
                    stored.blobs.insert(((*repository).into(), digest.clone()), blob);
                    return Reply::new(201).with("Location", "/x");
                }
                stored.started += 1;
                let session = format!("s{}", stored.started);
                stored.uploads.insert(session.clone(), Vec::new());
                place(&session, 0, 202)
            }
            ("PATCH", ["v2", _, "blobs", "uploads", session]) => {
                let upload = stored.uploads.get_mut(*session).unwrap();
                let start = asked.header("content-range").unwrap().split('-').next().unwrap().parse::<usize>().unwrap();
                if start != upload.len() {
                    return Reply::new(416);
                }
                upload.extend_from_slice(&asked.body);
                place(session, upload.len(), 202)
            }
            ("GET", ["v2", _, "blobs", "uploads", session]) => place(session, stored.uploads[*session].len(), 204),
            ("PUT", ["v2", repository, "blobs", "uploads", session]) => {
                let mut blob = stored.uploads.remove(*session).unwrap();
                blob.extend_from_slice(&asked.body);
                let digest = parameters["digest"].clone();
                if Digest::of(&blob).as_str() != digest {
                    return Reply::new(400).body(r#"{"errors":[{"code":"DIGEST_INVALID"}]}"#);
                }
                stored.blobs.insert(((*repository).into(), digest), blob);
                Reply::new(201).with("Location", "/x")
            }
            ("PUT", ["v2", repository, "manifests", tag]) => {
                let kind = asked.header("content-type").unwrap().to_owned();
                stored.manifests.insert(format!("{repository}:{tag}"), (kind, asked.body.clone()));
                Reply::new(201).with("Docker-Content-Digest", Digest::of(&asked.body))
            }
            _ => Reply::new(404),
        }
    }
}

/// A store that has `image` under `name`.
fn with_image(image: &TestImage, name: &str) -> Bench {
    let server = image.serve();
    let bench = Bench::new();
    let pulled = bench.pull(&format!("{}/app:1", server.host)).unwrap();
    bench.store.tag(&pulled.image, &Reference::parse(name).unwrap()).unwrap();
    bench
}

fn push_options() -> PushOptions {
    PushOptions { registry: registry_options(), ..PushOptions::default() }
}

fn pushed(bench: &Bench, name: &str) -> Result<Pushed, Error> {
    push(&Reference::parse(name).unwrap(), &push_options(), &bench.store, &Silent)
}

#[test]
fn pushes_each_blob_once_and_the_manifest_last() {
    let stored = Arc::default();
    let server = Server::start(registry(&stored));
    let image = TestImage::sample(3_000_000);
    let name = format!("{}/app:x", server.host);
    let bench = with_image(&image, &name);
    let result = pushed(&bench, &name).unwrap();
    assert_eq!(result, Pushed { digest: image.digest(), size: image.manifest.len() as u64 });
    assert_eq!(stored.lock().unwrap().manifests["app:x"], (MANIFEST.to_owned(), image.manifest.clone()));
    assert_eq!(stored.lock().unwrap().blobs.len(), 4);
    let lines = server.lines();
    assert_eq!(lines.iter().filter(|line| line.starts_with("PATCH")).count(), 1, "one layer is large");
    assert_eq!(lines.last().unwrap(), "PUT /v2/app/manifests/x");
    // Again: nothing but questions and the manifest.
    server.forget();
    pushed(&bench, &name).unwrap();
    let lines = server.lines();
    assert_eq!(lines.iter().filter(|line| line.starts_with("HEAD")).count(), 4);
    assert_eq!(lines.len(), 5);
    assert!(matches!(pushed(&bench, "nothing:here"), Err(Error::NoSuchImage { .. })));
}

#[test]
fn mounts_what_another_repository_has() {
    let stored = Arc::default();
    let server = Server::start(registry(&stored));
    let image = TestImage::sample(1000);
    let first = format!("{}/first:x", server.host);
    let bench = with_image(&image, &first);
    pushed(&bench, &first).unwrap();
    let second = Reference::parse(&format!("{}/second:y", server.host)).unwrap();
    bench.store.tag(&bench.store.resolve(&first).unwrap(), &second).unwrap();
    server.forget();
    pushed(&bench, &second.to_string()).unwrap();
    assert!(!server.lines().iter().any(|line| line.starts_with("PATCH") || line.contains("PUT /v2/second/blobs")));
    let posts: Vec<_> = server.asked().into_iter().filter(|asked| asked.method == "POST").collect();
    assert_eq!(posts.len(), 4);
    assert!(posts.iter().all(|asked| asked.query.ends_with("&from=first")), "{posts:?}");
}

#[test]
fn a_mount_asks_for_a_token_of_both_repositories() {
    let tokens = Server::start(|asked| {
        let scopes: Vec<&str> = asked.query.split('&').filter_map(|pair| pair.strip_prefix("scope=")).collect();
        Reply::new(200).body(format!(r#"{{"token":"{}"}}"#, scopes.join("+")))
    });
    let stored: Arc<Mutex<Stored>> = Arc::default();
    let server = Server::start({
        let (serve, realm) = (registry(&stored), format!("http://{}/token", tokens.host));
        move |asked| {
            let token = asked.header("authorization").unwrap_or_default();
            let mounting = asked.query.contains("mount=");
            let enough = token.contains("pull%2Cpush") && (!mounting || token.contains("first%3Apull"));
            if enough {
                serve(asked)
            } else {
                Reply::new(401).with("WWW-Authenticate", format!(r#"Bearer realm="{realm}""#))
            }
        }
    });
    let image = TestImage::sample(1000);
    let first = format!("{}/first:x", server.host);
    let bench = with_image(&image, &first);
    pushed(&bench, &first).unwrap();
    let second = Reference::parse(&format!("{}/second:y", server.host)).unwrap();
    bench.store.tag(&bench.store.resolve(&first).unwrap(), &second).unwrap();
    pushed(&bench, &second.to_string()).unwrap();
    let queries: Vec<String> = tokens.asked().into_iter().map(|asked| asked.query).collect();
    let both = "scope=repository%3Afirst%3Apull&scope=repository%3Asecond%3Apull%2Cpush";
    assert_eq!(queries.iter().filter(|query| *query == both).count(), 1, "{queries:?}");
    assert_eq!(queries.len(), 3, "{queries:?}");
}

#[test]
fn an_upload_that_breaks_goes_on_where_the_registry_is() {
    let stored: Arc<Mutex<Stored>> = Arc::default();
    let server = Server::start(registry(&stored));
    let image = TestImage::of(&[tarball(&[("noise", &noise(3_000_000, 5))])]);
    let name = format!("{}/app:x", server.host);
    let bench = with_image(&image, &name);
    server.cut_next_body(1_000_000);
    pushed(&bench, &name).unwrap();
    let ranges: Vec<_> = server
        .asked()
        .into_iter()
        .filter(|asked| asked.method == "PATCH")
        .map(|asked| asked.header("content-range").unwrap().to_owned())
        .collect();
    let end = image.layers[0].len() - 1;
    assert_eq!(ranges, [format!("0-{end}"), format!("1000000-{end}")]);
    assert_eq!(
        stored.lock().unwrap().blobs[&("app".into(), Digest::of(&image.layers[0]).to_string())],
        image.layers[0]
    );
}

#[test]
fn uploads_elsewhere_get_no_credentials_and_no_plain_text() {
    let image = TestImage::sample(100);
    let storage = Server::start(|_| Reply::new(201));
    for (location, works) in
        [(format!("http://{}/put", storage.host), true), ("http://storage.example/put".into(), false)]
    {
        let server = Server::start(move |asked| match asked.method.as_str() {
            _ if asked.header("authorization").is_none() => Reply::new(401).with("WWW-Authenticate", "Basic"),
            "HEAD" => Reply::new(404),
            "POST" => Reply::new(202).with("Location", &location),
            _ => Reply::new(201),
        });
        let name = format!("{}/app:x", server.host);
        let bench = with_image(&image, &name);
        let mut options = push_options();
        options.registry.credentials = Some(Credentials::Basic { username: "u".into(), password: "p".into() });
        let result = push(&Reference::parse(&name).unwrap(), &options, &bench.store, &Silent);
        assert_eq!(result.is_ok(), works, "{result:?}");
    }
    assert_eq!(storage.asked().len(), 4);
    assert!(storage.asked().iter().all(|asked| asked.header("authorization").is_none()));
}

#[test]
fn refusals_are_told() {
    let image = TestImage::sample(100);
    let server = Server::start(|asked| match asked.path.as_str() {
        "/v2/" => Reply::new(200),
        _ if asked.method == "HEAD" => Reply::new(404),
        _ => Reply::new(403)
            .body(r#"{"errors":[{"code":"DENIED","message":"requested access to the resource is denied"}]}"#),
    });
    let name = format!("{}/app:x", server.host);
    let error = pushed(&with_image(&image, &name), &name).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Denied);
    assert!(error.to_string().ends_with("denied: requested access to the resource is denied"), "{error}");
}
