//! Lifeboat with real servers, which `scripts/servers` starts: PostgreSQL, TimescaleDB and S3.
//!
//! These tests are ignored where no servers are, as by a plain `cargo test`; `scripts/test` runs them.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod migrate;
mod postgres;
mod postgres_connect;
mod postgres_faults;
mod postgres_schema;
mod s3;
mod s3_faults;
mod timescale;
