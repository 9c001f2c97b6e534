//! PostgreSQL, including TimescaleDB, over its own protocol: no client program is needed, so no client version must
//! match.
//!
//! - [`database`] implements what Lifeboat needs of an engine.
//! - [`wire`] connects to a server and runs statements in sessions.
//! - [`schema`] reads the whole schema as SQL that creates it again.
//! - [`copy`] saves the rows, and loads them.
//! - [`restore`] creates, exchanges and replaces the databases and rows that a restore writes.
//! - [`timescale`] adds TimescaleDB's objects to all of these.
//! - [`provider`] knows the objects of the providers of managed servers.
//! - [`live`] inspects a database for checks and rules, [`status`] the rights of the role on a server.

mod compare_rows;
pub(crate) mod copy;
pub(crate) mod database;
mod layout;
pub(crate) mod live;
pub mod provider;
mod readme;
pub(crate) mod restore;
mod role_settings;
mod save;
pub mod schema;
mod sql_files;
pub(crate) mod status;
mod table_rows;
pub(crate) mod timescale;
pub mod wire;

pub use wire::params::Params;
