//! Snapshots in a store: ids, manifests, the catalog, the results of tests, leases, and retention.

pub mod catalog;
mod delete;
pub(crate) mod find;
pub mod id;
mod leases;
pub(crate) mod list;
pub mod manifest;
mod mark;
pub(crate) mod names;
mod newest;
pub(crate) mod proofs;
pub(crate) mod publish;
pub mod retention;
pub(crate) mod rivals;
pub(crate) mod without_manifest;
