//! Migrations from SQLite files into real PostgreSQL servers, through the binary.
#![allow(clippy::unwrap_used)]

#[path = "../support/mod.rs"]
mod support;

mod choices;
mod helpers;
mod plan;
mod rollback;
mod run;
mod verify;
