//! Manifests and indexes, OCI's and docker's: read strictly where confusion is dangerous, tolerantly elsewhere.
//!
//! Sources: OCI image-spec 1.1.1 manifest.md and image-index.md; distribution's manifest-v2-2. A document with both
//! `layers` and `manifests`, or one that calls itself something else than its envelope does, is refused (CVE-2021-41190).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::digest::Digest;
use crate::error::Error;
use crate::platform::Platform;

/// A pointer to content.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Descriptor {
    #[serde(default)]
    pub(crate) media_type: String,
    pub(crate) digest: Digest,
    /// Bytes. A negative number does not parse.
    pub(crate) size: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) platform: Option<Value>,
    /// `urls` and whatever else: kept, never followed (CVE-2020-15157).
    #[serde(flatten)]
    pub(crate) extra: Map<String, Value>,
}

impl Descriptor {
    pub(crate) fn new(media_type: &str, digest: Digest, size: u64) -> Self {
        let media_type = media_type.to_owned();
        Self { media_type, digest, size, annotations: None, platform: None, extra: Map::new() }
    }

    pub(crate) fn annotation(&self, key: &str) -> Option<&str> {
        self.annotations.as_ref()?.get(key).map(String::as_str)
    }

    /// Whether registries need not have the content: docker's foreign and OCI's non-distributable layers.
    pub(crate) fn is_foreign(&self) -> bool {
        self.media_type.contains(".nondistributable.") || self.media_type.contains(".foreign.")
    }

    fn platform(&self) -> Option<Platform> {
        let value = self.platform.as_ref()?;
        let text = |key| value.get(key).and_then(Value::as_str);
        Some(Platform::new(text("os")?, text("architecture")?, text("variant")))
    }
}

/// An image manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Manifest {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    pub(crate) config: Descriptor,
    pub(crate) layers: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    pub(crate) extra: Map<String, Value>,
}

/// An index: manifests per platform, or the table of an image layout.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Index {
    pub(crate) schema_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) media_type: Option<String>,
    #[serde(default)]
    pub(crate) manifests: Vec<Descriptor>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) annotations: Option<BTreeMap<String, String>>,
    #[serde(flatten)]
    pub(crate) extra: Map<String, Value>,
}

/// What a manifest request may bring.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Document {
    Manifest(Manifest),
    Index(Index),
}

impl Document {
    /// Reads a document that came as `content_type`. `what` names it in errors. The second value is its media type.
    pub(crate) fn parse(bytes: &[u8], content_type: &str, what: &str) -> Result<(Self, String), Error> {
        let wrong = |reason: String| Error::Document { what: what.to_owned(), reason };
        let value: Map<String, Value> =
            serde_json::from_slice(bytes).map_err(|source| Error::Parse { what: what.to_owned(), source })?;
        let declared = content_type.split(';').next().unwrap_or_default().trim();
        let inside = match value.get("mediaType") {
            None | Some(Value::Null) => "",
            Some(Value::String(text)) => text,
            Some(_) => return Err(wrong("its mediaType is no string".into())),
        };
        if is_schema1(declared) || is_schema1(inside) || value.get("schemaVersion") == Some(&Value::from(1)) {
            let kind = "docker manifest schema 1, which has been obsolete since 2017".to_owned();
            return Err(Error::Unsupported { what: what.to_owned(), kind });
        }
        if value.get("schemaVersion") != Some(&Value::from(2)) {
            return Err(wrong("it is no manifest: schemaVersion is not 2".into()));
        }
        let has = |key| value.get(key).is_some_and(|value| !value.is_null());
        if has("manifests") && (has("layers") || has("config")) {
            return Err(wrong("it has both layers and manifests, and so could be read in two ways".into()));
        }
        let generic = matches!(declared, "" | "application/json" | "application/octet-stream" | "text/plain");
        if !generic && !inside.is_empty() && declared != inside {
            return Err(wrong(format!("it came as {declared} but calls itself {inside}")));
        }
        let by_shape = if has("manifests") { media_type::OCI_INDEX } else { media_type::OCI_MANIFEST };
        let media_type = [inside, if generic { "" } else { declared }, by_shape]
            .into_iter()
            .find(|text| !text.is_empty())
            .unwrap_or(by_shape)
            .to_owned();
        let parse_error = |source| Error::Parse { what: what.to_owned(), source };
        let document = match media_type.as_str() {
            media_type::OCI_INDEX | media_type::DOCKER_LIST if !has("manifests") => {
                return Err(wrong(format!("it is a {media_type} without manifests")));
            }
            media_type::OCI_INDEX | media_type::DOCKER_LIST => {
                Self::Index(serde_json::from_slice(bytes).map_err(parse_error)?)
            }
            media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST if !has("layers") || !has("config") => {
                return Err(wrong(format!("it is a {media_type} without config and layers")));
            }
            media_type::OCI_MANIFEST | media_type::DOCKER_MANIFEST => {
                Self::Manifest(serde_json::from_slice(bytes).map_err(parse_error)?)
            }
            other => return Err(Error::Unsupported { what: what.to_owned(), kind: other.to_owned() }),
        };
        Ok((document, media_type))
    }
}

