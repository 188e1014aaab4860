//! Hard links whose target this layer does not have (so far).

use std::collections::BTreeMap;

use crate::{LayerPath, SettleLink};

/// Links by their real path. Ordered, so that a hostile number of them costs each entry no more than a look-up.
#[derive(Debug, Default)]
pub(super) struct WaitingLinks {
    /// Path to the place in the tar's order, and the target.
    links: BTreeMap<LayerPath, (usize, LayerPath)>,
    added: usize,
}

impl WaitingLinks {
    pub(super) fn is_empty(&self) -> bool {
        self.links.is_empty()
    }

    pub(super) fn contains(&self, path: &LayerPath) -> bool {
        self.links.contains_key(path)
    }

    /// A link of the same path as an earlier one takes its place.
    pub(super) fn add(&mut self, path: LayerPath, target: LayerPath) {
        self.links.insert(path, (self.added, target));
        self.added += 1;
    }

    pub(super) fn remove(&mut self, path: &LayerPath) {
        self.links.remove(path);
    }

    /// The directory `gone` was removed with all below it.
    pub(super) fn remove_within(&mut self, gone: &LayerPath) {
        let below: Vec<LayerPath> = self.links.range(gone.range_below()).map(|(path, _)| path.clone()).collect();
        below.iter().for_each(|path| drop(self.links.remove(path)));
        self.links.remove(gone);
    }

    /// In the tar's order.
    pub(super) fn into_settle(self) -> Vec<SettleLink> {
        let mut links: Vec<(usize, SettleLink)> =
            self.links.into_iter().map(|(name, (order, target))| (order, SettleLink { name, target })).collect();
        links.sort_unstable_by_key(|(order, _)| *order);
        links.into_iter().map(|(_, link)| link).collect()
    }
}
