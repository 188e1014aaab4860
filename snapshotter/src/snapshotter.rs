//! The verbs.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use dhow_api::Timestamp;
use dhow_layer::OverlayXattrs;

use crate::disk::Disk;
use crate::index::{Index, Snapshot};
use crate::mounts::{Mount, mounts};
use crate::record::{Kind, Labels, Record, Usage};
use crate::{Error, Filter, Result};

/// The snapshots of one root. At most one process has it open; its threads share it.
#[derive(Debug)]
pub struct Snapshotter {
    disk: Disk,
    index: Mutex<Index>,
    /// A call that changed a snapshot has ended.
    ended: Condvar,
}

/// What is known of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    /// Unique; any text.
    pub name: String,
    /// The parent's name.
    pub parent: Option<String>,
    /// What it is for.
    pub kind: Kind,
    /// When it was prepared or committed.
    pub created: Timestamp,
    /// When its labels last changed.
    pub updated: Timestamp,
    /// Its labels.
    pub labels: Labels,
}

/// A change of labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelChange {
    /// These instead of all there are.
    Replace(Labels),
    /// These set, or removed where the value is empty; the rest stays.
    Merge(Labels),
}

impl Snapshotter {
    /// Opens (makes) the snapshots directory `root`. Waits some seconds for another process to let go of it.
    ///
    /// # Errors
    /// [`Error::InUse`], [`Error::Disk`]; [`Error::Invalid`] when the path is relative or not UTF-8.
    pub fn open(root: &Path) -> Result<Self> {
        if root.to_str().is_none() || !root.is_absolute() {
            return Err(Error::Invalid { what: format!("the root {} is not an absolute UTF-8 path", root.display()) });
        }
        let xattrs = if in_initial_user_namespace() { OverlayXattrs::Trusted } else { OverlayXattrs::User };
        let disk = Disk::open(root.to_owned(), xattrs)?;
        let (records, next_id) = disk.load()?;
        Ok(Self { disk, index: Mutex::new(Index::new(records, next_id)), ended: Condvar::new() })
    }

    /// Makes the active snapshot `key` over the committed snapshot `parent`, and tells how to mount it.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`], [`Error::NoParent`], [`Error::UncommittedParent`], [`Error::Disk`].
    pub fn prepare(&self, key: &str, parent: Option<&str>, labels: Labels) -> Result<Vec<Mount>> {
        self.create(key, parent, labels, Kind::Active)
    }

    /// As [`Snapshotter::prepare`], but read-only.
    ///
    /// # Errors
    /// As [`Snapshotter::prepare`].
    pub fn view(&self, key: &str, parent: Option<&str>, labels: Labels) -> Result<Vec<Mount>> {
        self.create(key, parent, labels, Kind::View)
    }

    /// How to mount an active snapshot or view. A volatile one may be mounted again: that its last mount was not synced is
    /// what its label accepts.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::WrongKind`] for a committed one.
    pub fn mounts(&self, key: &str) -> Result<Vec<Mount>> {
        let (snapshot, chain) = {
            let index = self.lock();
            let snapshot = index.find(key)?;
            let chain = index.chain(snapshot.record.parent.as_deref())?;
            (snapshot, chain)
        };
        if snapshot.record.kind == Kind::Committed {
            return Err(Error::WrongKind { name: key.to_owned(), is: Kind::Committed, wanted: "active or a view" });
        }
        self.disk.forgive_volatile(snapshot.id);
        Ok(mounts(&self.disk, &snapshot, &chain))
    }

    /// Turns the active snapshot `key` into the committed snapshot `name` with these labels; durable when it returns. The
    /// parent may be given now if it was not when preparing; what was unpacked meanwhile is fitted to it.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] for `name`, [`Error::NotFound`], [`Error::WrongKind`], [`Error::NoParent`],
    /// [`Error::OtherParent`], [`Error::Settle`], [`Error::Disk`]; `key` is still active then.
    pub fn commit(&self, name: &str, key: &str, parent: Option<&str>, labels: Labels) -> Result<()> {
        check_name(name)?;
        check_labels(&labels)?;
        let (active, chain, rebased) = self.begin_commit(name, key, parent)?;
        let undo = || {
            self.end(|index| {
                index.release(name, rebased.as_deref());
                index.done(key);
            });
        };
        let parents: Vec<u64> = chain.iter().map(|layer| layer.id).collect();
        let opaque = self.disk.settle(active.id, key, &parents).inspect_err(|_error| undo())?;
        let now = Timestamp::now();
        let parent = active.record.parent.clone().or_else(|| rebased.clone());
        let kind = Kind::Committed;
        let (name, usage) = (name.to_owned(), None);
        let record = Record { name, parent, kind, created: now, updated: now, labels, opaque, usage };
        self.disk.replace(active.id, &record, true).inspect_err(|_error| undo())?;
        self.end(|index| {
            // The child that the parent has counts on, now under the new name.
            index.release(key, None);
            index.publish(Arc::new(Snapshot { id: active.id, record }));
        });
        self.disk.tidy(active.id);
        Ok(())
    }