impl Manifest {
    /// Reads a manifest of the store.
    pub(crate) fn parse(bytes: &[u8], media_type: &str, what: &str) -> Result<Self, Error> {
        match Document::parse(bytes, media_type, what)?.0 {
            Document::Manifest(manifest) => Ok(manifest),
            Document::Index(_) => Err(Error::Document { what: what.to_owned(), reason: "it is an index".into() }),
        }
    }

    /// Refuses what is no container image: other kinds of config or layer.
    pub(crate) fn check_is_image(&self, what: &str) -> Result<(), Error> {
        let unsupported = |kind: &str| Err(Error::Unsupported { what: what.to_owned(), kind: kind.to_owned() });
        if !matches!(
            self.config.media_type.as_str(),
            media_type::OCI_CONFIG | media_type::DOCKER_CONFIG | "application/octet-stream"
        ) {
            return unsupported(&format!("an artifact of type {}", self.config.media_type));
        }
        for layer in &self.layers {
            if !media_type::is_layer(&layer.media_type) {
                return unsupported(&format!("a layer of type {}", layer.media_type));
            }
        }
        Ok(())
    }
}

impl Index {
    /// The manifest that fits `wanted` best; of equals the first.
    pub(crate) fn choose(&self, wanted: &Platform, reference: &str) -> Result<&Descriptor, Error> {
        let candidates = self.manifests.iter().filter(|d| d.annotation("vnd.docker.reference.type").is_none());
        let best = candidates
            .clone()
            .filter_map(|d| Some((wanted.distance(&d.platform()?)?, d)))
            .min_by_key(|(distance, _)| *distance);
        if let Some((_, descriptor)) = best {
            return Ok(descriptor);
        }
        // Some tools write an index of one manifest without a platform.
        let mut without = candidates.clone().filter(|d| d.platform.is_none());
        if let (Some(only), None) = (without.next(), without.next()) {
            return Ok(only);
        }
        let available = candidates.filter_map(|d| Some(d.platform()?.to_string())).collect();
        Err(Error::NoPlatform { reference: reference.to_owned(), wanted: wanted.to_string(), available })
    }
}

/// Media types of the two families.
pub(crate) mod media_type {
    pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
    pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    pub(crate) const OCI_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
    pub(crate) const OCI_LAYER: &str = "application/vnd.oci.image.layer.v1.tar";
    pub(crate) const OCI_LAYER_GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
    pub(crate) const OCI_LAYER_ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
    pub(crate) const DOCKER_LIST: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
    pub(crate) const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
    pub(crate) const DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";
    const DOCKER_LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";
    const DOCKER_FOREIGN: &str = "application/vnd.docker.image.rootfs.foreign.diff.tar";
    const OCI_NONDISTRIBUTABLE: &str = "application/vnd.oci.image.layer.nondistributable.v1.tar";

    /// Whether it is a layer's: the compression is found from the content, not from here.
    pub(crate) fn is_layer(text: &str) -> bool {
        [OCI_LAYER, DOCKER_LAYER, DOCKER_FOREIGN, OCI_NONDISTRIBUTABLE]
            .iter()
            .any(|base| matches!(text.strip_prefix(base), Some("" | "+gzip" | "+zstd" | ".gzip" | ".zstd")))
    }

    /// The OCI name of a docker layer type; others stay.
    pub(crate) fn to_oci(text: &str) -> String {
        for (docker, oci) in [(DOCKER_LAYER, OCI_LAYER), (DOCKER_FOREIGN, OCI_NONDISTRIBUTABLE)] {
            if let Some(suffix) = text.strip_prefix(docker) {
                return format!("{oci}{}", suffix.replace('.', "+"));
            }
        }
        text.to_owned()
    }
}

fn is_schema1(text: &str) -> bool {
    text.starts_with("application/vnd.docker.distribution.manifest.v1+")
}

#[cfg(test)]
mod tests {
    use super::*;

