//! Images: names, registries, the content store, manifests and configurations.
//!
//! The crate knows no snapshotter: unpacked layers go into a [`LayerSink`]. It reads no environment and no home
//! directory: where credentials and certificates lie comes in with [`RegistryOptions`].
//!
//! Invariant: every image the store's `index.json` names is complete, that is, its manifest, its configuration and all
//! its layers' blobs are there, verified and flushed. A layer that the sink already has is therefore not unpacked
//! again, but its blob is fetched if the store lacks it: only so can any image be pushed, saved or copied by others.
#![forbid(unsafe_code)]

pub mod archive;
pub mod auth;
mod cancel;
pub mod commit;
pub mod config;
mod digest;
mod document;
mod error;
mod platform;
mod progress;
mod pull;
mod push;
mod reference;
mod registry;
mod sink;
mod store;

pub use auth::Credentials;
pub use cancel::Cancel;
pub use commit::{CommitRequest, Committed, LayerCompression, commit};
pub use config::{ContainerConfig, History, ImageConfig};
pub use digest::{Algorithm, Digest, DigestError, Hasher};
pub use error::{Error, ErrorKind};
pub use platform::{Platform, PlatformError};
pub use progress::{Event, LayerInfo, LayerStatus, Progress, Silent};
pub use pull::{PullOptions, PullPolicy, PulledImage, pull, unpack};
pub use push::{PushOptions, Pushed, push};
pub use reference::{DEFAULT_REGISTRY, Reference, ReferenceError};
pub use registry::{RegistryOptions, SearchResult, login, search};
pub use sink::{LayerSink, PreparedLayer, SinkError};
pub use store::{Image, LayerBlob, Name, Quiet, Removed, Store};
