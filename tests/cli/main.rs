//! Tests of the program as users see it, with SQLite databases and stores in folders: a file for each subcommand, and
//! folders for the config, for the gates of deployments, and for `serve`.
#![allow(clippy::unwrap_used, missing_docs, unreachable_pub)]

#[path = "../support/mod.rs"]
mod support;

mod helpers;
mod network;

mod companions;
mod completions;
mod config;
mod content;
mod copy;
mod damaged;
mod delete;
mod derived;
mod diff;
mod drill;
mod extract;
mod extract_sql;
mod foreign_folders;
mod gates;
mod general;
mod home;
mod http;
mod inventory;
mod keygen;
mod list;
mod notice_forms;
mod notices;
mod one_file;
mod ownership;
mod preflight;
mod prune;
mod read_only;
mod readme;
mod real;
mod restore;
mod restore_place;
mod restore_tables;
mod s3_services;
mod scheduled;
mod schemas;
mod serve;
mod show;
mod snapshot;
mod store_mark;
mod supervise;
mod trust;
mod untouched;
mod verify;
mod without_manifest;
