//! A registry that misbehaves: it serves what it is told to, and breaks where it is told to.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::image::{Blob, Image};

/// What happens to the answers for one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The connection closes after so many bytes of the body, the first `times` times.
    Break {
        /// Bytes that arrive.
        after: usize,
        /// How often.
        times: usize,
    },
    /// The answer is this status, the first `times` times.
    Status {
        /// The code.
        code: u16,
        /// How often.
        times: usize,
    },
    /// The body comes in pieces with a pause before each, so that somebody can be interrupted in the middle.
    Slow {
        /// Bytes per piece.
        piece: usize,
        /// The pause.
        pause: Duration,
    },
    /// These bytes come instead.
    Instead(Vec<u8>),
    /// An answer that sends the client elsewhere.
    Redirect(String),
}

#[derive(Debug, Default)]
struct State {
    documents: HashMap<String, (String, Vec<u8>)>,
    faults: HashMap<String, Fault>,
    requests: Vec<String>,
}

/// Serves on loopback from threads of the test; ends with it.
#[derive(Clone, Debug)]
pub struct FakeRegistry {
    /// `127.0.0.1:PORT`
    pub host: String,
    state: Arc<Mutex<State>>,
}

impl Default for FakeRegistry {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeRegistry {
    /// An empty one on loopback.
    #[must_use]
    pub fn new() -> Self {
        Self::on("127.0.0.1:0")
    }

    /// An empty one on an address.
    ///
    /// # Panics
    /// When it is taken.
    #[must_use]
    pub fn on(address: &str) -> Self {
        let listener = TcpListener::bind(address).expect("an address to listen on");
        let host = listener.local_addr().expect("its address").to_string();
        let registry = Self { host, state: Arc::default() };
        let serving = registry.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let serving = serving.clone();
                // A client that hangs up is none of our business.
                std::thread::spawn(move || drop(serving.serve(stream)));
            }
        });
        registry
    }

    /// Puts an image under `repository:tag`.
    pub fn put(&self, repository: &str, tag: &str, image: &Image) {
        for blob in &image.blobs {
            self.put_blob(repository, blob);
        }
        for manifest in image.manifests.iter().chain([&image.top]) {
            self.put_manifest(repository, &manifest.digest, manifest);
        }
        self.put_manifest(repository, tag, &image.top);
    }

    /// Puts a manifest under a name, whatever it holds.
    pub fn put_manifest(&self, repository: &str, name: &str, manifest: &Blob) {
        self.document(&format!("/v2/{repository}/manifests/{name}"), &manifest.media_type, &manifest.bytes);
    }

    /// Puts a blob under its digest.
    pub fn put_blob(&self, repository: &str, blob: &Blob) {
        self.document(&format!("/v2/{repository}/blobs/{}", blob.digest), "application/octet-stream", &blob.bytes);
    }

    /// What a path answers with from now on.
    ///
    /// # Panics
    /// Never, unless a serving thread did.
    pub fn document(&self, path: &str, media_type: &str, bytes: &[u8]) {
        self.lock().documents.insert(path.to_owned(), (media_type.to_owned(), bytes.to_vec()));
    }

    /// What goes wrong at a path from now on.
    ///
    /// # Panics
    /// Never, unless a serving thread did.
    pub fn fault(&self, path: &str, fault: Fault) {
        self.lock().faults.insert(path.to_owned(), fault);
    }

    /// Nothing goes wrong any more.
    ///
    /// # Panics
    /// Never, unless a serving thread did.
    pub fn heal(&self) {
        self.lock().faults.clear();
    }

    /// The requests so far: method, path, and the `Range` and `Authorization` headers where there were any.
    ///
    /// # Panics
    /// Never, unless a serving thread did.
    #[must_use]
    pub fn requests(&self) -> Vec<String> {
        self.lock().requests.clone()
    }

    /// `HOST/NAME`.
    #[must_use]
    pub fn image(&self, name: &str) -> String {
        format!("{}/{name}", self.host)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("serving threads do not panic")
    }

    fn serve(&self, mut stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        loop {
            let mut line = String::new();
            if reader.read_line(&mut line)? == 0 {
                return Ok(());
            }
            let mut words = line.split(' ');
            let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            let (mut range, mut noted) = (None, format!("{method} {path}"));
            loop {
                let mut header = String::new();
                reader.read_line(&mut header)?;
                let Some((name, value)) = header.trim_end().split_once(": ") else { break };
                if name.eq_ignore_ascii_case("range") {
                    range = value.strip_prefix("bytes=").and_then(|from| from.split('-').next()?.parse().ok());
                    noted.push_str(&format!(" range {value}"));
                }
                if name.eq_ignore_ascii_case("authorization") {
                    noted.push_str(&format!(" authorization {value}"));
                }
            }
            self.lock().requests.push(noted);
            if !self.answer(&mut stream, method, path, range)? {
                return Ok(());
            }
        }
    }

    /// Returns whether the connection goes on.
    fn answer(&self, stream: &mut TcpStream, method: &str, path: &str, range: Option<usize>) -> std::io::Result<bool> {
        let (document, fault) = {
            let mut state = self.lock();
            let fault = state.faults.get(path).cloned();
            match state.faults.get_mut(path) {
                Some(Fault::Break { times, .. } | Fault::Status { times, .. }) if *times > 1 => *times -= 1,
                Some(Fault::Break { .. } | Fault::Status { .. }) => drop(state.faults.remove(path)),
                _ => {}
            }
            (state.documents.get(path).cloned(), fault)
        };
        if path == "/v2/" {
            write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{{}}")?;
            return Ok(true);
        }
        if let Some(Fault::Status { code, .. }) = fault {
            write!(stream, "HTTP/1.1 {code} No\r\nContent-Length: 0\r\n\r\n")?;
            return Ok(true);
        }
        if let Some(Fault::Redirect(to)) = fault {
            write!(stream, "HTTP/1.1 307 Elsewhere\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")?;
            return Ok(true);
        }
        let Some((media_type, bytes)) = document else {
            let body = r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#;
            write!(
                stream,
                "HTTP/1.1 404 Not Found\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )?;
            return Ok(true);
        };
        let whole = if let Some(Fault::Instead(other)) = &fault { other } else { &bytes };
        let from = range.unwrap_or(0).min(whole.len());
        let body = &whole[from..];
        let status = if range.is_some() { "206 Partial Content" } else { "200 OK" };
        write!(stream, "HTTP/1.1 {status}\r\nContent-Type: {media_type}\r\nContent-Length: {}\r\n", body.len())?;
        if path.contains("/manifests/") {
            write!(stream, "Docker-Content-Digest: {}\r\n", crate::image::digest(whole))?;
        }
        if range.is_some() {
            write!(stream, "Content-Range: bytes {from}-{}/{}\r\n", whole.len().saturating_sub(1), whole.len())?;
        }
        write!(stream, "Accept-Ranges: bytes\r\n\r\n")?;
        if method == "HEAD" {
            return Ok(true);
        }
        match fault {
            Some(Fault::Break { after, .. }) => {
                stream.write_all(&body[..after.min(body.len())])?;
                return Ok(false);
            }
            Some(Fault::Slow { piece, pause }) => {
                for piece in body.chunks(piece) {
                    std::thread::sleep(pause);
                    stream.write_all(piece)?;
                }
            }
            _ => stream.write_all(body)?,
        }
        Ok(true)
    }
}
