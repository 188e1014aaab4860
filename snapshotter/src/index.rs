//! Which names exist, who is whose parent, and what is being worked on: in memory, for as long as the process holds the lock.

use std::collections::HashMap;
use std::sync::Arc;

use crate::record::{Kind, Record};
use crate::{Error, Result};

/// A snapshot as it stands on disk.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) id: u64,
    pub(crate) record: Record,
}

#[derive(Debug)]
struct Slot {
    /// `None` while the snapshot is being made.
    snapshot: Option<Arc<Snapshot>>,
    /// A call changes it.
    busy: bool,
}

/// All snapshots by name.
#[derive(Debug, Default)]
pub(crate) struct Index {
    slots: HashMap<String, Slot>,
    /// How many snapshots have this parent, those in the making included.
    children: HashMap<String, usize>,
    next_id: u64,
}

impl Index {
    pub(crate) fn new(records: Vec<(u64, Record)>, next_id: u64) -> Self {
        let mut index = Self { next_id, ..Self::default() };
        for (id, record) in records {
            if index.slots.contains_key(&record.name) {
                log::error!("snapshot {id} left out: another one is named {} too", record.name);
                continue;
            }
            index.adopt(record.parent.as_deref());
            let name = record.name.clone();
            index.slots.insert(name, Slot { snapshot: Some(Arc::new(Snapshot { id, record })), busy: false });
        }
        index
    }

    /// A number never used before.
    pub(crate) fn next_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    pub(crate) fn find(&self, name: &str) -> Result<Arc<Snapshot>> {
        let slot = self.slots.get(name).and_then(|slot| slot.snapshot.clone());
        slot.ok_or_else(|| Error::NotFound { name: name.to_owned() })
    }

    pub(crate) fn all(&self) -> Vec<Arc<Snapshot>> {
        self.slots.values().filter_map(|slot| slot.snapshot.clone()).collect()
    }

    /// The committed snapshot `name` and those below it, nearest first.
    pub(crate) fn chain(&self, name: Option<&str>) -> Result<Vec<Arc<Snapshot>>> {
        let mut chain = Vec::new();
        let mut next = name.map(str::to_owned);
        while let Some(name) = next {
            let parent = self.find(&name).map_err(|_missing| Error::NoParent { name: name.clone() })?;
            if parent.record.kind != Kind::Committed {
                return Err(Error::UncommittedParent { name, is: parent.record.kind });
            }
            next = parent.record.parent.clone();
            chain.push(parent);
        }
        Ok(chain)
    }

    /// Takes a name that is free, and counts a child of its parent.
    pub(crate) fn reserve(&mut self, name: &str, parent: Option<&str>) -> Result<()> {
        if self.slots.contains_key(name) {
            return Err(Error::AlreadyExists { name: name.to_owned() });
        }
        self.slots.insert(name.to_owned(), Slot { snapshot: None, busy: true });
        self.adopt(parent);
        Ok(())
    }

    /// Gives a reserved name back.
    pub(crate) fn release(&mut self, name: &str, parent: Option<&str>) {
        self.slots.remove(name);
        self.orphan(parent);
    }

    /// The snapshot of a reserved name is there.
    pub(crate) fn publish(&mut self, snapshot: Arc<Snapshot>) {
        let name = snapshot.record.name.clone();
        self.slots.insert(name, Slot { snapshot: Some(snapshot), busy: false });
    }

    /// Makes one call the only one to change a snapshot, until [`Index::done`], [`Index::publish`] or [`Index::remove`].
    pub(crate) fn begin(&mut self, name: &str) -> Result<Arc<Snapshot>> {
        let slot = self.slots.get_mut(name).ok_or_else(|| Error::NotFound { name: name.to_owned() })?;
        match &slot.snapshot {
            Some(snapshot) if !slot.busy => {
                slot.busy = true;
                Ok(Arc::clone(snapshot))
            }
            _ => Err(Error::Busy { name: name.to_owned() }),
        }
    }

    /// The call ended and changed nothing.
    pub(crate) fn done(&mut self, name: &str) {
        if let Some(slot) = self.slots.get_mut(name) {
            slot.busy = false;
        }
    }

    pub(crate) fn children(&self, name: &str) -> usize {
        self.children.get(name).copied().unwrap_or(0)
    }

    pub(crate) fn remove(&mut self, snapshot: &Snapshot) {
        self.slots.remove(&snapshot.record.name);
        self.orphan(snapshot.record.parent.as_deref());
    }

    fn adopt(&mut self, parent: Option<&str>) {
        if let Some(parent) = parent {
            *self.children.entry(parent.to_owned()).or_default() += 1;
        }
    }

    fn orphan(&mut self, parent: Option<&str>) {
        if let Some(parent) = parent
            && let Some(count) = self.children.get_mut(parent)
        {
            *count -= 1;
            if *count == 0 {
                self.children.remove(parent);
            }
        }
    }
}
