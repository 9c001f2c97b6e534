//! Lifeboat: consistent snapshots of databases, in archives that prove themselves, restored whole.

pub mod digest;
pub mod error;
pub mod id;
pub mod interrupt;
pub mod manifest;
pub mod ranged;
pub mod store;
