//! The Snapshots service: requests into verbs, errors into codes.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use dhow_api::server::{Services, blocking};
use dhow_api::snapshots::{self as api, Kind as ApiKind};
use dhow_api::snapshots_ttrpc_async::{Snapshots, create_snapshots};
use protobuf::well_known_types::empty::Empty;
use protobuf::{EnumOrUnknown, MessageField};
use ttrpc::r#async::TtrpcContext;

use crate::{Error, Filter, Info, Kind, LabelChange, Labels, Mount, Result, Snapshotter};

/// The service over an open snapshotter, for [`dhow_api::server::run`].
#[must_use]
pub fn services(snapshotter: Arc<Snapshotter>) -> Services {
    create_snapshots(Arc::new(Service(snapshotter)))
}

struct Service(Arc<Snapshotter>);

impl Service {
    /// Every verb may wait for the disk, so each runs on a thread of its own.
    async fn run<T: Send + 'static>(
        &self,
        verb: impl FnOnce(&Snapshotter) -> Result<T> + Send + 'static,
    ) -> ttrpc::Result<T> {
        let snapshotter = Arc::clone(&self.0);
        blocking(move || verb(&snapshotter).map_err(|error| dhow_api::error::status(error.kind(), &error))).await
    }
}

#[async_trait]
impl Snapshots for Service {
    async fn prepare(
        &self,
        _context: &TtrpcContext,
        request: api::PrepareSnapshotRequest,
    ) -> ttrpc::Result<api::PrepareSnapshotResponse> {
        let mounts =
            self.run(move |it| it.prepare(&request.key, given(&request.parent), labels(request.labels))).await?;
        Ok(api::PrepareSnapshotResponse { mounts: to_api(mounts), ..Default::default() })
    }

    async fn view(
        &self,
        _context: &TtrpcContext,
        request: api::ViewSnapshotRequest,
    ) -> ttrpc::Result<api::ViewSnapshotResponse> {
        let mounts = self.run(move |it| it.view(&request.key, given(&request.parent), labels(request.labels))).await?;
        Ok(api::ViewSnapshotResponse { mounts: to_api(mounts), ..Default::default() })
    }

    async fn mounts(&self, _context: &TtrpcContext, request: api::MountsRequest) -> ttrpc::Result<api::MountsResponse> {
        let mounts = self.run(move |it| it.mounts(&request.key)).await?;
        Ok(api::MountsResponse { mounts: to_api(mounts), ..Default::default() })
    }

    async fn commit(&self, _context: &TtrpcContext, request: api::CommitSnapshotRequest) -> ttrpc::Result<Empty> {
        self.run(move |it| it.commit(&request.name, &request.key, given(&request.parent), labels(request.labels)))
            .await?;
        Ok(Empty::new())
    }

    async fn remove(&self, _context: &TtrpcContext, request: api::RemoveSnapshotRequest) -> ttrpc::Result<Empty> {
        self.run(move |it| it.remove(&request.key)).await?;
        Ok(Empty::new())
    }

    async fn stat(
        &self,
        _context: &TtrpcContext,
        request: api::StatSnapshotRequest,
    ) -> ttrpc::Result<api::StatSnapshotResponse> {
        let info = self.run(move |it| it.stat(&request.key)).await?;
        Ok(api::StatSnapshotResponse { info: MessageField::some(info_to_api(info)), ..Default::default() })
    }

    async fn update(
        &self,
        _context: &TtrpcContext,
        request: api::UpdateSnapshotRequest,
    ) -> ttrpc::Result<api::UpdateSnapshotResponse> {
        let info = self
            .run(move |it| {
                let info = request.info.into_option().unwrap_or_default();
                let paths = request.update_mask.into_option().map(|mask| mask.paths).unwrap_or_default();
                it.update(&info.name, label_change(info.labels, &paths)?)
            })
            .await?;
        Ok(api::UpdateSnapshotResponse { info: MessageField::some(info_to_api(info)), ..Default::default() })
    }

    async fn list(
        &self,
        _context: &TtrpcContext,
        request: api::ListSnapshotsRequest,
    ) -> ttrpc::Result<api::ListSnapshotsResponse> {
        let infos = self
            .run(move |it| {
                let filters: Vec<Filter> =
                    request.filters.iter().map(|text| Filter::parse(text)).collect::<Result<_>>()?;
                Ok(it.list(&filters))
            })
            .await?;
        Ok(api::ListSnapshotsResponse { info: infos.into_iter().map(info_to_api).collect(), ..Default::default() })
    }

    async fn usage(&self, _context: &TtrpcContext, request: api::UsageRequest) -> ttrpc::Result<api::UsageResponse> {
        let usage = self.run(move |it| it.usage(&request.key)).await?;
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        Ok(api::UsageResponse { size: number(usage.size), inodes: number(usage.inodes), ..Default::default() })
    }

    async fn cleanup(&self, _context: &TtrpcContext, _request: api::CleanupRequest) -> ttrpc::Result<Empty> {
        self.run(Snapshotter::cleanup).await?;
        Ok(Empty::new())
    }
}

/// containerd's update masks: nothing or `labels` replaces all labels, `labels.KEY` sets one, the rest cannot change.
fn label_change(labels: HashMap<String, String>, paths: &[String]) -> Result<LabelChange> {
    if paths.is_empty() || paths.iter().any(|path| path == "labels") {
        return Ok(LabelChange::Replace(labels.into_iter().collect()));
    }
    let mut merged = Labels::new();
    for path in paths {
        let Some(key) = path.strip_prefix("labels.") else {
            return Err(Error::Invalid { what: format!("a snapshot's {path} cannot be changed") });
        };
        merged.insert(key.to_owned(), labels.get(key).cloned().unwrap_or_default());
    }
    Ok(LabelChange::Merge(merged))
}

fn given(text: &str) -> Option<&str> {
    Some(text).filter(|text| !text.is_empty())
}

fn labels(map: HashMap<String, String>) -> Labels {
    map.into_iter().collect()
}

fn to_api(mounts: Vec<Mount>) -> Vec<api::Mount> {
    let convert = |mount: Mount| api::Mount {
        type_: mount.kind.to_owned(),
        source: mount.source,
        options: mount.options,
        ..Default::default()
    };
    mounts.into_iter().map(convert).collect()
}

fn info_to_api(info: Info) -> api::Info {
    let kind = match info.kind {
        Kind::View => ApiKind::VIEW,
        Kind::Active => ApiKind::ACTIVE,
        Kind::Committed => ApiKind::COMMITTED,
    };
    api::Info {
        name: info.name,
        parent: info.parent.unwrap_or_default(),
        kind: EnumOrUnknown::new(kind),
        created_at: MessageField::some(info.created.to_message()),
        updated_at: MessageField::some(info.updated.to_message()),
        labels: info.labels.into_iter().collect(),
        ..Default::default()
    }
}
