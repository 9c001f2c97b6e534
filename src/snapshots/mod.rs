//! Snapshots in a store: ids, manifests, the catalog, the results of tests, leases, and retention.

pub mod catalog;
mod delete;
pub(crate) mod find;
pub(crate) mod guard_leases;
pub mod id;
mod leases;
pub(crate) mod list;
pub mod manifest;
mod mark;
pub(crate) mod names;
mod newer;
mod newest;
pub(crate) mod proofs;
pub(crate) mod publish;
pub mod retention;
pub(crate) mod rivals;
pub mod row_counts;
pub(crate) mod search;
pub(crate) mod signatures;
mod signed;
pub mod trust;
mod trust_checks;
pub(crate) mod without_manifest;
