//! Debian's docker-registry on loopback: plain, with passwords, with TLS; and what skopeo and umoci think of our work.
#![allow(clippy::unwrap_used, clippy::panic, reason = "test code")]

mod support;

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dhow_image::*;
use support::*;
use tempfile::TempDir;

/// Runs a program and returns what it prints.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} {arguments:?}: {text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// What a registry asks of its clients.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Demand {
    Nothing,
    Password,
    Tls,
    ClientCertificate,
}

/// A docker-registry with storage of its own.
struct Registry {
    host: String,
    dir: TempDir,
    child: Child,
}

impl Registry {
    fn start(demand: Demand) -> Self {
        let dir = TempDir::new().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let host = format!("127.0.0.1:{port}");
        let path = |name: &str| dir.path().join(name).display().to_string();
        let mut config = format!(
            "version: 0.1\nlog:\n  level: error\n  accesslog:\n    disabled: true\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n",
            path("storage")
        );
        match demand {
            Demand::Nothing => {}
            Demand::Password => {
                let users = run("htpasswd", &["-Bbn", "anna", "secret"]);
                fs::write(path("users"), users).unwrap();
                config += &format!("auth:\n  htpasswd:\n    realm: test\n    path: {}\n", path("users"));
            }
            Demand::Tls | Demand::ClientCertificate => {
                certificates(dir.path());
                config +=
                    &format!("  tls:\n    certificate: {}\n    key: {}\n", path("server.crt"), path("server.key"));
                if demand == Demand::ClientCertificate {
                    config += &format!("    clientcas:\n      - {}\n", path("ca.crt"));
                }
            }
        }
        fs::write(path("config.yml"), config).unwrap();
        let log = File::create(path("log")).unwrap();
        let child = Command::new("docker-registry")
            .args(["serve", &path("config.yml")])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let registry = Self { host, dir, child };
        let end = Instant::now() + Duration::from_secs(300);
        // There is no event to wait for: a registry does not say when it listens.
        while TcpStream::connect(&registry.host).is_err() {
            assert!(Instant::now() < end, "{}", fs::read_to_string(registry.dir.path().join("log")).unwrap());
            std::thread::sleep(Duration::from_millis(10));
        }
        registry
    }

