//! Lifeboat saves SQLite and PostgreSQL databases as snapshots in checksummed, compressed archives, proves that the
//! archives can be restored, restores them, and guards deployments with them.
//!
//! # Rooms
//!
//! Each folder of the source tree is a room. A room imports from the rooms below it and never from one above it, and
//! no two files import each other; a test in `tests/contract/layers.rs` reads the `use` lines.
//!
//! | room | what it does |
//! | --- | --- |
//! | [`cli`] | arguments in, text or JSON out, exit codes: one file for each subcommand |
//! | [`serve`] | the HTTP server, its status page, and the report that is the same page as a file |
//! | [`ops`] | what Lifeboat does: an operation takes options and returns a report; it never prints |
//! | [`config`] | `lifeboat.toml`: from its text to what it means |
//! | [`migrate`] | SQLite files into PostgreSQL or TimescaleDB, by a plan |
//! | [`engine`] | databases: read as a consistent snapshot, inspected, restored |
//! | [`snapshots`] | ids, manifests, the catalog of a store, proofs, leases, retention |
//! | [`notify`] | webhooks, pings and metrics |
//! | [`archive`] | the archive format: written, read, encrypted |
//! | [`store`] | where archives are kept: a folder, S3, memory |
//! | [`platform`] | errors, hashes, files, signals, processes, HTTP, TLS, secrets, texts |
//!
//! # Data flow
//!
//! ```text
//!               snapshot                                   restore
//!
//!   database --engine--> rows or pages            store --snapshots--> manifest
//!   rows or pages --archive--> blocks             store --archive--> rows or pages, every byte hashed
//!   blocks --store--> archive, then manifest      rows or pages --engine--> database
//! ```
//!
//! A snapshot exists when its manifest does: the archive is written first, the manifest last, and both are written
//! once. Pruning deletes in the opposite order.
//!
//! # Glossary
//!
//! | word | meaning |
//! | --- | --- |
//! | source | a database that snapshots are taken of, by its name in the config |
//! | store | a folder or a bucket with a prefix that holds snapshots |
//! | snapshot | the state of one source at one instant: an archive and a manifest |
//! | archive | a tar file in compressed blocks, with an index at its end |
//! | manifest | what is in an archive: tables, rows, digests, origin |
//! | origin | the host and path, or the server and database, that a snapshot was taken from |
//! | proof | what a test of a snapshot showed: `verified` (all bytes were read) or `drilled` (it was restored) |
//! | baseline | the newest snapshot that later ones are compared with; one that has lost rows is not a baseline |
//! | safety snapshot | the state that a restore is about to overwrite |
//! | lease | a mark in a store: a snapshot is being read and is not to be pruned, or a guard is at work with a source |
//!
//! # How to add something
//!
//! - **A store**: a module in `store` that implements [`store::Store`]; its URL scheme in `store/open.rs`; its settings
//!   in `config/sections/stores.rs`; an entry in `tests/contract/store_contract.rs`, which tests the promises of every store.
//! - **A database engine**: a module in `engine` that implements `Database` and `Engine` of `engine/database.rs`; its
//!   line in the list of engines and its URL in `engine/source.rs`; its facts in `snapshots/manifest.rs`.
//! - **A subcommand**: its operation in `ops`; a file in `cli` with its arguments, its `Subcommand` and its `Text`; its
//!   line in `cli/mod.rs`; a file of the same name in `tests/cli`.
//! - **A notice**: a form in `notify/mod.rs`, its message in `notify/message.rs`, and its name in `config/values.rs`.

#![warn(clippy::too_many_lines)]
// The documentation is for contributors, and is rendered with its private items.
#![allow(rustdoc::private_intra_doc_links)]

pub mod archive;
pub mod cli;
pub mod config;
pub mod engine;
mod migrate;
pub mod notify;
pub mod ops;
pub mod platform;
mod serve;
pub mod snapshots;
pub mod store;
