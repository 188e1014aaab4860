//! A registry of a few lines on loopback, images made in memory, and a sink of plain directories.
#![allow(dead_code, unreachable_pub, missing_debug_implementations, reason = "every test file uses another part")]
#![allow(clippy::unwrap_used, clippy::needless_pass_by_value, clippy::new_without_default, reason = "test code")]

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use dhow_image::*;
use tempfile::TempDir;

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: String,
    /// Without the query.
    pub path: String,
    pub query: String,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Asked {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }

    /// `GET /v2/`
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

/// What goes back.
#[derive(Debug, Clone, Default)]
pub struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// The `Content-Length` if it is not the body's.
    pub length: Option<usize>,
    /// Close the connection after so many bytes of the body.
    pub cut: Option<usize>,
    /// After so many bytes of the body, wait until the server ends.
    pub hang: Option<usize>,
}

impl Reply {
    pub fn new(status: u16) -> Self {
        Self { status, ..Self::default() }
    }

    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.headers.push((name.into(), value.to_string()));
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }
}

type Handler = dyn Fn(&Asked) -> Reply + Send + Sync;

/// An HTTP server of the test's own.
pub struct Server {
    /// `127.0.0.1:port`
    pub host: String,
    log: Arc<Mutex<Vec<Asked>>>,
    stop: Arc<Stop>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Stop {
    stopped: Mutex<bool>,
    changed: Condvar,
    connections: Mutex<Vec<TcpStream>>,
    /// Cut the next request body after so many bytes.
    cut_body: AtomicUsize,
}

impl Server {
    pub fn start(handler: impl Fn(&Asked) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let (log, stop) = (Arc::default(), Arc::new(Stop::default()));
        let handler: Arc<Handler> = Arc::new(handler);
        let (accept_log, accept_stop): (Arc<Mutex<Vec<Asked>>>, _) = (Arc::clone(&log), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let mut threads = Vec::new();
            for stream in listener.incoming() {
                if *accept_stop.stopped.lock().unwrap() {
                    break;
                }
                let stream = stream.unwrap();
                accept_stop.connections.lock().unwrap().push(stream.try_clone().unwrap());
                let (handler, log, stop) = (handler.clone(), accept_log.clone(), accept_stop.clone());
                // Errors of a connection are the client's hanging up, or TLS.
                threads.push(std::thread::spawn(move || drop(serve(stream, &*handler, &log, &stop))));
            }
            for thread in threads {
                thread.join().unwrap();
            }
        });
        Self { host, log, stop, thread: Some(thread) }
    }

    /// What was asked so far, without the pings that find out the protocol.
    pub fn asked(&self) -> Vec<Asked> {
        self.log.lock().unwrap().iter().filter(|asked| asked.path != "/v2/").cloned().collect()
    }

    pub fn lines(&self) -> Vec<String> {
        self.asked().iter().map(Asked::line).collect()
    }

    pub fn count(&self, line: &str) -> usize {
        self.lines().iter().filter(|other| *other == line).count()
    }

    pub fn forget(&self) {
        self.log.lock().unwrap().clear();
    }

    /// The next non-empty request body is read only so far; then the connection breaks.
    pub fn cut_next_body(&self, bytes: usize) {
        self.stop.cut_body.store(bytes, Ordering::SeqCst);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        *self.stop.stopped.lock().unwrap() = true;
        self.stop.changed.notify_all();
        for connection in self.stop.connections.lock().unwrap().drain(..) {
            drop(connection.shutdown(Shutdown::Both));
        }
        drop(TcpStream::connect(&self.host));
        let joined = self.thread.take().unwrap().join();
        assert!(joined.is_ok() || std::thread::panicking(), "a handler panicked");
    }
}

