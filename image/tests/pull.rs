//! Pulls from a registry that does what registries, networks and attackers do.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod support;

use std::fs;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use dhow_image::*;
use support::*;

#[test]
fn pulls_unpacks_and_names() {
    let image = TestImage::sample(300_000);
    let server = image.serve();
    let bench = Bench::new();
    let name = format!("{}/app:1", server.host);
    let pulled = bench.pull(&name).unwrap();
    assert!(pulled.changed);
    assert_eq!((&pulled.digest, &pulled.image.id), (&image.digest(), &image.id()));
    let chains = pulled.image.config.chain_ids();
    let parents: Vec<_> = std::iter::once(None).chain(chains.iter().cloned().map(Some)).collect();
    let want: Vec<_> = chains.iter().cloned().zip(parents).collect();
    assert_eq!(bench.sink.committed(), want);
    assert_eq!(fs::read(bench.sink.dir_of(&chains[1]).join("noise")).unwrap(), noise(300_000, 7));
    assert_eq!(fs::read(bench.sink.dir_of(&chains[2]).join("shared")).unwrap(), b"above");
    let found = bench.store.resolve(&name).unwrap();
    assert_eq!(found.names[0].digest.as_ref(), Some(&image.digest()));
    assert_eq!(found.repo_digests[0].to_string(), format!("{}/app@{}", server.host, image.digest()));
    assert_eq!(bench.parts(), 0);

    // The second time one HEAD tells that nothing has changed.
    server.forget();
    assert!(!bench.pull(&name).unwrap().changed);
    assert_eq!(server.lines(), ["HEAD /v2/app/manifests/1"]);

    // Snapshots that are gone are made again from the blobs.
    bench.sink.clear();
    bench.pull(&name).unwrap();
    assert_eq!(bench.sink.committed(), want);
    assert_eq!(server.count(&format!("GET {}", image.layer_path(1))), 0);

    // So does a pull that needs no registry.
    bench.sink.clear();
    let options = PullOptions { policy: PullPolicy::Missing, ..bench.options.clone() };
    drop(server);
    let reference = Reference::parse(&name).unwrap();
    let pulled = pull(&reference, &options, &bench.store, &bench.sink, &Silent).unwrap();
    assert_eq!((pulled.changed, pulled.digest), (false, image.digest()));
    assert_eq!(bench.sink.committed(), want);
}

#[test]
fn shared_and_repeated_layers_are_fetched_once() {
    let repeated = tarball(&[("x", &noise(100_000, 1))]);
    let image = TestImage::of(&[repeated.clone(), tarball(&[("y", b"y")]), repeated.clone(), repeated]);
    let server = image.serve();
    let bench = Bench::new();
    bench.pull(&format!("{}/app:1", server.host)).unwrap();
    assert_eq!(bench.sink.committed().len(), 4);
    assert_eq!(server.count(&format!("GET {}", image.layer_path(0))), 1);
}

#[test]
fn two_pulls_at_once_share_the_downloads() {
    let image = TestImage::sample(2_000_000);
    let server = image.serve();
    let bench = Bench::new();
    let name = format!("{}/app:1", server.host);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| bench.pull(&name).unwrap());
        }
    });
    for n in 0..3 {
        assert_eq!(server.count(&format!("GET {}", image.layer_path(n))), 1, "layer {n}");
    }
    assert_eq!((bench.sink.committed().len(), bench.sink.open(), bench.parts()), (3, 0, 0));
}

#[test]
fn a_broken_connection_resumes_where_it_stopped() {
    let image = TestImage::sample(1_000_000);
    let path = image.layer_path(1);
    let server = image.serve_but({
        let (path, breaks) = (path.clone(), AtomicUsize::new(0));
        move |asked, reply| {
            let cut = (asked.path == path && breaks.fetch_add(1, Ordering::SeqCst) < 2).then_some(400_000);
            Reply { cut, ..reply }
        }
    });
    let bench = Bench::new();
    bench.pull(&format!("{}/app:1", server.host)).unwrap();
    let ranges: Vec<_> =
        server.asked().into_iter().filter(|a| a.path == path).map(|a| a.header("range").map(str::to_owned)).collect();
    assert_eq!(ranges, [None, Some("bytes=400000-".into()), Some("bytes=800000-".into())]);
    let chain = image.diff_ids.iter().fold(None, |parent, diff| Some(Digest::chain(parent.as_ref(), diff)));
    assert_eq!(bench.sink.committed().last().map(|(chain, _)| chain.clone()), chain);
}

