//! Making images: layers in memory, packed as asked, written to an OCI layout or as docker's own documents.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// How a layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    /// Not at all.
    Plain,
    /// One gzip member.
    Gzip,
    /// Several gzip members in a row, as pigz and some builders write.
    Members,
    /// zstd.
    Zstd,
}

/// Whose documents describe the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// The Open Container Initiative's.
    Oci,
    /// Docker's schema 2.
    Docker,
}

/// Bytes with their name and kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// What a manifest says it is.
    pub media_type: String,
    /// `sha256:…`
    pub digest: String,
    /// The content.
    pub bytes: Vec<u8>,
}

/// An image for one platform, or an index over several.
#[derive(Clone, Debug)]
pub struct Image {
    /// The manifest or index that stands for it.
    pub top: Blob,
    /// All other blobs, manifests of an index included.
    pub blobs: Vec<Blob>,
    /// Manifests of an index (also in `blobs`).
    pub manifests: Vec<Blob>,
}

/// `sha256:…` of some bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    let mut name = String::from("sha256:");
    for byte in Sha256::digest(bytes) {
        name.push_str(&format!("{byte:02x}"));
    }
    name
}

impl Blob {
    /// Names the bytes.
    #[must_use]
    pub fn new(media_type: &str, bytes: Vec<u8>) -> Self {
        Self { media_type: media_type.to_owned(), digest: digest(&bytes), bytes }
    }

    /// The descriptor of it.
    #[must_use]
    pub fn descriptor(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.bytes.len()})
    }
}

/// An image that is being put together.
#[derive(Clone, Debug)]
#[must_use]
pub struct Maker {
    format: Format,
    architecture: String,
    config: Value,
    layers: Vec<(String, Blob)>,
    history: Vec<Value>,
}

impl Maker {
    /// Without layers, for linux on amd64.
    pub fn new(format: Format) -> Self {
        Self {
            format,
            architecture: "amd64".into(),
            config: json!({"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"]}),
            layers: Vec::new(),
            history: Vec::new(),
        }
    }

    /// Another architecture.
    pub fn architecture(mut self, name: &str) -> Self {
        self.architecture = name.into();
        self
    }

    /// One field of the container configuration, by its name in the JSON (`Entrypoint`, `User`, …).
    pub fn config(mut self, field: &str, value: Value) -> Self {
        self.config[field] = value;
        self
    }

    /// A layer on top, from an uncompressed tar.
    ///
    /// # Panics
    /// When compressing fails.
    pub fn layer(mut self, tar: &[u8], packing: Packing) -> Self {
        let kind = match (self.format, packing) {
            (Format::Oci, Packing::Plain) => "application/vnd.oci.image.layer.v1.tar",
            (Format::Oci, Packing::Gzip | Packing::Members) => "application/vnd.oci.image.layer.v1.tar+gzip",
            (Format::Oci, Packing::Zstd) => "application/vnd.oci.image.layer.v1.tar+zstd",
            (Format::Docker, Packing::Plain) => "application/vnd.docker.image.rootfs.diff.tar",
            (Format::Docker, _) => "application/vnd.docker.image.rootfs.diff.tar.gzip",
        };
        let number = self.layers.len() + 1;
        self.history.push(json!({"created": "2024-01-01T00:00:00Z", "created_by": format!("layer {number}")}));
        self.layers.push((digest(tar), Blob::new(kind, pack(tar, packing))));
        self
    }

    /// The finished image.
    ///
    /// # Panics
    /// Never: the documents are plain JSON.
    #[must_use]
    pub fn finish(self) -> Image {
        let (config_type, manifest_type) = match self.format {
            Format::Oci => ("application/vnd.oci.image.config.v1+json", OCI_MANIFEST),
            Format::Docker => ("application/vnd.docker.container.image.v1+json", DOCKER_MANIFEST),
        };
        let diff_ids: Vec<&String> = self.layers.iter().map(|(diff_id, _)| diff_id).collect();
        let config = Blob::new(
            config_type,
            serde_json::to_vec(&json!({
                "created": "2024-01-01T00:00:00Z", "architecture": self.architecture, "os": "linux",
                "config": self.config, "rootfs": {"type": "layers", "diff_ids": diff_ids}, "history": self.history,
            }))
            .expect("plain JSON"),
        );
        let layers: Vec<Value> = self.layers.iter().map(|(_, blob)| blob.descriptor()).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": manifest_type, "config": config.descriptor(), "layers": layers,
        });
        let top = Blob::new(manifest_type, serde_json::to_vec(&manifest).expect("plain JSON"));
        let mut blobs: Vec<Blob> = self.layers.into_iter().map(|(_, blob)| blob).collect();
        blobs.push(config);
        Image { top, blobs, manifests: Vec::new() }
    }
}

