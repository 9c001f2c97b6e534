//! Snapshots in a store: their ids and manifests, which of them there are, what tests of them showed, and which are kept.

pub mod catalog;
pub mod id;
pub mod manifest;
pub mod retention;