#[test]
fn a_server_without_ranges_still_works() {
    let image = TestImage::sample(500_000);
    let path = image.layer_path(1);
    let blob = image.layers[1].clone();
    let server = image.serve_but({
        let breaks = AtomicUsize::new(0);
        move |asked, reply| match asked.path == path {
            true if breaks.fetch_add(1, Ordering::SeqCst) == 0 => Reply { cut: Some(200_000), ..reply },
            true => Reply::new(200).body(blob.clone()),
            false => reply,
        }
    });
    Bench::new().pull(&format!("{}/app:1", server.host)).unwrap();
}

#[test]
fn abort_is_quick_and_keeps_what_arrived() {
    let image = TestImage::sample(1_000_000);
    let path = image.layer_path(1);
    let hanging = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(true));
    let server = image.serve_but({
        let (path, hanging) = (path.clone(), hanging.clone());
        move |asked, reply| {
            let hang = (asked.path == path && hanging.load(Ordering::SeqCst)).then_some(600_000);
            Reply { hang, ..reply }
        }
    });
    let bench = Bench::new();
    let name = format!("{}/app:1", server.host);
    let cancel = bench.options.cancel.clone();
    let watcher = CancelAt { cancel, digest: Digest::of(&image.layers[1]), at: 500_000, when: Mutex::new(None) };
    let reference = Reference::parse(&name).unwrap();
    let error = pull(&reference, &bench.options, &bench.store, &bench.sink, &watcher).unwrap_err();
    let took = watcher.when.lock().unwrap().unwrap().elapsed();
    assert!(matches!(error, Error::Cancelled), "{error}");
    // Far from what a silent registry is given.
    assert!(took < bench.options.registry.idle_timeout / 2, "{took:?}");
    assert_eq!(bench.sink.open(), 0);
    assert!(bench.store.list().unwrap().is_empty());

    hanging.store(false, Ordering::SeqCst);
    server.forget();
    let options = PullOptions { cancel: Cancel::new(), ..bench.options.clone() };
    pull(&reference, &options, &bench.store, &bench.sink, &Silent).unwrap();
    let again = server.asked().into_iter().find(|asked| asked.path == path).unwrap();
    let from: usize = again.header("range").unwrap()["bytes=".len()..].trim_end_matches('-').parse().unwrap();
    assert!(from >= 500_000, "{from}");
    assert_eq!((bench.sink.committed().len(), bench.parts()), (3, 0));
}

/// Cancels when a layer has got so far.
struct CancelAt {
    cancel: Cancel,
    digest: Digest,
    at: u64,
    when: Mutex<Option<Instant>>,
}

impl Progress for CancelAt {
    fn event(&self, event: &Event<'_>) {
        if let Event::Layer { digest, status: LayerStatus::Downloading { done, .. } } = event
            && **digest == self.digest
            && *done >= self.at
        {
            self.cancel.cancel();
            self.when.lock().unwrap().get_or_insert_with(Instant::now);
        }
    }
}

#[test]
fn a_busy_registry_is_waited_for() {
    for (status, header) in [(429, Some("1")), (503, None), (500, None)] {
        let image = TestImage::sample(1000);
        let server = image.serve_but({
            let asked_before = AtomicUsize::new(0);
            move |asked, reply| {
                if asked.path != "/v2/app/manifests/1" || asked_before.fetch_add(1, Ordering::SeqCst) > 0 {
                    return reply;
                }
                header.into_iter().fold(Reply::new(status), |busy, value| busy.with("Retry-After", value))
            }
        });
        let started = Instant::now();
        Bench::new().pull(&format!("{}/app:1", server.host)).unwrap();
        assert_eq!(server.count("GET /v2/app/manifests/1"), 2);
        assert!(header.is_none() || started.elapsed() >= Duration::from_secs(1));
    }
}

