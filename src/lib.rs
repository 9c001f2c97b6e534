//! Lifeboat: consistent snapshots of databases, in archives that prove themselves, restored whole.

pub mod archive;
pub mod catalog;
pub mod cli;
pub mod commands;
pub mod digest;
pub mod disk;
pub mod duration;
pub mod engine;
pub mod error;
pub mod id;
pub mod interrupt;
pub mod manifest;
pub mod output;
pub mod progress;
pub mod ranged;
pub mod retention;
pub mod scratch;
pub mod secret;
pub mod store;
pub mod text;
