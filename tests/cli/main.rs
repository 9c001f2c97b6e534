//! What people see: one file for each subcommand.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod restore;
mod snapshot;