/// The media types of manifests and indexes.
pub const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// An OCI image index.
pub const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// Docker's schema 2 manifest.
pub const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Docker's schema 2 manifest list.
pub const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";

impl Image {
    /// An index over images, each for the architecture named beside it.
    ///
    /// # Panics
    /// Never: the document is plain JSON.
    #[must_use]
    pub fn index(format: Format, images: Vec<(&str, Self)>) -> Self {
        let media_type = if format == Format::Oci { OCI_INDEX } else { DOCKER_LIST };
        let mut index = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": []});
        let (mut blobs, mut manifests) = (Vec::new(), Vec::new());
        for (architecture, image) in images {
            let mut descriptor = image.top.descriptor();
            descriptor["platform"] = json!({"architecture": architecture, "os": "linux"});
            if let Some(list) = index["manifests"].as_array_mut() {
                list.push(descriptor);
            }
            blobs.extend(image.blobs);
            blobs.push(image.top.clone());
            manifests.push(image.top);
        }
        let top = Blob::new(media_type, serde_json::to_vec(&index).expect("plain JSON"));
        Self { top, blobs, manifests }
    }

    /// Writes it into an OCI layout as `name` (which may hold other images already).
    ///
    /// # Panics
    /// When a file cannot be written.
    pub fn write_layout(&self, layout: &Path, name: &str) {
        let blobs = layout.join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("a layout's directories");
        for blob in self.blobs.iter().chain([&self.top]) {
            let hex = blob.digest.trim_start_matches("sha256:");
            fs::write(blobs.join(hex), &blob.bytes).expect("a blob");
        }
        fs::write(layout.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("oci-layout");
        let path = layout.join("index.json");
        let mut index: Value = fs::read(&path)
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_else(|| json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []}));
        let mut descriptor = self.top.descriptor();
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": name});
        if let Some(list) = index["manifests"].as_array_mut() {
            list.push(descriptor);
        }
        fs::write(path, index.to_string()).expect("index.json");
    }

    /// The manifest as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn manifest(&self) -> Value {
        serde_json::from_slice(&self.top.bytes).expect("a manifest is JSON")
    }

    /// Another top document over the same blobs.
    #[must_use]
    pub fn with_top(mut self, media_type: &str, document: &Value) -> Self {
        self.top = Blob::new(media_type, document.to_string().into_bytes());
        self
    }
}

/// An image of busybox with all its applets in /bin.
pub fn busybox(format: Format) -> Maker {
    Maker::new(format).layer(&busybox_tar(), Packing::Gzip)
}

/// The layer of it, uncompressed.
///
/// # Panics
/// When busybox is not installed.
#[must_use]
pub fn busybox_tar() -> Vec<u8> {
    let program = busybox_path();
    let mut tar = crate::tarball::Tarball::default()
        .dir("bin", 0o755)
        .dir("etc", 0o755)
        .dir("root", 0o700)
        .dir("tmp", 0o1777)
        .dir("var", 0o755)
        .dir("var/www", 0o755)
        .file("bin/busybox", 0o755, fs::read(&program).expect("busybox (Debian's busybox-static)"))
        .file("etc/passwd", 0o644, "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/tmp:/bin/sh\n")
        .file("etc/group", 0o644, "root:x:0:\nuser:x:1000:\nextra:x:2000:user\n")
        .file("var/www/index.html", 0o644, "hello from a container\n");
    let applets = crate::tool(&program, ["--list"]).run().ok();
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        tar = tar.hard_link(&format!("bin/{applet}"), "bin/busybox");
    }
    tar.finish()
}

/// Where the machine's static busybox lies.
///
/// # Panics
/// When busybox is not installed.
#[must_use]
pub fn busybox_path() -> PathBuf {
    let found = ["/usr/bin/busybox", "/bin/busybox"].into_iter().map(PathBuf::from).find(|path| path.exists());
    found.expect("busybox (Debian's busybox-static)")
}

fn pack(tar: &[u8], packing: Packing) -> Vec<u8> {
    match packing {
        Packing::Plain => tar.to_vec(),
        Packing::Gzip => gzip(tar),
        Packing::Members => tar.chunks(100_000.max(tar.len() / 3)).flat_map(gzip).collect(),
        Packing::Zstd => zstd::encode_all(tar, 3).expect("zstd in memory"),
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(bytes).expect("gzip in memory");
    encoder.finish().expect("gzip in memory")
}
