//! PostgreSQL, TimescaleDB included, spoken to over its own protocol: no client programs, so no version to match.
//!
//! - [`params`] is what to connect to, as libpq reads it, [`session`] one connection, [`settings`] what is pinned on it.
//! - [`catalog`] reads the whole schema as SQL that makes it again.
//! - [`reading`] holds one instant open and reads [`rows`] by COPY, cut into `parts`, taken off the stream by a `tap`.
//! - [`snapshot`] is all that is saved of it, [`large_objects`] included; [`script`] is how to load it by hand.
//! - [`timescale`] is what TimescaleDB adds to all of these.
//! - [`target`] makes, marks and exchanges databases, [`make`] makes what is in them, [`load`] fills it, [`post`] makes
//!   indexes and keys; [`replace`] gives tables other rows in place.

pub mod catalog;
mod certificate;
pub mod commit;
mod connect;
mod conninfo;
mod failure;
pub mod large_objects;
pub mod live;
pub mod load;
pub mod make;
pub mod params;
mod parts;
mod passfile;
pub mod post;
pub mod reading;
pub mod replace;
pub mod rows;
pub mod script;
pub mod selection;
mod service;
pub mod session;
pub mod settings;
pub mod snapshot;
mod socket;
pub mod standing;
mod tap;
pub mod target;
pub mod timescale;
mod tls;

pub use params::Params;
