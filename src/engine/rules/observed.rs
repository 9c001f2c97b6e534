//! What was seen of a database, and whether it will do.

/// What was seen, and whether it will do.
pub(super) struct Observed {
    /// True if it is as the rule wants it.
    pub(super) ok: bool,
    /// What was seen, in words.
    pub(super) told: String,
}
