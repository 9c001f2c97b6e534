//! Databases: how a consistent snapshot of one is read, and how one is put back.
//!
//! An engine reads a source into plain bytes and facts, and writes a target from plain bytes. It knows
//! nothing of archives or stores, and says of what it reads only what it has seen.

pub mod postgres;
pub mod sqlite;
