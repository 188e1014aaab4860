//! References, registry client, content store, manifests.
#![forbid(unsafe_code)]
