//! Lifeboat: consistent snapshots of databases, in archives that prove themselves, restored whole.

pub mod archive;
pub mod cli;
pub mod config;
pub mod engine;
pub mod migrate;
pub mod notify;
pub mod ops;
pub mod platform;
pub mod serve;
pub mod snapshots;
pub mod store;
