//! Containers as they lie on disk: the record, who has which name, what state the truth is.

pub(crate) mod logs;
pub(crate) mod names;
pub(crate) mod record;
pub(crate) mod state;
pub(crate) mod store;

pub(crate) use record::Record;
pub(crate) use state::{State, Status};
pub(crate) use store::{Claim, Container, Containers};