fn serve(stream: TcpStream, handler: &Handler, log: &Mutex<Vec<Asked>>, stop: &Stop) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    loop {
        let mut line = Vec::new();
        if reader.read_until(b'\n', &mut line)? == 0 {
            return Ok(());
        }
        let Some(first) = std::str::from_utf8(&line).ok().filter(|line| line.contains("HTTP/1.1")) else {
            return writer.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        };
        let mut words = first.split_whitespace();
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let mut asked =
            Asked { method, path: path.into(), query: query.into(), headers: BTreeMap::new(), body: Vec::new() };
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(':') else { break };
            asked.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let length: usize = asked.header("content-length").map_or(0, |text| text.parse().unwrap());
        let cut = stop.cut_body.load(Ordering::SeqCst);
        let broken = cut > 0 && length > cut;
        asked.body = vec![0; if broken { cut } else { length }];
        reader.read_exact(&mut asked.body)?;
        log.lock().unwrap().push(asked.clone());
        let reply = handler(&asked);
        if broken {
            stop.cut_body.store(0, Ordering::SeqCst);
            return writer.shutdown(Shutdown::Both);
        }
        let mut head =
            format!("HTTP/1.1 {} X\r\nContent-Length: {}\r\n", reply.status, reply.length.unwrap_or(reply.body.len()));
        for (name, value) in &reply.headers {
            head += &format!("{name}: {value}\r\n");
        }
        writer.write_all((head + "\r\n").as_bytes())?;
        if asked.method == "HEAD" {
            continue;
        }
        let send = reply.cut.or(reply.hang).unwrap_or(reply.body.len()).min(reply.body.len());
        writer.write_all(&reply.body[..send])?;
        if reply.hang.is_some() {
            let mut stopped = stop.stopped.lock().unwrap();
            while !*stopped {
                stopped = stop.changed.wait(stopped).unwrap();
            }
        }
        if reply.cut.is_some() || reply.hang.is_some() || reply.length.is_some() {
            return writer.shutdown(Shutdown::Both);
        }
    }
}