#[test]
fn a_registry_that_stays_busy_is_an_error_at_last() {
    let server = Server::start(|asked| match asked.path.as_str() {
        "/v2/" => Reply::new(200),
        _ => Reply::new(503).body(r#"{"errors":[{"code":"UNAVAILABLE","message":"try later"}]}"#),
    });
    let mut bench = Bench::new();
    bench.options.registry.attempts = 2;
    let error = bench.pull(&format!("{}/app:1", server.host)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let want = format!("GET http://{}/v2/app/manifests/1: 503: try later", server.host);
    assert_eq!(error.to_string(), want);
}

/// Pulls from a registry whose answers `but` changes, expects an error, and that nothing half-made is left.
fn failed(image: &TestImage, but: impl Fn(&Asked, Reply) -> Reply + Send + Sync + 'static) -> (Error, Bench) {
    let server = image.serve_but(but);
    let mut bench = Bench::new();
    bench.options.registry.attempts = 2;
    let error = bench.pull(&format!("{}/app:1", server.host)).unwrap_err();
    assert_eq!(bench.sink.open(), 0, "{error}");
    assert!(bench.store.list().unwrap().is_empty(), "{error}");
    // And the next try works.
    drop(server);
    let server = image.serve();
    if image.answer(&manifest_request()).status == 200 && error.kind() == ErrorKind::Corrupt {
        let again = bench.pull(&format!("{}/app:1", server.host));
        if image.layers.len() == 3 {
            again.unwrap();
            assert_eq!(bench.parts(), 0);
        }
    }
    (error, bench)
}

fn manifest_request() -> Asked {
    Asked {
        method: "GET".into(),
        path: "/v2/app/manifests/1".into(),
        query: String::new(),
        headers: Default::default(),
        body: Vec::new(),
    }
}

#[test]
fn corrupt_blobs_are_refused() {
    let image = TestImage::sample(300_000);
    let path = image.layer_path(1);
    let digest = Digest::of(&image.layers[1]);
    for place in [0, 10, 100_000, image.layers[1].len() - 1] {
        let mut flipped = image.layers[1].clone();
        flipped[place] ^= 0x20;
        let path = path.clone();
        let (error, _) = failed(&image, move |asked, reply| match asked.path == path {
            true => ranged(asked, &flipped),
            false => reply,
        });
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().starts_with(&format!("layer {digest} is corrupt: its digest is ")), "{error}");
    }
}

#[test]
fn lengths_that_lie_are_refused() {
    let image = TestImage::sample(300_000);
    let size = image.layers[1].len();
    let path = image.layer_path(1);
    // Shorter than the descriptor says, and longer.
    for actual in [size - 1, size + 1] {
        let path = path.clone();
        let (error, _) = failed(&image, move |asked, reply| match asked.path == path {
            true => Reply { body: noise(actual, 3), ..reply },
            false => reply,
        });
        let want = format!("{} is {actual} bytes long, its descriptor says {size}", image.layer_path(1));
        assert_eq!(error.to_string(), want);
    }
    // A body that ends before its own length, every time.
    let (error, bench) = failed(&image, move |asked, reply| match asked.path == path {
        true => Reply { cut: Some(0), ..reply },
        false => reply,
    });
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("byte 0 of"), "{error}");
    drop(bench);
}

#[test]
fn manifests_that_confuse_are_refused() {
    let image = TestImage::sample(10);
    let manifest = String::from_utf8(image.manifest.clone()).unwrap();
    let both = manifest.replacen('{', r#"{"manifests":[],"#, 1);
    let other_type = manifest.replace("image.manifest.v1", "image.index.v1");
    let escape = manifest.replace(image.id().hex(), "../../../../etc/passwd");
    let foreign =
        manifest.replace("application/vnd.oci.image.config.v1+json", "application/vnd.cncf.helm.config.v1+json");
    for (body, content_type, want) in [
        (both, MANIFEST, "it has both layers and manifests"),
        (other_type, MANIFEST, "but calls itself application/vnd.oci.image.index.v1+json"),
        (escape, MANIFEST, "invalid digest \"sha256:../../../../etc/passwd\": wrong length"),
        (foreign, MANIFEST, "is not supported: an artifact of type application/vnd.cncf.helm.config.v1+json"),
        (
            r#"{"schemaVersion":1,"name":"app"}"#.into(),
            "application/vnd.docker.distribution.manifest.v1+prettyjws",
            "docker manifest schema 1",
        ),
        (" ".repeat(5 << 20), MANIFEST, "is longer than 4194304 bytes"),
        ("<html>".into(), "text/html", "expected value"),
    ] {
        let server = Server::start(move |asked| match asked.path.as_str() {
            "/v2/" => Reply::new(200),
            _ => Reply::new(200).with("content-type", content_type).body(body.clone()),
        });
        let bench = Bench::new();
        let error = bench.pull(&format!("{}/app:1", server.host)).unwrap_err();
        assert!(chain(&error).contains(want), "{}", chain(&error));
        assert!(matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::Unsupported), "{error}");
    }
}

