//! PostgreSQL, TimescaleDB included, spoken to over its own protocol: no client programs, so no version to match.
//!
//! - [`session`] is one connection; [`catalog`] reads the whole schema as SQL that makes it again.

pub mod catalog;
pub mod session;
