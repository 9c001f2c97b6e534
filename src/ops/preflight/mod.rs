//! What must be so before anything is done: mounts that are mounts, folders that can be written to, room, endpoints
//! that answer. Each look gives one [`Finding`], good or bad, with what was found.

mod endpoint;
mod mount;
mod room;

use serde::Serialize;

pub use endpoint::http;
pub use mount::mount;
pub use room::{min_free, writable};

/// What one look has found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub name: String,
    /// Whether it is as it should be.
    pub ok: bool,
    /// What was found, on one line; where it is not as it should be, also what to do.
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
