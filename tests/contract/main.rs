//! What others rely on: the archive's format, the promises of a store, the retention, the layers of the source tree, the
//! files that GitHub runs.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod age;
mod formats;
mod github;
mod json_documents;
mod layers;
mod retention;
mod s3_proxy;
mod store_contract;
