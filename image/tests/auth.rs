//! Who gets our credentials, and who does not.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod support;

use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dhow_image::*;
use support::*;

const USER: &str = "anna";
const PASSWORD: &str = "pass:word";

fn basic() -> String {
    format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")))
}

fn password() -> Credentials {
    Credentials::Basic { username: USER.into(), password: PASSWORD.into() }
}

/// A registry that wants tokens of `realm`.
fn guarded(image: &TestImage, realm: String, token: &'static str) -> Server {
    image.serve_but(move |asked, reply| {
        if asked.header("authorization") == Some(&format!("Bearer {token}")) {
            return reply;
        }
        let challenge = format!(r#"Bearer realm="{realm}",service="reg",scope="repository:app:pull""#);
        Reply::new(401)
            .with("WWW-Authenticate", challenge)
            .body(r#"{"errors":[{"message":"authentication required"}]}"#)
    })
}

#[test]
fn basic_goes_with_every_request_and_wrong_ones_are_refused() {
    let image = TestImage::sample(100);
    let server = image.serve_but(|asked, reply| match asked.header("authorization") == Some(&basic()) {
        true => reply,
        false => Reply::new(401).with("WWW-Authenticate", r#"Basic realm="r""#),
    });
    let name = format!("{}/app:1", server.host);
    let mut bench = Bench::new();
    let error = bench.pull(&name).unwrap_err();
    assert_eq!(error.to_string(), format!("{}: unauthorized", server.host));
    bench.options.registry.credentials = Some(Credentials::Basic { username: USER.into(), password: "wrong".into() });
    assert_eq!(bench.pull(&name).unwrap_err().kind(), ErrorKind::Unauthorized);
    bench.options.registry.credentials = Some(password());
    server.forget();
    bench.pull(&name).unwrap();
    assert!(server.asked().iter().all(|asked| asked.header("authorization") == Some(&basic())));
}

#[test]
fn credentials_come_from_the_files() {
    let image = TestImage::sample(100);
    let server = image.serve_but(|asked, reply| match asked.header("authorization") == Some(&basic()) {
        true => reply,
        false => Reply::new(401).with("WWW-Authenticate", "Basic"),
    });
    let mut bench = Bench::new();
    let file = bench.dir.path().join("config.json");
    auth::AuthFile::open(&file).unwrap().store(&server.host, &password()).unwrap();
    bench.options.registry.auth_files = vec![bench.dir.path().join("absent.json"), file];
    bench.pull(&format!("{}/app:1", server.host)).unwrap();
}

#[test]
fn tokens_are_fetched_once_and_the_password_goes_only_there() {
    let tokens = Server::start(|asked| match asked.header("authorization") {
        Some(header) if header == basic() => Reply::new(200).body(r#"{"token":"T1","expires_in":300}"#),
        _ => Reply::new(200).body(r#"{"access_token":"anonymous"}"#),
    });
    let image = TestImage::sample(100);
    let server = guarded(&image, format!("http://{}/token", tokens.host), "T1");
    let name = format!("{}/app:1", server.host);
    let mut bench = Bench::new();
    bench.options.registry.credentials = Some(password());
    bench.pull(&name).unwrap();
    let asked = tokens.asked();
    assert_eq!(asked.len(), 1);
    assert_eq!(asked[0].query, "service=reg&scope=repository%3Aapp%3Apull&account=anna");
    assert!(server.asked().iter().all(|asked| asked.header("authorization") == Some("Bearer T1")));

    // Without a password the token is another, and it is not enough.
    let bench = Bench::new();
    let error = bench.pull(&name).unwrap_err();
    assert_eq!(error.to_string(), format!("{}: unauthorized: authentication required", server.host));
    assert_eq!(tokens.asked().last().unwrap().header("authorization"), None);
}

#[test]
fn identity_tokens_are_exchanged_by_post() {
    let tokens = Server::start(|asked| match asked.method.as_str() {
        "POST" => Reply::new(200).body(r#"{"access_token":"T2"}"#),
        _ => Reply::new(405),
    });
    let image = TestImage::sample(100);
    let server = guarded(&image, format!("http://{}/token", tokens.host), "T2");
    let mut bench = Bench::new();
    bench.options.registry.credentials =
        Some(Credentials::IdentityToken { username: String::new(), token: "re/fresh".into() });
    bench.pull(&format!("{}/app:1", server.host)).unwrap();
    let body = String::from_utf8(tokens.asked()[0].body.clone()).unwrap();
    assert_eq!(
        body,
        "service=reg&client_id=dhow&grant_type=refresh_token&refresh_token=re%2Ffresh&scope=repository%3Aapp%3Apull"
    );
    assert_eq!(tokens.asked()[0].header("authorization"), None);
}

#[test]
fn an_expired_token_is_renewed() {
    let issued = Arc::new(Mutex::new(0));
    let tokens = Server::start({
        let issued = issued.clone();
        move |_| {
            let mut issued = issued.lock().unwrap();
            *issued += 1;
            Reply::new(200).body(format!(r#"{{"token":"T{issued}"}}"#))
        }
    });
    let image = TestImage::sample(100);
    let realm = format!("http://{}/token", tokens.host);
    // Manifests want the first token, blobs the second: as if the first had run out in between.
    let server = image.serve_but(move |asked, reply| {
        let want = if asked.path.contains("/blobs/") { "Bearer T2" } else { "Bearer T1" };
        if asked.header("authorization") == Some(want) {
            return reply;
        }
        Reply::new(401).with("WWW-Authenticate", format!(r#"Bearer realm="{realm}""#))
    });
    let mut bench = Bench::new();
    bench.options.parallel = 1;
    bench.pull(&format!("{}/app:1", server.host)).unwrap();
    assert_eq!(*issued.lock().unwrap(), 2);
}

// CVE-2020-15157, CVE-2019-10214 and their kin: a redirect takes no credentials to another host.
#[test]
fn redirects_take_no_credentials_along() {
    let image = TestImage::sample(10_000);
    let storage = image.serve();
    let server = image.serve_but({
        let storage = storage.host.clone();
        move |asked, reply| {
            if asked.header("authorization") != Some(&basic()) {
                return Reply::new(401).with("WWW-Authenticate", "Basic");
            }
            match asked.path.contains("/blobs/") {
                true => Reply::new(307).with("Location", format!("http://{storage}{}?signature=s", asked.path)),
                false => reply,
            }
        }
    });
    let mut bench = Bench::new();
    bench.options.registry.credentials = Some(password());
    bench.pull(&format!("{}/app:1", server.host)).unwrap();
    let asked = storage.asked();
    assert_eq!(asked.len(), 4);
    for asked in asked {
        assert_eq!((asked.header("authorization"), asked.query.as_str()), (None, "signature=s"));
    }
}

// The storage behind a redirect asks for a password: it gets none, and neither does its token service.
#[test]
fn a_redirects_target_cannot_ask_for_credentials() {
    let image = TestImage::sample(100);
    let thief = Server::start(|_| Reply::new(401).with("WWW-Authenticate", "Basic"));
    let server = image.serve_but({
        let thief = thief.host.clone();
        move |asked, reply| match asked.path.contains("/blobs/") {
            true => Reply::new(302).with("Location", format!("http://{thief}/steal")),
            false => reply,
        }
    });
    let mut bench = Bench::new();
    bench.options.registry.credentials = Some(password());
    let error = bench.pull(&format!("{}/app:1", server.host)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized);
    assert!(thief.asked().iter().all(|asked| asked.header("authorization").is_none()));
}

// CVE-2026-33540: the realm of a challenge says where the password goes.
#[test]
fn realms_and_redirects_elsewhere_are_refused() {
    for realm in ["http://tokens.example/token", "http://192.0.2.1/token", "ftp://x/", "https://169.254.169.254/latest"]
    {
        let image = TestImage::sample(100);
        let server = guarded(&image, realm.into(), "T");
        let mut bench = Bench::new();
        bench.options.registry.credentials = Some(password());
        let error = bench.pull(&format!("{}/app:1", server.host)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{realm}: {error}");
    }
    for target in ["http://storage.example/", "file:///etc/passwd", "https://user@h/"] {
        let server = TestImage::sample(100).serve_but(move |asked, reply| match asked.path.contains("/blobs/") {
            true => Reply::new(307).with("Location", target),
            false => reply,
        });
        let error = Bench::new().pull(&format!("{}/app:1", server.host)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{target}: {error}");
    }
    let loops = Server::start(|asked| match asked.path.as_str() {
        "/v2/" => Reply::new(200),
        _ => Reply::new(302).with("Location", "/v2/app/manifests/again"),
    });
    let error = Bench::new().pull(&format!("{}/app:1", loops.host)).unwrap_err();
    assert_eq!(error.to_string(), format!("{}: more than 5 redirects", loops.host));
}

// CVE-2020-15157: a layer's `urls` are not asked at all.
#[test]
fn foreign_urls_are_not_followed() {
    let thief = Server::start(|_| Reply::new(200));
    let mut image = TestImage::sample(100);
    let urls = format!(r#","urls":["http://{}/layer"]}}"#, thief.host);
    let text = String::from_utf8(image.manifest.clone()).unwrap();
    // The last layer is foreign: it comes from the registry or not at all.
    let end = text.rfind("}]").unwrap();
    let foreign = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip";
    let mut text = format!("{}{urls}{}", &text[..end], &text[end + 1..]);
    text = text[..text.rfind(LAYER).unwrap()].to_owned() + foreign + &text[text.rfind(LAYER).unwrap() + LAYER.len()..];
    image.manifest = text.into();
    let server = image.serve();
    let bench = Bench::new();
    bench.pull(&format!("{}/app:1", server.host)).unwrap();
    let missing = image.layer_path(2);
    let server = image.serve_but(move |asked, reply| if asked.path == missing { Reply::new(404) } else { reply });
    let error = Bench::new().pull(&format!("{}/app:1", server.host)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(thief.lines().is_empty());
}

#[test]
fn login_checks_and_tells_what_to_store() {
    let server = Server::start(|asked| match asked.header("authorization") == Some(&basic()) {
        true => Reply::new(200),
        false => Reply::new(401).with("WWW-Authenticate", "Basic"),
    });
    let check = |host: &str, given: &Credentials| login(host, given, &registry_options(), &Cancel::new());
    assert_eq!(check(&server.host, &password()).unwrap(), password());
    let wrong = Credentials::Basic { username: USER.into(), password: "x".into() };
    assert_eq!(check(&server.host, &wrong).unwrap_err().kind(), ErrorKind::Unauthorized);

    let tokens = Server::start(|asked| match asked.header("authorization") == Some(&basic()) {
        true if asked.query.contains("offline_token=true") => {
            Reply::new(200).body(r#"{"token":"T","refresh_token":"R"}"#)
        }
        true => Reply::new(200).body(r#"{"token":"T"}"#),
        false => Reply::new(401).body(r#"{"details":"incorrect username or password"}"#),
    });
    let server = guarded(&TestImage::sample(1), format!("http://{}/token", tokens.host), "T");
    let stored = Credentials::IdentityToken { username: USER.into(), token: "R".into() };
    assert_eq!(check(&server.host, &password()).unwrap(), stored);
    let error = check(&server.host, &wrong).unwrap_err();
    assert_eq!(error.to_string(), format!("{}: unauthorized: incorrect username or password", server.host));
}

#[test]
fn searches_a_catalogue_page_by_page() {
    let server = Server::start(|asked| match (asked.path.as_str(), asked.query.as_str()) {
        ("/v2/_catalog", "n=1000") => Reply::new(200)
            .with("Link", r#"</v2/_catalog?last=b&n=1000>; rel="next""#)
            .body(r#"{"repositories":["team/app","b"]}"#),
        ("/v2/_catalog", _) => Reply::new(200).body(r#"{"repositories":["myapp"]}"#),
        _ => Reply::new(200),
    });
    let find = |limit| search(&server.host, "app", limit, &registry_options(), &Cancel::new()).unwrap();
    let names: Vec<String> = find(25).into_iter().map(|hit| hit.name).collect();
    assert_eq!(names, [format!("{}/team/app", server.host), format!("{}/myapp", server.host)]);
    assert_eq!(find(1).len(), 1);
}
