//! PostgreSQL, TimescaleDB included, over its own protocol: no client program is needed, and no version of one must match.
//!
//! - [`wire`] connects to a server and runs statements in sessions.
//! - [`schema`] reads the whole schema as SQL that creates it again.
//! - [`copy`] saves the rows, and loads them.
//! - [`restore`] creates, exchanges and replaces what a restore goes to.
//! - [`timescale`] is what TimescaleDB adds to all of these.
//! - [`live`] inspects a database for checks and rules, [`status`] what the role may do on a server.

pub mod copy;
pub mod live;
pub mod restore;
pub mod schema;
pub mod status;
pub mod timescale;
pub mod wire;

pub use wire::params::Params;
