//! Restores databases: creates and fills them, exchanges them, or replaces rows in place.

pub(crate) mod commit;
pub(crate) mod contents;
pub(crate) mod create;
pub(crate) mod post_data;
pub(crate) mod replace;
pub(crate) mod target;
