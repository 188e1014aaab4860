//! A container's file system seen from outside, without a mount: the union of its layers' directories, copies of its parts, and the users
//! that its files name.

pub(crate) mod copy;
pub(crate) mod pack;
pub(crate) mod users;
pub(crate) mod view;
