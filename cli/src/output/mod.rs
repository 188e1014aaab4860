//! What reaches the user: tables, JSON, templates, sizes and ages in words, progress.

pub(crate) mod human;
pub(crate) mod json;
pub(crate) mod list;
pub(crate) mod progress;
pub(crate) mod table;
pub(crate) mod template;
