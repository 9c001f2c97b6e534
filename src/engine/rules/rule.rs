//! A rule for a database, and the result of evaluating it.

use crate::engine::rules::fresh::Fresh;
use crate::engine::rules::share::Share;
use crate::platform::error::one_line;

/// A condition that must be true.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// The table of the rule; `None` for all tables, or for a query.
    pub table: Option<String>,
    /// The condition.
    pub condition: Condition,
}

/// The condition of a rule.
#[derive(Clone, Debug, PartialEq)]
pub enum Condition {
    /// The table has at least this number of rows.
    MinRows(u64),
    /// The newest time in it is recent enough.
    Fresh(Fresh),
    /// At most this share of the rows is gone since the snapshot that is the baseline.
    MaxRowDrop(Share),
    /// The table of the snapshot may be gone.
    MayDrop,
    /// The table of the snapshot must be gone: the deploy drops it.
    MustDrop,
    /// The rows of the snapshot's table are in a table with another name. If `must` is false, the table may also have
    /// its old name still.
    RenamedTo {
        /// The new name.
        new: String,
        /// True if the table must have been renamed.
        must: bool,
    },
    /// The query returns one value, which is true.
    Query(String),
}

/// The result of evaluating a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// The name of the rule.
    pub name: String,
    /// The tables of the snapshot that it is about, if it compares tables with a snapshot.
    pub tables: Vec<String>,
    /// True if the rule holds.
    pub ok: bool,
    /// True if the rule could be evaluated. A rule that could not be evaluated does not pass.
    pub evaluated: bool,
    /// True if rows or tables are gone, allowed or not.
    pub is_loss: bool,
    /// True if a rule on the table itself allows the loss, and not only the tolerance for all tables.
    pub is_intended: bool,
    /// The expected state.
    pub expected: String,
    /// The observed state.
    pub observed: String,
}

impl Verdict {
    /// Returns the observed and the expected state on one line.
    #[must_use]
    pub(crate) fn message(&self) -> String {
        one_line(&format!("{}; expected {}", self.observed, self.expected))
    }

    /// Returns the name of the rule and the message on one line.
    #[must_use]
    pub(crate) fn description(&self) -> String {
        format!("{}: {}", one_line(&self.name), self.message())
    }
}

impl Rule {
    /// Returns true if the rule fails when data is missing. Old data (the condition `fresh`) is not missing, and lost
    /// rows are found by [`compare`](super::compare).
    #[must_use]
    pub(crate) fn finds_missing_data(&self) -> bool {
        matches!(self.condition, Condition::MinRows(_) | Condition::Query(_))
    }

    /// Returns true if the rule gives a table another name.
    #[must_use]
    pub(crate) fn is_rename(&self) -> bool {
        matches!(self.condition, Condition::RenamedTo { .. })
    }

    /// Returns true if the rule is about what is lost since a snapshot: then only [`compare`](super::compare) evaluates it.
    #[must_use]
    pub(crate) fn is_about_loss(&self) -> bool {
        matches!(
            self.condition,
            Condition::MaxRowDrop(_) | Condition::MayDrop | Condition::MustDrop | Condition::RenamedTo { .. }
        )
    }

    /// Returns a short name of the rule.
    pub(super) fn name(&self) -> String {
        let table = self.table.as_deref().unwrap_or("every table");
        match &self.condition {
            Condition::MinRows(_) => format!("min_rows of {table}"),
            Condition::Fresh(fresh) => format!("fresh {table}.{}", fresh.column),
            Condition::MaxRowDrop(_) => format!("max_row_drop of {table}"),
            Condition::MayDrop | Condition::MustDrop => format!("drop of {table}"),
            Condition::RenamedTo { new, .. } => format!("rename of {table} to {new}"),
            Condition::Query(query) => format!("query {query}"),
        }
    }
}
