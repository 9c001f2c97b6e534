//! What people see: one file for each subcommand, and some for what concerns them all.
#![allow(clippy::unwrap_used, missing_docs)]

#[path = "../support/mod.rs"]
mod support;

mod helpers;

mod completions;
mod content;
mod damaged;
mod diff;
mod drill;
mod extract;
mod general;
mod inventory;
mod keygen;
mod list;
mod prune;
mod real;
mod restore;
mod restore_tables;
mod show;
mod snapshot;
mod verify;