    /// Removes a snapshot that has no children. Its data is deleted later; [`Snapshotter::cleanup`] waits for that.
    /// Another call that is changing it, perhaps for a client that was killed, is waited for.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::HasChildren`], [`Error::Disk`].
    pub fn remove(&self, key: &str) -> Result<()> {
        let mut index = self.lock();
        let snapshot = loop {
            match index.begin(key) {
                Err(Error::Busy { .. }) => index = self.ended.wait(index).unwrap_or_else(PoisonError::into_inner),
                other => break other?,
            }
        };
        let children = index.children(key);
        if children > 0 {
            index.done(key);
            return Err(Error::HasChildren { name: key.to_owned(), children });
        }
        self.disk.throw(snapshot.id).inspect_err(|_error| index.done(key))?;
        index.remove(&snapshot);
        Ok(())
    }

    /// What is known of a snapshot.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn stat(&self, key: &str) -> Result<Info> {
        Ok(info(&self.lock().find(key)?.record))
    }

    /// Changes labels; nothing else of a snapshot can change.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Busy`], [`Error::Invalid`], [`Error::Disk`].
    pub fn update(&self, key: &str, change: LabelChange) -> Result<Info> {
        let snapshot = self.lock().begin(key)?;
        let changed = self.write_labels(&snapshot, change);
        self.end(|index| match changed {
            Ok(snapshot) => {
                let info = info(&snapshot.record);
                index.publish(Arc::new(snapshot));
                Ok(info)
            }
            Err(error) => {
                index.done(key);
                Err(error)
            }
        })
    }

    /// All snapshots that fit one of the filters (all there are without filters), by name.
    #[must_use]
    pub fn list(&self, filters: &[Filter]) -> Vec<Info> {
        let all = self.lock().all();
        let mut infos: Vec<Info> = all.iter().map(|snapshot| info(&snapshot.record)).collect();
        infos.retain(|info| filters.is_empty() || filters.iter().any(|filter| filter.fits(info)));
        infos.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        infos
    }

    /// What a snapshot takes on disk, without its parents. A committed one is measured once: it never changes.
    ///
    /// # Errors
    /// [`Error::NotFound`], also when it is removed meanwhile; [`Error::Measure`].
    pub fn usage(&self, key: &str) -> Result<Usage> {
        let snapshot = self.lock().find(key)?;
        if let Some(known) = snapshot.record.usage {
            return Ok(known);
        }
        let usage = self.disk.measure(snapshot.id);
        match self.lock().find(key) {
            Ok(still) if still.id == snapshot.id => {}
            _ => return Err(Error::NotFound { name: key.to_owned() }),
        }
        let usage = usage?;
        if snapshot.record.kind == Kind::Committed {
            self.remember_usage(key, usage);
        }
        Ok(usage)
    }

    /// Notes what a committed snapshot takes. Where that fails, or another call changes it just now, it is measured again
    /// the next time.
    fn remember_usage(&self, key: &str, usage: Usage) {
        let Ok(snapshot) = self.lock().begin(key) else { return };
        let record = Record { usage: Some(usage), ..snapshot.record.clone() };
        let written = self.disk.replace(snapshot.id, &record, true);
        self.end(|index| match written {
            Ok(()) => index.publish(Arc::new(Snapshot { id: snapshot.id, record })),
            Err(error) => {
                log::warn!("{}", dhow_api::error::chain(&error));
                index.done(key);
            }
        });
    }

    /// Waits until the data of all removed snapshots is deleted.
    ///
    /// # Errors
    /// [`Error::Disk`] for what cannot be deleted.
    pub fn cleanup(&self) -> Result<()> {
        self.disk.wait_deleted()
    }

    fn create(&self, key: &str, parent: Option<&str>, labels: Labels, kind: Kind) -> Result<Vec<Mount>> {
        check_name(key)?;
        check_labels(&labels)?;
        let (id, chain) = {
            let mut index = self.lock();
            let chain = index.chain(parent)?;
            index.reserve(key, parent)?;
            (index.next_id(), chain)
        };
        let now = Timestamp::now();
        let parent_name = parent.map(str::to_owned);
        let record = Record {
            name: key.to_owned(),
            parent: parent_name,
            kind,
            created: now,
            updated: now,
            labels,
            opaque: false,
            usage: None,
        };
        let made = self.disk.create(id, &record, chain.first().map(|parent| parent.id));
        let snapshot = Arc::new(Snapshot { id, record });
        self.end(|index| match &made {
            Ok(()) => index.publish(Arc::clone(&snapshot)),
            Err(_) => index.release(key, parent),
        });
        made?;
        Ok(mounts(&self.disk, &snapshot, &chain))
    }

    /// Checks and reserves everything; the last value is the parent that is new to the snapshot.
    #[expect(clippy::type_complexity, reason = "three things that belong together nowhere else")]
    fn begin_commit(
        &self,
        name: &str,
        key: &str,
        parent: Option<&str>,
    ) -> Result<(Arc<Snapshot>, Vec<Arc<Snapshot>>, Option<String>)> {
        let mut index = self.lock();
        if index.find(name).is_ok() {
            return Err(Error::AlreadyExists { name: name.to_owned() });
        }
        let active = index.find(key)?;
        if active.record.kind != Kind::Active {
            return Err(Error::WrongKind { name: key.to_owned(), is: active.record.kind, wanted: "active" });
        }
        let rebased = match (active.record.parent.as_deref(), parent) {
            (has, wanted) if wanted.is_none() || has == wanted => None,
            (None, wanted) => wanted.map(str::to_owned),
            (Some(has), wanted) => {
                let wanted = wanted.unwrap_or_default().to_owned();
                return Err(Error::OtherParent { name: key.to_owned(), has: has.to_owned(), wanted });
            }
        };
        let chain = index.chain(active.record.parent.as_deref().or(rebased.as_deref()))?;
        let active = index.begin(key)?;
        index.reserve(name, rebased.as_deref()).inspect_err(|_error| index.done(key))?;
        Ok((active, chain, rebased))
    }

    fn write_labels(&self, snapshot: &Snapshot, change: LabelChange) -> Result<Snapshot> {
        let mut record = snapshot.record.clone();
        match change {
            LabelChange::Replace(labels) => record.labels = labels,
            LabelChange::Merge(labels) => {
                for (key, value) in labels {
                    if value.is_empty() {
                        record.labels.remove(&key);
                    } else {
                        record.labels.insert(key, value);
                    }
                }
            }
        }
        check_labels(&record.labels)?;
        record.updated = Timestamp::now();
        self.disk.replace(snapshot.id, &record, snapshot.record.kind == Kind::Committed)?;
        Ok(Snapshot { id: snapshot.id, record })
    }

    /// Ends a call that changed a snapshot, and wakes those that wait for it.
    fn end<T>(&self, change: impl FnOnce(&mut Index) -> T) -> T {
        let outcome = change(&mut self.lock());
        self.ended.notify_all();
        outcome
    }

    fn lock(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn info(record: &Record) -> Info {
    Info {
        name: record.name.clone(),
        parent: record.parent.clone(),
        kind: record.kind,
        created: record.created,
        updated: record.updated,
        labels: record.labels.clone(),
    }
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() || name.len() > NAME_MAX {
        return Err(Error::Invalid {
            what: format!("a snapshot's name has 1 to {NAME_MAX} bytes, not {}", name.len()),
        });
    }
    Ok(())
}

fn check_labels(labels: &Labels) -> Result<()> {
    match labels.iter().find(|(key, value)| key.is_empty() || key.len() + value.len() > LABEL_MAX) {
        Some((key, _)) => {
            Err(Error::Invalid { what: format!("label {key:?} is empty or longer than {LABEL_MAX} bytes") })
        }
        None => Ok(()),
    }
}

/// Whether the ids here are the machine's: only there can overlayfs's own attributes be trusted ones.
fn in_initial_user_namespace() -> bool {
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    map.split_whitespace().eq(["0", "0", "4294967295"])
}

const NAME_MAX: usize = 4096;
/// containerd's limit for key and value together.
const LABEL_MAX: usize = 4096;
