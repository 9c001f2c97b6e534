//! Databases that are restored: created and filled, exchanged, or given other rows in place.

pub mod commit;
pub mod contents;
pub mod create;
pub mod post_data;
pub mod replace;
pub mod target;
