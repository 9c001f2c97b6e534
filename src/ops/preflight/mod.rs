//! Checks the conditions for a run before anything is done: mount points, writable folders, free space, endpoints that
//! answer. Each check returns one [`Check`](crate::ops::summary::Check), which passed or failed, with a message.

mod endpoint;
mod folder;
mod mount;

pub use endpoint::http;
pub use folder::{min_free, writable};
pub use mount::{mount, on_mount};
