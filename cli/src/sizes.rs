//! How large images are: what their layers take unpacked, as docker counts. The snapshotter measures a layer once.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};

use dhow_image::{Digest, Image};

use crate::context::Context;
use crate::snapshot;

/// Sizes of layers by chain id, asked for once each.
#[derive(Debug)]
pub(crate) struct Sizes<'a> {
    ctx: &'a Context,
    known: RefCell<BTreeMap<Digest, u64>>,
}

impl<'a> Sizes<'a> {
    /// Of this instance, as they are now.
    pub(crate) fn new(ctx: &'a Context) -> Self {
        Self { ctx, known: RefCell::default() }
    }

    /// The layers of an image, base first: chain id and bytes. One that is not unpacked (a commit that nobody has run yet)
    /// counts what its blob takes.
    pub(crate) fn layers(&self, image: &Image) -> Vec<(Digest, u64)> {
        let chains = image.config.chain_ids().into_iter();
        let packed = image.layers.iter().map(|layer| layer.size).chain(std::iter::repeat(0));
        chains.zip(packed).map(|(chain, packed)| (chain.clone(), self.layer(chain, packed))).collect()
    }

    /// All layers of an image together.
    pub(crate) fn image(&self, image: &Image) -> u64 {
        self.layers(image).iter().map(|(_, bytes)| bytes).sum()
    }

    /// All layers of these images together, one that several of them have counted once.
    pub(crate) fn images<'i>(&self, images: impl IntoIterator<Item = &'i Image>) -> u64 {
        let layers: BTreeSet<(Digest, u64)> = images.into_iter().flat_map(|image| self.layers(image)).collect();
        layers.iter().map(|(_, bytes)| bytes).sum()
    }

    fn layer(&self, chain: Digest, packed: u64) -> u64 {
        let mut known = self.known.borrow_mut();
        *known.entry(chain).or_insert_with_key(|chain| snapshot::usage(self.ctx, chain.as_str()).unwrap_or(packed))
    }
}