    const D: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn descriptor(media_type: &str, more: &str) -> String {
        format!(r#"{{"mediaType":"{media_type}","digest":"{D}","size":1{more}}}"#)
    }

    fn manifest(more: &str) -> String {
        let config = descriptor(media_type::OCI_CONFIG, "");
        let layer = descriptor(media_type::OCI_LAYER_GZIP, "");
        format!(r#"{{"schemaVersion":2,"config":{config},"layers":[{layer}]{more}}}"#)
    }

    fn parse(text: &str, content_type: &str) -> Result<(Document, String), Error> {
        Document::parse(text.as_bytes(), content_type, "x")
    }

    #[test]
    fn accepts_both_families() {
        let (document, kind) = parse(&manifest(""), media_type::OCI_MANIFEST).unwrap();
        assert!(matches!(document, Document::Manifest(_)));
        assert_eq!(kind, media_type::OCI_MANIFEST);
        assert_eq!(parse(&manifest(""), "application/json; charset=utf-8").unwrap().1, media_type::OCI_MANIFEST);
        let inside = format!(r#","mediaType":"{}""#, media_type::DOCKER_MANIFEST);
        assert_eq!(parse(&manifest(&inside), media_type::DOCKER_MANIFEST).unwrap().1, media_type::DOCKER_MANIFEST);
        assert_eq!(parse(&manifest(&inside), "").unwrap().1, media_type::DOCKER_MANIFEST);
        let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, descriptor(media_type::OCI_MANIFEST, ""));
        assert!(matches!(parse(&index, media_type::DOCKER_LIST).unwrap().0, Document::Index(_)));
    }

    #[test]
    fn refuses_confusion() {
        let oci = media_type::OCI_MANIFEST;
        let inside = format!(r#","mediaType":"{}""#, media_type::OCI_INDEX);
        let negative = manifest("").replace("\"size\":1", "\"size\":-1");
        let escape = manifest("").replace(D, "sha256:../../../etc/passwd");
        for (text, content_type, want) in [
            (
                manifest(r#","manifests":[]"#),
                oci,
                "x: it has both layers and manifests, and so could be read in two ways",
            ),
            (
                manifest(&inside),
                oci,
                "x: it came as application/vnd.oci.image.manifest.v1+json but calls itself application/vnd.oci.image.index.v1+json",
            ),
            (manifest(&inside), "", "x: it is a application/vnd.oci.image.index.v1+json without manifests"),
            (
                manifest(""),
                media_type::OCI_INDEX,
                "x: it is a application/vnd.oci.image.index.v1+json without manifests",
            ),
            (
                r#"{"schemaVersion":1,"fsLayers":[]}"#.into(),
                "",
                "x is not supported: docker manifest schema 1, which has been obsolete since 2017",
            ),
            (
                r#"{"schemaVersion":2}"#.into(),
                "",
                "x: it is a application/vnd.oci.image.manifest.v1+json without config and layers",
            ),
            ("{}".into(), oci, "x: it is no manifest: schemaVersion is not 2"),
            (manifest(""), "text/html", "x is not supported: text/html"),
            (negative, oci, "parse x"),
            (escape, oci, "parse x"),
            ("nonsense".into(), oci, "parse x"),
        ] {
            assert_eq!(parse(&text, content_type).unwrap_err().to_string(), want);
        }
    }

    #[test]
    fn chooses_by_platform_and_skips_attestations() {
        let platform =
            |arch: &str, more: &str| format!(r#","platform":{{"os":"linux","architecture":"{arch}"{more}}}"#);
        let entries = [
            descriptor(
                "a",
                &(platform("unknown", "") + r#","annotations":{"vnd.docker.reference.type":"attestation-manifest"}"#),
            ),
            descriptor("arm", &platform("arm", r#","variant":"v6""#)),
            descriptor("amd", &platform("amd64", "")),
        ]
        .join(",");
        let index: Index = serde_json::from_str(&format!(r#"{{"schemaVersion":2,"manifests":[{entries}]}}"#)).unwrap();
        let choose = |text: &str| index.choose(&text.parse().unwrap(), "img").map(|d| d.media_type.clone());
        assert_eq!(choose("linux/amd64").unwrap(), "amd");
        assert_eq!(choose("linux/arm/v7").unwrap(), "arm");
        assert_eq!(
            choose("linux/s390x").unwrap_err().to_string(),
            "img has no image for linux/s390x; it has linux/arm/v6, linux/amd64"
        );
    }

    #[test]
    fn knows_layers() {
        for good in [media_type::OCI_LAYER_ZSTD, "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"] {
            assert!(media_type::is_layer(good), "{good}");
        }
        assert!(!media_type::is_layer("application/vnd.cncf.helm.chart.content.v1.tar+gzip"));
        assert_eq!(media_type::to_oci("application/vnd.docker.image.rootfs.diff.tar.gzip"), media_type::OCI_LAYER_GZIP);
    }
}
