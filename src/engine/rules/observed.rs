//! The observed state of a database, and whether it satisfies a rule.

/// An observed state, and whether it satisfies the rule.
pub(super) struct Observed {
    /// True if the rule holds.
    pub(super) ok: bool,
    /// A description of the state.
    pub(super) description: String,
}
