//! Snapshots in a store: ids, manifests, the catalog with the results of tests, and retention.

pub mod catalog;
pub mod id;
pub mod manifest;
pub mod retention;