#[test]
fn digests_of_documents_are_verified() {
    let image = TestImage::sample(10);
    let server = image.serve_but(|_, mut reply| {
        if let Some(byte) = reply.body.iter_mut().find(|byte| **byte == b'2') {
            *byte = b'3';
        }
        reply
    });
    let bench = Bench::new();
    for name in [format!("{}/app:1", server.host), format!("{}/app@{}", server.host, image.digest())] {
        assert!(matches!(bench.pull(&name).unwrap_err(), Error::DigestMismatch { .. }));
    }
    let config_path = format!("/v2/app/blobs/{}", image.id());
    let (error, _) = failed(&image, move |asked, mut reply| {
        if asked.path == config_path {
            reply.body[1] ^= 1;
        }
        reply
    });
    assert!(error.to_string().starts_with("the configuration of "), "{error}");
}

#[test]
fn diff_ids_that_lie_are_refused() {
    let mut image = TestImage::sample(100);
    let config = String::from_utf8(image.config.clone()).unwrap();
    image.config = config.replace(image.diff_ids[1].hex(), &"ab".repeat(32)).into();
    let image = image.rebuilt();
    let server = image.serve();
    let bench = Bench::new();
    let error = bench.pull(&format!("{}/app:1", server.host)).unwrap_err();
    assert!(error.to_string().contains(", uncompressed, is corrupt"), "{error}");
    assert_eq!(bench.sink.open(), 0);
    assert!(bench.store.list().unwrap().is_empty());

    let mut short = TestImage::sample(100);
    let config = String::from_utf8(short.config.clone()).unwrap();
    short.config = config.replace(&format!(",\"{}\"", short.diff_ids[2]), "").into();
    let server = short.rebuilt().serve();
    let error = Bench::new().pull(&format!("{}/app:1", server.host)).unwrap_err();
    assert!(error.to_string().ends_with("it has 2 diff ids for 3 layers"), "{error}");
}

