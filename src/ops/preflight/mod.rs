//! Checks the conditions for a run before anything is done: mount points, writable folders, free space, endpoints that
//! answer. Each check returns one [`Finding`], good or bad, with what was found.

mod endpoint;
mod mount;
mod room;

use serde::Serialize;

pub use endpoint::http;
pub use mount::mount;
pub use room::{min_free, writable};

/// The result of one check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The name of the check.
    pub name: String,
    /// True if the check passed.
    pub ok: bool,
    /// The finding, on one line; if the check failed, also what to do.
    pub message: String,
}

impl Finding {
    fn good(name: impl Into<String>, message: impl Into<String>) -> Self {
        Finding { name: name.into(), ok: true, message: message.into() }
    }

    fn bad(name: impl Into<String>, message: impl Into<String>) -> Self {
        Finding { name: name.into(), ok: false, message: message.into() }
    }
}
