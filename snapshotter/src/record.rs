//! What is known of one snapshot, and its form on disk.

use std::collections::BTreeMap;
use std::fmt;

use dhow_api::Timestamp;
use serde::{Deserialize, Serialize};

/// Labels of a snapshot, by key.
pub type Labels = BTreeMap<String, String>;

/// What a snapshot is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Mounted read-only, never committed.
    View,
    /// Written to.
    Active,
    /// Unchangeable, may be a parent.
    Committed,
}

impl fmt::Display for Kind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::View => "view",
            Self::Active => "active",
            Self::Committed => "committed",
        })
    }
}

/// What a snapshot takes on disk, without its parents.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Bytes of allocated blocks.
    pub size: u64,
    /// Files of any kind, each inode once.
    pub inodes: u64,
}

/// `snapshot.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) name: String,
    /// The parent's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) parent: Option<String>,
    pub(crate) kind: Kind,
    pub(crate) created: Timestamp,
    pub(crate) updated: Timestamp,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) labels: Labels,
    /// The layer hides everything below its root. overlayfs does not look for that mark at a layer's root, so no layer
    /// below is ever mounted with it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) opaque: bool,
    /// What a committed snapshot takes, once somebody has asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) usage: Option<Usage>,
}
