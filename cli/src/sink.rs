//! Where unpacked layers go: snapshots named by chain id.

use std::path::PathBuf;

use dhow_api::Kind;
use dhow_api::clients::Snapshots;
use dhow_api::snapshots::{CommitSnapshotRequest, PrepareSnapshotRequest, RemoveSnapshotRequest, StatSnapshotRequest};
use dhow_image::{Digest, LayerSink, PreparedLayer, SinkError};

/// How the key of a snapshot that a layer is unpacked into begins.
pub(crate) const EXTRACT: &str = "extract-";

/// A [`LayerSink`] over the Snapshots service.
#[derive(Debug)]
pub(crate) struct SnapshotSink<'a> {
    snapshots: &'a Snapshots,
}

impl<'a> SnapshotSink<'a> {
    /// Layers go to `snapshots`.
    pub(crate) fn new(snapshots: &'a Snapshots) -> Self {
        Self { snapshots }
    }

    fn remove(&self, key: &str) -> Result<(), dhow_api::Error> {
        let request = RemoveSnapshotRequest { key: key.to_owned(), ..Default::default() };
        match self.snapshots.remove(&request) {
            Err(error) if !error.is(Kind::NotFound) => Err(error),
            _ => Ok(()),
        }
    }
}

impl LayerSink for SnapshotSink<'_> {
    fn has(&self, chain: &Digest) -> Result<bool, SinkError> {
        let request = StatSnapshotRequest { key: chain.to_string(), ..Default::default() };
        match self.snapshots.stat(&request) {
            Ok(_) => Ok(true),
            Err(error) if error.is(Kind::NotFound) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn prepare(&self, chain: &Digest) -> Result<PreparedLayer, SinkError> {
        let mut random = [0_u8; 8];
        getrandom::fill(&mut random)?;
        let random: String = random.iter().map(|b| format!("{b:02x}")).collect();
        let key = format!("{EXTRACT}{random}-{chain}");
        let request = PrepareSnapshotRequest { key: key.clone(), ..Default::default() };
        let answer = self.snapshots.prepare(&request)?;
        let upper = answer.mounts.iter().flat_map(|m| &m.options).find_map(|o| o.strip_prefix("upperdir="));
        // A plain bind mount of the directory would do as well.
        let source = answer.mounts.first().map(|m| m.source.as_str()).filter(|s| s.starts_with('/'));
        let dir: PathBuf = upper.or(source).ok_or("the snapshotter names no directory to unpack into")?.into();
        Ok(PreparedLayer { key, dir })
    }

    fn commit(&self, key: &str, chain: &Digest, parent: Option<&Digest>) -> Result<(), SinkError> {
        let request = CommitSnapshotRequest {
            name: chain.to_string(),
            key: key.to_owned(),
            parent: parent.map(ToString::to_string).unwrap_or_default(),
            ..Default::default()
        };
        match self.snapshots.commit(&request) {
            Ok(_) => Ok(()),
            Err(error) if error.is(Kind::AlreadyExists) => Ok(self.remove(key)?),
            Err(error) => Err(error.into()),
        }
    }

    fn abort(&self, key: &str) {
        if let Err(error) = self.remove(key) {
            log::debug!("abandoning {key}: {}", dhow_api::error::chain(&error));
        }
    }
}
