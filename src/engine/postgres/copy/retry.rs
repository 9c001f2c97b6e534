//! Statements that may succeed at another time or with other settings, because code of the database has failed.

use crate::engine::postgres::wire::session::sqlstate;
use crate::platform::error::{Error, Kind};

/// Returns true if a statement that failed may succeed once other objects and rows are there, or with other settings. It is
/// false for failures of the connection, the server, its resources and its operators, and for damage.
#[must_use]
pub(crate) fn may_succeed_later(error: &Error) -> bool {
    const CLASSES: [&str; 6] = ["08", "25", "53", "57", "58", "F0"];
    const DAMAGE: [&str; 2] = ["XX001", "XX002"];
    let is_of_code =
        |state: String| !CLASSES.iter().any(|class| state.starts_with(class)) && !DAMAGE.contains(&state.as_str());
    error.kind == Kind::Failed && sqlstate(error).is_some_and(is_of_code)
}
