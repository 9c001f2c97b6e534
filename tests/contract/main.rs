//! Tests of contracts: the archive format, the guarantees of a store, the retention, the JSON documents, the layers of
//! the source tree, the pages of documentation, and the files that GitHub runs.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod age;
mod documentation;
mod formats;
mod github;
mod json_documents;
mod layers;
mod retention;
mod s3_proxy;
mod store_contract;