#[test]
fn a_layer_that_escapes_leaves_nothing() {
    let mut escape = tarball(&[("aa/aa/aa/evil", b"x")]);
    // The builder refuses to write such a name.
    let name = b"../../../evil";
    escape[..name.len()].copy_from_slice(name);
    escape[148..156].copy_from_slice(b"        ");
    let sum: u32 = escape[..512].iter().map(|&b| u32::from(b)).sum();
    escape[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let image = TestImage::of(&[tarball(&[("a", b"a")]), escape]);
    let server = image.serve();
    let bench = Bench::new();
    let error = bench.pull(&format!("{}/app:1", server.host)).unwrap_err();
    assert!(matches!(error, Error::Unpack { .. }), "{error}");
    assert_eq!(bench.sink.open(), 0);
    assert!(bench.store.list().unwrap().is_empty());
}

#[test]
fn damage_on_disk_heals() {
    let image = TestImage::sample(200_000);
    let server = image.serve();
    let name = format!("{}/app:1", server.host);
    let digest = Digest::of(&image.layers[1]);
    // A part that is not the blob's beginning (a crash, a bad disk).
    let bench = Bench::new();
    let part = bench.store.root().join("partial").join(format!("sha256-{}", digest.hex()));
    fs::write(&part, noise(50_000, 99)).unwrap();
    bench.pull(&name).unwrap();
    assert_eq!((bench.sink.open(), bench.parts()), (0, 0));
    // A part that is longer than the blob.
    let bench = Bench::new();
    let part = bench.store.root().join("partial").join(format!("sha256-{}", digest.hex()));
    fs::write(&part, noise(500_000, 99)).unwrap();
    bench.pull(&name).unwrap();
    // A blob that has rotted, when its layer is to be unpacked again.
    let blob = bench.store.root().join("blobs/sha256").join(digest.hex());
    let mut bytes = fs::read(&blob).unwrap();
    bytes[1000] ^= 1;
    fs::write(&blob, &bytes).unwrap();
    bench.sink.clear();
    let image_now = bench.store.resolve(&name).unwrap();
    let local = unpack(&image_now, &bench.store, &bench.sink, 3, &Cancel::new(), &Silent).unwrap_err();
    assert!(matches!(local, Error::DigestMismatch { .. }), "{local}");
    assert_eq!(bench.sink.open(), 0);
    // The image is up to date, and still it heals.
    bench.pull(&name).unwrap();
    assert_eq!(fs::read(&blob).unwrap(), image.layers[1]);
}

#[test]
fn chooses_the_platform() {
    let own = TestImage::sample(10);
    let mut other = TestImage::sample(11);
    other.config = String::from_utf8(other.config).unwrap().replace(&Platform::host().architecture, "s390x").into();
    let other = other.rebuilt();
    let entry = |image: &TestImage, arch: &str| {
        serde_json::json!({"mediaType": MANIFEST, "digest": image.digest(), "size": image.manifest.len(),
            "platform": {"os": "linux", "architecture": arch}})
    };
    let host = Platform::host().architecture;
    let index = serde_json::json!({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [entry(&other, "s390x"), entry(&own, &host)]});
    let index: Vec<u8> = index.to_string().into();
    let index_digest = Digest::of(&index);
    let server = Server::start({
        let (own, other) = (own.clone(), other.clone());
        move |asked| {
            if asked.path == "/v2/app/manifests/1" {
                return Reply::new(200)
                    .with("content-type", "application/vnd.oci.image.index.v1+json")
                    .body(index.clone());
            }
            let first = own.answer(asked);
            if first.status == 200 { first } else { other.answer(asked) }
        }
    });
    let name = format!("{}/app:1", server.host);
    let bench = Bench::new();
    let pulled = bench.pull(&name).unwrap();
    assert_eq!((&pulled.image.id, &pulled.digest), (&own.id(), &index_digest));
    assert_eq!(bench.store.resolve(&format!("{}/app@{index_digest}", server.host)).unwrap().id, own.id());
    let mut bench = Bench::new();
    bench.options.platform = Some("linux/s390x".parse().unwrap());
    assert_eq!(bench.pull(&name).unwrap().image.id, other.id());
    bench.options.platform = Some("linux/riscv64".parse().unwrap());
    let error = bench.pull(&name).unwrap_err();
    assert_eq!(error.to_string(), format!("{name} has no image for linux/riscv64; it has linux/s390x, linux/{host}"));
}

#[test]
fn says_what_is_not_there() {
    let server = TestImage::sample(1).serve();
    let host = server.host.clone();
    let bench = Bench::new();
    let missing = bench.pull(&format!("{host}/app:2")).unwrap_err();
    assert_eq!(missing.to_string(), format!("{host}/app:2 not found in the registry"));
    drop(server);
    let down = bench.pull(&format!("{host}/app:1")).unwrap_err();
    assert_eq!(down.to_string(), format!("cannot talk to {host}: connection refused"));
    assert_eq!(down.kind(), ErrorKind::Unavailable);
    let mut never = bench.options.clone();
    never.policy = PullPolicy::Never;
    let reference = Reference::parse("nothing").unwrap();
    let error = pull(&reference, &never, &bench.store, &bench.sink, &Silent).unwrap_err();
    assert_eq!(
        (error.kind(), error.to_string().as_str()),
        (ErrorKind::NotFound, "docker.io/library/nothing:latest is not here and is not to be pulled")
    );
}

#[test]
fn a_sink_that_fails_stops_everything() {
    let server = TestImage::sample(1000).serve();
    let bench = Bench::new();
    bench.sink.broken.store(true, Ordering::Relaxed);
    let error = bench.pull(&format!("{}/app:1", server.host)).unwrap_err();
    assert!(chain(&error).ends_with(": the sink is broken"), "{}", chain(&error));
    assert_eq!(bench.sink.open(), 0);
    bench.sink.broken.store(false, Ordering::Relaxed);
    bench.pull(&format!("{}/app:1", server.host)).unwrap();
}

#[test]
fn a_full_disk_is_named_and_cleaned() {
    use nix::mount::{MsFlags, mount};
    // A mount namespace of this thread and those it starts.
    std::thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
        let image = TestImage::sample(3_000_000);
        let server = image.serve();
        let name = format!("{}/app:1", server.host);
        let small = tempfile::TempDir::new().unwrap();
        let tmpfs = |size: &str| {
            let flags = MsFlags::empty();
            mount(Some("tmpfs"), small.path(), Some("tmpfs"), flags, Some(format!("size={size}").as_str())).unwrap();
        };
        // The sink's disk is full, then the store's.
        for store_is_small in [false, true] {
            tmpfs("1m");
            let mut bench = Bench::new();
            if store_is_small {
                bench.store = Store::open(&small.path().join("image")).unwrap();
            } else {
                bench.sink = DirSink::within(small.path());
            }
            let error = bench.pull(&name).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::NoSpace, "{}", chain(&error));
            assert_eq!(bench.sink.open(), 0);
            assert!(bench.store.list().unwrap().is_empty());
            if store_is_small {
                // What filled the disk is gone; other parts may stay for the next try.
                assert!(
                    !bench
                        .store
                        .root()
                        .join("partial")
                        .join(format!("sha256-{}", Digest::of(&image.layers[1]).hex()))
                        .exists()
                );
            }
            drop(bench);
            nix::mount::umount(small.path()).unwrap();
        }
    })
    .join()
    .unwrap();
}
