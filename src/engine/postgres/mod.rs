//! PostgreSQL, including TimescaleDB, over its own protocol: no client program is needed, so no client version must
//! match.
//!
//! - [`wire`] connects to a server and runs statements in sessions.
//! - [`schema`] reads the whole schema as SQL that creates it again.
//! - [`copy`] saves the rows, and loads them.
//! - [`restore`] creates, exchanges and replaces the databases and rows that a restore writes.
//! - [`timescale`] adds TimescaleDB's objects to all of these.
//! - [`live`] inspects a database for checks and rules, [`status`] the rights of the role on a server.

pub(crate) mod copy;
pub(crate) mod live;
pub(crate) mod restore;
pub mod schema;
pub(crate) mod status;
pub(crate) mod timescale;
pub mod wire;

pub use wire::params::Params;
