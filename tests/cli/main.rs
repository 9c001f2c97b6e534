//! The program as people see it, with SQLite and folders: a file for each subcommand, and folders for the config, for what
//! happens around a deploy, and for `serve`.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod helpers;

mod around;
mod completions;
mod config;
mod content;
mod damaged;
mod diff;
mod drill;
mod extract;
mod gates;
mod general;
mod inventory;
mod keygen;
mod list;
mod prune;
mod readme;
mod real;
mod restore;
mod restore_tables;
mod scheduled;
mod serve;
mod show;
mod snapshot;
mod supervise;
mod verify;