/// An image in memory.
#[derive(Debug, Clone)]
pub struct TestImage {
    pub manifest: Vec<u8>,
    pub media_type: String,
    pub config: Vec<u8>,
    pub layers: Vec<Vec<u8>>,
    pub diff_ids: Vec<Digest>,
}

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// A tar of files.
pub fn tarball(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// Bytes that do not compress.
pub fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

impl TestImage {
    /// Layers of these tars.
    pub fn of(tars: &[Vec<u8>]) -> Self {
        let diff_ids: Vec<Digest> = tars.iter().map(|tar| Digest::of(tar)).collect();
        let layers: Vec<Vec<u8>> = tars.iter().map(|tar| gzip(tar)).collect();
        let config = serde_json::json!({
            "architecture": Platform::host().architecture, "os": "linux", "config": {"Cmd": ["sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        Self { manifest: Vec::new(), media_type: MANIFEST.into(), config: config.to_string().into(), layers, diff_ids }
            .rebuilt()
    }

    /// Three layers of a few files; the second one is `size` bytes of noise.
    pub fn sample(size: usize) -> Self {
        Self::of(&[
            tarball(&[("etc/one", b"1"), ("shared", b"below")]),
            tarball(&[("noise", &noise(size, 7))]),
            tarball(&[("shared", b"above")]),
        ])
    }

    /// The manifest made anew from config and layers.
    pub fn rebuilt(mut self) -> Self {
        let describe = |kind: &str, bytes: &[u8]| serde_json::json!({"mediaType": kind, "digest": Digest::of(bytes), "size": bytes.len()});
        let layers: Vec<_> = self.layers.iter().map(|layer| describe(LAYER, layer)).collect();
        let config = describe("application/vnd.oci.image.config.v1+json", &self.config);
        let manifest =
            serde_json::json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": layers});
        self.manifest = manifest.to_string().into();
        self
    }

    pub fn digest(&self) -> Digest {
        Digest::of(&self.manifest)
    }

    pub fn id(&self) -> Digest {
        Digest::of(&self.config)
    }

    pub fn layer_path(&self, n: usize) -> String {
        format!("/v2/app/blobs/{}", Digest::of(&self.layers[n]))
    }

    /// What a registry that has the image as `app:1` answers.
    pub fn answer(&self, asked: &Asked) -> Reply {
        let manifest = || {
            Reply::new(200)
                .with("content-type", &self.media_type)
                .with("docker-content-digest", self.digest())
                .body(self.manifest.clone())
        };
        let by_digest = format!("/v2/app/manifests/{}", self.digest());
        match asked.path.as_str() {
            "/v2/" => Reply::new(200),
            "/v2/app/manifests/1" => manifest(),
            path if path == by_digest => manifest(),
            path => {
                let blobs = self.layers.iter().chain([&self.config]);
                let found = blobs.into_iter().find(|blob| path == format!("/v2/app/blobs/{}", Digest::of(blob)));
                found.map_or(Reply::new(404), |blob| ranged(asked, blob))
            }
        }
    }

    /// A registry of only this image.
    pub fn serve(&self) -> Server {
        let image = self.clone();
        Server::start(move |asked| image.answer(asked))
    }

    /// A registry of this image whose answers to some requests are others.
    pub fn serve_but(&self, but: impl Fn(&Asked, Reply) -> Reply + Send + Sync + 'static) -> Server {
        let image = self.clone();
        Server::start(move |asked| but(asked, image.answer(asked)))
    }
}

/// A blob, or the part of it that is asked for.
pub fn ranged(asked: &Asked, blob: &[u8]) -> Reply {
    let from = asked.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-')?.parse().ok());
    match from {
        None => Reply::new(200).body(blob),
        Some(from) => Reply::new(206)
            .with("content-range", format!("bytes {from}-{}/{}", blob.len() - 1, blob.len()))
            .body(&blob[from..]),
    }
}

/// A sink of directories that remembers what happened.
pub struct DirSink {
    dir: TempDir,
    state: Mutex<SinkState>,
    next: AtomicUsize,
    /// Refuse to commit.
    pub broken: AtomicBool,
}

#[derive(Default)]
struct SinkState {
    committed: Vec<(Digest, Option<Digest>)>,
    dirs: HashMap<Digest, PathBuf>,
    open: HashMap<String, PathBuf>,
    aborted: usize,
}

impl DirSink {
    pub fn new() -> Self {
        Self::within(&std::env::temp_dir())
    }

    pub fn within(parent: &Path) -> Self {
        Self {
            dir: TempDir::new_in(parent).unwrap(),
            state: Mutex::default(),
            next: AtomicUsize::new(0),
            broken: AtomicBool::new(false),
        }
    }

    /// Chains in the order of their commits, with their parents.
    pub fn committed(&self) -> Vec<(Digest, Option<Digest>)> {
        self.state.lock().unwrap().committed.clone()
    }

    /// Directories that are neither committed nor aborted.
    pub fn open(&self) -> usize {
        self.state.lock().unwrap().open.len()
    }

    pub fn aborted(&self) -> usize {
        self.state.lock().unwrap().aborted
    }

    pub fn dir_of(&self, chain: &Digest) -> PathBuf {
        self.state.lock().unwrap().dirs[chain].clone()
    }

    /// Forgets everything, as if snapshots had been removed.
    pub fn clear(&self) {
        *self.state.lock().unwrap() = SinkState::default();
    }
}

impl LayerSink for DirSink {
    fn has(&self, chain: &Digest) -> Result<bool, SinkError> {
        Ok(self.state.lock().unwrap().committed.iter().any(|(known, _)| known == chain))
    }

    fn prepare(&self, _chain: &Digest) -> Result<PreparedLayer, SinkError> {
        let key = format!("k{}", self.next.fetch_add(1, Ordering::Relaxed));
        let dir = self.dir.path().join(&key).join("fs");
        fs::create_dir_all(&dir)?;
        self.state.lock().unwrap().open.insert(key.clone(), dir.clone());
        Ok(PreparedLayer { key, dir })
    }

    fn commit(&self, key: &str, chain: &Digest, parent: Option<&Digest>) -> Result<(), SinkError> {
        if self.broken.load(Ordering::Relaxed) {
            return Err("the sink is broken".into());
        }
        let mut state = self.state.lock().unwrap();
        let dir = state.open.remove(key).ok_or("no such key")?;
        if let Some(parent) = parent {
            assert!(state.committed.iter().any(|(known, _)| known == parent), "committed before its parent");
        }
        if !state.committed.iter().any(|(known, _)| known == chain) {
            state.committed.push((chain.clone(), parent.cloned()));
            state.dirs.insert(chain.clone(), dir);
        }
        Ok(())
    }

    fn abort(&self, key: &str) {
        let mut state = self.state.lock().unwrap();
        state.aborted += 1;
        fs::remove_dir_all(state.open.remove(key).unwrap()).unwrap();
    }
}

/// A store, a sink and short waits.
pub struct Bench {
    pub dir: TempDir,
    pub store: Store,
    pub sink: DirSink,
    pub options: PullOptions,
}

impl Bench {
    pub fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let store = Store::open(&dir.path().join("image")).unwrap();
        let options = PullOptions { registry: registry_options(), ..PullOptions::default() };
        Self { dir, store, sink: DirSink::new(), options }
    }

    pub fn pull(&self, reference: &str) -> Result<PulledImage, Error> {
        pull(&Reference::parse(reference).unwrap(), &self.options, &self.store, &self.sink, &Silent)
    }

    /// Partial downloads and blobs in the making.
    pub fn parts(&self) -> usize {
        fs::read_dir(self.store.root().join("partial")).unwrap().count()
    }
}

pub fn registry_options() -> RegistryOptions {
    RegistryOptions { cert_dirs: Vec::new(), idle_timeout: Duration::from_secs(20), ..RegistryOptions::default() }
}

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}
