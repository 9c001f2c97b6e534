//! The rows of a database: read by COPY from a consistent snapshot, and loaded by COPY again.

pub(crate) mod as_owner;
pub(crate) mod compared;
pub(crate) mod large_objects;
pub(crate) mod load;
mod parts;
pub(crate) mod plans;
pub(crate) mod reading;
pub(crate) mod retry;
pub(crate) mod row_source;
pub(crate) mod rows;
pub(crate) mod script;
pub(crate) mod selection;
pub(crate) mod snapshot;
