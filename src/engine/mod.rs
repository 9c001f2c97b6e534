//! Databases: how a consistent snapshot is read, and how it is restored.
//!
//! An engine reads a source into bytes and facts, and writes a target from bytes. It knows nothing about archives or
//! stores, and reports only facts that it has observed itself. [`database`] has the two traits that an engine
//! implements, [`source`] lists the engines and reads the names of databases.

pub(crate) mod context;
pub(crate) mod database;
pub(crate) mod live;
pub mod postgres;
pub(crate) mod readme;
pub(crate) mod restoring;
pub(crate) mod rules;
pub(crate) mod saving;
pub mod source;
pub mod sqlite;
