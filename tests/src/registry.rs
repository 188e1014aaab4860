//! Debian's docker-registry on loopback: plain, with passwords, or with TLS; its storage under the test's control.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::fixtures;
use crate::http::request;
use crate::image::{Blob, Image};
use crate::{Sandbox, eventually, tool};

/// A registry that runs; it ends on drop.
#[derive(Debug)]
#[must_use]
pub struct Registry {
    /// `127.0.0.1:PORT`, what stands before a repository's name.
    pub host: String,
    directory: PathBuf,
    storage: PathBuf,
    child: Option<Child>,
    overlay: bool,
}

/// What a registry asks of its clients.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demands {
    /// User `anna` with password `secret`.
    pub password: bool,
    /// TLS with a certificate of an authority that nobody knows ([`Registry::authority`]).
    pub tls: bool,
}

impl Registry {
    /// An empty one.
    pub fn empty(sandbox: &Sandbox) -> Self {
        Self::start(sandbox, Demands::default(), None)
    }

    /// One with the images of [`fixtures`]; what is pushed to it stays in the sandbox.
    pub fn with_images(sandbox: &Sandbox) -> Self {
        Self::start(sandbox, Demands::default(), Some(&fixtures::registry_storage()))
    }

    /// An empty one with demands.
    pub fn demanding(sandbox: &Sandbox, demands: Demands) -> Self {
        Self::start(sandbox, demands, None)
    }

    /// One that keeps its blobs in `storage`, for making the fixtures.
    pub(crate) fn on(directory: &Path, storage: &Path) -> Self {
        Self::launch(directory.to_owned(), storage.to_owned(), Demands::default(), false)
    }

    fn start(sandbox: &Sandbox, demands: Demands, images: Option<&Path>) -> Self {
        let directory = tempfile::Builder::new().prefix("registry-").tempdir_in(sandbox.path());
        let directory = directory.expect("the registry's directory").keep();
        let storage = directory.join("storage");
        fs::create_dir_all(&storage).expect("the registry's storage");
        if let Some(images) = images {
            let (upper, work) = (directory.join("upper"), directory.join("work"));
            fs::create_dir_all(&upper).expect("overlay directory");
            fs::create_dir_all(&work).expect("overlay directory");
            let options =
                format!("lowerdir={},upperdir={},workdir={}", images.display(), upper.display(), work.display());
            tool("mount", ["-t", "overlay", "overlay", "-o", &options]).arg(&storage).run().ok();
        }
        Self::launch(directory, storage, demands, images.is_some())
    }

    fn launch(directory: PathBuf, storage: PathBuf, demands: Demands, overlay: bool) -> Self {
        let port = free_port();
        let here = directory.display();
        let mut config = format!(
            "version: 0.1\nlog: {{ level: error, accesslog: {{ disabled: true }} }}\n\
             storage: {{ filesystem: {{ rootdirectory: {} }}, delete: {{ enabled: true }} }}\n",
            storage.display()
        );
        if demands.password {
            let entry = tool("htpasswd", ["-Bbn", "anna", "secret"]).run().ok().stdout;
            fs::write(directory.join("htpasswd"), entry).expect("htpasswd");
            config += &format!("auth: {{ htpasswd: {{ realm: test, path: {here}/htpasswd }} }}\n");
        }
        config += &format!("http:\n  addr: 127.0.0.1:{port}\n");
        if demands.tls {
            certificates(&directory);
            config += &format!("  tls: {{ certificate: {here}/tls.crt, key: {here}/tls.key }}\n");
        }
        fs::write(directory.join("config.yml"), config).expect("the registry's configuration");
        let mut registry = Self { host: format!("127.0.0.1:{port}"), directory, storage, child: None, overlay };
        registry.up();
        registry
    }

    /// Starts it again after [`Registry::down`].
    ///
    /// # Panics
    /// When it does not come up.
    pub fn up(&mut self) {
        let log = fs::File::create(self.directory.join("log")).expect("the registry's log");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(self.directory.join("config.yml"))
            .env("OTEL_TRACES_EXPORTER", "none")
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second descriptor"))
            .stderr(log)
            .spawn()
            .expect("docker-registry starts");
        self.child = Some(child);
        eventually("the registry listens", || TcpStream::connect(&self.host).ok());
    }

    /// Stops it.
    pub fn down(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// The certificate of the authority that signed the registry's own.
    #[must_use]
    pub fn authority(&self) -> PathBuf {
        self.directory.join("ca.crt")
    }

    /// `HOST/NAME`.
    #[must_use]
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    /// Puts an image under `repository:tag`.
    ///
    /// # Panics
    /// When the registry refuses.
    #[track_caller]
    pub fn put(&self, repository: &str, tag: &str, image: &Image) {
        for blob in image.blobs.iter().filter(|blob| !image.manifests.contains(blob)) {
            self.put_blob(repository, blob);
        }
        for manifest in &image.manifests {
            self.put_manifest(repository, &manifest.digest, manifest);
        }
        self.put_manifest(repository, tag, &image.top);
    }

    /// Puts one blob.
    ///
    /// # Panics
    /// When the registry refuses.
    #[track_caller]
    pub fn put_blob(&self, repository: &str, blob: &Blob) {
        let upload = request("POST", &self.host, &format!("/v2/{repository}/blobs/uploads/"), &[], b"");
        let location = upload.header("location").unwrap_or_else(|| panic!("no upload: {upload:?}")).to_owned();
        let path = location.split_once(&self.host).map_or(location.as_str(), |(_, path)| path);
        let and = if path.contains('?') { '&' } else { '?' };
        let kind = [("Content-Type", "application/octet-stream")];
        let answer = request("PUT", &self.host, &format!("{path}{and}digest={}", blob.digest), &kind, &blob.bytes);
        assert!(answer.status == 201, "blob refused: {answer:?}");
    }

    /// Puts one manifest.
    ///
    /// # Panics
    /// When the registry refuses.
    #[track_caller]
    pub fn put_manifest(&self, repository: &str, name: &str, manifest: &Blob) {
        let kind = [("Content-Type", manifest.media_type.as_str())];
        let answer = request("PUT", &self.host, &format!("/v2/{repository}/manifests/{name}"), &kind, &manifest.bytes);
        assert!(answer.status == 201, "manifest refused: {answer:?}: {}", String::from_utf8_lossy(&answer.body));
    }

    /// The file in which the registry keeps a blob, to be damaged.
    #[must_use]
    pub fn blob_file(&self, digest: &str) -> PathBuf {
        let hex = digest.trim_start_matches("sha256:");
        self.storage.join("docker/registry/v2/blobs/sha256").join(&hex[..2]).join(hex).join("data")
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.down();
        if self.overlay {
            drop(tool("umount", [&self.storage]).run());
        }
    }
}

fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("its address").port();
    drop(listener);
    port
}

fn certificates(directory: &Path) {
    let script = r"
set -e
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj '/CN=test authority' -keyout ca.key -out ca.crt
openssl req -newkey rsa:2048 -nodes -subj /CN=localhost -keyout tls.key -out tls.csr
openssl x509 -req -in tls.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out tls.crt \
  -extfile <(echo subjectAltName=DNS:localhost,IP:127.0.0.1)
";
    tool("bash", ["-c", script]).dir(directory).run().ok();
}