    fn name(&self, image: &str) -> String {
        format!("{}/{image}", self.host)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// An authority, a server's certificate for 127.0.0.1 and a client's.
fn certificates(dir: &Path) {
    let path = |name: &str| dir.join(name).display().to_string();
    let new_key = ["req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout"];
    let make = |key: &str, rest: &[&str]| {
        let mut arguments: Vec<&str> = new_key.to_vec();
        arguments.push(key);
        arguments.extend(rest);
        run("openssl", &arguments);
    };
    let ca = ["-x509", "-days", "2", "-subj", "/CN=test authority", "-out", &path("ca.crt")];
    make(&path("ca.key"), &ca);
    for (name, extension) in [("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")] {
        let request = path(&format!("{name}.csr"));
        make(&path(&format!("{name}.key")), &["-subj", &format!("/CN={name}"), "-out", &request]);
        let extensions = path(&format!("{name}.ext"));
        fs::write(&extensions, extension).unwrap();
        let (ca, ca_key, out) = (path("ca.crt"), path("ca.key"), path(&format!("{name}.crt")));
        run(
            "openssl",
            &[
                "x509",
                "-req",
                "-in",
                &request,
                "-CA",
                &ca,
                "-CAkey",
                &ca_key,
                "-CAcreateserial",
                "-days",
                "2",
                "-extfile",
                &extensions,
                "-out",
                &out,
            ],
        );
    }
}

/// An OCI layout `layout:v1` of two layers made by umoci.
fn umoci_image(dir: &Path) -> String {
    let path = |name: &str| dir.join(name).display().to_string();
    let (layout, image, bundle) = (path("layout"), format!("{}:v1", path("layout")), path("bundle"));
    run("umoci", &["init", "--layout", &layout]);
    run("umoci", &["new", "--image", &image]);
    run("umoci", &["unpack", "--image", &image, &bundle]);
    let root = dir.join("bundle/rootfs");
    fs::create_dir_all(root.join("bin")).unwrap();
    fs::copy("/bin/busybox", root.join("bin/busybox")).unwrap();
    symlink("busybox", root.join("bin/sh")).unwrap();
    fs::create_dir(root.join("tmp")).unwrap();
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::write(root.join("gone"), "will be deleted").unwrap();
    run("umoci", &["repack", "--refresh-bundle", "--image", &image, &bundle]);
    fs::remove_file(root.join("gone")).unwrap();
    fs::write(root.join("etc-release"), "second layer").unwrap();
    run("umoci", &["repack", "--image", &image, &bundle]);
    run("umoci", &["config", "--image", &image, "--config.cmd", "sh", "--config.env", "A=b"]);
    image
}

#[test]
fn pulls_what_skopeo_pushed_and_back() {
    let registry = Registry::start(Demand::Nothing);
    let work = TempDir::new().unwrap();
    let oci = format!("oci:{}", umoci_image(work.path()));
    for (tag, format) in [("oci", "oci"), ("docker", "v2s2")] {
        let target = format!("docker://{}", registry.name(&format!("base:{tag}")));
        run("skopeo", &["copy", "-q", "--format", format, "--dest-tls-verify=false", &oci, &target]);
    }
    let bench = Bench::new();
    for tag in ["oci", "docker"] {
        let name = registry.name(&format!("base:{tag}"));
        let pulled = bench.pull(&name).unwrap();
        assert_eq!(pulled.image.config.config.cmd.as_deref(), Some(&["sh".to_owned()][..]));
        let chains = pulled.image.config.chain_ids();
        let base = bench.sink.dir_of(&chains[0]);
        assert_eq!(fs::metadata(base.join("tmp")).unwrap().mode() & 0o7777, 0o1777);
        assert_eq!(fs::read(base.join("bin/busybox")).unwrap(), fs::read("/bin/busybox").unwrap());

        // Our layout is one: skopeo copies from it as it stands.
        let layout = format!("oci:{}:{name}", bench.store.root().display());
        let copy = format!("oci:{}:copy", work.path().join(format!("copy-{tag}")).display());
        run("skopeo", &["copy", "-q", &layout, &copy]);

        // Push under another name; skopeo sees the same digest and content.
        let again = Reference::parse(&registry.name(&format!("again:{tag}"))).unwrap();
        bench.store.tag(&pulled.image, &again).unwrap();
        let options = PushOptions { registry: registry_options(), ..PushOptions::default() };
        let pushed = push(&again, &options, &bench.store, &Silent).unwrap();
        assert_eq!(pushed.digest, pulled.digest, "pushed as it came");
        let inspected = run("skopeo", &["inspect", "--tls-verify=false", &format!("docker://{again}")]);
        let inspected: serde_json::Value = serde_json::from_str(&inspected).unwrap();
        assert_eq!(inspected["Digest"], pushed.digest.as_str());
        assert!(inspected["Env"].as_array().unwrap().contains(&"A=b".into()));
    }
    // umoci reads our layout, whatever the image came as.
    for tag in ["oci", "docker"] {
        let ours = format!("{}:{}", bench.store.root().display(), registry.name(&format!("base:{tag}")));
        let bundle = work.path().join(format!("from-store-{tag}"));
        run("umoci", &["unpack", "--image", &ours, bundle.to_str().unwrap()]);
        assert_eq!(fs::read_to_string(bundle.join("rootfs/etc-release")).unwrap(), "second layer");
        assert!(!bundle.join("rootfs/gone").exists());
    }
    assert_eq!(bench.store.gc().unwrap(), []);

    let found = search(&registry.host, "as", 10, &registry_options(), &Cancel::new()).unwrap();
    assert_eq!(found.len(), 1);
}

#[test]
fn pushes_from_nothing_and_mounts() {
    let registry = Registry::start(Demand::Nothing);
    let image = TestImage::sample(6_000_000);
    let server = image.serve();
    let bench = Bench::new();
    let pulled = bench.pull(&format!("{}/app:1", server.host)).unwrap();
    let options = PushOptions { registry: registry_options(), ..PushOptions::default() };
    let mounted = std::sync::atomic::AtomicUsize::new(0);
    struct Count<'a>(&'a std::sync::atomic::AtomicUsize);
    impl Progress for Count<'_> {
        fn event(&self, event: &Event<'_>) {
            if let Event::Layer { status: LayerStatus::Mounted { .. }, .. } = event {
                self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
        }
    }
    for repository in ["one:1", "two:1"] {
        let name = Reference::parse(&registry.name(repository)).unwrap();
        bench.store.tag(&pulled.image, &name).unwrap();
        push(&name, &options, &bench.store, &Count(&mounted)).unwrap();
    }
    assert_eq!(mounted.into_inner(), 4, "the second repository mounts from the first");
    // A fresh state pulls what was pushed.
    let other = Bench::new();
    assert_eq!(other.pull(&registry.name("two:1")).unwrap().image.id, image.id());
    assert_eq!(other.sink.committed(), bench.sink.committed());
}

#[test]
fn passwords() {
    let registry = Registry::start(Demand::Password);
    let image = TestImage::sample(1000);
    let server = image.serve();
    let mut bench = Bench::new();
    let pulled = bench.pull(&format!("{}/app:1", server.host)).unwrap();
    let name = Reference::parse(&registry.name("app:1")).unwrap();
    bench.store.tag(&pulled.image, &name).unwrap();
    let mut options = PushOptions { registry: registry_options(), ..PushOptions::default() };
    assert_eq!(push(&name, &options, &bench.store, &Silent).unwrap_err().kind(), ErrorKind::Unauthorized);

    let right = Credentials::Basic { username: "anna".into(), password: "secret".into() };
    let wrong = Credentials::Basic { username: "anna".into(), password: "Secret".into() };
    let check = |given| login(&registry.host, given, &registry_options(), &Cancel::new());
    assert_eq!(check(&wrong).unwrap_err().kind(), ErrorKind::Unauthorized);
    let stored = check(&right).unwrap();
    let file = bench.dir.path().join("auth.json");
    auth::AuthFile::open(&file).unwrap().store(&registry.host, &stored).unwrap();
    options.registry.auth_files = vec![file.clone()];
    push(&name, &options, &bench.store, &Silent).unwrap();
    bench.options.registry.auth_files = vec![file.clone()];
    assert!(!bench.pull(&name.to_string()).unwrap().changed);
    // The file is docker's and skopeo's, too.
    let authfile = file.display().to_string();
    run("skopeo", &["inspect", "--tls-verify=false", "--authfile", &authfile, &format!("docker://{name}")]);
}

#[test]
fn tls_with_an_authority_of_its_own() {
    for demand in [Demand::Tls, Demand::ClientCertificate] {
        let registry = Registry::start(demand);
        let image = TestImage::sample(2_000_000);
        let server = image.serve();
        let bench = Bench::new();
        let pulled = bench.pull(&format!("{}/app:1", server.host)).unwrap();
        let name = Reference::parse(&registry.name("app:1")).unwrap();
        bench.store.tag(&pulled.image, &name).unwrap();
        let mut options = PushOptions { registry: registry_options(), ..PushOptions::default() };
        let error = push(&name, &options, &bench.store, &Silent).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
        let want =
            format!("{}: TLS certificate not trusted: it is signed by an authority we do not know", registry.host);
        assert_eq!(error.to_string(), want);

        let certs = bench.dir.path().join("certs.d").join(&registry.host);
        fs::create_dir_all(&certs).unwrap();
        fs::copy(registry.dir.path().join("ca.crt"), certs.join("ca.crt")).unwrap();
        options.registry.cert_dirs = vec![bench.dir.path().join("certs.d")];
        if demand == Demand::ClientCertificate {
            let error = push(&name, &options, &bench.store, &Silent).unwrap_err();
            assert!(error.to_string().contains("client certificate"), "{error}");
            for (from, to) in [("client.crt", "client.cert"), ("client.key", "client.key")] {
                fs::copy(registry.dir.path().join(from), certs.join(to)).unwrap();
            }
        }
        push(&name, &options, &bench.store, &Silent).unwrap();
        let mut other = Bench::new();
        other.options.registry = options.registry.clone();
        other.pull(&name.to_string()).unwrap();

        if demand == Demand::Tls {
            // Without checking it works, too.
            let mut careless = Bench::new();
            careless.options.registry.verify_tls = false;
            careless.pull(&name.to_string()).unwrap();
        }
    }
}

// docker's manual: a certificate that signs itself, put into certs.d as it is.
#[test]
fn tls_with_a_certificate_that_signs_itself() {
    let registry = Registry::start(Demand::Tls);
    let dir = registry.dir.path();
    let path = |name: &str| dir.join(name).display().to_string();
    run(
        "openssl",
        &[
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
            "-subj",
            "/CN=self",
            "-addext",
            "subjectAltName=IP:127.0.0.1",
            "-keyout",
            &path("server.key"),
            "-out",
            &path("server.crt"),
        ],
    );
    let host = registry.host.clone();
    let registry = restarted(registry);
    let bench = Bench::new();
    let certs = bench.dir.path().join("certs.d").join(&host);
    fs::create_dir_all(&certs).unwrap();
    let mut options = registry_options();
    let ask = |options: &RegistryOptions| search(&host, "", 1, options, &Cancel::new());
    assert_eq!(ask(&options).unwrap_err().kind(), ErrorKind::Untrusted);
    fs::copy(registry.dir.path().join("server.crt"), certs.join("domain.crt")).unwrap();
    options.cert_dirs = vec![bench.dir.path().join("certs.d")];
    ask(&options).unwrap();
}

/// The same registry, started again with what lies in its directory now.
fn restarted(mut registry: Registry) -> Registry {
    registry.child.kill().unwrap();
    registry.child.wait().unwrap();
    let config = registry.dir.path().join("config.yml");
    registry.child = Command::new("docker-registry")
        .arg("serve")
        .arg(config)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let end = Instant::now() + Duration::from_secs(300);
    while TcpStream::connect(&registry.host).is_err() {
        assert!(Instant::now() < end);
        std::thread::sleep(Duration::from_millis(10));
    }
    registry
}
