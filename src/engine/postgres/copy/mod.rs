//! The rows of a database: a consistent snapshot of them, read by COPY, and loaded by COPY again.

pub mod large_objects;
pub mod load;
mod parts;
pub mod reading;
pub mod row_source;
pub mod rows;
pub mod script;
pub mod selection;
pub mod snapshot;
