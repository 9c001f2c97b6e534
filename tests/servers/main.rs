//! Tests with real servers, which `scripts/servers` starts: PostgreSQL, TimescaleDB and S3.
//!
//! A plain `cargo test` ignores these tests; `scripts/test` starts the servers and runs them.
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
